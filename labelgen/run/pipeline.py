"""The extraction: from a manifest to sealed shards, one process per shard at a time (Sec. 3)."""

from __future__ import annotations

import dataclasses
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from joblib import cpu_count

from labelgen.errors import LabelgenError
from labelgen.progress import ProgressLine, Tally, duration
from labelgen.run.engines import run_tasks
from labelgen.run.worker import ShardReport, ShardTask, warm_kernels
from labelgen.shards.folder import locked, open_run, remove_partials, write_failures
from labelgen.shards.plan import ShardPlan, plan_shards
from labelgen.shards.seal import Failure
from labelgen.shards.settings import ExtractSettings
from labelgen.video.decode import with_frames
from labelgen.video.manifest import ManifestRow, find_videos, read_manifest


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
        todo = open_run(out, settings=settings, plans=plans)
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
    warm_kernels(settings)
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
            return _collect(run_tasks(tasks, workers), max_failures)


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
