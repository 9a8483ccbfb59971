"""What tests do to extractions in processes of their own, when ``LABELGEN_TEST_HOOK`` asks for it.

Its folder is put on PYTHONPATH, and Python imports this file when it starts. ``abort:NAME``,
``hang:NAME``, ``raise:NAME`` and ``memory:NAME`` spoil the decoding of the video NAME after 20
frames, ``compute:NAME`` aborts when its first clip is computed; ``no-worker`` lets no worker begin,
``seal`` and ``bug`` let those fail that seal a shard.
"""

import importlib.abc
import importlib.util
import os
import sys
import time


def _fail(how):
    if how == "abort":
        os.abort()
    if how == "hang":
        time.sleep(1000)
    if how == "memory":
        raise MemoryError
    raise ZeroDivisionError("first line\nsecond line")


def _spoil_decoding(module, how, name):
    whole = module.Video.read

    def spoilt(self):
        if self.decoded == 20 and self.name == name:
            _fail(how)
        return whole(self)

    module.Video.read = spoilt


def _spoil_computing(module, name):
    whole = module._ClipJob.measured

    def spoilt(self):
        if self._path == name and sys.argv[0] == "-c":
            time.sleep(0.3)
            os.abort()
        return whole(self)

    module._ClipJob.measured = spoilt


def _spoil_sealing(module, how):
    def spoilt(self, failures):
        if how == "seal":
            os.abort()
        raise ValueError("odd")

    module.ShardWriter.seal = spoilt


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, target, change):
        self._target, self._change = target, change

    def find_spec(self, name, path, target=None):
        if name != self._target:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_and_change(module):
            load(module)
            self._change(module)

        spec.loader.exec_module = load_and_change
        return spec


_how, _, _name = os.environ.get("LABELGEN_TEST_HOOK", "").partition(":")
if _how == "no-worker":
    # Only workers are started with -c.
    _change = lambda module: sys.argv[0] == "-c" and os._exit(3)  # noqa: E731
    sys.meta_path.insert(0, _Finder("labelgen.processes", _change))
elif _how == "compute":
    _change = lambda module: _spoil_computing(module, _name)  # noqa: E731
    sys.meta_path.insert(0, _Finder("labelgen.run.worker", _change))
elif _how in ("seal", "bug"):
    _change = lambda module: _spoil_sealing(module, _how)  # noqa: E731
    sys.meta_path.insert(0, _Finder("labelgen.shards.writer", _change))
elif _how:
    _change = lambda module: _spoil_decoding(module, _how, _name)  # noqa: E731
    sys.meta_path.insert(0, _Finder("labelgen.video.decode", _change))
