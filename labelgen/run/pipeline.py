"""The extraction: from a manifest to sealed shards, whatever dies on the way (paper, Sec. 3)."""

from __future__ import annotations

import dataclasses
import shlex
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from joblib import cpu_count

from labelgen.errors import LabelgenError, StorageError
from labelgen.flow.precomputed import check_flow_apart, check_flow_root
from labelgen.progress import ProgressLine, count_text, duration, size_text
from labelgen.run.cluster import run_on_dask
from labelgen.run.engines import Limits, run_tasks
from labelgen.run.tally import Tally
from labelgen.run.worker import ShardReport, ShardTask, warm_kernels
from labelgen.shards.claims import is_claimed, locked, present
from labelgen.shards.folder import (
    FAILURES_FILE,
    check_goes_on,
    close_run,
    open_run,
    planned_seal,
    recorded,
    remove_dead_partials,
)
from labelgen.shards.generations import Generation, arrange, set_of_generation
from labelgen.shards.plan import ALL, Part, ShardPlan, plan_set, sets_of
from labelgen.shards.seal import Failure, seal_of
from labelgen.shards.settings import ExtractSettings
from labelgen.shards.times import RunTimes, add_times
from labelgen.signals import held, raise_lost, stop_once
from labelgen.video.decode import with_frames
from labelgen.video.frames import check_apart, claimed_images, find_frame_folders, folder_of
from labelgen.video.manifest import ManifestRow, find_videos, read_manifest

_PATIENCE = 3.0
_POLL_SECONDS = 0.5
_COUNTED = ("shards", "sealed", "videos", "clips", "bytes")
_NO_LOCKS = (
    "{} is on a file system without locks: do not let two runs work in it at once, unless each has "
    "its own --part; with --add or --retry-failures they would undo each other's work"
)
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
    part : Part
        The share of the shards that was worked on.
    left : int
        Made meanwhile by other runs.
    kept : list of str
        One sentence per sealed shard that another would not have made better.
    videos, clips : int
        Of the shards made now that gave clips.
    failures : list of Failure
        Of all sealed shards of the sets worked on.
    seconds : float
        Wall time of making shards, without planning and compiling.
    stages : Counter
        Seconds by stage, added up over workers.
    """

    out: Path
    labelled: bool
    shards: int
    skipped: int
    part: Part
    left: int
    kept: list[str]
    videos: int
    clips: int
    failures: list[Failure]
    seconds: float
    stages: Counter[str]

    @property
    def in_vain(self) -> bool:
        """Whether there was something to make, and not one clip came of it."""
        return bool(self.shards or self.kept) and not self.clips

    def lines(self) -> Iterator[str]:
        """Yield the summary for people, line by line."""
        yield from self.kept
        if not self.shards and not self.kept and not self.left:
            yield (
                f"nothing to do: {count_text(self.skipped, 'shard')} in {self.out}, "
                "all sealed before"
                if self.skipped
                else f"nothing to do: {self.out} has fewer shards than {self.part.total} parts"
            )
        if self.shards:
            yield (
                f"{count_text(self.clips, 'clip')} of {count_text(self.videos, 'video')} in "
                f"{count_text(self.shards, 'shard')}, {duration(self.seconds)}, "
                f"{self.clips / max(self.seconds, 1e-9):.2f} clips/s"
            )
            if self.skipped:
                yield f"{count_text(self.skipped, 'shard')} sealed before and not made again"
        if self.left:
            yield f"{count_text(self.left, 'shard')} made meanwhile by other runs"
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
            again = "; once they are mended, run the same command with --retry-failures"
            helps = any(failure.may_pass for failure in self.failures)
            yield f"{self.out / FAILURES_FILE} says why{again if helps else ''}"
        if self.clips:
            out = shlex.quote(str(self.out))
            train = f", or train pretrain --labels {out}" if self.labelled else ""
            yield f"next: labelgen inspect {out}{train}"


def plan(
    manifest: Path | None,
    *,
    root: Path,
    out: Path,
    name: str | None,
    settings: ExtractSettings,
    workers: int,
    flow_root: Path | None = None,
    add: bool = False,
) -> dict[str, Any]:
    """Return what `run` would make, and make nothing; parameters and errors are those of `run`.

    Returns
    -------
    dict
        Numbers of ``shards``, of those ``sealed``, of ``videos``, about how many ``clips`` and
        ``bytes``; and the same of each set, in ``sets``. The last two are 0 where nobody knows.
    """
    rows = _rows(manifest, root=root, flow_root=flow_root, settings=settings)
    sets = sets_of(rows, name=name or _source(manifest, root))
    counted = _counted(root, settings, workers)
    generations, _ = arrange(out, recorded(out), sets=sets, add=add, counted=counted)
    plans = _plans(generations, settings)
    check_goes_on(out, settings=settings, plans=plans)
    found: dict[str, Counter[str]] = {}
    for shard in plans:
        name = set_of_generation(shard.set_name)
        of_set = found.setdefault(name, Counter(dict.fromkeys(_COUNTED, 0)))
        of_set["shards"] += 1
        of_set["sealed"] += planned_seal(out, shard, settings.digest()) is not None
        of_set["videos"] += len(shard.rows)
        of_set["clips"] += shard.clips
        of_set["bytes"] += round(shard.clips * settings.bytes_per_clip())
    whole: Counter[str] = Counter(dict.fromkeys(_COUNTED, 0))
    for of_set in found.values():
        whole.update(of_set)
    return {**whole, "sets": found}


def run(
    manifest: Path | None,
    *,
    root: Path,
    out: Path,
    name: str | None,
    settings: ExtractSettings,
    limits: Limits,
    flow_root: Path | None = None,
    add: bool = False,
    retry: bool = False,
    part: Part = ALL,
    scratch: Path | None = None,
    scheduler: str | None = None,
) -> RunSummary:
    """Make the shards of a manifest file, or of every video below a folder, that are not there yet.

    Parameters
    ----------
    manifest : Path or None
        The CSV file; None takes every video below `root`.
    root : Path
        The folder that the videos' paths are relative to, be they files or, as the settings say,
        folders of frames.
    out : Path
        The shard folder; made if absent. Sealed shards in it are kept.
    name : str or None
        Of the dataset, the beginning of the shards' names; by default the manifest's file name, or
        the folder's.
    settings : ExtractSettings
    limits : Limits
        Workers, and what is too much.
    flow_root : Path, optional
        The folder of flow that was computed before, if the settings ask for it.
    add : bool, optional
        Whether videos that the folder does not know yet become further shards.
    retry : bool, optional
        Whether shards are made again that hold videos whose failure may pass; those that are there
        stay where a video would lose clips.
    part : Part, optional
        Which share of the shards to make.
    scratch : Path or None, optional
        Folder to write shards in until they are whole; None writes in the shard folder.
    scheduler : str or None, optional
        Address of the Dask scheduler whose workers make the shards; None makes them here.

    Returns
    -------
    RunSummary

    Raises
    ------
    LabelgenError
        If the manifest is wrong, the folder was begun with other settings or videos, the disk is
        full, too many videos fail, or workers die before they begin.
    KeyboardInterrupt
        On Ctrl-C and SIGTERM, after workers have stopped; sealed shards stay.
    """
    rows = _rows(manifest, root=root, flow_root=flow_root, settings=settings)
    with stop_once(), present(out) as presence:
        sets = sets_of(rows, name=name or _source(manifest, root))
        with locked(out, waits=True) as lock:
            if lock is None and (part == ALL or add or retry):
                print(_NO_LOCKS.format(out), file=sys.stderr)
            counted = _counted(root, settings, limits.workers)
            generations, dropped = arrange(out, recorded(out), sets=sets, add=add, counted=counted)
            plans = _plans(generations, settings)
            alone = presence.is_alone()
            with _room_to_begin(out):
                todo = open_run(
                    out, settings=settings, plans=plans, alone=alone, retry=retry, dropped=dropped
                )
                if scratch is not None:
                    scratch.mkdir(parents=True, exist_ok=True)
                    remove_dead_partials(scratch)
        plans, todo = part.of(plans), part.of(plans, among=todo)
        reports: list[ShardReport] = []
        started = time.monotonic()
        try:
            if todo:
                print(_plan_text(plans, todo, out=out, settings=settings), file=sys.stderr)
            if scheduler is None:
                _warm(todo, settings=settings, limits=limits)
            started = time.monotonic()
            # The root absolute, so that however it was spelt, messages lose the same beginning.
            _make_shards(
                todo,
                reports,
                root=root.resolve(),
                out=out,
                flow_root=flow_root,
                scratch=scratch,
                settings=settings,
                limits=limits,
                presence=presence.descriptor,
                scheduler=scheduler,
            )
        except StorageError as error:
            raise StorageError(_with_remedy(error, settings, todo, reports)) from None
        except OSError as error:  # no room for temporary files or kernels, no more processes
            raise StorageError(
                f"cannot go on: {error}; free what is short, then run again"
            ) from error
        finally:
            seconds = time.monotonic() - started
            with locked(out, waits=True), held():
                failures = close_run(out, alone=presence.is_alone(), sets=sets)
                _record_times(out, reports, seconds=seconds, workers=limits.workers)
    left = sum(report.left for report in reports)
    kept = [report.kept for report in reports if report.kept]
    return RunSummary(
        out=out,
        labelled=settings.labels,
        shards=len(reports) - len(kept) - left,
        skipped=len(plans) - len(todo),
        part=part,
        left=left,
        kept=kept,
        videos=sum(report.videos for report in reports),
        clips=sum(report.clips for report in reports),
        failures=failures,
        seconds=seconds,
        stages=_stages(reports),
    )


def _rows(
    manifest: Path | None, *, root: Path, flow_root: Path | None, settings: ExtractSettings
) -> list[ManifestRow]:
    check_flow_root(flow_root, settings.flow, clip_stride=settings.clip_stride)
    of_frames = settings.source == "frames"
    if manifest is None:
        rows = find_frame_folders(root) if of_frames else find_videos(root)
    else:
        rows = read_manifest(manifest, root=root)
    if of_frames:
        check_apart(rows, partial(folder_of, root))
    if flow_root is not None:
        check_flow_apart(flow_root, rows)
    return rows


def _source(manifest: Path | None, root: Path) -> str:
    return root.resolve().name if manifest is None else manifest.stem


def _counted(root: Path, settings: ExtractSettings, workers: int) -> Callable[..., Any]:
    # A plan must not change when a video's file does: only of what is new lengths are read.
    count = partial(claimed_images, root) if settings.source == "frames" else None
    return partial(with_frames, root=root, workers=workers, count=count)


@contextmanager
def _room_to_begin(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or out
        raise StorageError(f"cannot write to {where}: {error.strerror}") from None


def _plans(generations: Sequence[Generation], settings: ExtractSettings) -> list[ShardPlan]:
    return [
        plan
        for part in generations
        for plan in plan_set(part.rows, set_name=part.name, settings=settings)
    ]


def _stages(reports: Sequence[ShardReport]) -> Counter[str]:
    return sum((report.seconds for report in reports), Counter())


def _record_times(
    out: Path, reports: Sequence[ShardReport], *, seconds: float, workers: int
) -> None:
    clips = sum(report.clips for report in reports)
    if clips:
        add_times(out, RunTimes(clips, seconds, workers, _stages(reports)))


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
    size = f"about {size_text(left * settings.bytes_per_clip())}" if left else "of unknown size"
    number = f"about {count_text(clips, 'clip')}" if clips else "an unknown number of clips"
    return (
        f"{count_text(videos, 'video')}, {number}, in {count_text(len(plans), 'shard')} in {out}; "
        f"{len(todo)} to make, {size}"
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
    known = seconds is not None and left > 0
    # More workers than cores are no faster.
    took = duration(left * (seconds or 0) / min(workers, cpu_count()))
    print(
        f"{count_text(workers, 'worker')}{help_each_other}: "
        f"{f'about {took}' if known else 'an unknown time'} and what decoding and writing take",
        file=sys.stderr,
    )


def _make_shards(
    plans: Sequence[ShardPlan],
    reports: list[ShardReport],
    *,
    root: Path,
    out: Path,
    flow_root: Path | None,
    scratch: Path | None,
    settings: ExtractSettings,
    limits: Limits,
    presence: int,
    scheduler: str | None,
) -> None:
    """Make shards, and add what comes of each to `reports`."""
    if not plans:
        return
    # The largest first, so that no long shard is left to one worker at the end.
    plans = sorted(plans, key=lambda plan: -plan.clips)
    with tempfile.TemporaryDirectory(prefix="labelgen-") as folder:
        file = Path(folder, "tally")
        tally = Tally.create(file, len(plans))
        tasks = [
            ShardTask(plan, root, out, settings, file, number, flow_root, scratch=scratch)
            for number, plan in enumerate(plans)
        ]
        tasks = [
            dataclasses.replace(task, sealed=seal_of(task.file).stat().st_mtime_ns)
            if task.seal()
            else task
            for task in tasks
        ]
        expected = sum(plan.clips for plan in plans)
        with ProgressLine(tally.clips, expected=expected) as progress:
            tell = _Failures(limits.max_failures).add
            make: Callable[[list[ShardTask]], Generator[ShardReport, None, None]]
            if scheduler is not None:
                make = partial(run_on_dask, scheduler=scheduler, tally=tally, tell=tell)
            else:
                make = partial(
                    run_tasks,
                    limits=limits,
                    tally=tally,
                    presence=presence,
                    tell=tell,
                    say=progress.say,
                )
            with closing(_made(tasks, make, progress)) as made:
                reports.extend(made)


def _made(
    tasks: list[ShardTask],
    make: Callable[[list[ShardTask]], Generator[ShardReport, None, None]],
    progress: ProgressLine,
) -> Generator[ShardReport, None, None]:
    """Yield what comes of tasks; those that other runs are at come last, and are waited for."""
    theirs: list[ShardTask] = []
    while tasks or theirs:
        by_name = {task.plan.file: task for task in tasks}
        with closing(make(tasks)) as made:
            for report in made:
                if report.left:
                    theirs.append(by_name[report.file])
                else:
                    yield report
        if tasks and theirs:
            progress.say(f"{count_text(len(theirs), 'shard')} left to other runs; waiting for them")
        for task in [task for task in theirs if task.is_made()]:
            theirs.remove(task)
            progress.expected -= task.plan.clips
            yield ShardReport(task.plan.file, 0, 0, Counter(), left=True)
        tasks = [task for task in theirs if not is_claimed(task.file)]
        theirs = [task for task in theirs if task not in tasks]
        if theirs and not tasks:
            time.sleep(_POLL_SECONDS)


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
                f"{count_text(len(self._paths), 'video')} failed, more than --max-failures "
                f"{self._most}; the last: {failure.message}"
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
