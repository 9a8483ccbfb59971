"""The shards of a run on the workers of a Dask cluster.

Not by way of joblib, whose backend for Dask works in the calling process where a cluster has but
one thread, and does not tell which task ended a worker.
"""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labelgen.errors import LabelgenError
from labelgen.progress import count_text
from labelgen.run.tally import Tally
from labelgen.run.worker import ShardReport, ShardTask, make_shard
from labelgen.shards.seal import Failure

_PATIENCE = 20
ALLOWED_FAILURES = 20
"""Deaths of workers that a task may see. Dask blames every task that a worker held for its end."""


def run_on_dask(
    tasks: Sequence[ShardTask],
    *,
    scheduler: str,
    tally: Tally,
    tell: Callable[[Failure], None],
) -> Generator[ShardReport, None, None]:
    """Yield what comes of tasks, as it comes; what has not begun is cancelled at the end.

    Workers and scheduler need this package, and every path of a task must be the same for them.

    Parameters
    ----------
    tasks : sequence of ShardTask
    scheduler : str
        Address, ``tcp://host:8786``.
    tally, tell
        As of `labelgen.run.engines.run_tasks`.

    Raises
    ------
    LabelgenError
        If the package is absent, no scheduler answers, it has no workers, a worker cannot write,
        or one shard ends worker after worker.
    """
    if not tasks:
        return
    with _client_of(scheduler) as client:
        from distributed import KilledWorker, as_completed

        # What is submitted first begins first. Nobody else may take a result of ours for theirs.
        futures = client.map(_make_alone, [_anywhere(task) for task in tasks], pure=False)
        by_key = {future.key: task for future, task in zip(futures, tasks, strict=True)}
        for future in as_completed(futures):
            task = by_key[future.key]
            try:
                report, failures = future.result()
            except KilledWorker:
                died = count_text(ALLOWED_FAILURES + 1, "Dask worker")
                raise LabelgenError(
                    f"{task.plan.file} ended {died}; run the same command without --engine dask on "
                    "one machine, which finds the video that does it and leaves it out"
                ) from None
            for failure in failures:
                tell(failure)
            for _ in range(report.clips):
                tally.add_clip(task.number)
            yield report


@contextmanager
def _client_of(scheduler: str) -> Generator[Any, None, None]:
    try:
        from distributed import Client
    except ImportError:
        raise LabelgenError("--engine dask needs Dask: pip install distributed") from None
    # What it says of connections that come and go is for its own developers.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = Client(scheduler, timeout=_PATIENCE)
    except (OSError, ValueError) as error:
        raise LabelgenError(
            f"no Dask scheduler answers at {scheduler} ({_first_line(error)}); start one with "
            "`dask scheduler`, and give the address that it prints"
        ) from None
    # When it is closed, what has not begun is forgotten.
    with client:
        client.run_on_scheduler(_allow_deaths)
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError:
            raise LabelgenError(
                f"the Dask scheduler at {scheduler} has no workers; start some with `dask worker "
                f"{scheduler}`"
            ) from None
        yield client


def _allow_deaths(dask_scheduler: Any) -> None:
    allowed = dask_scheduler.allowed_failures
    dask_scheduler.allowed_failures = max(allowed, ALLOWED_FAILURES)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _anywhere(task: ShardTask) -> ShardTask:
    """Return a task whose paths mean the same in every folder, for one thread of a worker."""
    paths = {
        name: path.resolve()
        for name in ("root", "out", "flow_root", "scratch")
        if (path := getattr(task, name)) is not None
    }
    return dataclasses.replace(task, **paths, number=0, one_thread=True)


def _make_alone(task: ShardTask) -> tuple[ShardReport, list[Failure]]:
    """Make a shard in a process that shares no memory with the one that asked for it."""
    failures: list[Failure] = []
    if task.scratch is not None:
        task.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="labelgen-") as folder:
        tally = Path(folder, "tally")
        Tally.create(tally, 1)
        report = make_shard(dataclasses.replace(task, tally=tally), tell=failures.append)
    return report, failures
