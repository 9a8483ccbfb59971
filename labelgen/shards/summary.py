"""The summary of a shard folder: what is there, its size, and the distribution of every label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from labelgen.geometry import MAX_LEFT, MAX_TOP
from labelgen.labels.table import LABELS
from labelgen.progress import count_text, each, size_text
from labelgen.shards.folder import FAILURES_FILE, find_shard_folder, planned_files, read_run
from labelgen.shards.reader import open_shard
from labelgen.shards.seal import failures_of, read_seal

_BARS = " ▁▂▃▄▅▆▇█"
_BLOCK = 256
_CROPS = (MAX_TOP + 1) * (MAX_LEFT + 1)


def summary_lines(path: Path, *, workers: int = 1) -> Iterator[str]:
    """Yield the summary of a shard folder for people, line by line.

    Parameters
    ----------
    path : Path
        The shard folder.
    workers : int, optional
        Threads.

    Yields
    ------
    str

    Raises
    ------
    LabelgenError
        If there is no shard folder at `path` or its run record is damaged.
    """
    folder = find_shard_folder(path)
    run = read_run(folder)
    planned = planned_files(folder, run)
    for name, files in planned.items():
        yield _set_line(name, files)
    sealed = [file for files in planned.values() for file in files if read_seal(file) is not None]
    yield from _failure_lines(sealed)
    config = run["config"]
    yield f"clips   {config['clip_length']} frames, one every {config['clip_stride']}"
    if config["labels"]:
        yield f"flow    {', '.join(f'{key} {value}' for key, value in config['flow'].items())}"
    yield f"crops   {config['crops']}, profile {config['profile']}"
    yield from _array_lines(sealed)
    if config["labels"]:
        yield from _label_lines(sealed, workers)


def _set_line(name: str, files: Sequence[Path]) -> str:
    seals = [seal for seal in map(read_seal, files) if seal]
    size = sum(seal["bytes"] for seal in seals)
    clips = sum(seal["clips"] for seal in seals)
    return (
        f"{name}: {len(seals)} of {count_text(len(files), 'shard')} sealed, "
        f"{count_text(sum(seal['videos'] for seal in seals), 'video')}, "
        f"{count_text(clips, 'clip')}, {size_text(size)}"
    )


def _failure_lines(files: Sequence[Path]) -> Iterator[str]:
    seals = [seal for seal in map(read_seal, files) if seal]
    reasons = Counter(failure.reason for seal in seals for failure in failures_of(seal))
    if reasons:
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        yield f"failures: {counts} ({FAILURES_FILE})"


def _array_lines(files: Sequence[Path]) -> Iterator[str]:
    stored: Counter[str] = Counter()
    shapes: dict[str, str] = {}
    rows: Counter[str] = Counter()
    whole = 0
    for file in files:
        with open_shard(file) as shard:
            whole += file.stat().st_size
            for name in ("labels", "motion_boundaries", "motion_energy", "flow", "frames"):
                if name in shard:
                    data = shard[name]
                    stored[name] += data.id.get_storage_size()
                    rows[name] += len(data)
                    shapes[name] = f"{data.shape[1:]} {_type_name(data.dtype)}"
    if "frames" in stored and "variable" in shapes["frames"]:
        # JPEG bytes lie in the file's heap, outside the array's own storage.
        stored["frames"] = whole - sum(stored.values())
    for name, shape in shapes.items():
        per_clip = size_text(stored[name] / max(rows[name], 1))
        yield f"{name:<18} {shape:<28} {size_text(stored[name]):>9}, {per_clip} per clip"


def _type_name(dtype: np.dtype) -> str:
    return "variable-length bytes" if dtype.kind == "O" else str(dtype)


class LabelCounts(NamedTuple):
    """What the labels of shards are, over all their crops.

    Attributes
    ----------
    counts : (27, 17) int64
        How often each label takes each value from 0.
    pairs : int
        Pairs of neighbouring crops, one pixel apart; 0 where not all crops are stored.
    differing : (27,) int64
        How many of them differ in each label.
    """

    counts: np.ndarray
    pairs: int
    differing: np.ndarray


def count_labels(files: Sequence[Path], *, workers: int) -> LabelCounts:
    """Return the counts over some shards that hold labels, in some threads."""
    counts, differing = np.zeros((len(LABELS), 17), np.int64), np.zeros(len(LABELS), np.int64)
    pairs = 0
    for of_shard in each(_count_labels, files, workers=workers, unit="shards"):
        counts = counts + of_shard.counts
        pairs += of_shard.pairs
        differing = differing + of_shard.differing
    return LabelCounts(counts, pairs, differing)


def _count_labels(file: Path) -> LabelCounts:
    counts = np.zeros((len(LABELS), 17), dtype=np.int64)
    pairs, differing = 0, np.zeros(len(LABELS), dtype=np.int64)
    with open_shard(file) as shard:
        for first in range(0, len(shard["labels"]), _BLOCK):
            labels = shard["labels"][first : first + _BLOCK]
            for row, values in zip(counts, labels.reshape(-1, len(LABELS)).T, strict=True):
                row += np.bincount(values, minlength=17)
            if labels.shape[1] == _CROPS:
                new_pairs, new_differing = _neighbours(labels)
                pairs, differing = pairs + new_pairs, differing + new_differing
    return LabelCounts(counts, pairs, differing)


def _label_lines(files: Sequence[Path], workers: int) -> Iterator[str]:
    counts, pairs, differing = count_labels(files, workers=workers)
    if not counts.any():
        return
    yield "labels: share of each value from 1 (bars are relative to the most frequent)"
    if pairs:
        yield "        and of neighbouring crops, one pixel apart, that differ"
    for label, row, changes in zip(LABELS, counts, differing, strict=True):
        shown = row[1 : label.cardinality + 1]
        top = int(shown.argmax())
        line = (
            f"  {label.name:<38} {_bars(shown):<16}  "
            f"most frequent {top + 1:>2}: {shown[top] / max(row.sum(), 1):>4.0%}"
        )
        yield f"{line}, neighbours differ {changes / pairs:>5.1%}" if pairs else line


def _neighbours(labels: np.ndarray) -> tuple[int, np.ndarray]:
    """Return pairs of crops one pixel apart, and per label how many differ, of (N, 1020, 27)."""
    crops = labels.reshape(-1, MAX_TOP + 1, MAX_LEFT + 1, len(LABELS))
    down = crops[:, 1:] != crops[:, :-1]
    across = crops[:, :, 1:] != crops[:, :, :-1]
    pairs = (down.size + across.size) // len(LABELS)
    return pairs, down.sum(axis=(0, 1, 2)) + across.sum(axis=(0, 1, 2))


def _bars(counts: np.ndarray) -> str:
    heights = np.ceil(counts / max(counts.max(), 1) * (len(_BARS) - 1)).astype(int)
    return "".join(_BARS[height] for height in heights)
