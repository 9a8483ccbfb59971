"""The extraction: from a manifest to sealed shards, whatever dies on the way (paper, Sec. 3)."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from labelgen.errors import LabelgenError, StorageError
from labelgen.progress import ProgressLine, count_text, duration, size_text
from labelgen.run.engines import Limits, run_tasks
from labelgen.run.tally import Tally
from labelgen.run.worker import ShardReport, ShardTask, warm_kernels
from labelgen.shards.folder import FAILURES_FILE, close_run, known_rows, locked, open_run
from labelgen.shards.generations import arrange
from labelgen.shards.plan import ShardPlan, plan_set, sets_of
from labelgen.shards.seal import Failure
from labelgen.shards.settings import ExtractSettings
from labelgen.signals import held, raise_lost, stop_once
from labelgen.video.decode import with_frames
from labelgen.video.manifest import find_videos, read_manifest

_PATIENCE = 3.0
_COMPILING = "compiling kernels for flow and labels, about half a minute; the next run finds them"


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """What came of a run.

    Attributes
    ----------
    out : Path
        The shard folder.
    labelled : bool
        Whether its shards hold labels.
    shards, skipped : int
        Made now, and found sealed already.
    videos, clips : int
        Of the shards made now that gave clips.
    failures : list of Failure
        Of all sealed shards in the folder.
    seconds : float
        Wall time of making shards, without planning and compiling.
    stages : Counter
        Seconds by stage, added up over workers.
    """

    out: Path
    labelled: bool
    shards: int
    skipped: int
    videos: int
    clips: int
    failures: list[Failure]
    seconds: float
    stages: Counter[str]

    def lines(self) -> Iterator[str]:
        """Yield the summary for people, line by line."""
        if not self.shards:
            yield (
                f"nothing to do: {count_text(self.skipped, 'shard')} in {self.out}, "
                "all sealed before"
            )
        else:
            yield (
                f"{count_text(self.clips, 'clip')} of {count_text(self.videos, 'video')} in "
                f"{count_text(self.shards, 'shard')}, {duration(self.seconds)}, "
                f"{self.clips / max(self.seconds, 1e-9):.2f} clips/s"
            )
            if self.skipped:
                yield f"{count_text(self.skipped, 'shard')} sealed before, left as they are"
        total = sum(self.stages.values())
        if self.clips and total:
            shares = (f"{name} {took / total:.0%}" for name, took in self.stages.most_common())
            yield (
                f"time by stage: {', '.join(shares)}; "
                f"{1e3 * total / self.clips:.0f} ms per clip and worker"
            )
        for text, failures in (
            ("gave no clip", [failure for failure in self.failures if not failure.clips]),
            ("gave only a part", [failure for failure in self.failures if failure.clips]),
        ):
            reasons = Counter(failure.reason for failure in failures)
            counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
            if failures:
                yield f"{count_text(len(failures), 'video')} {text} ({counts})"
        if self.failures:
            yield (
                f"{self.out / FAILURES_FILE} says why; once they are mended, run the same command "
                "with --retry-failures"
            )
        if self.clips:
            train = f", or train pretrain --labels {self.out}" if self.labelled else ""
            yield f"next: labelgen inspect {self.out}{train}"


def run(
    manifest: Path | None,
    *,
    root: Path,
    out: Path,
    name: str | None,
    settings: ExtractSettings,
    limits: Limits,
    add: bool = False,
    retry: bool = False,
) -> RunSummary:
    """Make the shards of a manifest file, or of every video below a folder, that are not there yet.

    Parameters
    ----------
    manifest : Path or None
        The CSV file; None takes every video below `root`.
    root : Path
        The folder that the videos' paths are relative to.
    out : Path
        The shard folder; made if absent. Sealed shards in it are kept.
    name : str or None
        Of the dataset, the beginning of the shards' names; by default the manifest's file name, or
        the folder's.
    settings : ExtractSettings
    limits : Limits
        Workers, and what is too much.
    add : bool, optional
        Whether videos that the folder does not know yet become further shards.
    retry : bool, optional
        Whether shards that hold failed videos are made again.

    Returns
    -------
    RunSummary

    Raises
    ------
    LabelgenError
        If the manifest is wrong, the folder is in use or was begun with other settings or videos,
        the disk is full, too many videos fail, or workers die before they begin.
    KeyboardInterrupt
        On Ctrl-C and SIGTERM, after workers have stopped; sealed shards stay.
    """
    rows = find_videos(root) if manifest is None else read_manifest(manifest, root=root)
    source = root.resolve().name if manifest is None else manifest.stem
    with stop_once(), locked(out) as lock:
        sets = sets_of(rows, name=name or source)
        plans = []
        for part in arrange(out, known_rows(out), sets=sets, add=add):
            # A plan must not change when a video's file does: what is known stays as it was.
            rows = part.rows
            if part.is_new:
                rows = with_frames(rows, root=root, workers=limits.workers)
            plans += plan_set(rows, set_name=part.name, settings=settings)
        try:
            todo = open_run(out, settings=settings, plans=plans, held=lock is not None, retry=retry)
        except OSError as error:
            raise StorageError(f"cannot write to {out}: {error.strerror}") from None
        reports: list[ShardReport] = []
        started = time.monotonic()
        try:
            # Absolute, so that however it was spelt, messages lose the same beginning.
            where = {"root": root.resolve(), "out": out}
            if todo:
                print(_plan_text(plans, todo, out=out, settings=settings), file=sys.stderr)
            _warm(todo, settings=settings, limits=limits)
            started = time.monotonic()
            _make_shards(todo, reports, **where, settings=settings, limits=limits, lock=lock)
        except StorageError as error:
            raise StorageError(_with_remedy(error, settings, todo, reports)) from None
        except OSError as error:  # no room for temporary files or kernels, no more processes
            raise StorageError(
                f"cannot go on: {error}; free what is short, then run again"
            ) from error
        finally:
            with held():
                failures = close_run(out, held=lock is not None)
    return RunSummary(
        out=out,
        labelled=settings.labels,
        shards=len(reports),
        skipped=len(plans) - len(todo),
        videos=sum(report.videos for report in reports),
        clips=sum(report.clips for report in reports),
        failures=failures,
        seconds=time.monotonic() - started,
        stages=sum((report.seconds for report in reports), Counter()),
    )


def _plan_text(
    plans: Sequence[ShardPlan],
    todo: Sequence[ShardPlan],
    *,
    out: Path,
    settings: ExtractSettings,
) -> str:
    videos, clips = (
        sum(len(plan.rows) for plan in plans),
        sum(plan.clips for plan in plans),
    )
    left = sum(plan.clips for plan in todo)
    size = size_text(max(left, 1) * settings.bytes_per_clip())
    return (
        f"{count_text(videos, 'video')}, about {count_text(clips, 'clip')}, in "
        f"{count_text(len(plans), 'shard')} in {out}; {len(todo)} to make, about {size}"
    )


def _warm(todo: Sequence[ShardPlan], *, settings: ExtractSettings, limits: Limits) -> None:
    """Compile before workers begin, and say how long the work will take."""
    if not todo or not settings.needs_flow:
        return
    # Nothing is said where they are compiled already.
    patience = threading.Timer(_PATIENCE, print, [_COMPILING], {"file": sys.stderr})
    patience.start()
    try:
        seconds = warm_kernels(settings)
    finally:
        patience.cancel()
    # LLVM calls back while it compiles, and swallows what is raised then.
    raise_lost()
    workers = max(limits.workers, 1)
    left = sum(plan.clips for plan in todo)
    help_each_other = "" if len(todo) >= workers else ", some of them at one shard together"
    print(
        f"{count_text(workers, 'worker')}{help_each_other}: about "
        f"{duration(left * seconds / workers)} and the time that decoding and writing take",
        file=sys.stderr,
    )


def _make_shards(
    plans: Sequence[ShardPlan],
    reports: list[ShardReport],
    *,
    root: Path,
    out: Path,
    settings: ExtractSettings,
    limits: Limits,
    lock: int | None,
) -> None:
    """Make shards, and add what comes of each to `reports`."""
    if not plans:
        return
    # The largest first, so that no long shard is left to one worker at the end.
    plans = sorted(plans, key=lambda plan: -plan.clips)
    with tempfile.TemporaryDirectory(prefix="labelgen-") as scratch:
        file = Path(scratch, "tally")
        tally = Tally.create(file, len(plans))
        tasks = [
            ShardTask(plan, root, out, settings, file, number) for number, plan in enumerate(plans)
        ]
        expected = sum(plan.clips for plan in plans)
        with ProgressLine(tally.clips, expected=expected) as progress:
            made = run_tasks(
                tasks,
                limits=limits,
                tally=tally,
                lock=lock,
                tell=_Failures(limits.max_failures).add,
                say=progress.say,
            )
            with closing(made):
                reports.extend(made)


class _Failures:
    """Counts videos that failed, and raises when they are too many."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        # By path, since a shard that begins again tells its failures again.
        self._paths: set[str] = set()

    def add(self, failure: Failure) -> None:
        self._paths.add(failure.path)
        if self._most is not None and len(self._paths) > self._most:
            raise LabelgenError(
                f"{len(self._paths)} videos failed, more than --max-failures {self._most}; the "
                f"last: {failure.message}"
            )


def _with_remedy(
    error: StorageError,
    settings: ExtractSettings,
    plans: Sequence[ShardPlan],
    reports: Sequence[ShardReport],
) -> str:
    left = sum(plan.clips for plan in plans) - sum(report.clips for report in reports)
    needed = size_text(max(left, 1) * settings.bytes_per_clip())
    return (
        f"{error}; what is left to make takes about {needed}. Sealed shards are kept: make room, "
        "then run the same command again"
    )
