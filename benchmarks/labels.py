"""Time of boundaries and labels from flow and frames in memory, against plain NumPy.

    python benchmarks/labels.py

One core. Each round times every way once, in turn; medians and ratios of one and the same run, of
the processor's time.
"""

import sys
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import oracle
from conftest import random_clip

from labelgen import clip_labels

ROUNDS = 15
ORACLE_ROUNDS = 3


def milliseconds(function):
    start = time.process_time()
    function()
    return 1e3 * (time.process_time() - start)


def main():
    cv2.setNumThreads(1)
    frames, flow = random_clip(0)
    ways = {
        "one crop, profile paper": (1, lambda: clip_labels(frames, flow)),
        "one crop, profile authors": (1, lambda: clip_labels(frames, flow, profile="authors")),
        "all 1020 crops": (1020, lambda: clip_labels(frames, flow, "all")),
    }
    for _, way in ways.values():
        way()
    times = {name: [] for name in ways}
    slow = []
    for k in range(ROUNDS):
        for name, (_, way) in ways.items():
            times[name].append(milliseconds(way))
        if k < ORACLE_ROUNDS:
            slow.append(milliseconds(lambda: oracle.labels(frames, flow, 8, 29)))
    print(
        f"{'boundaries and 27 labels':<28} {'ms':>8} {'ms/view':>8} {'oracle / it, per view':>22}"
    )
    baseline = np.median(slow)
    print(f"{'one crop, NumPy oracle':<28} {baseline:>8.2f} {baseline:>8.3f} {1:>22}")
    for name, (views, _) in ways.items():
        time_of = np.median(times[name])
        ratio = baseline * views / time_of
        print(f"{name:<28} {time_of:>8.2f} {time_of / views:>8.3f} {ratio:>22.0f}")


if __name__ == "__main__":
    main()
