"""Speed and memory of whole extractions: one worker against two, in pairs.

    python benchmarks/pipeline.py FOLDER_OF_VIDEOS [EXTRACT_OPTION ...]
    python benchmarks/pipeline.py --film 10 [--rounds 1] FOLDER_OF_VIDEOS [EXTRACT_OPTION ...]

Each round runs `labelgen extract` with one worker and then with two, into fresh folders, and
compares the shards. With --film the videos are first joined, over and over, into one film of so
many minutes.
"""

import argparse
import hashlib
import resource
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np

from labelgen.video.decode import Video
from labelgen.video.manifest import find_videos

FILM_SIZE, FILM_RATE = (240, 320), 25


def extract(root, options, workers):
    """Seconds of one extraction, the hashes of its shards, and the lines it prints at its end."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "shards")
        command = [sys.executable, "-m", "labelgen.cli", "extract", "--root", str(root)]
        command += ["--out", str(out), "--workers", str(workers), *options]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        took = time.perf_counter() - start
        shards = [hashlib.sha256(file.read_bytes()).digest() for file in sorted(out.glob("*.h5"))]
        return took, shards, done.stderr.strip().splitlines()


def frames_of(root):
    """Yield the frames of all videos below a folder, without end."""
    for row in cycle(find_videos(root)):
        with Video(Path(root, row.path), size=FILM_SIZE) as video:
            yield from (cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR) for frame in video)


def make_film(root, folder, minutes):
    folder.mkdir()
    height, width = FILM_SIZE
    codec = cv2.VideoWriter_fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(folder / "film.avi"), codec, FILM_RATE, (width, height))
    for frame in islice(frames_of(root), round(60 * FILM_RATE * minutes)):
        writer.write(frame)
    writer.release()
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root")
    parser.add_argument("--film", type=float, metavar="MINUTES")
    parser.add_argument("--rounds", type=int, default=3)
    arguments, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.root
        if arguments.film:
            root = make_film(root, Path(scratch, "film"), arguments.film)
        compare(root, options, arguments.rounds)


def compare(root, options, rounds):
    ratios = []
    for _ in range(rounds):
        one, shards, report = extract(root, options, 1)
        two, others, _ = extract(root, options, 2)
        ratios.append(two / one)
        equal = "equal bytes" if shards == others else "OTHER BYTES"
        print(
            f"{len(shards)} shards: 1 worker {one:.1f} s, 2 workers {two:.1f} s, "
            f"{two / one:.2f} of it, {equal}",
            flush=True,
        )
    print("\n".join(report))
    print(f"two workers take {np.median(ratios):.2f} of the time of one, in the median")
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"largest process {largest:.0f} MiB")


if __name__ == "__main__":
    main()
