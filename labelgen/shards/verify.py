"""Verification: whether a shard folder is complete, undamaged and consistent (docs/shards.md)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from labelgen.files import partials_in
from labelgen.geometry import MAX_LEFT, MAX_TOP
from labelgen.labels.table import LABELS
from labelgen.progress import count_text, each
from labelgen.shards.folder import (
    find_shard_folder,
    planned_digests,
    planned_files,
    read_run,
    shard_files,
)
from labelgen.shards.generations import rows_file, rows_problems
from labelgen.shards.reader import open_shard
from labelgen.shards.seal import FORMAT, FORMAT_VERSION, file_digest, is_whole, seal_of, set_of

_BLOCK = 256


def find_problems(path: Path, *, workers: int = 1) -> tuple[int, list[str]]:
    """Check every shard of a folder.

    Parameters
    ----------
    path : Path
        The shard folder.
    workers : int, optional
        Threads.

    Returns
    -------
    checked : int
        Shards looked at.
    problems : list of str
        One sentence each, beginning with the file; empty if all is well.

    Raises
    ------
    LabelgenError
        If there is no shard folder at `path` or its run record is damaged.
    """
    folder = find_shard_folder(path)
    run = read_run(folder)
    files = shard_files(folder)
    problems = [*_rows_problems(folder, run), *_folder_problems(folder, run, files)]

    digests = planned_digests(folder, run)

    def check(file: Path) -> list[str]:
        rows = digests.get(file.name)
        return [f"{file.name}: {problem}" for problem in _shard_problems(file, run, rows)]

    for found in each(check, files, workers=workers, unit="shards"):
        problems += found
    return len(files), problems


def _rows_problems(folder: Path, run: dict[str, Any]) -> Iterator[str]:
    for name, problem in rows_problems(folder, run).items():
        yield f"{rows_file(folder, name).name}: {problem}"


def _folder_problems(folder: Path, run: dict[str, Any], files: list[Path]) -> Iterator[str]:
    present: defaultdict[str, set[str]] = defaultdict(set)
    for file in files:
        present[set_of(file)[0]].add(file.name)
    for name, files_of_set in planned_files(folder, run).items():
        planned = {file.name for file in files_of_set}
        for missing in sorted(planned - present[name]):
            yield f"{missing}: is planned but absent; run the same extract command again"
        for stray in sorted(present[name] - planned):
            yield f"{stray}: is not in the plan of {count_text(len(planned), 'shard')}"
    for name in sorted(set(present) - set(run["plan"])):
        yield f"{min(present[name])}: the set {name} is not in the plan"
    for file, partial in partials_in(folder):
        if partial.file.endswith((".h5", ".json", ".csv")):
            yield f"{file.name}: was being written when a run was killed, or still is"


def _shard_problems(file: Path, run: dict[str, Any], rows: str | None) -> Iterator[str]:
    try:
        seal = json.loads(seal_of(file).read_text(encoding="utf-8"))
        if not is_whole(seal):
            raise ValueError
    except FileNotFoundError:
        yield f"has no seal {seal_of(file).name}; run the same extract command again"
        return
    except (OSError, ValueError, TypeError):
        yield f"its seal {seal_of(file).name} is damaged; run the same extract command again"
        return
    if seal["shard"] != file.name:
        yield f"its seal is that of {seal['shard']}"
    if seal["config_hash"] != run["config_hash"]:
        yield "was made with other settings than run.json records"
    if rows is not None and seal["manifest_sha256"] != rows:
        yield "is of other videos than are planned for it; delete it and extract again"
    try:
        size = file.stat().st_size
        if size != seal["bytes"]:
            yield (
                f"has {size} bytes, its seal says {seal['bytes']}; run the same extract command "
                "again"
            )
        elif file_digest(file) != seal["sha256"]:
            yield "differs from its seal's SHA-256: damaged or changed; delete it and extract again"
        else:
            # Only what is whole is opened: a wrong byte can let HDF5 search without end.
            with open_shard(file) as shard:
                yield from _version_problems(shard, run)
                yield from _content_problems(shard, seal)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, IndexError) as error:
        yield f"cannot be read as a shard: {error}"


def _version_problems(shard: h5py.File, run: dict[str, Any]) -> Iterator[str]:
    for name, version in run["versions"].items():
        made_by = shard.attrs.get(f"{name}_version", version)
        if made_by != version:
            yield f"was made by {name} {made_by}, the run by {version}; delete it and extract again"


def _content_problems(shard: h5py.File, seal: dict[str, Any]) -> Iterator[str]:
    found = (shard.attrs.get("format"), shard.attrs.get("format_version"))
    if found != (FORMAT, FORMAT_VERSION):
        yield f"has format {found}, expected {(FORMAT, FORMAT_VERSION)}"
        return
    for key in ("config_hash", "manifest_sha256"):
        if shard.attrs[key] != seal[key]:
            yield f"its attribute {key} differs from the seal's"
    clips, videos = len(shard["clips/video"]), len(shard["videos/path"])
    if (clips, videos) != (seal["clips"], seal["videos"]):
        yield (
            f"holds {count_text(clips, 'clip')} of {count_text(videos, 'video')}, "
            f"its seal says {seal['clips']} of {seal['videos']}"
        )
    crops = shard["labels"].shape[1] if "labels" in shard else 0
    if crops != seal["crops"]:
        yield f"has labels of {count_text(crops, 'crop')}, its seal says {seal['crops']}"
    for name in ("labels", "motion_boundaries", "motion_energy", "frames", "flow", "clips/start"):
        if name in shard and len(shard[name]) != clips:
            rows = count_text(len(shard[name]), "row")
            yield f"{name} has {rows} for {count_text(clips, 'clip')}"
    yield from _clip_problems(shard)
    if "labels" in shard:
        yield from _label_problems(shard)
        # The mean over the frame: finite if and only if all of the flow was.
        yield from _not_finite(shard, "motion_energy")
    if "flow" in shard:
        yield from _not_finite(shard, "flow")


def _not_finite(shard: h5py.File, name: str) -> Iterator[str]:
    values = shard[name]
    block = _BLOCK if values.ndim == 1 else 1
    for first in range(0, len(values), block):
        wrong = ~np.isfinite(values[first : first + block])
        if wrong.any():
            yield f"clip {first + np.argwhere(wrong)[0][0]}: {name} is not finite"
            return


def _clip_problems(shard: h5py.File) -> Iterator[str]:
    video, start = shard["clips/video"][:], shard["clips/start"][:]
    frames = shard["videos/frames"][:]
    if ((video < 0) | (video >= len(frames))).any():
        yield "clips/video names videos that are not there"
    elif ((start < 0) | (start + shard.attrs["clip_length"] > frames[video])).any():
        yield "clips/start lies outside its video"
    if set(np.unique(video)) != set(range(len(frames))):
        yield "some video has no clip"


def _label_problems(shard: h5py.File) -> Iterator[str]:
    labels, crops = shard["labels"], shard["crops"][:]
    if list(labels.attrs["names"]) != [label.name for label in LABELS]:
        yield "labels have other names than this version's"
    if len(crops) != labels.shape[1]:
        yield f"has {count_text(len(crops), 'crop')} but labels of {labels.shape[1]}"
    if ((crops < 0) | (crops > [MAX_TOP, MAX_LEFT])).any():
        yield "some crop lies outside the frame"
    # The released code marks grid labels without motion by 0.
    lowest = 0 if shard.attrs["profile"] == "authors" else 1
    highest = np.array([label.cardinality for label in LABELS])
    for first in range(0, len(labels), _BLOCK):
        block = labels[first : first + _BLOCK]
        wrong = (block < lowest) | (block > highest)
        if wrong.any():
            clip, crop, label = np.argwhere(wrong)[0]
            yield (
                f"clip {first + clip}, crop {crop}: {LABELS[label].name} is "
                f"{block[clip, crop, label]}, not in {lowest}..{highest[label]}"
            )
            return
