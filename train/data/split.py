"""What is trained on and what is held out: whole videos, whole groups of them, never one twice."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from labelgen import flip_labels
from labelgen.labels.crops import central_crop
from labelgen.shards.folder import RUN_FILE
from train import TrainError
from train.data.shards import ShardSet, open_shards
from train.metrics import VALUES
from train.recipe import Recipe

UCF101_GROUP = r"(v_[^/]+_g\d+)_c\d+\.[^/.]+$"
"""UCF101 cuts v_Class_gNN_c01, c02, ... from one recording: gNN of the class."""
_SAMPLED = 50_000


@dataclass(frozen=True, eq=False)
class Data:
    """Shards and the clips of them to train on and to hold out.

    Attributes
    ----------
    train, held : ShardSet
        `held` is None where nothing is held out.
    train_clips, held_clips : (N,) int64
        Numbers of clips in their sets, rising.
    """

    train: ShardSet
    train_clips: np.ndarray
    held: ShardSet | None
    held_clips: np.ndarray

    def record(self) -> dict[str, str]:
        """Return what decides what can be learnt from it, to compare runs and ranks by."""
        return {
            "labels": self.train.config_hash,
            "shards": self.train.content,
            "clips": _digest(self.train_clips),
            "held-out shards": self.held.content if self.held else "none",
            "held-out clips": _digest(self.held_clips),
            "profile": self.train.profile,
            "flow": self.train.flow,
        }


def _digest(clips: np.ndarray) -> str:
    return f"{len(clips)} clips, {hashlib.sha256(clips.astype('<i8').tobytes()).hexdigest()[:16]}"


def open_data(
    labels: str,
    val: str,
    *,
    recipe: Recipe,
    group_by: str | None = None,
    labelled: bool = True,
) -> Data:
    """Open and check all shards; hold out videos where `val` is a fraction rather than a folder.

    Parameters
    ----------
    labels, val : str
        Shards, as for `open_shards`; or `val` is the share of the videos of `labels` to hold out.
    recipe : Recipe
        Of it, `drop_still`.
    group_by : str, optional
        Regular expression that finds a video's group in its path; groups stay whole. Without one,
        videos named as UCF101's go by their recording, and others are groups of their own.
    labelled : bool, optional
        Whether labels are needed, and must be of one kind on both sides.

    Raises
    ------
    LabelgenError
        See `open_shards`.
    TrainError
        Held-out and training videos overlap or differ in profile or flow, a fraction or expression
        that makes no sense, or no clip left.
    """
    train = open_shards(labels, labels=labelled)
    clips, held, held_clips = np.arange(train.clips), None, np.arange(0)
    fraction = _fraction(val)
    if fraction is None:
        held = open_shards(val, labels=labelled)
        held_clips = np.arange(held.clips)
        if labelled and (held.profile, held.flow) != (train.profile, train.flow):
            raise TrainError(f"{labels} and {val} hold labels of different profiles or flows.")
        _check_apart(train, held, f"{labels} and {val}", group_by=group_by)
    elif not fraction and group_by is not None:
        raise TrainError("With --val 0 nothing is held out, and --group-by has nothing to do.")
    elif fraction:
        held = train
        paths, numbers = train.videos()
        clips, held_clips = hold_out(paths, numbers, fraction, group_by=group_by)
    if recipe.drop_still:
        clips = clips[train.motion_energy()[clips] >= recipe.drop_still]
        if held is not None:
            held_clips = held_clips[held.motion_energy()[held_clips] >= recipe.drop_still]
    if not len(clips) or (held is not None and not len(held_clips)):
        raise TrainError(
            f"--drop-still {recipe.drop_still} leaves no clips to train on or to hold out."
        )
    return Data(train, clips, held, held_clips)


def _fraction(val: str) -> float | None:
    try:
        fraction = float(val)
    except ValueError:
        if not Path(val).exists() and not Path(val).parent.joinpath(RUN_FILE).exists():
            raise TrainError(
                f"--val {val!r} is neither a folder of shards nor a fraction such as 0.05."
            ) from None
        return None
    if not 0 <= fraction < 1:
        raise TrainError(f"--val takes a folder or a fraction from 0 to below 1, not {val}.")
    return fraction


def _check_apart(train: ShardSet, held: ShardSet, both: str, *, group_by: str | None) -> None:
    trained, kept = train.known_by(), held.known_by()
    # Numbered files have the same names in many folders, so that a name alone says little.
    shared = {path for path in trained.keys() & kept.keys() if _alike(*trained[path], *kept[path])}
    groups = {name: path for path in kept if (name := group_of(path, group_by)) != path}
    for path in trained:
        other = groups.get(group_of(path, group_by))
        if other is not None and not shared:
            raise TrainError(
                f"{both} share a group of videos: {path} is trained on and {other} held out. "
                "Name another --val, or a fraction such as --val 0.05."
            )
    if shared:
        raise TrainError(
            f"{both} share {len(shared)} videos (first: {min(shared)}); what is held out must not "
            "be trained on. Name another --val, or a fraction such as --val 0.05."
        )


def _alike(frames: int, energy: float, other_frames: int, other_energy: float) -> bool:
    """Whether two videos of one path are one, by their frames and motion energy, if it is known."""
    if frames != other_frames or math.isnan(energy) or math.isnan(other_energy):
        return frames == other_frames
    # The last bits of the energy are the processor's.
    return math.isclose(energy, other_energy, rel_tol=0.01, abs_tol=1e-6)


def hold_out(
    paths: list[str], videos: np.ndarray, fraction: float, *, group_by: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Choose clips to train on and to hold out; no group of videos is on both sides.

    The choice is a function of the paths alone, so that it is the same for every seed. Whether a
    group is held out is a matter of its own name, so that it stays on its side when videos are
    added; but where no name says so one is held out all the same, and where all do one is not.

    Parameters
    ----------
    paths : list of str
        Of the videos.
    videos : (N,) int64
        The number of each clip's video among `paths`.
    fraction : float
        About which share of the groups to hold out, at least one and not all. Of few groups the
        share that is held out may be far from it.
    group_by : str, optional
        As in `open_data`.

    Returns
    -------
    train, held_out : int64 arrays
        Clip numbers, rising.

    Raises
    ------
    TrainError
        There is only one group, or an expression that is none or does not fit a path.
    """
    groups: dict[str, list[int]] = {}
    for number, path in enumerate(paths):
        groups.setdefault(group_of(path, group_by), []).append(number)
    if len(groups) < 2:
        whole = "video" if len(paths) == 1 else "group of videos"
        raise TrainError(
            f"A held-out split needs two videos, and here is one {whole}; use --val 0."
        )
    shares = {name: _share(name) for name in groups}
    below = sum(share < fraction for share in shares.values())
    chosen = sorted(groups, key=shares.__getitem__)[: min(max(below, 1), len(groups) - 1)]
    held = np.isin(videos, [number for name in chosen for number in groups[name]])
    return np.flatnonzero(~held), np.flatnonzero(held)


def _share(name: str) -> float:
    """Return a number in [0, 1) that is a group's own: any that has nothing to do with the name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def group_of(path: str, group_by: str | None) -> str:
    """Return what names the group of a video, see `open_data`; its path where it is its own."""
    if group_by is None:
        found = re.search(UCF101_GROUP, path, re.IGNORECASE)
        # Lists and folders of UCF101 disagree about capitals.
        return found[1].lower() if found else path
    try:
        found = re.search(group_by, path)
    except re.error as error:
        raise TrainError(f"--group-by {group_by!r} is no regular expression: {error}.") from None
    if found is None:
        raise TrainError(f"--group-by {group_by!r} fits nothing in the video's path {path}.")
    return "\0".join(part or "" for part in found.groups()) if found.groups() else found[0]


def label_knowledge(data: Data) -> dict[str, torch.Tensor]:
    """Return what is known of labels beforehand: those of the central crop and its mirror image.

    Of more than 50,000 clips, as many are taken at even distances: the mean is then known to half
    a hundredth of the deviation, and four million clips need not be read for it.

    Returns
    -------
    dict of str to tensor
        ``moments`` (2, 27) float32, mean and standard deviation; ``counts`` (27, 17) int64, how
        often each label has each value from 0.
    """
    clips = data.train_clips[:: -(-len(data.train_clips) // _SAMPLED)]
    stored = data.train.crop_labels(central_crop(data.train.crops), clips)
    both = np.concatenate([stored, flip_labels(stored, profile=data.train.profile)])
    counts = [np.bincount(column, minlength=VALUES) for column in both.T]
    both = both.astype(float)
    # A constant label would divide by zero; it keeps its unit.
    std = np.where(both.std(axis=0) > 0, both.std(axis=0), 1.0)
    moments = np.stack([both.mean(axis=0), std]).astype(np.float32)
    return {"moments": torch.from_numpy(moments), "counts": torch.from_numpy(np.stack(counts))}
