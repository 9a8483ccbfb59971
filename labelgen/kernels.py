"""How kernels are compiled, and where their compiled form is kept between runs.

Numba looks for changes of a kernel in the kernel's own file only, and would go on using kernels
inlined from another file that has changed since. So the folder of compiled kernels is named by a
hash of all sources of the rooms that hold kernels.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numba

_HERE = Path(__file__).resolve().parent
_ROOMS = ("flow", "labels")


def kernel(**options: Any) -> Callable[[Any], Any]:
    """Return a decorator that compiles a function, releases the GIL in it, and keeps the result.

    Parameters
    ----------
    **options
        Of `numba.njit`.
    """

    def decorate(function: Any) -> Any:
        with _cache_folder(str(_kept_in())):
            return numba.njit(cache=True, nogil=True, **options)(function)

    return decorate


@cache
def sources_hash() -> str:
    """Return a hash of the sources of all kernels, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    rooms = [file for room in _ROOMS for file in sorted((_HERE / room).glob("*.py"))]
    for file in [*rooms, _HERE / "geometry.py", Path(__file__)]:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _cache_folder(folder: str) -> Iterator[None]:
    # Numba reads the setting when it is told to keep a function. It is given back at once, since
    # it is that of the whole process.
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, folder
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before


@cache
def _kept_in() -> Path:
    """Return the first folder that can be written: the user's choice, the package's, the user's."""
    name = f"kernels-{sources_hash()}"
    asked = os.environ.get("NUMBA_CACHE_DIR")
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    places = [Path(asked)] if asked else [_HERE / "__pycache__"]
    if not asked and home.is_absolute():  # there may be no home at all
        places.append(home / "labelgen")
    for place in places:
        if _is_writable(place / name):
            return place / name
    folder = tempfile.mkdtemp(prefix="labelgen-kernels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # Worker processes find what this one has compiled.
    os.environ["NUMBA_CACHE_DIR"] = folder
    print(
        f"compiled kernels cannot be kept in {' or '.join(map(str, places))}, so each run compiles "
        "anew; set NUMBA_CACHE_DIR to a folder that can be written",
        file=sys.stderr,
    )
    return Path(folder, name)


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
