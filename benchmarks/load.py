"""Whether thousands of videos go through one run as the first ones do: rate, memory, open files.

    python benchmarks/load.py FOLDER_OF_VIDEOS [--clips 5000] [EXTRACT_OPTION ...]

Short videos of 16 to 20 frames are cut out of those in the folder, each from another place, and go
through `labelgen extract --workers 2 --crops center --flow dis`. What is done, and what all of its
processes use, is read off the file system from outside; a table has it by quarters of the time from
the first shard to the last.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from itertools import count, cycle, pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from labelgen.video.manifest import find_videos

PER_SHARD = 10
QUICK = ("--workers", "2", "--crops", "center", "--flow", "dis", "--clips-per-shard", PER_SHARD)
SECONDS = 0.5
QUARTERS = 4
WIDTH = 320


class Sample(NamedTuple):
    """One look at a run."""

    seconds: float
    shards: int
    processes: int
    bytes: int
    files: int


def pieces(path):
    """Yield runs of 16 to 20 frames, one after the other, to the end of a video."""
    capture = cv2.VideoCapture(str(path))
    for number in count():
        frames = []
        while len(frames) < 16 + number % 5:
            there, frame = capture.read()
            if not there:
                return
            scale = min(1, WIDTH / frame.shape[1])
            frames.append(cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
        yield frames


def cut(root, folder, clips):
    """Write as many short videos; where there are not enough places, begin again."""
    paths = [Path(root, row.path) for row in find_videos(root)]
    every = (frames for path in cycle(paths) for frames in pieces(path))
    for number, frames in zip(range(clips), every, strict=False):
        height, width = frames[0].shape[:2]
        file = folder / f"{number // 1000}" / f"{number:05}.mp4"
        file.parent.mkdir(exist_ok=True)
        writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), 25, (width, height))
        for frame in frames:
            writer.write(frame)
        writer.release()


def tree(process):
    """Return a process and all that came of it."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        parents[int(entry.name)] = int(fields[1])
    found = [process]
    for parent in found:
        found += [child for child, of in parents.items() if of == parent]
    return found


def look(process, out, start):
    size = files = processes = 0
    for number in tree(process):
        try:
            resident = int(Path(f"/proc/{number}/statm").read_text().split()[1])
            files += len(os.listdir(f"/proc/{number}/fd"))
        except OSError:
            continue
        size += resident * os.sysconf("SC_PAGE_SIZE")
        processes += 1
    shards = sum(1 for _ in out.glob("*.h5"))
    return Sample(time.monotonic() - start, shards, processes, size, files)


def watch(command, out):
    """Run a command to its end, and return what was seen between its first and its last shard."""
    start, samples = time.monotonic(), []
    with tempfile.TemporaryFile("w+") as log:
        run = subprocess.Popen(list(map(str, command)), stderr=log)
        while run.poll() is None:
            samples.append(look(run.pid, out, start))
            time.sleep(SECONDS)
        log.seek(0)
        said = log.read()
    if run.returncode:
        sys.exit(f"extract exits with {run.returncode}: {said}")
    print(said)
    most = max(sample.shards for sample in samples)
    first = next(k for k, sample in enumerate(samples) if sample.shards)
    last = next(k for k, sample in enumerate(samples) if sample.shards == most)
    return samples[first : last + 1]


def table(samples):
    print("| quarter | clips/s | processes | memory, MB: mean, most | open files: mean, most |")
    print("| --- | --- | --- | --- | --- |")
    ends = np.linspace(0, len(samples) - 1, QUARTERS + 1).round().astype(int)
    for number, (begin, end) in enumerate(pairwise(ends), 1):
        part = samples[begin : end + 1]
        took = part[-1].seconds - part[0].seconds
        rate = PER_SHARD * (part[-1].shards - part[0].shards) / max(took, 1e-9)
        memory = np.array([sample.bytes for sample in part]) / 1e6
        files = np.array([sample.files for sample in part])
        processes = max(sample.processes for sample in part)
        print(
            f"| {number} | {rate:.1f} | {processes} | {memory.mean():.0f}, {memory.max():.0f} | "
            f"{files.mean():.0f}, {files.max()} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--clips", type=int, default=5000)
    arguments, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as scratch:
        videos, out = Path(scratch, "videos"), Path(scratch, "shards")
        videos.mkdir()
        cut(arguments.root, videos, arguments.clips)
        command = [sys.executable, "-m", "labelgen.cli", "extract", "--root", videos, "--out", out]
        table(watch([*command, *QUICK, *options], out))


if __name__ == "__main__":
    main()
