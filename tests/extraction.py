"""Small extractions for the tests of shards and runs, in this process and in others."""

import csv
import functools
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from labelgen.flow.methods import flow_settings
from labelgen.run.engines import Limits
from labelgen.run.pipeline import run
from labelgen.shards.plan import ALL
from labelgen.shards.settings import ExtractSettings

FLOW = flow_settings("farneback", {"levels": 1, "iterations": 1})


def extract(
    videos,
    out,
    workers=0,
    *,
    manifest=None,
    name=None,
    max_failures=None,
    timeout=None,
    add=False,
    retry=False,
    part=ALL,
    scratch=None,
    scheduler=None,
    **settings,
):
    chosen = {"flow": FLOW, "crops": "grid:16", "frames": "raw", "clips_per_shard": 3}
    return run(
        manifest,
        root=videos,
        out=out,
        name=name,
        settings=ExtractSettings(**(chosen | settings)),
        limits=Limits(workers, video_timeout=timeout, max_failures=max_failures),
        add=add,
        retry=retry,
        part=part,
        scratch=scratch,
        scheduler=scheduler,
    )


def digests(folder):
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.iterdir())
        if file.suffix in (".h5", ".json", ".csv")
    }


def failures(folder):
    with (folder / "failures.csv").open(encoding="utf-8", newline="") as stream:
        return {record["path"]: record for record in csv.DictReader(stream)}


HOOKS = Path(__file__).with_name("hooks")


def command(*arguments):
    return [sys.executable, "-m", "labelgen.cli", *map(str, arguments)]


def run_command(*arguments, hook="", **options):
    """Run a command to its end, spoilt by a hook of `tests/hooks` if one is named."""
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        env=hooked(hook),
        timeout=300,
        **options,
    )


def hooked(hook):
    path = os.pathsep.join(filter(None, [str(HOOKS), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "LABELGEN_TEST_HOOK": hook}


def start(*arguments):
    """Start a command as a terminal does: Ctrl-C reaches its whole group, and nobody ignores it."""
    return subprocess.Popen(
        command(*arguments),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that starts the tests in the background makes them ignore SIGINT.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition, process, seconds=120):
    for _ in range(seconds * 50):
        if condition():
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    raise AssertionError("nothing happened")


def begun(folder, clips=2):
    """Whether a shard being written holds some clips already."""
    sizes = [part.stat().st_size for part in folder.glob("*.h5.*.part")] if folder.is_dir() else []
    return max(sizes, default=0) > 100_000 * clips
