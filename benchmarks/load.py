"""Thousands of short real clips through one extraction: whether rate, memory and files stay flat.

    python benchmarks/load.py FOLDER_OF_VIDEOS [--clips 5000] [EXTRACT_OPTION ...]

Videos below the folder are cut into files of 16 to 20 frames, over and over from other first
frames until there are enough, and all go through `labelgen extract --workers 2` with settings that
cost little. While it runs, resident memory, of the command and of its workers together, and open
files of them all are sampled from /proc, and clips are counted by seals.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from labelgen.errors import VideoError
from labelgen.video.decode import Video
from labelgen.video.manifest import find_videos

SIZE, RATE = (120, 160), 25
LENGTHS = range(16, 21)
OPTIONS = ("--flow", "dis", "--crops", "center", "--no-boundaries", "--frames", "jpeg:50")
PER_SHARD = 50
POLL_SECONDS = 0.25
QUARTERS = ("first", "second", "third", "last")


class Sample(NamedTuple):
    """What was seen at one moment: seconds, clips sealed, MiB and open files."""

    seconds: float
    clips: int
    command: float
    workers: float
    files: int


def write(file, frames):
    height, width = SIZE
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), RATE, (width, height))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()


def pieces(root):
    """Yield lists of 16 to 20 frames of the videos below a folder, for as long as is wanted."""
    rows = find_videos(root)
    for turn in count():
        found = False
        for row in rows:
            for piece in pieces_of(root / row.path, skip=3 * turn):
                found = True
                yield piece
        if not found:
            raise SystemExit(f"the videos below {root} are too short for so many clips")


def pieces_of(file, *, skip):
    frames, lengths = [], count(skip)
    try:
        with Video(file, size=SIZE) as video:
            for frame in islice(video, skip, None):
                frames.append(frame.rgb)
                if len(frames) == LENGTHS[-1]:
                    yield frames[: LENGTHS[next(lengths) % len(LENGTHS)]]
                    frames = []
    except VideoError:
        return


def cut(root, folder, wanted):
    for number, frames in enumerate(islice(pieces(root), wanted)):
        place = folder / f"{number // 100:03d}"
        place.mkdir(exist_ok=True)
        write(place / f"{number:05d}.avi", frames)


def family(process):
    """Return a process and those that it started."""
    file = Path(f"/proc/{process}/task/{process}/children")
    return [process, *(one for child in file.read_text().split() for one in family(int(child)))]


def resident(process):
    status = Path(f"/proc/{process}/status").read_text()
    return next((int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line), 0) / 1024


def sealed(out, known):
    """Return the clips in all sealed shards; `known` remembers those of files read before."""
    for file in out.glob("*-of-*.json"):
        if file.name not in known:
            known[file.name] = json.loads(file.read_text())["clips"]
    return sum(known.values())


def look(process, start, clips):
    processes = family(process)
    memory = [resident(one) for one in processes]
    files = sum(len(list(Path(f"/proc/{one}/fd").iterdir())) for one in processes)
    return Sample(time.monotonic() - start, clips, memory[0], sum(memory[1:]), files)


def watch(run, out):
    samples, known, start = [], {}, time.monotonic()
    while run.poll() is None:
        # Processes come and go while they are looked at.
        with suppress(FileNotFoundError, ProcessLookupError):
            samples.append(look(run.pid, start, sealed(out, known)))
        time.sleep(POLL_SECONDS)
    return samples, sealed(out, known)


def table(samples):
    """Print a line per quarter of the time from the first seal to the last."""
    clips = [sample.clips for sample in samples]
    working = samples[clips.index(next(filter(None, clips))) : clips.index(clips[-1]) + 1]
    edges = np.linspace(working[0].seconds, working[-1].seconds, len(QUARTERS) + 1)
    print("quarter  clips/s  command MiB  workers MiB  open files")
    for name, low, high in zip(QUARTERS, edges, edges[1:], strict=False):
        part = [sample for sample in working if low <= sample.seconds <= high]
        rate = (part[-1].clips - part[0].clips) / (high - low)
        command, workers, files = np.median([sample[2:] for sample in part], axis=0)
        print(f"{name:>7} {rate:8.2f} {command:12.0f} {workers:12.0f} {files:11.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--clips", type=int, default=5000)
    arguments, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as scratch:
        videos, out = Path(scratch, "videos"), Path(scratch, "shards")
        videos.mkdir()
        cut(arguments.root, videos, arguments.clips)
        command = [sys.executable, "-m", "labelgen.cli", "extract", "--root", str(videos)]
        command += ["--out", str(out), "--workers", "2", "--clips-per-shard", str(PER_SHARD)]
        with Path(scratch, "log").open("w+") as log:
            run = subprocess.Popen([*command, *OPTIONS, *options], stderr=log)
            samples, clips = watch(run, out)
            log.seek(0)
            said = log.read()
        if run.returncode or clips != arguments.clips:
            sys.exit(f"{clips} of {arguments.clips} clips, exit code {run.returncode}:\n{said}")
        table(samples)
        print(f"{clips} clips in {len(list(out.glob('*.h5')))} shards")
        print(said.strip())


if __name__ == "__main__":
    main()
