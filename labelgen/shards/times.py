"""Seconds by stage of the runs that made a shard folder: a line of JSON per run.

It only tells people how long things took. Shards, their seals and the run record know no clock.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

TIMES_FILE = "times.jsonl"


class RunTimes(NamedTuple):
    """What one run took.

    Attributes
    ----------
    clips : int
        In the shards that it made.
    seconds : float
        Wall time.
    workers : int
    stages : mapping of str to float
        Seconds by stage, added up over workers.
    """

    clips: int
    seconds: float
    workers: int
    stages: Mapping[str, float]


def add_times(folder: Path, times: RunTimes) -> None:
    """Append what a run took; that it cannot be written is said, and harms nothing."""
    rounded = {name: round(seconds, 3) for name, seconds in times.stages.items()}
    record = times._replace(seconds=round(times.seconds, 3), stages=rounded)._asdict()
    try:
        with (folder / TIMES_FILE).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")
    except OSError as error:
        print(f"{folder / TIMES_FILE} could not be written: {error.strerror}", file=sys.stderr)


def read_times(folder: Path) -> list[RunTimes]:
    """Return what runs took, leaving out lines that are damaged; none if nothing was recorded."""
    try:
        lines = (folder / TIMES_FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    times = []
    for line in lines:
        try:
            times.append(RunTimes(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return times
