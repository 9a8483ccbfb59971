"""Kill extractions at random moments, run them again, and compare with one that nobody killed.

    python tests/run/kills.py [--rounds 50] [--seed 0]

Each round kills with SIGKILL the parent alone, a worker, or the whole group; the rerun must end in
the same bytes, and neither a process nor a half-written file may be left.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from conftest import moving_square, write_video

TARGETS = ("parent", "worker", "group")
OPTIONS = ("--workers", "2", "--clips-per-shard", "6", "--crops", "center", "--flow")
FLOW = "farneback:iterations=8"


def make_videos(root: Path) -> Path:
    for number in range(5):
        write_video(root / f"{number}.avi", moving_square(96, seed=number))
    return root


def command(root: Path, out: Path) -> list[str]:
    run = [sys.executable, "-m", "labelgen.cli", "extract", "--root", str(root), "--out", str(out)]
    return [*run, *OPTIONS, FLOW]


def children(process: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        if entry.name.isdecimal() and int(fields[1]) == process and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def digests(folder: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name not in (".lock", ".present", "times.jsonl")
    }


def begin(root: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(root, out), stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def kill(run: subprocess.Popen[str], target: str, moment: random.Random) -> list[int]:
    """Kill one target, and return the workers that there were."""
    workers = children(run.pid)
    if target == "worker":
        if workers:
            os.kill(moment.choice(workers), signal.SIGKILL)
    elif target == "parent":
        run.kill()
    else:
        os.killpg(run.pid, signal.SIGKILL)
    return workers


def one_round(root: Path, out: Path, seconds: float, target: str, moment: random.Random) -> str:
    """Kill one extraction, end it, and return what came of it; raise if anything is left."""
    run = begin(root, out)
    time.sleep(seconds)
    workers = kill(run, target, moment) if run.poll() is None else []
    if target != "worker":
        run.wait()
    elif run.wait(120) != 0:
        raise AssertionError(f"a run whose worker was killed failed: {run.stderr.read()!r}")
    sealed = len(list(out.glob("*.json"))) if out.is_dir() else 0
    # At once: the workers of the killed run may still be ending.
    again = subprocess.run(command(root, out), capture_output=True, text=True)
    if again.returncode:
        raise AssertionError(f"the rerun failed: {again.stderr}")
    left = [worker for worker in workers if alive(worker)]
    if left:
        raise AssertionError(f"workers {left} are still there")
    run.stderr.close()
    return f"{target} after {seconds:.2f} s, {sealed} files of JSON there"


def main(rounds: int, seed: int) -> None:
    moment = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        root = make_videos(Path(scratch, "videos"))
        clean = Path(scratch, "clean")
        subprocess.run(command(root, clean), capture_output=True, check=True)
        begun = time.monotonic()
        shutil.rmtree(clean)
        subprocess.run(command(root, clean), capture_output=True, check=True)
        whole, expected = time.monotonic() - begun, digests(clean)
        for number in range(rounds):
            out = Path(scratch, f"out{number}")
            target = TARGETS[number % len(TARGETS)]
            line = one_round(root, out, moment.uniform(0, whole), target, moment)
            if digests(out) != expected:
                raise AssertionError(f"{line}: other bytes, or something is left: {digests(out)}")
            print(f"{number + 1}/{rounds}: {line}; equal", flush=True)
            shutil.rmtree(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    main(arguments.rounds, arguments.seed)
