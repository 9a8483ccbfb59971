"""One shard in the making: an HDF5 file of labelled clips; docs/shards.md has its layout."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import cv2
import h5py
import numpy as np

from labelgen.errors import StorageError
from labelgen.files import partial_name
from labelgen.geometry import CLIP_LENGTH, CROP_SIZE, FRAME_SIZE
from labelgen.labels.crops import crop_positions
from labelgen.labels.table import LABELS
from labelgen.shards.seal import FORMAT, FORMAT_VERSION, Failure, write_seal
from labelgen.shards.settings import (
    ExtractSettings,
    canonical_json,
    frame_quality,
    software_versions,
)
from labelgen.video.manifest import ManifestRow

# fletcher32 guards every chunk. JPEGs lie in the file's heap, which no filter reaches: of them it
# guards the references only; their bytes are guarded by the seal's SHA-256. Labels of neighbouring
# crops are alike: level 6 packs the 27 kB of all crops into about 1.6 kB. Level 1 saves nearly as
# much on floating-point pixels as level 4 does in half the time. Raw frames are for reading fast,
# so they stay as they are.
_CHECKED: dict[str, Any] = {"fletcher32": True}
_FILTERS = {
    "labels": {"compression": "gzip", "compression_opts": 6, **_CHECKED},
    "frames": _CHECKED,
}
_OTHER_FILTERS = {"compression": "gzip", "compression_opts": 1, "shuffle": True, **_CHECKED}


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
    scratch : Path or None, optional
        Folder to write in until the shard is whole; None writes beside its place.
    """

    def __init__(
        self,
        file: Path,
        *,
        settings: ExtractSettings,
        manifest_sha256: str,
        scratch: Path | None = None,
    ) -> None:
        self.file = file
        self.clips = 0
        self._place = file if scratch is None else scratch / file.name
        self._partial = partial_name(self._place)
        self._settings = settings
        self._manifest_sha256 = manifest_sha256
        self._videos: list[tuple[ManifestRow, int]] = []
        self._quality = frame_quality(settings.frames)
        self._datasets: dict[str, h5py.Dataset] = {}
        with self._writing(), ExitStack() as undo:
            undo.callback(self._partial.unlink, missing_ok=True)
            self._shard = h5py.File(self._partial, "w", locking="best-effort")
            self._write_attributes()
            self._create_datasets()
            undo.pop_all()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._shard.close()
        else:
            self.discard()

    def discard(self) -> None:
        """Delete what was written, in place of `seal`, and let HDF5 write what it holds to nowhere.

        On a full disk it could not close the file otherwise, and would crash when the process ends.
        """
        self._partial.unlink(missing_ok=True)
        # After a failed write it may not even then; the error that led here is what counts.
        with suppress(OSError, RuntimeError):
            if self._shard:
                with open(os.devnull, "r+b", buffering=0) as nowhere:
                    os.dup2(nowhere.fileno(), self._shard.id.get_vfd_handle())
            self._datasets.clear()
            self._shard.close()

    def add_clip(self, clip: Clip) -> None:
        """Append a clip of the video that the next `add_video` names.

        Raises
        ------
        StorageError
            If there is no room for it.
        """
        with self._writing():
            self._add_clip(clip)
            # What HDF5 cannot write when it drops a dataset or closes a file it does not always
            # tell; when it is asked to write, it does.
            self._shard.flush()

    def _add_clip(self, clip: Clip) -> None:
        values = {
            "clips/video": len(self._videos),
            "clips/start": clip.start,
            "labels": clip.labels,
            "motion_boundaries": clip.boundaries,
            "motion_energy": clip.energy,
            "flow": self._stored_flow(clip.flow),
        }
        if self._settings.frames == "raw":
            values["frames"] = clip.frames
        for name, value in values.items():
            if name in self._datasets:
                self._grow(name)[self.clips] = value
        if self._quality is not None:
            self._add_jpegs(clip.frames, self._quality)
        self.clips += 1

    def _stored_flow(self, flow: np.ndarray | None) -> np.ndarray | None:
        if flow is None or self._settings.store_flow == "none":
            return None
        # Displacements beyond a type's range are stored as its largest, as boundaries are.
        limit = np.finfo(self._settings.store_flow).max
        return flow.clip(-limit, limit).astype(self._settings.store_flow)

    def add_video(self, row: ManifestRow, frames: int) -> None:
        """Close a video that gave at least one clip; `frames` were decoded of it."""
        self._videos.append((row, frames))

    def seal(self, failures: Sequence[Failure]) -> None:
        """Write what is known at the end, and let shard and seal take their final names.

        Raises
        ------
        StorageError
            If there is no room for it.
        """
        content = {
            "videos": len(self._videos),
            "clips": self.clips,
            "crops": self._crops,
            "config_hash": self._settings.digest(),
            "manifest_sha256": self._manifest_sha256,
            "failures": [failure._asdict() for failure in failures],
        }
        with self._writing():
            self._write_videos()
            self._shard.flush()
            self._datasets.clear()
            self._shard.close()
            self._place = self.file
            write_seal(self._partial, self.file, content)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # HDF5 raises either when the disk is full
            raise StorageError(f"cannot write {self._place}: {_what_failed(error)}") from error

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
            self._datasets["frames"] = self._shard.create_dataset(
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
        self._datasets[name] = self._shard.create_dataset(
            name,
            (0, *shape),
            maxshape=(None, *shape),
            chunks=(1, *shape) if shape else (1024,),
            dtype=dtype,
            **_FILTERS.get(name, _OTHER_FILTERS),
        )
        return self._datasets[name]

    def _grow(self, name: str) -> h5py.Dataset:
        dataset = self._datasets[name]
        dataset.resize(self.clips + 1, axis=0)
        return dataset

    def _add_jpegs(self, frames: np.ndarray, quality: int) -> None:
        dataset = self._grow("frames")
        row = np.empty((1, CLIP_LENGTH), dtype=dataset.dtype)
        for t, frame in enumerate(frames):
            bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
            row[0, t] = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        # By way of the low-level call: ``dataset[clip] = row`` takes 16 JPEGs of one length, as a
        # still clip has, for a two-dimensional array.
        place = dataset.id.get_space()
        place.select_hyperslab((self.clips, 0), row.shape)
        dataset.id.write(h5py.h5s.create_simple(row.shape), place, row)

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


def _what_failed(error: OSError | RuntimeError) -> str:
    number = getattr(error, "errno", None)
    if number is None:
        # HDF5 puts the system's own number into a sentence of its own.
        found = re.search(r"errno = (\d+)", str(error))
        number = int(found[1]) if found else None
    return os.strerror(number) if number else str(error).splitlines()[0]
