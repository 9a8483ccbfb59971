"""What one core does: milliseconds per clip by stage, pairs of flow per second, and core-hours.

    taskset -c 0 python benchmarks/rates.py FOLDER_OF_VIDEOS [EXTRACT_OPTION ...]

Extracts the whole folder with one worker, and computes flow of some of its clips at two sizes,
beside OpenCV's TV-L1 on one pair of each. All are seconds of the processor, so that what else the
machine does counts less. Core-hours are those rates, without start-up, times the clips of a dataset
as docs/scale.md counts them.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

# After this folder, whose module `extraction` is meant.
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "tests"))
from conftest import random_clip
from extraction import STAGES, extract
from flow import grey_of, opencv_flow, read_frames, resized

from labelgen import clip_labels
from labelgen.flow.tvl1 import tvl1_flow
from labelgen.video.manifest import find_videos

SIZES = ((171, 128), (320, 240))
CLIPS = 6
DATASETS = {"UCF101": 149_500, "Kinetics-400": 4_320_000}


def pairs_per_second(method, greys):
    """Return how many pairs a second of the processor is enough for."""
    start = time.process_time()
    for grey in greys:
        method(grey)
    return sum(len(grey) - 1 for grey in greys) / (time.process_time() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    arguments, options = parser.parse_known_args()
    cv2.setNumThreads(1)
    clip_labels(*random_clip(0), "all")  # compile
    tvl1_flow(np.zeros((2, 128, 171), np.uint8))
    with tempfile.TemporaryDirectory() as folder:
        stages, whole = extract(arguments.root, options, folder)
    print("| stage | ms per clip |\n| --- | --- |")
    for stage in STAGES:
        print(f"| {stage} | {stages.get(stage, 0):.0f} |")
    each = sum(stages.values())
    print(f"| all | {each:.0f} |\n| and with start-up | {whole:.0f} |")

    paths = [arguments.root / row.path for row in find_videos(arguments.root)]
    clips = [frames for path in paths if len(frames := read_frames(path)) == 16]
    chosen = [
        clips[k] for k in np.unique(np.linspace(0, len(clips) - 1, CLIPS).round().astype(int))
    ]
    solver = cv2.optflow.DualTVL1OpticalFlow_create()
    print("\n| flow, pairs per second | tvl1 | OpenCV's TV-L1 |\n| --- | --- | --- |")
    for width, height in SIZES:
        greys = [grey_of(resized(frames, width, height)) for frames in chosen]
        ours = pairs_per_second(tvl1_flow, greys)
        theirs = pairs_per_second(
            lambda grey: opencv_flow(solver, grey), [grey[:2] for grey in greys]
        )
        print(f"| {width}x{height} | {ours:.1f} | {theirs:.2f} |")

    print("\n| dataset | clips | core-hours |\n| --- | --- | --- |")
    for name, count in DATASETS.items():
        print(f"| {name} | {count:,} | {count * each / 3.6e6:.0f} |")


if __name__ == "__main__":
    main()
