"""The extraction: from a manifest to sealed shards, one process per shard at a time (Sec. 3)."""

from __future__ import annotations

import dataclasses
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from labelgen.errors import LabelgenError, VideoError
from labelgen.flow.methods import FlowSettings, flow_of, flow_of_grey, resized_flow
from labelgen.labels.boundaries import boundary_sums, motion_energy, stored_boundaries
from labelgen.labels.compute import labels_of
from labelgen.labels.crops import crop_positions
from labelgen.progress import ProgressLine, Stopwatch, Tally, duration
from labelgen.shards.folder import (
    is_done,
    locked,
    open_run,
    remove_partials,
    write_failures,
)
from labelgen.shards.plan import ShardPlan, plan_shards, with_frames
from labelgen.shards.settings import ExtractSettings
from labelgen.shards.writer import Clip, Failure, ShardWriter
from labelgen.video.clips import CLIP_LENGTH, check_length, cut_clips, truncation
from labelgen.video.decode import FRAME_SIZE, Frame, Video
from labelgen.video.manifest import ManifestRow, find_videos, read_manifest, rows_digest


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """Everything a worker needs to make one shard.

    Attributes
    ----------
    plan : ShardPlan
        The shard and its videos.
    root, out : Path
        The data root and the shard folder.
    settings : ExtractSettings
    tally : Path
        Where clips done are counted, see `labelgen.progress.Tally`.
    number : int
        The task's place in the tally.
    """

    plan: ShardPlan
    root: Path
    out: Path
    settings: ExtractSettings
    tally: Path
    number: int


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """What came of one shard: counts, failures, and seconds by stage."""

    videos: int
    clips: int
    failures: list[Failure]
    seconds: Counter[str]


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """What came of a run.

    Attributes
    ----------
    shards, skipped : int
        Made now, and found sealed already.
    videos, clips : int
        Of the shards made now that gave clips.
    failures : list of Failure
        Of all sealed shards in the folder.
    seconds : float
        Wall time.
    stages : Counter
        Seconds by stage, added up over workers.
    """

    shards: int
    skipped: int
    videos: int
    clips: int
    failures: list[Failure]
    seconds: float
    stages: Counter[str]

    def lines(self) -> Iterator[str]:
        """Yield the summary for people, line by line."""
        yield (
            f"{self.clips} clips of {self.videos} videos in {self.shards} shards, "
            f"{duration(self.seconds)}, {self.clips / max(self.seconds, 1e-9):.2f} clips/s"
        )
        if self.skipped:
            yield f"{self.skipped} shards were sealed before and left as they are"
        total = sum(self.stages.values())
        if self.clips and total:
            shares = (f"{name} {took / total:.0%}" for name, took in self.stages.most_common())
            yield (
                f"time by stage: {', '.join(shares)}; "
                f"{1e3 * total / self.clips:.0f} ms per clip and worker"
            )
        reasons = Counter(failure.reason for failure in self.failures)
        if reasons:
            counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
            yield f"{len(self.failures)} videos failed ({counts}); see failures.csv"


def run(
    manifest: Path | None,
    *,
    root: Path,
    out: Path,
    name: str | None,
    settings: ExtractSettings,
    workers: int | None,
    max_failures: int | None = None,
) -> RunSummary:
    """Make the shards of a manifest file, or of every video below a folder.

    Parameters
    ----------
    manifest : Path or None
        The CSV file; None takes every video below `root`.
    root, out, settings, max_failures
        As in `extract`.
    name : str or None
        Of the dataset; by default the manifest's file name, or the folder's.
    workers : int or None
        As in `extract`; None is one per core.

    Returns
    -------
    RunSummary

    Raises
    ------
    LabelgenError
        If the manifest or the folder is wrong, and as `extract`.
    """
    rows = find_videos(root) if manifest is None else read_manifest(manifest, root=root)
    source = root.resolve().name if manifest is None else manifest.stem
    return extract(
        rows,
        root=root,
        out=out,
        name=name or source,
        settings=settings,
        workers=cpu_count() if workers is None else workers,
        max_failures=max_failures,
    )


def extract(
    rows: Sequence[ManifestRow],
    *,
    root: Path,
    out: Path,
    name: str,
    settings: ExtractSettings,
    workers: int,
    max_failures: int | None = None,
) -> RunSummary:
    """Make the shards of a manifest that are not there yet.

    Parameters
    ----------
    rows : sequence of ManifestRow
        The videos.
    root : Path
        The folder their paths are relative to.
    out : Path
        The shard folder; made if absent. Sealed shards in it are kept.
    name : str
        Of the dataset, the beginning of the shards' names.
    settings : ExtractSettings
    workers : int
        Processes; 0 works in this one.
    max_failures : int, optional
        Stop when more videos than this have failed.

    Returns
    -------
    RunSummary

    Raises
    ------
    LabelgenError
        If the folder is in use or was begun with other settings, too many videos fail, or a
        worker dies.
    KeyboardInterrupt
        On Ctrl-C and SIGTERM, after workers have stopped; sealed shards stay.
    """
    started = time.monotonic()
    with locked(out), _sigterm_as_interrupt():
        rows = with_frames(rows, root=root, workers=workers)
        plans = plan_shards(rows, name=name, settings=settings)
        open_run(out, settings=settings, plans=plans)
        remove_partials(out)
        todo = [plan for plan in plans if not is_done(out, plan, settings)]
        try:
            reports = _make_shards(todo, root, out, settings, workers, max_failures)
        finally:
            failures = write_failures(out)
            remove_partials(out)
    return RunSummary(
        shards=len(reports),
        skipped=len(plans) - len(todo),
        videos=sum(report.videos for report in reports),
        clips=sum(report.clips for report in reports),
        failures=failures,
        seconds=time.monotonic() - started,
        stages=sum((report.seconds for report in reports), Counter()),
    )


def _make_shards(
    plans: Sequence[ShardPlan],
    root: Path,
    out: Path,
    settings: ExtractSettings,
    workers: int,
    max_failures: int | None,
) -> list[ShardReport]:
    if not plans:
        return []
    _warm_kernels(settings)
    # The largest first, so that no long shard is left to one worker at the end.
    plans = sorted(plans, key=lambda plan: -plan.clips)
    with tempfile.TemporaryDirectory(prefix="labelgen-") as scratch:
        file = Path(scratch, "tally")
        tally = Tally.create(file, len(plans))
        tasks = [
            ShardTask(plan, root, out, settings, file, number) for number, plan in enumerate(plans)
        ]
        expected = sum(plan.clips for plan in plans)
        with ProgressLine(tally.total, expected=expected):
            return _collect(_run(tasks, workers), max_failures)


def _run(tasks: Sequence[ShardTask], workers: int) -> Iterator[ShardReport]:
    """Yield the reports of tasks as they finish."""
    if workers == 0:
        yield from map(make_shard, tasks)
        return
    parallel = Parallel(
        n_jobs=min(workers, len(tasks)),
        backend="loky",
        batch_size=1,
        pre_dispatch="n_jobs",
        return_as="generator_unordered",
    )
    try:
        yield from parallel(delayed(_make_shard_in_worker)(task) for task in tasks)
    except TerminatedWorkerError:
        raise LabelgenError(
            "a worker process died, perhaps for lack of memory or in a video decoder; sealed "
            "shards are kept, so run again with fewer --workers, or --workers 0 to see where"
        ) from None
    except OSError as error:
        raise LabelgenError(f"cannot go on: {error}; free what is short, then run again") from error
    except BaseException:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)
        raise


def _collect(reports: Iterable[ShardReport], max_failures: int | None) -> list[ShardReport]:
    done, failures = [], 0
    for report in reports:
        done.append(report)
        failures += len(report.failures)
        if max_failures is not None and failures > max_failures:
            raise LabelgenError(
                f"{failures} videos failed, more than --max-failures {max_failures}; the last: "
                f"{report.failures[-1].message}; see failures.csv"
            )
    return done


def _make_shard_in_worker(task: ShardTask) -> ShardReport:
    # Ctrl-C reaches every process of the terminal; the parent alone decides what stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return make_shard(task)


def make_shard(task: ShardTask) -> ShardReport:
    """Make one shard, from its videos to its seal.

    Parameters
    ----------
    task : ShardTask

    Returns
    -------
    ShardReport
    """
    # OpenCV would start a thread per core in every process.
    cv2.setNumThreads(1)
    plan, watch, failures = task.plan, Stopwatch(), []
    tally = Tally(task.tally)
    writer = ShardWriter(
        task.out / plan.file, settings=task.settings, manifest_sha256=rows_digest(plan.rows)
    )
    videos = 0
    with writer:
        for row in plan.rows:
            before = writer.clips
            try:
                warning = _add_video(writer, row, task, watch, tally)
            except VideoError as error:
                warning = (error.reason, str(error))
            kept = writer.clips - before
            videos += kept > 0
            if warning is not None:
                reason, message = warning
                # Seals hold no path of the machine.
                message = message.replace(f"{task.root}{os.sep}", "")
                failures.append(Failure(row.path, reason, message, kept))
        with watch.stage("write"):
            writer.seal(failures)
    return ShardReport(videos, writer.clips, failures, watch.seconds)


def _add_video(
    writer: ShardWriter, row: ManifestRow, task: ShardTask, watch: Stopwatch, tally: Tally
) -> tuple[str, str] | None:
    """Append a video's clips; return reason and message if it is truncated all the same."""
    settings = task.settings
    crops = crop_positions(settings.crops, seed=settings.seed).astype(np.int64)
    video = Video(task.root / row.path, flow_size=settings.flow.size)
    flow: np.ndarray | None = None
    try:
        clips = cut_clips(video, clip_length=CLIP_LENGTH, stride=settings.clip_stride)
        while True:
            with watch.stage("decode"):
                found = next(clips, None)
            if found is None:
                break
            start, frames = found
            if settings.needs_flow:
                with watch.stage("flow"):
                    flow = _next_flow(frames, flow, settings)
            with watch.stage("labels"):
                rgb = np.stack([frame.rgb for frame in frames])
                clip = _measure(start, rgb, flow, crops, settings)
            with watch.stage("write"):
                writer.add_clip(clip)
            tally.add(task.number)
        check_length(video, clip_length=CLIP_LENGTH)
    finally:
        video.close()
    writer.add_video(row, video.decoded)
    return ("truncated", truncation(video)) if video.truncated else None


def _next_flow(
    frames: Sequence[Frame], previous: np.ndarray | None, settings: ExtractSettings
) -> np.ndarray:
    """Return the flow of a clip; pairs that it shares with the previous clip are kept."""
    shared = CLIP_LENGTH - 1 - settings.clip_stride
    if previous is None or shared <= 0:
        return _flow(frames, settings.flow)
    return np.concatenate([previous[-shared:], _flow(frames[shared:], settings.flow)])


def _flow(frames: Sequence[Frame], settings: FlowSettings) -> np.ndarray:
    grey = [frame.grey for frame in frames if frame.grey is not None]
    if not grey:
        return flow_of(np.stack([frame.rgb for frame in frames]), settings)
    return resized_flow(flow_of_grey(np.stack(grey), settings), FRAME_SIZE)


def _measure(
    start: int,
    frames: np.ndarray,
    flow: np.ndarray | None,
    crops: np.ndarray,
    settings: ExtractSettings,
) -> Clip:
    stored_flow = flow if settings.store_flow != "none" else None
    if not settings.labels or flow is None:
        return Clip(start, frames, None, None, None, stored_flow)
    sums = boundary_sums(flow)
    return Clip(
        start=start,
        frames=frames,
        labels=labels_of(frames, flow, sums, crops, profile=settings.profile),
        boundaries=stored_boundaries(sums) if settings.boundaries else None,
        energy=motion_energy(sums),
        flow=stored_flow,
    )


def _warm_kernels(settings: ExtractSettings) -> None:
    """Compile in this process, once, what workers then load from Numba's cache."""
    if not settings.needs_flow:
        return
    frames = np.zeros((CLIP_LENGTH, *FRAME_SIZE, 3), dtype=np.uint8)
    flow = flow_of(frames, settings.flow)
    _measure(0, frames, flow, crop_positions(settings.crops).astype(np.int64), settings)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM stop a run in the way Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
