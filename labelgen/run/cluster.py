"""The shards of a run on the workers of a Dask cluster.

Not by way of joblib, whose backend for Dask works in the calling process where a cluster has but
one thread, and does not tell which task ended a worker.
"""

from __future__ import annotations

import dataclasses
import logging
import platform
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labelgen.errors import LabelgenError
from labelgen.progress import count_text
from labelgen.run.tally import Tally
from labelgen.run.worker import ShardReport, ShardTask, make_shard
from labelgen.shards.folder import remove_dead_partials
from labelgen.shards.seal import Failure
from labelgen.shards.settings import software_versions

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

    What has begun, workers finish: it is sealed then, and not lost. Workers and scheduler need this
    package, and every path of a task must be the same for them.

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
        # What is submitted first begins first. Nobody else may take a result of ours for theirs.
        versions = [software_versions()] * len(tasks)
        futures = client.map(_make_alone, list(map(_anywhere, tasks)), versions, pure=False)
        left = dict(zip(futures, tasks, strict=True))
        while left:
            for future in _done(client, list(left), scheduler):
                task = left.pop(future)
                report, failures = _result(future, task)
                for failure in failures:
                    tell(failure)
                for _ in range(report.clips):
                    tally.add_clip(task.number)
                yield report


def _done(client: Any, futures: list[Any], scheduler: str) -> list[Any]:
    """Return futures that have come to an end, after a while perhaps none."""
    from distributed import CancelledError, wait

    try:
        return list(wait(futures, timeout=_PATIENCE, return_when="FIRST_COMPLETED").done)
    except CancelledError:
        raise _no_scheduler() from None
    except TimeoutError:
        if not client.nthreads():
            raise _no_workers(scheduler) from None
        return []


def _result(future: Any, task: ShardTask) -> tuple[ShardReport, list[Failure]]:
    from distributed import CancelledError, KilledWorker

    try:
        made: tuple[ShardReport, list[Failure]] = future.result()
    except KilledWorker:
        died = count_text(ALLOWED_FAILURES + 1, "Dask worker")
        raise LabelgenError(
            f"{task.plan.file} ended {died}; run the same command without --engine dask on one "
            "machine, which finds the video that does it and leaves it out"
        ) from None
    except CancelledError:
        raise _no_scheduler() from None
    except MemoryError:
        raise LabelgenError(
            f"a Dask worker had too little memory for {task.plan.file}; give it more, or fewer "
            "threads"
        ) from None
    return made


def _no_scheduler() -> LabelgenError:
    return LabelgenError(
        "the Dask scheduler is gone; start it again, with its workers, and run the same command "
        "again"
    )


def _no_workers(scheduler: str) -> LabelgenError:
    return LabelgenError(
        f"the Dask scheduler at {scheduler} has no workers; start some with `dask worker "
        f"{scheduler}`, where this package can be imported, and run the same command again"
    )


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
        try:
            client.run_on_scheduler(_allow_deaths)
            client.wait_for_workers(1, timeout=_PATIENCE)
        except ModuleNotFoundError as error:
            raise LabelgenError(
                f"the Dask scheduler at {scheduler} lacks what it needs ({error}); start it, and "
                "its workers, where this package is installed"
            ) from None
        except TimeoutError:
            raise _no_workers(scheduler) from None
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


def _make_alone(task: ShardTask, versions: dict[str, str]) -> tuple[ShardReport, list[Failure]]:
    """Make a shard in a process that shares no memory with the one that asked for it."""
    _check_versions(versions)
    failures: list[Failure] = []
    if task.scratch is not None:
        task.scratch.mkdir(parents=True, exist_ok=True)
        remove_dead_partials(task.scratch)
    with tempfile.TemporaryDirectory(prefix="labelgen-") as folder:
        tally = Path(folder, "tally")
        Tally.create(tally, 1)
        report = make_shard(dataclasses.replace(task, tally=tally), tell=failures.append)
    return report, failures


def _check_versions(wanted: dict[str, str]) -> None:
    """Raise `LabelgenError` where a worker would not make the bytes that a run records."""
    for name, version in software_versions().items():
        if version != wanted.get(name):
            raise LabelgenError(
                f"a Dask worker on {platform.node()} has {name} {version}, and this process has "
                f"{wanted.get(name)}; install the same everywhere"
            )
