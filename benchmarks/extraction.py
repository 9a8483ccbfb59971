"""A whole extraction, stage by stage, against a plain one in the same run.

    python benchmarks/extraction.py FOLDER_OF_VIDEOS [--rounds 3] [EXTRACT_OPTION ...]

The plain one is written as one would from the paper: OpenCV's TV-L1 for each pair of frames, the 27
labels of the centre crop as the released code makes them, in OpenCV and NumPy, and frames as JPEG.
Each round times it on clips spread evenly over those of the whole folder, since some cost twice as
much as others, and then `labelgen extract` with all of its defaults and one worker on the folder,
start-up included. All are seconds of the processor, on one core, so that what else the machine does
counts little.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from oracle import BLOCKS, PARTITIONS, SIDE, octant, score

from labelgen import clip_labels, optical_flow, read_clips
from labelgen.shards.times import read_times
from labelgen.video.manifest import find_videos

TOP, LEFT = 8, 29
CLIPS_A_ROUND = 6
STAGES = ("decode", "flow", "labels", "write")


def opened(path, start):
    capture = cv2.VideoCapture(str(path))
    for _ in range(start):
        capture.grab()
    return capture


def read_clip(capture):
    frames = [cv2.resize(capture.read()[1], (171, 128)) for _ in range(16)]
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) for frame in frames])


def opencv_flow(frames):
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    solver = cv2.optflow.DualTVL1OpticalFlow_create()
    pairs = [solver.calc(one, two, None) for one, two in pairwise(grey)]
    return np.stack(pairs).transpose(0, 3, 1, 2)


def derivatives(field):
    """Apply the Prewitt kernels, turned round by true convolution."""
    row = np.float32([[1, 0, -1]] * 3)
    border = cv2.BORDER_REFLECT
    return [cv2.filter2D(field, -1, k, borderType=border) for k in (row, row.T.copy())]


def soft_bins(magnitude, angle):
    low = np.floor(angle / 45).astype(int)
    share = angle / 45 - low
    return sum(
        np.bincount((low + k) % 8, magnitude * part, 8) for k, part in ((0, 1 - share), (1, share))
    )


def commonest_octant(pixels):
    red, green, blue = pixels.reshape(-1, 3).astype(int).T
    codes, counts = np.unique(65536 * blue + 256 * green + red, return_counts=True)
    code = codes[counts.argmax()]
    return 1 + int(octant(np.array([code & 255, code >> 8 & 255, code >> 16])))


def pixels_of(crop, name, number):
    """Take the pixels of a block; those of ring 2 with the release's slip, a slice of time."""
    if (name, number) != ("rings", 1):
        return crop[(slice(None), *BLOCKS[name][number])]
    square = crop[:, 28:84, 28:84].copy()
    square[:, 14:42, 14:42] = 0
    strips = square[:, :14], square[:, 14:42, :14], square[:, 14:42, 42:], square[:2]
    return np.concatenate([strip.reshape(-1, 3) for strip in strips])


def release_labels(frames, flow):
    """Label the centre crop."""
    crop = frames[:, TOP : TOP + SIDE, LEFT : LEFT + SIDE]
    flow = flow[:, :, TOP : TOP + SIDE, LEFT : LEFT + SIDE]
    slopes = np.array([[derivatives(field) for field in pair] for pair in flow])
    labels = []
    for name in PARTITIONS:
        for x, y in slopes.sum(axis=0):
            magnitude, angle = cv2.cartToPolar(x, y, angleInDegrees=True)
            if name == "grid" and not magnitude.any():
                labels += [0, 0]
                continue
            means = [magnitude[block].mean() for block in BLOCKS[name]]
            block = BLOCKS[name][int(np.argmax(means))]
            bins = soft_bins(magnitude[block], angle[block])
            labels += [1 + int(np.argmax(means)), 1 + int(bins.argmax())]
    labels += list(1 + np.hypot(slopes[:, :, 0], slopes[:, :, 1]).sum(axis=(2, 3)).argmax(axis=0))
    for name in PARTITIONS:
        scores = [score(crop[(slice(None), *block)]) for block in BLOCKS[name]]
        for number in (int(np.argmin(scores)), int(np.argmax(scores))):
            labels += [1 + number, commonest_octant(pixels_of(crop, name, number))]
    return np.array([*labels, commonest_octant(crop)])


class Stages(Counter):
    """Seconds of the processor by stage."""

    @contextmanager
    def stage(self, name):
        """Count the time of a ``with`` block."""
        start = time.process_time()
        yield
        self[name] += time.process_time() - start


def extract_plainly(clips, folder):
    """Return milliseconds per clip by stage, and the share of labels as by profile authors."""
    spent, equal = Stages(), []
    for number, (video, start) in enumerate(clips):
        capture = opened(video, start)
        with spent.stage("decode"):
            frames = read_clip(capture)
        with spent.stage("flow"):
            flow = opencv_flow(frames)
        with spent.stage("labels"):
            labels = release_labels(frames, flow)
        with spent.stage("write"):
            quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
            pictures = [cv2.imencode(".jpg", f[..., ::-1], quality)[1] for f in frames]
            arrays = {f"frame{k}": picture for k, picture in enumerate(pictures)}
            np.savez(Path(folder, f"{number}.npz"), labels=labels, **arrays)
        flow = np.ascontiguousarray(flow)
        equal.append((labels == clip_labels(frames, flow, profile="authors")[0]).mean())
    return {stage: 1e3 * spent[stage] / len(clips) for stage in STAGES}, np.mean(equal)


def children_time():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def extract(root, options, folder):
    """Return milliseconds per clip by stage, and of the whole command."""
    command = [sys.executable, "-m", "labelgen.cli", "extract", "--root", str(root)]
    command += ["--out", str(Path(folder, "shards")), "--workers", "1", *options]
    start, before = time.perf_counter(), children_time()
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    spent = children_time() - before
    # Stages are told in seconds of the clock.
    busy = spent / (time.perf_counter() - start)
    times = read_times(Path(folder, "shards"))[-1]
    stages = {stage: 1e3 * busy * took / times.clips for stage, took in times.stages.items()}
    return stages, 1e3 * spent / times.clips


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments, options = parser.parse_known_args()
    cv2.setNumThreads(1)
    paths = [arguments.root / row.path for row in find_videos(arguments.root)]
    clips = [(path, start) for path in paths for start, _ in read_clips(path)]
    sample = read_clip(opened(*clips[0]))
    clip_labels(sample, np.repeat(optical_flow(sample[:2]), 15, axis=0), "all")  # compile
    plain, ours, wholes, ratios = [], [], [], []
    for k in range(arguments.rounds):
        # Of each sixth of all clips one, at another place of it in every round.
        places = (np.arange(CLIPS_A_ROUND) + (k + 0.5) / arguments.rounds) / CLIPS_A_ROUND
        chosen = [clips[int(place * len(clips))] for place in places]
        with tempfile.TemporaryDirectory() as folder:
            stages, equal = extract_plainly(chosen, folder)
            plain.append(stages)
            stages, whole = extract(arguments.root, options, folder)
        ours.append(stages)
        wholes.append(whole)
        ratios.append(sum(plain[-1].values()) / whole)
        print(f"round {k + 1}: {ratios[-1]:.1f} times; {equal:.0%} of labels as by profile authors")
    print("\n| ms per clip | plain | labelgen extract |\n| --- | --- | --- |")
    for stage in STAGES:
        row = [np.median([stages.get(stage, 0) for stages in times]) for times in (plain, ours)]
        print(f"| {stage} | {row[0]:.1f} | {row[1]:.1f} |")
    whole_plain = np.median([sum(stages.values()) for stages in plain])
    print(f"| all, start-up included | {whole_plain:.0f} | {np.median(wholes):.0f} |")
    print(f"\nlabelgen extract is {np.median(ratios):.1f} times as fast, in the median of rounds")


if __name__ == "__main__":
    main()
