"""Speed and memory of whole extractions: one worker against two, in pairs.

    python benchmarks/pipeline.py FOLDER_OF_VIDEOS [EXTRACT_OPTION ...]

Each round runs `labelgen extract` with one worker and then with two, into fresh folders.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROUNDS = 3


def extract(root, options, workers):
    """Seconds of one extraction, and the lines it prints at its end."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "labelgen.cli", "extract", "--root", root]
        command += ["--out", str(Path(scratch, "shards")), "--workers", str(workers), *options]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return time.perf_counter() - start, done.stderr.strip().splitlines()


def main(root, *options):
    ratios = []
    for _ in range(ROUNDS):
        one, report = extract(root, options, 1)
        two, _ = extract(root, options, 2)
        ratios.append(one / two)
        print(f"1 worker {one:.1f} s, 2 workers {two:.1f} s, ratio {one / two:.2f}")
    print("\n".join(report))
    print(f"median ratio {np.median(ratios):.2f}")
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"largest process {largest:.0f} MiB")


if __name__ == "__main__":
    main(*sys.argv[1:])
