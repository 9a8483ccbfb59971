"""The classes of videos: their names, and the number of each clip's among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labelgen.shards.folder import known_rows
from labelgen.shards.generations import set_of_generation
from labelgen.shards.seal import set_of
from train import TrainError
from train.data.shards import ShardSet, opened
from train.metrics import NO_CLASS


@dataclass(frozen=True, eq=False)
class Videos:
    """The videos of a set of shards, those without a clip at the end.

    Attributes
    ----------
    paths : list of str
    class_names : list of str
        Empty for a video without a class. A class that has a number and no name is called by it.
    class_indices : list of int
        As the manifest has them; -1 for none.
    of_clip : (clips,) int64
        The video of each clip.
    """

    paths: list[str]
    class_names: list[str]
    class_indices: list[int]
    of_clip: np.ndarray

    @property
    def without_clips(self) -> list[str]:
        """Paths of the videos that the manifest lists and that gave no clip."""
        return self.paths[int(self.of_clip.max()) + 1 :]

    def classes(self) -> tuple[str, ...]:
        """Names of all classes, in the order of their numbers."""
        named = {n: (i, n) for n, i in zip(self.class_names, self.class_indices, strict=True) if n}
        return tuple(name for _, name in sorted(named.values()))

    def numbers(self, classes: Sequence[str]) -> np.ndarray:
        """(videos,) int64: the place of each video's class among `classes`, or `NO_CLASS`."""
        places = {name: place for place, name in enumerate(classes)}
        return np.array([places.get(name, NO_CLASS) for name in self.class_names], np.int64)


def videos_of(shards: ShardSet) -> Videos:
    """Read what is known of the videos of a set, whether they gave clips or not.

    Those that gave none are known where the folder keeps the rows that its plan is of.
    """
    paths, of_clip = shards.videos()
    stored, listed = _stored(shards), _listed(shards)
    paths += [path for path in listed if path not in stored]
    indices, names = zip(*(stored.get(path) or listed[path] for path in paths), strict=True)
    return Videos(paths, list(names), list(indices), of_clip)


def _stored(shards: ShardSet) -> dict[str, tuple[int, str]]:
    """By path, number and name of the class of every video that gave clips."""
    found = {}
    for shard in shards.shards:
        with opened(shard) as file:
            paths, names = (file[f"videos/{key}"].asstr()[:] for key in ("path", "class_name"))
            indices = file["videos/class_index"][:].tolist()
        for path, name, index in zip(paths, names, indices, strict=True):
            found[path] = index, _name(name, index)
    return found


def _listed(shards: ShardSet) -> dict[str, tuple[int, str]]:
    """By path, the same of every row that the shards were planned of."""
    folder = shards.shards[0].path.parent
    sets = {set_of_generation(set_of(shard.path)[0]) for shard in shards.shards}
    return {
        row.path: (row.class_index, _name(row.class_name, row.class_index))
        for name, rows in known_rows(folder).items()
        if set_of_generation(name) in sets
        for row in rows
    }


def _name(class_name: str, class_index: int) -> str:
    return class_name or (str(class_index) if class_index >= 0 else "")


def checked_classes(videos: Videos, where: str) -> tuple[str, ...]:
    """Return the classes of videos that are to be told apart.

    Raises
    ------
    TrainError
        Videos without a class, or fewer than two classes.
    """
    nameless = [path for path, n in zip(videos.paths, videos.class_names, strict=True) if not n]
    if nameless:
        raise TrainError(
            f"{len(nameless)} videos of {where} have no class (first: {nameless[0]}); extract from "
            "a manifest with the column class_name."
        )
    classes = videos.classes()
    if len(classes) < 2:
        raise TrainError(f"{where} holds one class, {classes[0]}; there is nothing to tell apart.")
    return classes
