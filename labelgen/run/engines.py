"""Who does which shard when: in this process, or in several at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence

from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from labelgen.errors import LabelgenError
from labelgen.run.worker import ShardReport, ShardTask, make_shard


def run_tasks(tasks: Sequence[ShardTask], workers: int) -> Iterator[ShardReport]:
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


def _make_shard_in_worker(task: ShardTask) -> ShardReport:
    # Ctrl-C reaches every process of the terminal; the parent alone decides what stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return make_shard(task)
