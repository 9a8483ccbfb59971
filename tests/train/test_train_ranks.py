"""Several processes: they learn what one does, agree on what they do, and none waits for ever."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from train_helpers import spoilt, toy_shards

from train import loop
from train.checkpoint import load
from train.device import Machine
from train.job import PretrainJob
from train.ranks import Ranks
from train.recipe import PretrainRecipe
from train.state import run_status
from train.stop import StopRequest

OPTIONS = [
    "--device", "cpu", "--recipe", "small", "--schedule", "step", "--no-batch-norm",
    "--width", "0.03", "--batch", "8",
    "--lr", "0.003", "--val", "0.2",
]  # fmt: skip
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_shards(tmp_path_factory.mktemp("toy") / "s", 24, shards=2)


def arguments(labels, out, *options):
    return ["pretrain", "--labels", str(labels), "--out", str(out), *OPTIONS, *map(str, options)]


def one_process(labels, out, *options):
    command = [sys.executable, "-m", "train.cli", *arguments(labels, out, *options)]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True)
    return records(out)


def start(ranks, *program):
    return subprocess.Popen(
        [*LAUNCHER, str(ranks), *map(str, program)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def several(ranks, labels, out, *options):
    with start(ranks, "-m", "train.cli", *arguments(labels, out, *options)) as process:
        said, _ = process.communicate(timeout=200)
    return process.returncode, said


def records(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def assert_close(one, other, **tolerance):
    a, b = load(one / "last.pt")["model"], load(other / "last.pt")["model"]
    for name in a:
        torch.testing.assert_close(a[name], b[name], **tolerance, msg=name)


@pytest.mark.parametrize(("ranks", "options"), [(2, ()), (3, ("--views", 2, "--accumulate", 2))])
def test_any_number_of_processes_learns_what_one_does(toy, tmp_path, ranks, options):
    """Three ranks share 4 clips of 2 views in 2 parts: some have none."""
    (one,) = one_process(toy, tmp_path / "one", "--epochs", 1, *options)
    code, said = several(ranks, toy, tmp_path / "more", "--epochs", 1, *options)
    assert code == 0, said
    assert_close(tmp_path / "one", tmp_path / "more", rtol=1e-4, atol=1e-6)
    (more,) = records(tmp_path / "more")
    assert more["train"]["clips"] == one["train"]["clips"]
    for figure in ("loss", "held_out_loss", "grad_norm"):
        assert more[figure] == pytest.approx(one[figure], rel=1e-4)


def ranks_of(launcher):
    """Process numbers of a launcher's ranks, in their order."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(") ")[2].split()[1])
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        rank = [value[5:] for value in environment if value.startswith(b"RANK=")]
        if parent == launcher.pid and rank:
            found[int(rank[0])] = int(folder.name)
    return [found[rank] for rank in sorted(found)]


def wait_for_an_epoch(process, out):
    while not (out / "log.jsonl").exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)


def test_when_a_rank_is_killed_the_others_end_and_the_rerun_is_the_same(toy, tmp_path):
    out = tmp_path / "run"
    with start(2, "-m", "train.cli", *arguments(toy, out, "--epochs", 200)) as process:
        wait_for_an_epoch(process, out)
        ranks = ranks_of(process)
        os.kill(ranks[1], signal.SIGKILL)
        killed = time.monotonic()
        said, _ = process.communicate(timeout=60)
    assert time.monotonic() - killed < 30, said
    assert process.returncode != 0
    assert not [rank for rank in ranks if Path(f"/proc/{rank}").exists()]
    assert run_status(out)[1] == 75
    done = len(records(out))
    assert several(2, toy, out, "--epochs", done + 1)[0] == 0
    assert several(2, toy, tmp_path / "whole", "--epochs", done + 1)[0] == 0
    assert_close(tmp_path / "whole", out, rtol=0, atol=0)


def with_ranks(tmp_path, labels, out, *options, preparation):
    """Two ranks that run `preparation` first, Python that knows `rank` and may change `argv`."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\nrank = int(os.environ['RANK'])\nargv = sys.argv\n"
        f"{preparation}\nfrom train import cli\nif __name__ == '__main__': cli.main()\n"
    )
    with start(2, program, *arguments(labels, out, *options)) as process:
        said, _ = process.communicate(timeout=200)
    return process.returncode, said


def test_ranks_on_different_disks_go_on_from_what_rank_0_has(toy, tmp_path):
    """Rank 1 has no checkpoint where it looks; it used to begin anew, and wait for ever."""
    one_process(toy, tmp_path / "run", "--epochs", 1)
    elsewhere = f"if rank: argv[argv.index('--out') + 1] = {str(tmp_path / 'elsewhere')!r}"
    code, said = with_ranks(tmp_path, toy, tmp_path / "run", "--epochs", 2, preparation=elsewhere)
    assert code == 0, said
    one_process(toy, tmp_path / "whole", "--epochs", 2)
    assert_close(tmp_path / "whole", tmp_path / "run", rtol=1e-4, atol=1e-6)
    assert not (tmp_path / "elsewhere").exists()


def test_ranks_with_different_data_say_so_once(toy, tmp_path):
    other = toy_shards(tmp_path / "other", 24, shards=2, seed=5)
    change = f"if rank: argv[argv.index('--labels') + 1] = {str(other)!r}"
    code, said = with_ranks(tmp_path, toy, tmp_path / "run", preparation=change)
    assert code != 0
    assert said.count("train: The ranks differ: shards '") == 1, said
    assert run_status(tmp_path / "run")[1] == 2


def test_ranks_with_different_options_say_so_once(toy, tmp_path):
    change = "if rank: argv += ['--save-every', '1', '--seed', '7']"
    code, said = with_ranks(tmp_path, toy, tmp_path / "run", preparation=change)
    assert code != 0
    assert said.count("train: The ranks differ: ") == 1, said
    assert "seed '0' on rank 0, '7' on rank 1" in said
    assert run_status(tmp_path / "run")[1] == 2


@pytest.mark.parametrize("bad", range(3))
def test_a_bad_frame_on_any_rank_is_a_mistake_of_the_whole(tmp_path, bad):
    labels = spoilt(toy_shards(tmp_path / "s", 24, jpeg=True), bad)
    code, said = several(2, labels, tmp_path / "run", "--val", 0, "--epochs", 1)
    assert code != 0
    sentence, status = run_status(tmp_path / "run")
    assert status == 2, said
    assert f"clip {bad}: it cannot be read" in sentence


def test_figures_with_batch_norm_are_those_of_the_network_that_is_kept(toy, tmp_path):
    """Each process has running figures of its own; rank 0's are saved."""
    options = ("--batch-norm", "--epochs", 1)
    code, said = several(2, toy, tmp_path / "run", *options)
    assert code == 0, said
    (record,) = records(tmp_path / "run")
    recipe = PretrainRecipe.from_dict(json.loads((tmp_path / "run" / "recipe.json").read_text()))
    job = PretrainJob(str(toy), "0.2", recipe)
    run = loop.Run(
        job, job.open_data(), machine=Machine(), ranks=Ranks(), device=torch.device("cpu"),
        out=tmp_path, content=load(tmp_path / "run" / "last.pt"),
    )  # fmt: skip
    alone = run.task.objective(run.evaluate(StopRequest()))
    assert alone == pytest.approx(record["held_out_loss"], rel=1e-5)


def test_what_one_rank_cannot_read_ends_all(toy, tmp_path):
    change = "if rank: argv[argv.index('--labels') + 1] = '/nowhere'"
    code, said = with_ranks(tmp_path, toy, tmp_path / "run", preparation=change)
    assert code != 0
    assert said.count("train: ") == said.count("holds no shards") == 1, said
    assert "(rank 1)" in said


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_rank_while_evaluating_stops_all(toy, tmp_path, rank):
    ask = (
        "import signal\nfrom train import loop\nreal = loop.Run.evaluate\n"
        "def evaluate(run, stop):\n"
        f"    if rank == {rank}: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return real(run, stop)\n"
        "loop.Run.evaluate = evaluate"
    )
    code, said = with_ranks(tmp_path, toy, tmp_path / "run", preparation=ask)
    assert code != 0
    assert said.count("train: Stopped while evaluating") == 1, said
    assert run_status(tmp_path / "run") == (
        "Stopped while evaluating; the epoch's training is saved.", 75,
    )  # fmt: skip


def test_an_error_of_one_rank_ends_all(toy, tmp_path):
    fail = (
        "from train import step\nreal = step.Learner.step\ncalls = []\n"
        "def spoilt(self, *args, **options):\n"
        "    calls.append(1)\n"
        "    if rank and len(calls) == 3: raise RuntimeError('CUDA out of memory (simulated)')\n"
        "    return real(self, *args, **options)\n"
        "step.Learner.step = spoilt"
    )
    before = time.monotonic()
    code, said = with_ranks(tmp_path, toy, tmp_path / "run", "--workers", 1, preparation=fail)
    assert time.monotonic() - before < 60
    assert code != 0
    assert "CUDA out of memory (simulated)" in said
    # It would happen again: no reason to run the same command again and again.
    assert run_status(tmp_path / "run") == ("CUDA out of memory (simulated) (rank 1)", 1)


def test_the_command_is_not_shadowed_by_a_users_train_py(toy, tmp_path):
    (tmp_path / "train.py").write_text("raise SystemExit('not this one')")
    command = Path(sys.executable).with_name("train")
    if not command.exists():
        pytest.skip("the command train is not installed beside this Python")
    launcher = [*LAUNCHER, "2", "--no-python", command, *arguments(toy, "run", "--epochs", 1)]
    done = subprocess.run(
        [*launcher, "--workers", "1"],
        cwd=tmp_path, env={**ENVIRONMENT, "PYTHONPATH": ""}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
