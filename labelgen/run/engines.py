"""Who does which shard when: in this process, or in workers that may die and be replaced."""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import wait

from labelgen.errors import LabelgenError
from labelgen.processes import WorkerProcess, how_it_ended
from labelgen.run.tally import Tally
from labelgen.run.worker import ShardReport, ShardTask, make_shard
from labelgen.shards.folder import remove_partials_of
from labelgen.shards.seal import Failure
from labelgen.signals import held

_TRIES = 2
_POLL_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Limits:
    """How a run treats workers.

    Attributes
    ----------
    workers : int
        Processes at most; 0 works in this one.
    video_timeout : float or None
        Seconds after which a worker that is on one video is stopped.
    max_failures : int or None
        The run stops when more videos than this have failed.
    """

    workers: int
    video_timeout: float | None = None
    max_failures: int | None = None


def run_tasks(
    tasks: Sequence[ShardTask],
    *,
    limits: Limits,
    tally: Tally,
    presence: int,
    tell: Callable[[Failure], None],
    say: Callable[[str], None],
) -> Generator[ShardReport, None, None]:
    """Yield what comes of tasks, as it comes; all workers are gone when the iterator is closed.

    Parameters
    ----------
    tasks : sequence of ShardTask
        The first begins first.
    limits : Limits
    tally : Tally
        Of the tasks.
    presence : int
        Descriptor that tells other runs that this one is there; workers hold it as well.
    tell : callable
        Takes each failure as soon as it is known; what it raises ends the run.
    say : callable
        Takes a line for people.

    Raises
    ------
    LabelgenError
        If a worker cannot write, or workers die before they have begun a video.
    """
    if limits.workers == 0:
        if limits.video_timeout is not None:
            raise LabelgenError("--video-timeout needs a process to stop; use --workers 1 or more")
        yield from (make_shard(task, tell=tell) for task in tasks)
        return
    with _Crew(limits, tally=tally, presence=presence, tell=tell, say=say) as crew:
        yield from crew.run(tasks)


class _Worker(WorkerProcess):
    """One process, the connection to it, and the task it is on."""

    def __init__(self, presence: int) -> None:
        super().__init__("labelgen.run.serve", kept=[presence])
        self.task: ShardTask | None = None
        self.timed_out = False

    def give(self, task: ShardTask) -> None:
        """Let it begin a task."""
        self.task, self.timed_out = task, False
        self.send(task)


class _Crew:
    """The workers of one run.

    Parameters
    ----------
    limits, tally, presence, tell, say
        As in `run_tasks`.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        tally: Tally,
        presence: int,
        tell: Callable[[Failure], None],
        say: Callable[[str], None],
    ) -> None:
        self._limits, self._tally, self._presence = limits, tally, presence
        self._tell, self._say = tell, say
        self._workers: list[_Worker] = []
        self._waiting: deque[ShardTask] = deque()
        self._deaths: Counter[tuple[int, int]] = Counter()

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *_: object) -> None:
        with held():
            for worker in self._workers:
                worker.stop()

    def run(self, tasks: Sequence[ShardTask]) -> Iterator[ShardReport]:
        """Yield what comes of tasks."""
        self._waiting.extend(tasks)
        while self._waiting or self._busy():
            self._hand_out()
            ready = wait([worker.connection for worker in self._workers], _POLL_SECONDS)
            for worker in [worker for worker in self._workers if worker.connection in ready]:
                yield from self._hear(worker)
            self._stop_late_ones()

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.task is not None]

    def _hand_out(self) -> None:
        """Give idle workers tasks; where there are none left, let the busy ones use the cores."""
        for worker in self._workers:
            if self._waiting and worker.task is None:
                worker.give(self._waiting.popleft())
        while self._waiting and len(self._workers) < self._limits.workers:
            with held():
                self._workers.append(_Worker(self._presence))
            self._workers[-1].give(self._waiting.popleft())
        busy = self._busy()
        for place, worker in enumerate(busy):
            if worker.task is not None:
                share, more = divmod(self._limits.workers, len(busy))
                self._tally.allow(worker.task.number, share + (place < more))

    def _hear(self, worker: _Worker) -> Iterator[ShardReport]:
        try:
            event = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        if isinstance(event, Exception):
            raise event
        if isinstance(event, Failure):
            self._tell(event)
        else:
            worker.task = None
            yield event

    def _stop_late_ones(self) -> None:
        for worker in self._busy() if self._limits.video_timeout is not None else ():
            on = self._tally.video(worker.task.number) if worker.task is not None else None
            if on is not None and on[1] > (self._limits.video_timeout or 0):
                worker.timed_out = True
                worker.process.kill()

    def _bury(self, worker: _Worker) -> None:
        """Take a dead worker's task back; the second time, leave out the video it was on."""
        # Its connection is gone: it is ending, or has ended.
        task, code, process = worker.task, worker.stop(patience=2.0), worker.process.pid
        self._workers.remove(worker)
        if task is None:
            return
        remove_partials_of(task.scratch or task.out, process)
        on, how = self._tally.video(task.number), how_it_ended(code)
        number = -1 if on is None else on[0]
        # In several threads it was on several videos: none of them is to blame yet.
        alone = task.one_thread or on is None or self._tally.threads(task.number) == 1
        self._deaths[task.number, number] += alone
        again = self._deaths[task.number, number] < _TRIES
        if on is None:
            if not again:
                raise LabelgenError(
                    f"a worker process {how} outside any video of {task.plan.file}, twice; run "
                    "again with fewer --workers, or with --workers 0 to see why"
                )
        else:
            task = self._judge(task, number, how, worker.timed_out, again=again)
        self._tally.begin(task.number)
        # From now on the video it dies on is the one.
        self._waiting.appendleft(dataclasses.replace(task, one_thread=True))

    def _judge(
        self, task: ShardTask, number: int, how: str, timed_out: bool, *, again: bool
    ) -> ShardTask:
        path = task.plan.rows[number].path
        reason, what = "crashed", f"the worker process {how}"
        if timed_out:
            reason, what = "timed_out", f"took longer than {self._limits.video_timeout:g} s"
        if again:
            self._say(f"{path}: {what}; its shard {task.plan.file} begins again")
            return task
        self._say(f"{path}: {what} once more; it is left out")
        fault = reason, f"{path}: {what}, {_TRIES} times"
        return dataclasses.replace(task, skip={**task.skip, number: fault})
