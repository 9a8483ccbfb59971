"""One shard in one process: its videos in turn, from decoding to the seal (paper, Sec. 3)."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from labelgen.errors import Interrupted, LabelgenError, VideoError
from labelgen.flow.compute import flow_of_frames, resized_flow
from labelgen.flow.methods import PRECOMPUTED
from labelgen.flow.precomputed import FlowImages
from labelgen.geometry import CLIP_LENGTH, FRAME_SIZE, frame_size_for_flow
from labelgen.labels.boundaries import (
    boundary_sums,
    largest_displacement,
    motion_energy,
    stored_boundaries,
)
from labelgen.labels.compute import labels_of
from labelgen.labels.crops import crop_positions
from labelgen.progress import Stopwatch, count_text
from labelgen.run.tally import Tally
from labelgen.shards.claims import claimed
from labelgen.shards.folder import planned_seal
from labelgen.shards.plan import ShardPlan
from labelgen.shards.reader import clips_by_video
from labelgen.shards.seal import Failure, seal_of
from labelgen.shards.settings import ExtractSettings
from labelgen.shards.writer import Clip, ShardWriter
from labelgen.video.clips import cut_clips
from labelgen.video.decode import Frame, Video, counted_frames
from labelgen.video.frames import FrameFolder
from labelgen.video.manifest import ManifestRow, rows_digest


@dataclass(frozen=True)
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
        File of the `labelgen.run.tally.Tally`.
    number : int
        The task's row in it.
    skip : mapping of int to (str, str)
        Videos of the plan, by number, that are not to be tried again, with reason and message.
    flow_root : Path or None
        Where flow that was computed before lies; None where it is computed.
    one_thread : bool
        Whether to use one thread whatever is allowed, so that the worker is on one video at a time.
    sealed : int
        When the seal was written, in ns, of a shard that is to be made again; 0 of others.
    scratch : Path or None
        Folder to write it in until it is whole; None writes in the shard folder.
    """

    plan: ShardPlan
    root: Path
    out: Path
    settings: ExtractSettings
    tally: Path
    number: int
    flow_root: Path | None = None
    skip: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    one_thread: bool = False
    sealed: int = 0
    scratch: Path | None = None

    @property
    def file(self) -> Path:
        """Where the shard will be."""
        return self.out / self.plan.file

    def is_made(self) -> bool:
        """Whether the shard has been sealed since the task was planned."""
        return self.seal() is not None and seal_of(self.file).stat().st_mtime_ns != self.sealed

    def seal(self) -> dict[str, Any] | None:
        """Return the seal of the shard of these rows and settings that is there, if there is."""
        return planned_seal(self.out, self.plan, self.settings.digest())


@dataclass(frozen=True)
class ShardReport:
    """What came of one shard.

    Attributes
    ----------
    file : str
        Its name.
    videos, clips : int
        That it holds; 0 where it was not written.
    seconds : Counter
        By stage.
    kept : str
        Why the sealed shard that was there stays, in one sentence; empty where it does not.
    left : bool
        Whether it was left to another run, which has sealed it or is making it.
    """

    file: str
    videos: int
    clips: int
    seconds: Counter[str]
    kept: str = ""
    left: bool = False


Fault = tuple[str, str]
"""A reason code and a sentence."""


@dataclass(frozen=True)
class _Measured:
    """What came of one clip: the clip, or why there is none."""

    clip: Clip | None
    fault: Fault | None
    seconds: Counter[str]


@dataclass(frozen=True)
class _End:
    """The end of a video: how many frames it gave, and what was wrong with it as a whole."""

    row: ManifestRow
    frames: int
    fault: Fault | None


_Item = Future[_Measured] | _End

_LONGEST_QUEUE = 16


def make_shard(
    task: ShardTask,
    *,
    tell: Callable[[Failure], object],
    go_on: Callable[[], bool] = lambda: True,
) -> ShardReport:
    """Make one shard, from its videos to its seal, unless another run does.

    Where there is one of the same settings and rows, it is made again only if that is asked for,
    and replaced only if no video loses clips.

    Parameters
    ----------
    task : ShardTask
    tell : callable
        Takes each failure when it is known; the seal holds them all.
    go_on : callable, optional
        Asked before each clip and before the seal whether anybody still wants the shard.

    Returns
    -------
    ShardReport

    Raises
    ------
    StorageError
        If the shard cannot be written.
    Interrupted
        If nobody wants it.
    """
    with claimed(task.file) as ours:
        if not ours or task.is_made():
            return ShardReport(task.plan.file, 0, 0, Counter(), left=True)
        return _make(task, tell=tell, go_on=go_on)


def _make(
    task: ShardTask, *, tell: Callable[[Failure], object], go_on: Callable[[], bool]
) -> ShardReport:
    # OpenCV would start a thread per core in every process.
    cv2.setNumThreads(1)
    _check_places(task)
    plan, watch, failures = task.plan, Stopwatch(), []
    tally = Tally(task.tally)
    tally.begin(task.number)
    digest = rows_digest(plan.rows)
    with ShardWriter(
        task.file, settings=task.settings, manifest_sha256=digest, scratch=task.scratch
    ) as writer:
        first, fault = 0, None
        clips: Counter[str] = Counter()
        for item in _in_order(task, tally, watch):
            _check_wanted(plan, go_on)
            if isinstance(item, Future):
                measured = item.result()
                watch.seconds += measured.seconds
                fault = fault or measured.fault
                if measured.clip is not None:
                    with watch.stage("write"):
                        writer.add_clip(measured.clip)
                tally.add_clip(task.number)
                continue
            kept = writer.clips - first
            if kept:
                writer.add_video(item.row, item.frames)
            fault = fault or item.fault
            if fault is not None:
                failures.append(Failure(item.row.path, *fault, kept))
                tell(failures[-1])
            clips[item.row.path] = kept
            first, fault = writer.clips, None
        _check_wanted(plan, go_on)
        _check_places(task)
        tally.end_videos(task.number)
        loss = _loss(task, clips, failures)
        if loss:
            writer.discard()
            return ShardReport(plan.file, 0, 0, watch.seconds, loss)
        with watch.stage("write"):
            writer.seal(failures)
    return ShardReport(plan.file, sum(map(bool, clips.values())), writer.clips, watch.seconds)


def _check_places(task: ShardTask) -> None:
    """Raise `LabelgenError` if a whole root is not there: its videos must not count as missing."""
    for place in filter(None, (task.root, task.flow_root)):
        if not place.is_dir():
            raise LabelgenError(
                f"{place} is not there, on {platform.node()}; mount it, and run the same command "
                "again"
            )


def _loss(task: ShardTask, clips: Counter[str], failures: Sequence[Failure]) -> str:
    """Return the sentence for videos that have more clips in the sealed shard; empty if none."""
    file = task.file
    if task.seal() is None:
        return ""
    sealed = clips_by_video(file)
    lost = [path for path in sealed if clips[path] < sealed[path]]
    if not lost:
        return ""
    why = next((f" ({failure.reason})" for failure in failures if failure.path == lost[0]), "")
    return (
        f"{file.name} stays as it was sealed: made again, {count_text(len(lost), 'video')} would "
        f"lose clips (first: {lost[0]}, {clips[lost[0]]} instead of {sealed[lost[0]]}{why})"
    )


def _check_wanted(plan: ShardPlan, go_on: Callable[[], bool]) -> None:
    if not go_on():
        raise Interrupted(f"{plan.file} is not wanted any more")


def _in_order(task: ShardTask, tally: Tally, watch: Stopwatch) -> Iterator[_Item]:
    """Yield clips and ends of videos in order, while as many clips as allowed are in the making."""
    waiting: deque[_Item] = deque()
    clips = 0
    with _Threads(lambda: 1 if task.one_thread else tally.threads(task.number)) as threads:
        for item in _decoded(task, tally, watch):
            # Not while decoding: what a thread cannot do is not the video's fault.
            waiting.append(item if isinstance(item, _End) else threads.submit(item.measured))
            clips += isinstance(waiting[-1], Future)
            # Ends of videos wait for the clips before them, but not without end.
            while waiting and (
                isinstance(waiting[0], _End)
                or clips > threads.ahead
                or len(waiting) > _LONGEST_QUEUE
            ):
                clips -= isinstance(waiting[0], Future)
                yield waiting.popleft()
        yield from waiting


class _Threads:
    """Computes in as many threads as are allowed at the moment; in this one if it is one.

    Parameters
    ----------
    allowed : callable
        Returns their number.
    """

    def __init__(self, allowed: Callable[[], int]) -> None:
        self._allowed = allowed
        self._count = 1
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> _Threads:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    @property
    def ahead(self) -> int:
        """How many clips to have in the making: one more than threads, or none."""
        return self._count if self._count > 1 else 0

    def submit(self, work: Callable[[], _Measured]) -> Future[_Measured]:
        """Compute, now or soon; what is submitted first begins first."""
        count = self._allowed()
        if count != self._count:
            if self._pool is not None:
                self._pool.shutdown(wait=False)
            self._count, self._pool = count, ThreadPoolExecutor(count) if count > 1 else None
        if self._pool is not None:
            return self._pool.submit(work)
        done: Future[_Measured] = Future()
        done.set_result(work())
        return done


def _decoded(task: ShardTask, tally: Tally, watch: Stopwatch) -> Iterator[_ClipJob | _End]:
    """Decode the videos in turn, and yield the clips to be measured."""
    for number, row in enumerate(task.plan.rows):
        if number in task.skip:
            yield _End(row, 0, task.skip[number])
        else:
            tally.begin_video(task.number, number)
            yield from _decoded_video(task, row, watch)


def _decoded_video(
    task: ShardTask, row: ManifestRow, watch: Stopwatch
) -> Iterator[_ClipJob | _End]:
    settings = task.settings
    video: Video | FrameFolder | None = None
    fault: Fault | None = None
    earlier: Future[np.ndarray] | None = None
    try:
        video = _opened(task, row)
        with video:
            flow_images = _flow_images(task, row, video)
            clips = cut_clips(video, clip_length=CLIP_LENGTH, stride=settings.clip_stride)
            while True:
                with watch.stage("decode"):
                    found = next(clips, None)
                if found is None:
                    break
                job = _ClipJob(row.path, *found, settings, earlier, flow_images)
                earlier = job.flow if settings.clip_stride < CLIP_LENGTH - 1 else None
                yield job
            video.check_length(CLIP_LENGTH)
            if video.truncated:
                fault = "truncated", video.truncation()
    except VideoError as error:
        fault = error.reason, str(error)
    except Exception as error:  # whatever it is, it is this video's, and the others go on
        _reraise_if_memory(error)
        fault = "error", f"{row.path}: {_one_line(error, task.root)}"
    yield _End(row, 0 if video is None else video.decoded, fault)


def _opened(task: ShardTask, row: ManifestRow) -> Video | FrameFolder:
    size = task.settings.flow.size
    if task.settings.source == "frames":
        return FrameFolder(task.root, row.path, flow_size=size)
    return Video(task.root / row.path, name=row.path, flow_size=size)


def _flow_images(
    task: ShardTask, row: ManifestRow, video: Video | FrameFolder
) -> FlowImages | None:
    """Return the flow of a video that was computed before, once there is as much as it has frames.

    Headers err, so the frames of a video file are decoded once more to count them: flow of another
    version of a video must not label a single clip of it.
    """
    if task.flow_root is None or not task.settings.needs_flow:
        return None
    images = FlowImages(
        task.flow_root,
        row.path,
        bound=task.settings.flow.parameters["bound"],
        as_released=task.settings.profile == "authors",
    )
    if isinstance(video, FrameFolder):
        images.check_count(video.claimed)
    else:
        images.check_count(counted_frames(task.root / row.path, name=row.path))
    return images


class _ClipJob:
    """One clip to be measured, in whatever thread.

    Parameters
    ----------
    path : str
        Of the video.
    start : int
        First frame of the clip.
    frames : list of Frame
    settings : ExtractSettings
    earlier : Future of (T-1, 2, 128, 171) float32, or None
        Flow of the clip before, if there is one and they share frame pairs.
    flow_images : FlowImages or None
        Of the video; None where flow is computed.

    Attributes
    ----------
    flow : Future of (T-1, 2, 128, 171) float32
        Of this one, for the clip after.
    """

    def __init__(
        self,
        path: str,
        start: int,
        frames: list[Frame],
        settings: ExtractSettings,
        earlier: Future[np.ndarray] | None,
        flow_images: FlowImages | None,
    ) -> None:
        self._path, self._start, self._frames = path, start, frames
        self._settings, self._earlier, self._flow_images = settings, earlier, flow_images
        self.flow: Future[np.ndarray] = Future()

    def measured(self) -> _Measured:
        """Return the clip with all that the settings ask for, or why there is none."""
        watch = Stopwatch()
        try:
            flow = self._flow(watch)
            if flow is not None and not np.isfinite(largest_displacement(flow)):
                message = f"{self._path}: the flow of the clip at frame {self._start} is not finite"
                return _Measured(None, ("not_finite", message), watch.seconds)
            with watch.stage("labels"):
                rgb = np.stack([frame.rgb for frame in self._frames])
                clip = measure(self._start, rgb, flow, self._settings)
        except VideoError as error:
            where = f"{error}; the clip at frame {self._start} is left out"
            return _Measured(None, (error.reason, where), watch.seconds)
        except Exception as error:  # whatever it is, it is this clip's, and the others go on
            _reraise_if_memory(error)
            where = f"{self._path}, clip at frame {self._start}"
            return _Measured(None, ("error", f"{where}: {_one_line(error)}"), watch.seconds)
        return _Measured(clip, None, watch.seconds)

    def _flow(self, watch: Stopwatch) -> np.ndarray | None:
        settings = self._settings
        if not settings.needs_flow:
            return None
        try:
            before = self._flow_before()
            with watch.stage("flow"):
                if before is None:
                    flow = self._flow_from(0)
                else:
                    # The last pairs are new; each stands between two frames.
                    new = self._flow_from(CLIP_LENGTH - 1 - settings.clip_stride)
                    flow = np.concatenate([before[len(new) :], new])
        except BaseException as error:
            self.flow.set_exception(error)
            raise
        self.flow.set_result(flow)
        return flow

    def _flow_from(self, first: int) -> np.ndarray:
        """Return the flow of the pairs from one of the clip's frames on."""
        if self._flow_images is not None:
            return self._flow_images.read(self._start + first, CLIP_LENGTH - 1 - first)
        return flow_of_frames(self._frames[first:], self._settings.flow)

    def _flow_before(self) -> np.ndarray | None:
        # Given up here: the chain of clips must not keep all of them in memory.
        earlier, self._earlier = self._earlier, None
        # What went wrong in the clip before is that clip's: this one is then measured whole.
        return None if earlier is None or earlier.exception() else earlier.result()


def _reraise_if_memory(error: Exception) -> None:
    """Raise if memory is short: not the video's fault, as far as anybody knows.

    The process then dies, and is replaced.
    """
    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem:
        raise MemoryError from error


def _one_line(error: Exception, root: Path | None = None) -> str:
    """Return what an unforeseen error says, without line breaks and the machine's own paths."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if root is None else text.replace(f"{root}{os.sep}", "")


def measure(
    start: int, frames: np.ndarray, flow: np.ndarray | None, settings: ExtractSettings
) -> Clip:
    """Return a clip with everything that the settings ask for.

    Parameters
    ----------
    start : int
        First frame in the video.
    frames : (16, 128, 171, 3) uint8
    flow : (15, 2, 128, 171) float32 or None
        Finite; None where the settings need none.
    settings : ExtractSettings
    """
    stored_flow = flow if settings.store_flow != "none" else None
    if not settings.labels or flow is None:
        return Clip(start, frames, None, None, None, stored_flow)
    crops = crop_positions(settings.crops, seed=settings.seed).astype(np.int64)
    sums = boundary_sums(flow)
    return Clip(
        start=start,
        frames=frames,
        labels=labels_of(frames, flow, sums, crops, profile=settings.profile),
        boundaries=stored_boundaries(sums) if settings.boundaries else None,
        energy=motion_energy(sums),
        flow=stored_flow,
    )


def warm_kernels(settings: ExtractSettings) -> float | None:
    """Compile in this process, once, what workers then load from Numba's cache.

    Returns
    -------
    float or None
        Seconds that a clip takes then, without decoding and writing, where it is not the first of
        its video; None where that depends on the videos' size, or flow is read.
    """
    size = settings.flow.size
    texture = np.random.default_rng(0).integers(0, 256, (32, 43, 3), np.uint8)
    larger = None if size == "source" else frame_size_for_flow(size, FRAME_SIZE)
    rgb = _drifting(texture, FRAME_SIZE)
    grey = _drifting(texture[..., 0], larger) if larger else [None] * CLIP_LENGTH
    frames = list(map(Frame, rgb, grey))
    if settings.flow.method == PRECOMPUTED:
        # How long images take is the disk's business; what they are resized with is compiled.
        texture_flow = np.resize(texture, (CLIP_LENGTH - 1, 2, 32, 43)).astype(np.float32)
        measure(0, np.stack(rgb), resized_flow(texture_flow, FRAME_SIZE), settings)
        return None
    # The first turn compiles, and gives what later clips share with the one before.
    flow = flow_of_frames(frames, settings.flow)
    measure(0, np.stack(rgb), flow, settings)
    start = time.perf_counter()
    flow_of_frames(frames[-settings.clip_stride - 1 :], settings.flow)
    measure(0, np.stack(rgb), flow, settings)
    return None if size == "source" else time.perf_counter() - start


def _drifting(texture: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    image = cv2.resize(texture, size[::-1])
    return [np.roll(image, t, axis=1) for t in range(CLIP_LENGTH)]
