"""Stored flow as folders of images of 8 bits, which other programs and `extract` read.

Every pair of frames of a video gets its two images, so that numbers run from 1 without a gap. A
pair that lies in no clip repeats the one before it: that between two clips that only touch, and
those after the last clip. A record in the folder says which clips are whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import h5py
import numpy as np

from labelgen.errors import LabelgenError
from labelgen.files import new_folder, write_json
from labelgen.flow.methods import PRECOMPUTED, flow_settings
from labelgen.flow.precomputed import EXPORT_FILE, flow_levels
from labelgen.geometry import CLIP_LENGTH
from labelgen.progress import count_text, each
from labelgen.shards.folder import find_shard_folder, read_run
from labelgen.shards.index import sealed_sets
from labelgen.shards.reader import open_shard
from labelgen.video.frames import check_apart, folder_names
from labelgen.video.manifest import ManifestRow

_PAIRS = CLIP_LENGTH - 1
# By layout: the folder of each component, and how its images are named.
_LAYOUTS = {
    "denseflow": (("{video}", "flow_x_{number:05}"), ("{video}", "flow_y_{number:05}")),
    "two-stream": (("u/{video}", "frame{number:06}"), ("v/{video}", "frame{number:06}")),
}


class _Images(NamedTuple):
    """How flow is written.

    Attributes
    ----------
    layout : str
    bound : float
        Displacement that the level 255 stands for.
    quality : int or None
        Of JPEG; None for PNG.
    """

    layout: str
    bound: float
    quality: int | None

    def encoded(self, flow: np.ndarray) -> bytes:
        """Return the image of one component, (128, 171)."""
        levels = flow_levels(flow, self.bound)
        if self.quality is None:
            return bytes(cv2.imencode(".png", levels)[1])
        return bytes(cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1])

    @property
    def suffix(self) -> str:
        """Return what names of images end in."""
        return ".png" if self.quality is None else ".jpg"


class Exported(NamedTuple):
    """What came of an export.

    Attributes
    ----------
    videos, known : int
        Written now, and found there already.
    pairs, repeated : int
        Written now, and how many of them repeat the one before.
    largest : float
        Displacement in pixels, of what was written now.
    problems : list of str
        One sentence for each video that was not written.
    """

    videos: int = 0
    known: int = 0
    pairs: int = 0
    repeated: int = 0
    largest: float = 0.0
    problems: tuple[str, ...] = ()

    def __add__(self, other: object) -> Exported:
        """Return what came of both."""
        if not isinstance(other, Exported):
            return NotImplemented
        return Exported(
            videos=self.videos + other.videos,
            known=self.known + other.known,
            pairs=self.pairs + other.pairs,
            repeated=self.repeated + other.repeated,
            largest=max(self.largest, other.largest),
            problems=self.problems + other.problems,
        )

    def lines(self, output: Path, bound: float) -> Iterator[str]:
        """Yield the summary for people, line by line."""
        yield from self.problems
        before = f", {self.known} are there already" if self.known else ""
        yield (
            f"{output}: flow of {count_text(self.videos, 'video')}, "
            f"{count_text(self.pairs, 'pair')} of frames{before}"
        )
        if self.repeated:
            yield f"{count_text(self.repeated, 'pair')} in no clip: each repeats the one before it"
        if self.largest > bound:
            yield (
                f"displacements up to {self.largest:.1f} pixels were cut at {bound:g}; a larger "
                "--bound keeps them, in coarser steps"
            )


def export_flow(
    path: Path,
    output: Path,
    *,
    layout: str,
    bound: float,
    quality: int | None,
    workers: int = 1,
) -> Exported:
    """Write the stored flow of a shard folder as images, a folder or two for each video.

    What is there already stays as it is; so the same call goes on after an interruption.

    Parameters
    ----------
    path : Path
        The shard folder.
    output : Path
        Folder for the images; new, empty, or begun by the same call.
    layout : {"denseflow", "two-stream"}
        ``VIDEO/flow_x_00001.jpg`` and ``VIDEO/flow_y_00001.jpg``, or ``u/VIDEO/frame000001.jpg``
        and ``v/VIDEO/frame000001.jpg``. VIDEO is the path of the video without the suffix.
    bound : float
        Displacement in pixels of the 128x171 frame that the level 255 stands for.
    quality : int or None
        Of JPEG, 1..100; None writes PNG.
    workers : int, optional
        Threads.

    Raises
    ------
    LabelgenError
        If the shards are not complete or hold no flow, clips leave more than a pair between them,
        the folder holds anything else, two videos would share a folder, or it cannot be written.
    """
    flow_settings(PRECOMPUTED, {"bound": bound})
    folder = find_shard_folder(path)
    run = read_run(folder)
    _check_config(folder, run["config"])
    files = [file for _, file in sealed_sets(folder)]
    images = _Images(layout, bound, quality)
    check_apart(_rows(files), lambda video: output / folder_names(video)[0])
    try:
        _begin(output, run, images)
        parts = each(
            partial(
                _export_shard, output=output, images=images, stride=run["config"]["clip_stride"]
            ),
            files,
            workers=workers,
            unit="shards",
        )
        total = sum(parts, Exported())
    except OSError as error:
        if error.errno is None:  # HDF5's
            raise LabelgenError(
                f"a shard of {folder} cannot be read: {error}; labelgen verify says which"
            ) from None
        raise LabelgenError(
            f"cannot write to {output}: {os.strerror(error.errno)}; what is whole stays, run "
            "the same command again"
        ) from None
    return total


def _check_config(folder: Path, config: dict[str, Any]) -> None:
    if config["store_flow"] == "none":
        raise LabelgenError(
            f"{folder} holds no flow; extract into another folder with --store-flow to have some"
        )
    if config["clip_stride"] > CLIP_LENGTH:
        raise LabelgenError(
            f"{folder} holds a clip every {config['clip_stride']} frames, and no flow in between; "
            f"extract with a --clip-stride of at most {CLIP_LENGTH}"
        )


def _rows(files: Sequence[Path]) -> Iterator[ManifestRow]:
    for file in files:
        with open_shard(file) as shard:
            yield from map(ManifestRow, shard["videos/path"].asstr()[:])


def _begin(output: Path, run: dict[str, Any], images: _Images) -> None:
    """Make the folder and its record, or check that it was begun with the same ones."""
    record = {
        **images._asdict(),
        "clip_stride": run["config"]["clip_stride"],
        "config_hash": run["config_hash"],
        "manifests": run["manifests"],
    }
    file = output / EXPORT_FILE
    if file.exists():
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            # More videos may have been added since.
            grown = found["manifests"].items() <= run["manifests"].items()
            differing = [
                name
                for name in record
                if record[name] != found[name] and not (name == "manifests" and grown)
            ]
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            differing = ["a record that is damaged"]
        if differing:
            raise LabelgenError(
                f"{output} was begun with other shards or options, differing in "
                f"{', '.join(differing)}; name another folder with --output"
            )
    elif output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise LabelgenError(
            f"{output} holds something already, and nothing in it is written over; name another "
            "folder with --output"
        )
    output.mkdir(parents=True, exist_ok=True)
    write_json(file, record)


def _export_shard(file: Path, *, output: Path, images: _Images, stride: int) -> Exported:
    total = Exported()
    with open_shard(file) as shard:
        videos, starts = shard["clips/video"][:], shard["clips/start"][:]
        paths, frames = shard["videos/path"].asstr()[:], shard["videos/frames"][:]
        for number, path in enumerate(paths):
            clips = np.flatnonzero(videos == number)
            lacking = np.setdiff1d(
                np.arange(0, frames[number] - CLIP_LENGTH + 1, stride), starts[clips]
            )
            if len(lacking):
                # It gave no flow: invented one would label it when it is read.
                problem = f"{path}: not written, the clip at frame {lacking[0]} is not in its shard"
                total += Exported(problems=(problem,))
                continue
            pairs = _pairs(shard["flow"], dict(zip(starts[clips], clips, strict=True)))
            total += _export_video(output, path, images, pairs, frames[number] - 1)
    return total


def _pairs(flow: h5py.Dataset, clips: dict[int, int]) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield the flow of each pair in order, (2, 128, 171), and whether it is a repetition."""
    done, pair = 0, np.empty(0)
    for start, clip in clips.items():
        if start > done:
            yield pair, True
        for pair in flow[clip][max(done - start, 0) :]:
            yield pair, False
        done = start + _PAIRS
    while True:
        yield pair, True


def _export_video(
    output: Path,
    path: str,
    images: _Images,
    pairs: Iterator[tuple[np.ndarray, bool]],
    count: int,
) -> Exported:
    places = [
        (output / folder.format(video=folder_names(path)[0]), name)
        for folder, name in _LAYOUTS[images.layout]
    ]
    absent = [folder for folder in dict(places) if not folder.is_dir()]
    if not absent:
        return Exported(known=1)
    repeated, largest = 0, 0.0
    with ExitStack() as stack:
        partials = {target: stack.enter_context(new_folder(target)) for target in absent}
        for number, (flow, again) in zip(range(1, count + 1), pairs, strict=False):
            for component, (target, name) in zip(flow, places, strict=True):
                if target in partials:
                    file = partials[target] / (name.format(number=number) + images.suffix)
                    file.write_bytes(images.encoded(component))
            repeated += again
            largest = max(largest, float(np.abs(flow).max()))
    return Exported(videos=1, pairs=count, repeated=repeated, largest=largest)
