"""Workers that die, hang or are killed, and runs that are stopped, at whatever moment."""

import os
import signal
import threading
import time
from contextlib import suppress

import kills
import pytest
from conftest import moving_square, write_video
from extraction import (
    begun,
    digests,
    extract,
    failures,
    run_command,
    start,
    wait_for,
)

from labelgen.errors import LabelgenError
from labelgen.run import engines
from labelgen.run.tally import Tally
from labelgen.shards.verify import find_problems

QUICK = ("--flow", "dis", "--crops", "center", "--clips-per-shard", "4")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four videos of two to four clips; the tests spoil ``c.avi``."""
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate("abcd"):
        write_video(folder / f"{name}.avi", moving_square(32 + 16 * (number % 3), seed=number))
    return folder


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """What an extraction that nobody disturbs makes."""
    out = tmp_path_factory.mktemp("whole")
    run_command("extract", "--root", root, "--out", out, *QUICK, "--workers", 2, check=True)
    return digests(out)


def spoilt(root, out, hook, *options):
    done = run_command("extract", "--root", root, "--out", out, *QUICK, *options, hook=hook)
    assert "Traceback" not in done.stderr
    return done


def sealed_but_c(out, whole):
    """Whether all shards are there, and those without c.avi as nobody disturbed them."""
    found = {name: digest for name, digest in digests(out).items() if name.endswith(".h5")}
    same = [name for name in found if found[name] == whole[name]]
    assert found.keys() == {name for name in whole if name.endswith(".h5")}
    assert len(same) == len(found) - 1
    assert find_problems(out)[1] == []


@pytest.mark.parametrize(
    ("how", "reason", "message"),
    [
        ("abort", "crashed", "c.avi: the worker process died of SIGABRT, 2 times"),
        ("memory", "crashed", "c.avi: the worker process ended with exit code 12, 2 times"),
        ("raise", "error", "c.avi: ZeroDivisionError: first line second line"),
        ("hang", "timed_out", "c.avi: took longer than 2 s, 2 times"),
    ],
)
def test_one_poisonous_video_does_not_stop_the_rest(root, whole, tmp_path, how, reason, message):
    options = ("--workers", 2, *(("--video-timeout", 2) if how == "hang" else ()))
    out = tmp_path / "s"
    done = spoilt(root, out, f"{how}:c.avi", *options)
    assert done.returncode == 0, done.stderr
    assert "c.avi" in done.stderr or how == "raise"
    found = failures(out)
    assert {path: record["reason"] for path, record in found.items()} == {"c.avi": reason}
    assert found["c.avi"]["message"] == message
    assert int(found["c.avi"]["clips"]) == (how == "raise")
    sealed_but_c(out, whole)


def test_a_crash_while_several_threads_compute_blames_the_right_video(root, whole, tmp_path):
    """By then the decoder has gone on to the next video."""
    out = tmp_path / "s"
    options = (*QUICK[:-1], 100, "--workers", 3)
    done = run_command("extract", "--root", root, "--out", out, *options, hook="compute:c.avi")
    assert done.returncode == 0, done.stderr
    assert set(failures(out)) == {"c.avi"}
    assert failures(out)["c.avi"]["reason"] == "crashed"
    assert find_problems(out)[1] == []


@pytest.mark.parametrize(("how", "said"), [("seal", "died of SIGABRT"), ("bug", "ValueError: odd")])
def test_what_goes_wrong_outside_videos_ends_the_run_and_blames_none(root, tmp_path, how, said):
    out = tmp_path / "s"
    options = (*QUICK, "--workers", 2)
    done = run_command("extract", "--root", root, "--out", out, *options, hook=how)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert failures(out) == {}
    assert not list(out.glob("*.part"))


def test_an_error_in_a_video_is_the_same_in_this_process(root, whole, tmp_path):
    spoilt(root, tmp_path / "one", "raise:c.avi", "--workers", 0)
    spoilt(root, tmp_path / "two", "raise:c.avi", "--workers", 2)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_workers_that_never_begin_end_the_run(root, tmp_path):
    done = spoilt(root, tmp_path / "s", "no-worker", "--workers", 2)
    assert done.returncode == 2
    assert "exit code 3 outside any video" in done.stderr


def start_long_run(tmp_path, workers=2):
    root = tmp_path / "long"
    for number in range(4):
        write_video(root / f"{number}.avi", moving_square(96, seed=number))
    # Many iterations: a shard takes about a second.
    arguments = (
        *("extract", "--root", root, "--out", tmp_path / "s", "--clips-per-shard", "6"),
        *("--crops", "center", "--flow", "farneback:iterations=15", "--workers", workers),
    )
    return arguments, start(*arguments)


@pytest.mark.parametrize("workers", [0, 2])
def test_kill_in_mid_shard_and_resume(tmp_path, workers):
    arguments, process = start_long_run(tmp_path, workers)
    wait_for(lambda: begun(tmp_path / "s"), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert find_problems(tmp_path / "s")[1]
    assert "clips/s" in run_command(*arguments, check=True).stderr
    assert find_problems(tmp_path / "s") == (4, [])
    clean = [*arguments[:4], tmp_path / "clean", *arguments[5:]]
    run_command(*clean, check=True)
    assert digests(tmp_path / "s") == digests(tmp_path / "clean")


def test_workers_end_with_their_parent_even_where_they_cannot_look(tmp_path):
    _, process = start_long_run(tmp_path)
    wait_for(lambda: begun(tmp_path / "s"), process)
    workers = kills.children(process.pid)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    process.kill()
    process.communicate()
    for _ in range(100):
        if not any(map(kills.alive, workers)):
            break
        time.sleep(0.02)
    assert workers
    assert not any(map(kills.alive, workers))


def test_random_kills(tmp_path):
    """A short round of what `make kills` does for long."""
    root, seconds = kills.make_videos(tmp_path / "videos"), 3.0
    begin = time.monotonic()
    clean = run_command(*kills.command(root, tmp_path / "clean")[3:])
    assert clean.returncode == 0
    seconds = time.monotonic() - begin
    moment = kills.random.Random(1)
    for target in kills.TARGETS:
        out = tmp_path / target
        kills.one_round(root, out, moment.uniform(seconds / 2, seconds), target, moment)
        assert kills.digests(out) == kills.digests(tmp_path / "clean")


@pytest.mark.parametrize(
    ("workers", "number"),
    [(0, signal.SIGINT), (1, signal.SIGINT), (2, signal.SIGINT), (2, signal.SIGTERM)],
)
def test_interruption_stops_cleanly(tmp_path, workers, number):
    _, process = start_long_run(tmp_path, workers)
    wait_for(lambda: begun(tmp_path / "s"), process)
    workers = kills.children(process.pid)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert_stopped_cleanly(process, errors, tmp_path / "s", workers)
    assert (tmp_path / "s" / "failures.csv").is_file()


def assert_stopped_cleanly(process, errors, out, workers):
    assert process.returncode == 130, errors
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    assert not list(out.glob("*.part"))
    assert not [worker for worker in workers if kills.alive(worker)]


def test_ctrl_c_while_workers_start(tmp_path):
    _, process = start_long_run(tmp_path)
    wait_for(lambda: kills.children(process.pid), process)
    workers = kills.children(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert_stopped_cleanly(process, errors, tmp_path / "s", workers)


@pytest.mark.parametrize("gap", [0.0, 0.003, 0.02, 0.1])
def test_ctrl_c_twice(tmp_path, gap):
    _, process = start_long_run(tmp_path)
    wait_for(lambda: begun(tmp_path / "s"), process)
    workers = kills.children(process.pid)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        time.sleep(gap)
    _, errors = process.communicate(timeout=30)
    assert_stopped_cleanly(process, errors, tmp_path / "s", workers)


def test_signals_are_afterwards_what_they_were(root, tmp_path):
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        extract(root, tmp_path / "s", workers=1)
        assert {signal.getsignal(number) for number in numbers} == {signal.default_int_handler}
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def test_from_a_thread(root, tmp_path):
    done = []
    thread = threading.Thread(target=lambda: done.append(extract(root, tmp_path / "s", workers=2)))
    thread.start()
    thread.join()
    assert done[0].clips == 11


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_failures_stop_the_run_at_once(root, tmp_path, workers):
    folder = tmp_path / "videos"
    for number in range(3):
        write_video(folder / f"bad{number}.avi", moving_square(3))
    for file in root.iterdir():
        (folder / file.name).symlink_to(file)
    # All in one shard: the run does not wait for its end.
    with pytest.raises(LabelgenError, match="2 videos failed, more than --max-failures 1"):
        extract(folder, tmp_path / "s", workers=workers, max_failures=1, clips_per_shard=100)
    assert not list((tmp_path / "s").glob("*.h5"))
    assert not list((tmp_path / "s").glob("*.part"))


class Crew(engines._Crew):
    """A crew whose allowances can be read."""

    def __init__(self, tally, workers):
        super().__init__(engines.Limits(workers), tally=tally, presence=0, tell=print, say=print)


@pytest.mark.parametrize(
    ("workers", "tasks", "threads"), [(5, 2, [3, 2]), (2, 1, [2]), (3, 3, [1, 1, 1])]
)
def test_spare_workers_help_inside_shards(tmp_path, workers, tasks, threads, monkeypatch):
    class Worker:
        def __init__(self, presence):
            self.task = None

        def give(self, task):
            self.task = task

        def stop(self):
            """There is nothing to stop."""

    class Task:
        def __init__(self, number):
            self.number = number

    monkeypatch.setattr(engines, "_Worker", Worker)
    tally = Tally.create(tmp_path / "tally", tasks)
    with Crew(tally, workers) as crew:
        crew._waiting.extend(map(Task, range(tasks)))
        crew._hand_out()
        assert len(crew._workers) == tasks
    assert [tally.threads(task) for task in range(tasks)] == threads
