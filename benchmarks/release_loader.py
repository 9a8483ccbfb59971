"""The loader of the authors' release, as a plain baseline for ours.

    train bench --labels shards/demo --baseline benchmarks/release_loader.py

The release keeps one JPEG per frame and one per flow component. For every sample of every epoch
it reads and resizes 16 frames, reads and resizes 30 flow images, and computes the labels again.
This does the same with the same frames, and computes the motion labels with vectorised NumPy and
the colour scores with OpenCV histograms, not with loops in Python as the release does.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np

from labelgen.geometry import CROP_SIZE
from labelgen.labels.partitions import PARTITIONS
from train.data.answers import LabelAnswers
from train.data.dataset import ClipDataset
from train.data.sampler import HELD_OUT, views_of
from train.data.shards import open_shards

SOURCE_SIZE = (341, 256)  # width, height: the release's frames have a short side of 256
BOUND = 20.0  # the release stores flow in [-20, 20] as 8 bits


def sampler(labels: str, folder: Path, *, clips: int = 12) -> Callable[[], object]:
    """Write some clips of a shard set as loose images; return what makes one sample of them."""
    write_loose_images(labels, folder, clips=min(clips, open_shards(labels).clips))
    homes = cycle(sorted(folder.iterdir()))
    (view,) = views_of(0, 0, 0, crops=1020)
    return lambda: loose_sample(next(homes), view)


def write_loose_images(labels: str, folder: Path, *, clips: int) -> None:
    """Write some clips as the release has them: a JPEG per frame and per flow component."""
    dataset = ClipDataset(LabelAnswers(open_shards(labels)))
    for clip in range(clips):
        frames = dataset[HELD_OUT, clip].frames[0].numpy()
        home = folder / str(clip)
        home.mkdir()
        for t, frame in enumerate(frames):
            large = cv2.resize(frame[..., ::-1], SOURCE_SIZE)
            cv2.imwrite(str(home / f"frame{t:06d}.jpg"), large)
            # What is in the flow images does not change what reading them costs.
            for name, channel in (("u", 0), ("v", 1)):
                cv2.imwrite(str(home / f"{name}{t:06d}.jpg"), large[..., channel])


def loose_sample(home: Path, view: tuple[int, bool]) -> tuple[np.ndarray, np.ndarray]:
    """One sample the release's way: read, resize, cut, flip, and compute 27 labels."""
    crop, flip = view
    top, left = divmod(crop, 60)
    cut = np.s_[top : top + CROP_SIZE, left : left + CROP_SIZE]
    frames, flow = [], []
    for t in range(16):
        image = cv2.resize(cv2.imread(str(home / f"frame{t:06d}.jpg")), (171, 128))[cut]
        frames.append(image[:, ::-1] if flip else image)
    for t in range(15):
        pair = []
        for name, sign in (("u", -1 if flip else 1), ("v", 1)):
            grey = cv2.imread(str(home / f"{name}{t:06d}.jpg"), cv2.IMREAD_GRAYSCALE)
            field = cv2.resize(grey, (171, 128))[cut].astype(np.float32) * (2 * BOUND / 255) - BOUND
            pair.append(sign * (field[:, ::-1] if flip else field))
        flow.append(pair)
    clip_frames = np.stack(frames)
    values = [*motion_values(np.array(flow)), *appearance_values(clip_frames)]
    return clip_frames, np.array(values, np.uint8)


PREWITT = np.array([[-1, 0, 1]] * 3, np.float32)


def motion_values(flow: np.ndarray) -> list[int]:
    """14 motion labels from (15, 2, 112, 112) flow."""
    dx = [[cv2.filter2D(f, -1, PREWITT, borderType=cv2.BORDER_REFLECT) for f in p] for p in flow]
    dy = [[cv2.filter2D(f, -1, PREWITT.T, borderType=cv2.BORDER_REFLECT) for f in p] for p in flow]
    values = []
    for blocks in (partition.masks for partition in PARTITIONS):
        for k in range(2):
            a, b = np.sum([d[k] for d in dx], 0), np.sum([d[k] for d in dy], 0)
            magnitude, angle = cv2.cartToPolar(a, b, angleInDegrees=True)
            best = int(np.argmax([magnitude[block].mean() for block in blocks]))
            bins = (angle[blocks[best]] // 45).astype(int) % 8
            histogram = np.bincount(bins, magnitude[blocks[best]], minlength=8)
            values += [best + 1, int(histogram.argmax()) + 1]
    for k in range(2):
        sizes = [np.hypot(x[k], y[k]).sum() for x, y in zip(dx, dy, strict=True)]
        values.append(int(np.argmax(sizes)) + 1)
    return values


def appearance_values(frames: np.ndarray) -> list[int]:
    """13 appearance labels from (16, 112, 112, 3) BGR frames."""
    b, g, r = np.moveaxis(frames, -1, 0)
    octants = 4 * (b < 128) + 2 * (r >= 128) + (g >= 128)
    values = []
    for blocks in (partition.masks for partition in PARTITIONS):
        scores = []
        for block in blocks:
            mask = block.astype(np.uint8)
            counts = [
                [cv2.calcHist([f], [c], mask, [256], [0, 256]) for f in frames] for c in range(3)
            ]
            counts = np.reshape(counts, (3, 16, 256))
            low, high = counts.min(axis=1).sum(axis=1), counts.max(axis=1).sum(axis=1)
            scores.append((low / high).mean())
        for chosen in (int(np.argmin(scores)), int(np.argmax(scores))):
            colours = np.bincount(octants[:, blocks[chosen]].ravel(), minlength=8)
            values += [chosen + 1, int(colours.argmax()) + 1]
    return [*values, int(np.bincount(octants.ravel(), minlength=8).argmax()) + 1]
