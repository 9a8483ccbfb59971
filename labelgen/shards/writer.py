"""One shard: an HDF5 file of labelled clips, and the seal that says it is complete.

The layout is fixed by ``docs/shards.md``. A shard is written under another name, synced, and takes
its final name only when whole; its seal, a small JSON file, follows last.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import cv2
import h5py
import numpy as np

from labelgen.video.clips import CLIP_LENGTH
from labelgen.labels.crops import crop_positions
from labelgen.video.decode import FRAME_SIZE
from labelgen.errors import LabelgenError
from labelgen.labels.compute import LABELS
from labelgen.video.manifest import ManifestRow
from labelgen.labels.partitions import CROP_SIZE
from labelgen.shards.settings import ExtractSettings, canonical_json, frame_quality

FORMAT = "motion-appearance-labels"
FORMAT_VERSION = 1

PARTIAL_SUFFIX = ".part"

_NAME = re.compile(r"(?P<set>.+)-(?P<number>\d{5,})-of-(?P<total>\d{5,})\.h5")

# fletcher32 guards every chunk. Labels of neighbouring crops are alike: level 6 packs the 27 kB of
# all crops into about 1.6 kB. Level 1 saves nearly as much on floating-point pixels as level 4 does
# in half the time. Raw frames are for reading fast, so they stay as they are.
_CHECKED: dict[str, Any] = {"fletcher32": True}
_FILTERS = {
    "labels": {"compression": "gzip", "compression_opts": 6, **_CHECKED},
    "frames": _CHECKED,
}
_OTHER_FILTERS = {"compression": "gzip", "compression_opts": 1, "shuffle": True, **_CHECKED}

_READ_BYTES = 1 << 20


class Clip(NamedTuple):
    """What a shard holds of one clip; None where the settings leave something out.

    Attributes
    ----------
    start : int
        First frame in the video, 0-based.
    frames : (16, 128, 171, 3) uint8
    labels : (K, 27) uint8
    boundaries : (4, 128, 171) float16
    energy : float
    flow : (15, 2, 128, 171) float32
    """

    start: int
    frames: np.ndarray
    labels: np.ndarray | None
    boundaries: np.ndarray | None
    energy: float | None
    flow: np.ndarray | None


class Failure(NamedTuple):
    """A video with something wrong: its path, a reason code, a sentence, and the clips kept."""

    path: str
    reason: str
    message: str
    clips: int = 0


def shard_name(name: str, number: int, total: int) -> str:
    """Return the file name of a shard of the set `name`."""
    return f"{name}-{number:05d}-of-{total:05d}.h5"


def set_of(file: Path) -> tuple[str, int, int]:
    """Return set, number and total of a shard's file name.

    Raises
    ------
    LabelgenError
        If it is not a shard's name.
    """
    match = _NAME.fullmatch(file.name)
    if not match:
        raise LabelgenError(f"{file} is not named like a shard, set-00000-of-00001.h5")
    return match["set"], int(match["number"]), int(match["total"])


def seal_of(file: Path) -> Path:
    """Return where the seal of a shard lies."""
    return file.with_suffix(".json")


def read_seal(file: Path) -> dict[str, Any] | None:
    """Return the seal of a shard, None if shard or seal is absent or they do not fit together.

    Looks at names and sizes only; checksums are the business of `labelgen.shards.verify`.
    """
    try:
        seal: dict[str, Any] = json.loads(seal_of(file).read_text(encoding="utf-8"))
        complete = seal["shard"] == file.name and seal["bytes"] == file.stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return seal if complete else None


def software_versions() -> dict[str, str]:
    """Return the versions of everything that decides a shard's bytes."""
    return {
        "labelgen": version("motion-appearance"),
        "opencv": cv2.__version__,
        "numpy": np.__version__,
        "numba": version("numba"),
    }


class ShardWriter:
    """A shard in the making; use as a context manager, then call `seal`.

    Parameters
    ----------
    file : Path
        Final name of the shard.
    settings : ExtractSettings
        What to store.
    manifest_sha256 : str
        Of the manifest rows the shard covers.
    """

    def __init__(self, file: Path, *, settings: ExtractSettings, manifest_sha256: str) -> None:
        self.file = file
        self.clips = 0
        self._partial = file.with_name(file.name + PARTIAL_SUFFIX)
        self._settings = settings
        self._manifest_sha256 = manifest_sha256
        self._videos: list[tuple[ManifestRow, int]] = []
        self._quality = frame_quality(settings.frames)
        self._shard = h5py.File(self._partial, "w", locking="best-effort")
        self._write_attributes()
        self._create_datasets()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._shard.close()
        if kind is not None:
            self._partial.unlink(missing_ok=True)

    def add_clip(self, clip: Clip) -> None:
        """Append a clip of the video that the next `add_video` names."""
        values = {
            "clips/video": len(self._videos),
            "clips/start": clip.start,
            "labels": clip.labels,
            "motion_boundaries": clip.boundaries,
            "motion_energy": clip.energy,
            "flow": clip.flow,
        }
        if self._settings.frames == "raw":
            values["frames"] = clip.frames
        for name, value in values.items():
            if name in self._shard:
                self._grow(name)[self.clips] = value
        if self._quality is not None:
            self._add_jpegs(clip.frames, self._quality)
        self.clips += 1

    def add_video(self, row: ManifestRow, frames: int) -> None:
        """Close a video that gave at least one clip; `frames` were decoded of it."""
        self._videos.append((row, frames))

    def seal(self, failures: Sequence[Failure]) -> None:
        """Write what is known at the end, sync, and give shard and seal their final names."""
        self._write_videos()
        self._shard.close()
        _sync(self._partial)
        digest, size = file_digest(self._partial), self._partial.stat().st_size
        seal_of(self.file).unlink(missing_ok=True)
        self._partial.replace(self.file)
        seal = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "shard": self.file.name,
            "sha256": digest,
            "bytes": size,
            "videos": len(self._videos),
            "clips": self.clips,
            "crops": self._crops,
            "config_hash": self._settings.digest(),
            "manifest_sha256": self._manifest_sha256,
            "failures": [failure._asdict() for failure in failures],
        }
        write_json(seal_of(self.file), seal)

    @property
    def _crops(self) -> int:
        return len(self._shard_crops) if self._settings.labels else 0

    def _write_attributes(self) -> None:
        settings = self._settings
        self._shard_crops = crop_positions(settings.crops, seed=settings.seed)
        config = settings.as_dict()
        attributes = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "profile": settings.profile,
            "flow": canonical_json(config["flow"] if settings.needs_flow else None),
            "clip_length": CLIP_LENGTH,
            "clip_stride": settings.clip_stride,
            "frame_size": np.array(FRAME_SIZE),
            "crop_size": CROP_SIZE,
            "config": canonical_json(config),
            "config_hash": settings.digest(),
            "manifest_sha256": self._manifest_sha256,
        }
        for name, value in attributes.items():
            self._shard.attrs[name] = value
        for name, value in software_versions().items():
            self._shard.attrs[f"{name}_version"] = value

    def _create_datasets(self) -> None:
        settings, crops = self._settings, self._shard_crops
        self._create("clips/video", (), np.int32)
        self._create("clips/start", (), np.int32)
        if settings.labels:
            labels = self._create("labels", (len(crops), len(LABELS)), np.uint8)
            labels.attrs["names"] = [label.name for label in LABELS]
            labels.attrs["cardinality"] = [label.cardinality for label in LABELS]
            self._shard.create_dataset("crops", data=crops)
            self._create("motion_energy", (), np.float32)
        if settings.labels and settings.boundaries:
            self._create("motion_boundaries", (4, *FRAME_SIZE), np.float16)
        if settings.frames == "raw":
            self._create("frames", (CLIP_LENGTH, *FRAME_SIZE, 3), np.uint8)
        elif self._quality is not None:
            self._shard.create_dataset(
                "frames",
                (0, CLIP_LENGTH),
                maxshape=(None, CLIP_LENGTH),
                chunks=(1, CLIP_LENGTH),
                dtype=h5py.vlen_dtype(np.uint8),
            )
        if settings.store_flow != "none":
            self._create("flow", (CLIP_LENGTH - 1, 2, *FRAME_SIZE), settings.store_flow)

    def _create(self, name: str, shape: tuple[int, ...], dtype: Any) -> h5py.Dataset:
        # One clip a chunk; numbers of one per clip lie together instead.
        return self._shard.create_dataset(
            name,
            (0, *shape),
            maxshape=(None, *shape),
            chunks=(1, *shape) if shape else (1024,),
            dtype=dtype,
            **_FILTERS.get(name, _OTHER_FILTERS),
        )

    def _grow(self, name: str) -> h5py.Dataset:
        dataset = self._shard[name]
        dataset.resize(self.clips + 1, axis=0)
        return dataset

    def _add_jpegs(self, frames: np.ndarray, quality: int) -> None:
        dataset = self._grow("frames")
        row = np.empty(CLIP_LENGTH, dtype=object)
        for t, frame in enumerate(frames):
            bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
            row[t] = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        dataset[self.clips] = row

    def _write_videos(self) -> None:
        text = h5py.string_dtype("utf-8")
        rows = [row for row, _ in self._videos]
        columns = {
            "path": ([row.path for row in rows], text),
            "class_name": ([row.class_name for row in rows], text),
            "class_index": ([row.class_index for row in rows], np.int32),
            "frames": ([frames for _, frames in self._videos], np.int32),
        }
        for name, (values, dtype) in columns.items():
            self._shard.create_dataset(f"videos/{name}", data=values, dtype=dtype)


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(file: Path, value: Any) -> None:
    """Write a JSON file so that under its name there is never half of it, even after a crash."""
    partial = file.with_name(file.name + PARTIAL_SUFFIX)
    with partial.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=2, sort_keys=True, ensure_ascii=False)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
    _sync(file.parent)
