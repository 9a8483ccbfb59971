"""The shards of a folder as one sequence of clips, for notebooks: ``labelgen.Shards``."""

from __future__ import annotations

import copy
import operator
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, overload

import cv2
import h5py
import numpy as np

from labelgen.errors import LabelgenError
from labelgen.labels.table import LABELS
from labelgen.page import Html, element, picture
from labelgen.progress import count_text
from labelgen.shards.folder import find_shard_folder, planned_files, read_run
from labelgen.shards.index import Gathered
from labelgen.shards.reader import open_shard, read_frames
from labelgen.shards.seal import read_seal

_SHOWN = 6
_MIDDLE = 8
_QUALITY = 85


class ClipRow(NamedTuple):
    """What is small of one clip.

    Attributes
    ----------
    video : str
        Path, relative to the data root.
    start : int
        First frame in the video, 0-based.
    class_name : str
        Empty where there is none.
    labels : dict of str to int
        Of the central crop, by name; empty where none are stored.
    """

    video: str
    start: int
    class_name: str
    labels: dict[str, int]


class _Folder:
    """The sealed shards of a folder, each opened when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = find_shard_folder(path)
        self.config = read_run(self.path)
        sets = planned_files(self.path, self.config)
        planned = [(name, file) for name, files in sets.items() for file in files]
        seals = [(name, file, read_seal(file)) for name, file in planned]
        self.planned = len(planned)
        self._sealed = [(name, file, seal) for name, file, seal in seals if seal]
        self._ends = np.cumsum([seal["clips"] for *_, seal in self._sealed], dtype=np.int64)
        self.clips = int(self._ends[-1]) if self._sealed else 0
        self.videos = sum(seal["videos"] for *_, seal in self._sealed)
        self.sealed = len(self._sealed)
        self.files = [file for _, file, _ in self._sealed]

    @contextmanager
    def open(self, clip: int) -> Iterator[tuple[h5py.File, int]]:
        """Open the shard that holds a clip, and give the clip's row there."""
        number = int(np.searchsorted(self._ends, clip, side="right"))
        _, file, seal = self._sealed[number]
        try:
            with open_shard(file) as shard:
                yield shard, int(clip - (self._ends[number] - seal["clips"]))
        except (OSError, RuntimeError) as error:
            raise LabelgenError(
                f"{file} cannot be read ({str(error).splitlines()[0]}); `labelgen verify` says more"
            ) from None

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        gathered = Gathered()
        for number, (name, file, _) in enumerate(self._sealed):
            with open_shard(file) as shard:
                gathered.add(shard, number=number, set_name=name)
        return gathered.columns()

    @cached_property
    def crops(self) -> np.ndarray:
        for _, file, _ in self._sealed:
            with open_shard(file) as shard:
                if "crops" in shard:
                    return np.asarray(shard["crops"][:])
        return np.empty((0, 2), np.int16)


class Shards:
    """The clips of all sealed shards of a folder, in order; each is read when it is asked for.

    ``shards[3]`` is what is small of a clip; ``shards[10:20]``, and any array of numbers or of
    truth values, are those clips as shards again.

    Parameters
    ----------
    path : path-like
        The shard folder. One that is still being made shows what is sealed so far.

    Raises
    ------
    LabelgenError
        If there is no shard folder at `path`, or it is damaged.

    Examples
    --------
    >>> shards = Shards("shards/demo")
    >>> shards.frames(3).shape
    (16, 128, 171, 3)
    """

    names = tuple(label.name for label in LABELS)
    """The names of the 27 labels."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._folder = _Folder(Path(path))
        self._chosen = np.arange(self._folder.clips)

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, key: int) -> ClipRow: ...

    @overload
    def __getitem__(self, key: slice | np.ndarray | list[int]) -> Shards: ...

    def __getitem__(self, key: int | slice | np.ndarray | list[int]) -> ClipRow | Shards:
        if isinstance(key, slice | np.ndarray | list):
            part = copy.copy(self)
            part._chosen = self._chosen[key]
            return part
        clip = self._clip(key)
        columns = self._folder.columns
        labels = columns["labels"][clip, 0].tolist() if "labels" in columns else []
        video = columns["clips/video"][clip]
        return ClipRow(
            *self.video(key),
            class_name=columns["videos/class_name"][video].decode(),
            labels=dict(zip(self.names, labels, strict=False)),
        )

    def _clip(self, i: int) -> int:
        """Return the number of the i-th clip among those of the folder."""
        try:
            return int(self._chosen[operator.index(i)])
        except IndexError:
            raise IndexError(
                f"there is no clip {i} in {self._folder.path}: {count_text(len(self), 'clip')}"
            ) from None

    @property
    def path(self) -> Path:
        """The shard folder."""
        return self._folder.path

    @property
    def files(self) -> list[Path]:
        """The sealed shards, in order."""
        return self._folder.files

    @property
    def profile(self) -> str:
        """Whose conventions the labels follow."""
        return str(self._folder.config["config"].get("profile", "paper"))

    @property
    def has_frames(self) -> bool:
        """Whether frames are stored."""
        return self._folder.config["config"].get("frames") != "none"

    @property
    def labels(self) -> np.ndarray:
        """(N, 27) uint8, the labels of the most central stored crop, from 1.

        Raises
        ------
        LabelgenError
            If none are stored.
        """
        return self._column("labels")[:, 0]

    @property
    def energy(self) -> np.ndarray:
        """(N,) float32, mean of ``|M_u| + |M_v|`` over the frame: 0 for a still clip."""
        return self._column("motion_energy")

    def _column(self, name: str) -> np.ndarray:
        if name not in self._folder.columns:
            raise self._no_labels()
        return self._folder.columns[name][self._chosen]

    def _no_labels(self) -> LabelgenError:
        if not self._folder.clips:
            return LabelgenError(f"{self.path} holds no clip yet; labelgen extract makes them")
        return LabelgenError(f"{self.path} holds no labels: it was extracted with --no-labels")

    @property
    def crops(self) -> np.ndarray:
        """(K, 2) int16, top and left of the crops whose labels are stored."""
        return self._folder.crops

    def video(self, i: int) -> tuple[str, int]:
        """Return the path of clip i's video, relative to the data root, and its first frame."""
        columns, clip = self._folder.columns, self._clip(i)
        path = columns["videos/path"][columns["clips/video"][clip]].decode()
        return path, int(columns["clips/start"][clip])

    def find(self, video: str, start: int | None = None) -> int:
        """Return the number of a video's clip.

        Parameters
        ----------
        video : str
            Its path relative to the data root, or the end of it.
        start : int, optional
            First frame of the clip, 0-based; by default the first clip.

        Raises
        ------
        LabelgenError
            If there is no such video, there are several, or no clip of it begins there.
        """
        columns = self._folder.columns
        paths = [path.decode() for path in columns.get("videos/path", ())]
        found = [k for k, path in enumerate(paths) if path == video] or [
            k for k, path in enumerate(paths) if path.endswith(f"/{video}")
        ]
        if len(found) != 1:
            several = f"several videos {video}, such as {paths[found[0]]}" if found else ""
            raise LabelgenError(
                f"{self.path} holds {several or f'no clip of a video {video}'}; name it as its "
                "manifest does"
            )
        clips = np.flatnonzero(columns["clips/video"][self._chosen] == found[0])
        starts = columns["clips/start"][self._chosen][clips].tolist()
        if start is None and starts:
            return int(clips[0])
        if not starts:
            raise LabelgenError(f"no clip of {video} is among these {len(self)}")
        if start not in starts:
            raise LabelgenError(
                f"no clip of {video} begins at frame {start}; clips begin at "
                f"{', '.join(map(str, starts[:8]))}{', ...' if len(starts) > 8 else ''}"
            )
        return int(clips[starts.index(start)])

    def frames(self, i: int) -> np.ndarray:
        """Return the frames of clip i, (16, 128, 171, 3) uint8 RGB.

        Raises
        ------
        LabelgenError
            If none are stored, or one is damaged.
        """
        with self._folder.open(self._clip(i)) as (shard, row):
            return read_frames(shard, row)

    def crop(self, i: int, top: int, left: int) -> np.ndarray:
        """Return the labels of one crop of clip i, (27,) uint8, from 1.

        Parameters
        ----------
        i : int
        top, left : int
            Of the crop in the frame, 0..16 and 0..59 pixels.

        Raises
        ------
        LabelgenError
            If the labels of this crop are not stored.
        """
        crops = self.crops.astype(np.int64)
        if not len(crops):
            raise self._no_labels()
        away = np.abs(crops - [top, left]).sum(axis=1)
        if away.min():
            near = tuple(crops[away.argmin()].tolist())
            raise LabelgenError(
                f"{self.path} holds labels of {count_text(len(crops), 'crop')}, and none of top "
                f"{top}, left {left}; the nearest is {near[0]},{near[1]}"
            )
        with self._folder.open(self._clip(i)) as (shard, row):
            return np.asarray(shard["labels"][row, int(away.argmin())])

    def all_crops(self, i: int) -> np.ndarray:
        """Return the labels of all crops of clip i that are stored, (K, 27) uint8, from 1.

        Raises
        ------
        LabelgenError
            If none are stored.
        """
        if not len(self.crops):
            raise self._no_labels()
        with self._folder.open(self._clip(i)) as (shard, row):
            return np.asarray(shard["labels"][row])

    def motion_boundaries(self, i: int) -> np.ndarray | None:
        """Return M_u = (x, y) and M_v = (x, y) of clip i, (4, 128, 171) float32, if stored."""
        return self._array("motion_boundaries", i)

    def flow(self, i: int) -> np.ndarray | None:
        """Return the flow of clip i, (15, 2, 128, 171) float32 in pixels, if stored."""
        return self._array("flow", i)

    def _array(self, name: str, i: int) -> np.ndarray | None:
        with self._folder.open(self._clip(i)) as (shard, row):
            return shard[name][row].astype(np.float32) if name in shard else None

    def __repr__(self) -> str:
        folder = self._folder
        if len(self) < folder.clips:
            return f"Shards({str(self.path)!r}): {len(self)} of {count_text(folder.clips, 'clip')}"
        missing = f", {folder.planned - folder.sealed} more not made yet"
        return (
            f"Shards({str(self.path)!r}): {count_text(folder.clips, 'clip')} of "
            f"{count_text(folder.videos, 'video')} in {count_text(folder.sealed, 'shard')}"
            f"{missing if folder.sealed < folder.planned else ''}"
        )

    def _repr_html_(self) -> str:
        strip = self._strip()
        return element("div", element("p", repr(self)), strip)

    def _strip(self) -> Html:
        """Return the middle frames of a few clips, side by side; nothing where none are stored."""
        shown = np.linspace(0, len(self) - 1, min(_SHOWN, len(self))).round().astype(int).tolist()
        try:
            frames = [self.frames(i)[_MIDDLE] for i in shown]
        except LabelgenError:
            frames = []
        if not frames:
            return Html("")
        bgr = cv2.cvtColor(np.hstack(frames), cv2.COLOR_RGB2BGR)
        _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        alt = f"Frames of clips {', '.join(map(str, shown))}"
        return picture(jpeg.tobytes(), alt, kind="image/jpeg")
