"""Optical flow: time per frame pair, agreement of labels with OpenCV's TV-L1, errors.

    python benchmarks/flow.py [--data ../shared/data] [--clips 18] [--parts clips sizes]

All methods run one after the other on each clip, on one core, so that a busy machine slows all
alike; times are the processor's, and ratios are medians over clips. Labels are the six motion
labels of the grid and of the whole crop, of 9 crops.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from flow_inputs import MIDDLEBURY, endpoint_error, fast_pair, read_middlebury

from labelgen import LABELS, clip_labels
from labelgen.flow.brox import brox_flow
from labelgen.flow.tvl1 import TVL1_PRESETS, tvl1_flow

VIDEOS = (
    "ucf101/**/*.avi",
    "hmdb51/**/*.avi",
    "kinetics/*.mp4",
    "misc/*",
    "gestures/*",
    "fights/**/*.mp4",
)
PARTS = ("clips", "large", "sizes", "truth")
CROPS = np.array(list(itertools.product((0, 8, 16), (0, 30, 59))))
KINDS = ("motion/grid", "motion/global")
COMPARED = [i for i, label in enumerate(LABELS) if label.name.startswith(KINDS)]
Flow = Callable[[np.ndarray], np.ndarray]


def opencv_flow(solver: cv2.DenseOpticalFlow, grey: np.ndarray) -> np.ndarray:
    pairs = [solver.calc(grey[i], grey[i + 1], None) for i in range(len(grey) - 1)]
    return np.stack(pairs).transpose(0, 3, 1, 2)


def methods() -> dict[str, Flow]:
    return {
        "opencv-tvl1": partial(opencv_flow, cv2.optflow.DualTVL1OpticalFlow_create()),
        "tvl1": tvl1_flow,
        "tvl1:fast": partial(tvl1_flow, settings=TVL1_PRESETS["fast"]),
        "tvl1:accurate": partial(tvl1_flow, settings=TVL1_PRESETS["accurate"]),
        "brox": brox_flow,
        "farneback": partial(opencv_flow, cv2.FarnebackOpticalFlow_create()),
        "dis": partial(opencv_flow, cv2.DISOpticalFlow_create()),
        "opencv-tvl1, tau .24": partial(
            opencv_flow, cv2.optflow.DualTVL1OpticalFlow_create(tau=0.24)
        ),
    }


def videos(data: Path, count: int) -> list[Path]:
    """Take files from all folders in turn, until there are enough."""
    folders = [iter(sorted(p for p in data.glob(pattern) if p.is_file())) for pattern in VIDEOS]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*folders))
    found = list(itertools.islice((path for path in turns if path), count))
    # Any other folder of videos will do.
    return found or sorted(data.glob("**/*.mp4"))[:count]


def read_frames(path: Path) -> list[np.ndarray]:
    """Read the second sixteen frames of a video, RGB, or the first if it is short."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while len(frames) < 32 and (frame := capture.read()[1]) is not None:
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    return frames[16:] if len(frames) == 32 else frames[:16]


def resized(frames: list[np.ndarray], width: int, height: int) -> np.ndarray:
    return np.stack(
        [cv2.resize(f, (width, height), interpolation=cv2.INTER_LINEAR) for f in frames]
    )


def grey_of(frames: np.ndarray) -> np.ndarray:
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])


def timed(method: Flow, grey: np.ndarray) -> tuple[np.ndarray, float]:
    """Flow of a clip, and milliseconds of the processor per pair."""
    start = time.process_time()
    flow = method(grey)
    return flow, (time.process_time() - start) * 1e3 / len(flow)


def print_row(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def print_header(*cells: str) -> None:
    print_row(*cells)
    print_row(*["---"] * len(cells))


def compare_on_clips(clips: list[np.ndarray]) -> None:
    chosen = methods()
    elapsed = {name: [] for name in chosen}
    agreement = {name: [] for name in chosen}
    for frames in clips:
        expected = None
        for name, method in chosen.items():
            flow, milliseconds = timed(method, grey_of(frames))
            labels = clip_labels(frames, np.ascontiguousarray(flow), CROPS)[:, COMPARED]
            expected = labels if expected is None else expected
            elapsed[name].append(milliseconds)
            agreement[name].append((labels == expected).mean())
    print(f"\n{len(clips)} clips at 171x128, one core\n")
    print_header("method", "ms per pair", "times faster than opencv-tvl1", "labels that agree")
    for name, milliseconds in elapsed.items():
        ratio = np.median(np.divide(elapsed["opencv-tvl1"], milliseconds))
        print_row(
            name,
            f"{np.median(milliseconds):.1f}",
            f"{ratio:.1f}",
            f"{100 * np.mean(agreement[name]):.1f}%",
        )


SIZES = {"clip (171x128)": (171, 128), "short:256": 256, "320x240": (320, 240), "source": 0}
SIZED = {"tvl1": tvl1_flow, "tvl1:accurate": partial(tvl1_flow, settings=TVL1_PRESETS["accurate"])}


def sized_flow(frames: list[np.ndarray], size: tuple[int, int] | int, method: Flow) -> np.ndarray:
    """Flow on frames of another size, resized to 171x128 with its vectors."""
    height, width = frames[0].shape[:2]
    if isinstance(size, tuple):
        width, height = size
    elif size:
        shrink = size / min(height, width)
        width, height = round(width * shrink), round(height * shrink)
    flow = method(grey_of(resized(frames, width, height)))
    flow = np.stack([[cv2.resize(plane, (171, 128)) for plane in pair] for pair in flow])
    return flow * np.float32([171 / width, 128 / height])[None, :, None, None]


def compare_sizes(videos_frames: list[list[np.ndarray]]) -> None:
    """Labels by size of the frames, against 171x128 and against each other."""
    agreement = {size: [] for size in SIZES}
    for frames in videos_frames:
        small = resized(frames, 171, 128)
        expected = {}
        for name, size in SIZES.items():
            labels = {
                method: clip_labels(small, sized_flow(frames, size, flow), CROPS)[:, COMPARED]
                for method, flow in SIZED.items()
            }
            expected = expected or labels
            same = [(labels[method] == expected[method]).mean() for method in SIZED]
            same.append((labels["tvl1"] == labels["tvl1:accurate"]).mean())
            agreement[name].append(same)
    print(f"\nLabels by size of the frames, {len(videos_frames)} clips\n")
    against = [f"{method} agrees with itself at 171x128" for method in SIZED]
    print_header("flow size", *against, "the two agree")
    for name, values in agreement.items():
        print_row(name, *[f"{100 * share:.1f}%" for share in np.mean(values, axis=0)])


def compare_large(videos_frames: list[list[np.ndarray]]) -> None:
    chosen = {name: method for name, method in methods().items() if "tau" not in name}
    elapsed = {name: [] for name in chosen}
    for frames in videos_frames:
        grey = grey_of(resized(frames[:4], 320, 240))
        for name, method in chosen.items():
            elapsed[name].append(timed(method, grey)[1])
    print(f"\n{len(videos_frames)} clips of 4 frames at 320x240, one core\n")
    print_header("method", "ms per pair", "times faster than opencv-tvl1")
    for name, milliseconds in elapsed.items():
        ratio = np.median(np.divide(elapsed["opencv-tvl1"], milliseconds))
        print_row(name, f"{np.median(milliseconds):.1f}", f"{ratio:.1f}")


def compare_truth(data: Path) -> None:
    print("\nEndpoint error in pixels / angular error in degrees\n")
    print_header("method", *MIDDLEBURY, "mean", "20 pixels")
    pairs = [read_middlebury(data / "flow" / name) for name in MIDDLEBURY]
    fast, fast_truth = fast_pair()
    for name, method in methods().items():
        errors = []
        for pair, truth in pairs:
            flow, known = method(pair)[0], np.isfinite(truth).all(0)
            cosine = 1 + (flow * truth).sum(0)
            cosine /= np.sqrt((1 + (flow**2).sum(0)) * (1 + (truth**2).sum(0)))
            angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
            errors.append((np.hypot(*(flow - truth))[known].mean(), angle[known].mean()))
        errors.append(np.mean(errors, axis=0))
        cells = [f"{endpoint:.3f} / {angle:.2f}" for endpoint, angle in errors]
        print_row(name, *cells, f"{endpoint_error(method(fast)[0], fast_truth):.2f}")


def coloured(flow: np.ndarray, longest: float) -> np.ndarray:
    """Flow (2, H, W) as a picture: the hue is the direction, the saturation the length."""
    length, angle = np.hypot(*flow), np.arctan2(flow[1], flow[0])
    hue = (angle % (2 * np.pi)) * 90 / np.pi
    colour = np.stack([hue, np.clip(length / longest, 0, 1) * 255, np.full_like(hue, 255)], -1)
    return cv2.cvtColor(colour.round().clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2BGR)


def variety(frames: np.ndarray) -> float:
    """How much the motion of a clip's first pair differs from place to place, in pixels."""
    return float(methods()["dis"](grey_of(frames[:2]))[0].std(axis=(1, 2)).max())


def draw(frames: np.ndarray, path: Path) -> None:
    """Write one row of pictures: a frame, the colour wheel, and the flow by each method."""
    grey = grey_of(frames[:2])
    flows = {n: m(grey)[0] for n, m in methods().items() if "tau" not in n}
    longest = max(float(np.percentile(np.hypot(*flows["opencv-tvl1"]), 99)), 1.0)
    wheel = np.mgrid[-1:1:128j, -1.336:1.336:171j][::-1].astype(np.float32)
    wheel = wheel * (np.hypot(*wheel) <= 1)
    tiles = {"frame": frames[0][..., ::-1], "direction": coloured(wheel, 1.0)}
    tiles |= {name: coloured(flow, longest) for name, flow in flows.items()}
    pictures = []
    for name, tile in tiles.items():
        picture = np.full((150, 179, 3), 255, np.uint8)
        picture[18:146, 4:175] = tile
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(picture, name, (6, 13), font, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        pictures.append(picture)
    half = -(-len(pictures) // 2)
    pictures += [np.full_like(pictures[0], 255)] * (2 * half - len(pictures))
    cv2.imwrite(str(path), np.vstack([np.hstack(pictures[:half]), np.hstack(pictures[half:])]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = Path(os.environ.get("LABELGEN_SHARED", "../shared"))
    parser.add_argument("--data", type=Path, default=shared / "data")
    parser.add_argument("--clips", type=int, default=18)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    frames = [read_frames(path) for path in videos(options.data, options.clips)]
    frames = [clip for clip in frames if len(clip) == 16]
    clips = [resized(clip, 171, 128) for clip in frames]
    if options.picture:
        draw(max(clips, key=variety), options.picture)
    for method in methods().values():  # compile, load
        method(grey_of(clips[0][:2]))
    if "clips" in options.parts:
        compare_on_clips(clips)
    if "large" in options.parts:
        compare_large(frames[:8])
    if "sizes" in options.parts:
        compare_sizes([clip for clip in frames if clip[0].shape[0] <= 360][:8])
    if "truth" in options.parts and (options.data / "flow").is_dir():
        compare_truth(options.data)


if __name__ == "__main__":
    main()
