"""One shard in one process: its videos in turn, from decoding to the seal (paper, Sec. 3)."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from labelgen.errors import VideoError
from labelgen.flow.compute import clip_flow, flow_of
from labelgen.geometry import CLIP_LENGTH, FRAME_SIZE
from labelgen.labels.boundaries import boundary_sums, motion_energy, stored_boundaries
from labelgen.labels.compute import labels_of
from labelgen.labels.crops import crop_positions
from labelgen.progress import Stopwatch, Tally
from labelgen.shards.plan import ShardPlan
from labelgen.shards.seal import Failure
from labelgen.shards.settings import ExtractSettings
from labelgen.shards.writer import Clip, ShardWriter
from labelgen.video.clips import cut_clips
from labelgen.video.decode import Video
from labelgen.video.manifest import ManifestRow, rows_digest


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
                    flow = clip_flow(
                        frames, settings.flow, previous=flow, stride=settings.clip_stride
                    )
            with watch.stage("labels"):
                rgb = np.stack([frame.rgb for frame in frames])
                clip = _measure(start, rgb, flow, crops, settings)
            with watch.stage("write"):
                writer.add_clip(clip)
            tally.add(task.number)
        video.check_length(CLIP_LENGTH)
    finally:
        video.close()
    writer.add_video(row, video.decoded)
    return ("truncated", video.truncation()) if video.truncated else None


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


def warm_kernels(settings: ExtractSettings) -> None:
    """Compile in this process, once, what workers then load from Numba's cache."""
    if not settings.needs_flow:
        return
    frames = np.zeros((CLIP_LENGTH, *FRAME_SIZE, 3), dtype=np.uint8)
    flow = flow_of(frames, settings.flow)
    _measure(0, frames, flow, crop_positions(settings.crops).astype(np.int64), settings)
