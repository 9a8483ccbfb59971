"""Extractions on a real Dask cluster: a scheduler and two workers, processes of their own."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from extraction import FLOW, digests, extract

from labelgen.errors import LabelgenError
from labelgen.run import cluster
from labelgen.shards.claims import CLAIMS

pytestmark = pytest.mark.cluster
pytest.importorskip("distributed")
SECONDS = 60


def until(condition):
    end = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


@pytest.fixture
def start(tmp_path):
    """Start a program of Dask's in a process group of its own; all are gone at the end."""
    programs = []
    # What tests put in the place of functions is found there by name.
    here = Path(__file__).parent
    path = (str(here), str(here.parent), os.environ.get("PYTHONPATH", ""))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}

    def begin(*words):
        log = tmp_path / f"{len(programs)}.log"
        with log.open("w") as stream:
            programs.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dask", *map(str, words)],
                    stdout=stream, stderr=stream, start_new_session=True, env=env,
                )
            )  # fmt: skip
        return programs[-1], log

    begin.programs = programs
    yield begin
    for program in programs:
        if program.poll() is None:
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()


@pytest.fixture
def scheduler(start):
    _, log = start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    found = until(lambda: re.search(r"Scheduler at:\s+(tcp://\S+)", log.read_text()))
    return found[1]


@pytest.fixture
def worker(start, scheduler, tmp_path):
    def begin(*more):
        return start(
            "worker", scheduler, "--nthreads", "1", "--no-dashboard", "--local-directory",
            tmp_path / "dask", *more,
        )[0]  # fmt: skip

    return begin


@pytest.fixture
def plain(videos, tmp_path):
    extract(videos, tmp_path / "plain", clips_per_shard=1)
    return digests(tmp_path / "plain")


def test_two_workers_make_the_same_shards(videos, tmp_path, plain, scheduler, worker):
    worker()
    worker()
    summary = extract(videos, tmp_path / "s", clips_per_shard=1, scheduler=scheduler)
    assert digests(tmp_path / "s") == plain
    assert summary.shards == sum(name.endswith(".h5") for name in plain)
    assert summary.clips > 0
    assert {failure.path for failure in summary.failures}


@pytest.mark.parametrize("nanny", ["--nanny", "--no-nanny"])
def test_a_killed_worker_changes_nothing(videos, tmp_path, plain, scheduler, worker, nanny):
    out = tmp_path / "s"
    first = worker(nanny)
    run = subprocess.Popen(
        [
            sys.executable, "-m", "labelgen.cli", "extract", "--root", videos, "--out", out,
            "--crops", "grid:16", "--frames", "raw", "--clips-per-shard", "1", "--engine", "dask",
            "--flow", "farneback,levels=1,iterations=1", "--scheduler", scheduler,
        ],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    # At work on some shard, and with the others in its queue.
    until(lambda: list(out.glob(f"{CLAIMS}/*.h5")))
    os.killpg(first.pid, signal.SIGKILL)
    worker(nanny)
    said = run.communicate(timeout=SECONDS)[1]
    assert run.returncode == 0, said
    assert digests(out) == plain
    assert not (out / CLAIMS).exists()
    assert not list(out.glob("*.part"))


def test_deaths_that_are_allowed(scheduler, worker):
    from distributed import Client

    worker()
    with cluster._client_of(scheduler), Client(scheduler) as client:
        assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.allowed_failures) == 20


def test_a_shard_that_ends_every_worker_is_one_sentence(
    videos, tmp_path, scheduler, worker, monkeypatch
):
    monkeypatch.setattr(cluster, "ALLOWED_FAILURES", 0)
    monkeypatch.setattr(cluster, "_allow_deaths", _allow_none)
    monkeypatch.setattr(cluster, "_make_alone", _die)
    worker("--nanny")
    with pytest.raises(LabelgenError, match=r"\.h5 ended 1 Dask worker; run the same command"):
        extract(videos, tmp_path / "s", scheduler=scheduler)


def _allow_none(dask_scheduler):
    dask_scheduler.allowed_failures = 0


def _die(task, versions):
    os.kill(os.getpid(), signal.SIGKILL)


def test_no_scheduler_and_no_workers_are_one_sentence(videos, tmp_path, scheduler, monkeypatch):
    monkeypatch.setattr(cluster, "_PATIENCE", 1)
    with pytest.raises(LabelgenError, match="no Dask scheduler answers at tcp://127.0.0.1:1 "):
        extract(videos, tmp_path / "s", scheduler="tcp://127.0.0.1:1")
    with pytest.raises(LabelgenError, match=f"the Dask scheduler at {scheduler} has no workers"):
        extract(videos, tmp_path / "s", scheduler=scheduler)


def test_what_a_worker_cannot_write_ends_the_run(videos, tmp_path, scheduler, worker):
    worker()
    (tmp_path / "file").touch()
    with pytest.raises(LabelgenError, match="file"):
        extract(
            videos, tmp_path / "s", scheduler=scheduler, flow=FLOW, scratch=tmp_path / "file" / "x"
        )


@pytest.mark.parametrize("dies", ["scheduler", "worker"])
def test_a_cluster_that_is_gone_is_one_sentence(
    videos, tmp_path, start, scheduler, worker, monkeypatch, dies
):
    monkeypatch.setattr(cluster, "_PATIENCE", 2)
    monkeypatch.setattr(cluster, "_make_alone", _sleep)
    only = worker("--no-nanny")
    victim = only if dies == "worker" else start.programs[0]
    killer = threading.Thread(
        target=lambda: (until((tmp_path / "s" / "begun").exists), os.killpg(victim.pid, 9))
    )
    killer.start()
    said = {"scheduler": "the Dask scheduler is gone", "worker": "has no workers; start some"}
    with pytest.raises(LabelgenError, match=said[dies]):
        extract(videos, tmp_path / "s", scheduler=scheduler)
    killer.join()


def _sleep(task, versions):
    (task.out / "begun").touch()
    time.sleep(SECONDS)


def test_workers_of_other_versions_are_refused():
    with pytest.raises(LabelgenError, match=r"has labelgen \S+, and this process has None"):
        cluster._check_versions({})
