"""The recipes for schedulers, run by stand-ins for these (`tests/schedulers.py`)."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from extraction import digests, run_command
from train_helpers import toy_shards

from labelgen.shards.status import read_status

WORKFLOWS = REPOSITORY / "workflows"
QUICK = ("--no-labels", "--frames", "jpeg:50", "--clips-per-shard", "1")
SCHEDULERS = Path(__file__).with_name("schedulers.py")
COMMANDS = ("sbatch", "qsub", "srun", "scontrol")


def program(folder, name, lines):
    file = folder / name
    file.write_text(f"#!/bin/sh\n{lines}\n")
    file.chmod(0o755)


@pytest.fixture
def environment(tmp_path):
    """Where the commands of schedulers are stand-ins, and the rest is of this Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in COMMANDS:
        program(folder, name, f'exec "{sys.executable}" "{SCHEDULERS}" {name} "$@"')
    for name in ("labelgen", "train"):
        program(folder, name, f'exec "{sys.executable}" -m {name}.cli "$@"')
    here = (folder, Path(sys.executable).parent, os.environ["PATH"])
    paths = (REPOSITORY, os.environ.get("PYTHONPATH", ""))
    (tmp_path / "scratch").mkdir()
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("SLURM_")},
        "PATH": os.pathsep.join(map(str, here)),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "TMPDIR": str(tmp_path / "scratch"),
        "FAKE_CPUS": "1",
        "FAKE_GPUS": "1",
        "FAKE_REQUEUED": str(tmp_path / "requeued"),
        "OMP_NUM_THREADS": "1",
    }


def submit(tmp_path, environment, *words):
    return subprocess.run(
        list(map(str, words)),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def plain(videos, tmp_path):
    words = ("extract", "--root", videos, "--out", tmp_path / "plain", "--workers", 0, *QUICK)
    run_command(*words, check=True)
    return digests(tmp_path / "plain")


@pytest.mark.parametrize(
    "command",
    [
        ("sbatch", "--array=0-1", WORKFLOWS / "slurm_array.sh"),
        ("qsub", "-t", "1-2", WORKFLOWS / "sge_array.sh"),
    ],
    ids=["slurm", "sge"],
)
def test_an_array_makes_what_one_run_makes(videos, tmp_path, environment, plain, command):
    out = tmp_path / "s"
    words = (*command, "--root", videos, "--out", out, *QUICK)
    done = submit(tmp_path, environment, *words)
    assert done.returncode == 0, done.stderr
    # Each made its own share, by way of the scratch.
    assert done.stderr.count("clips/s") == 2, done.stderr
    assert digests(out) == plain
    assert not list((tmp_path / "scratch").glob("*.part"))


@pytest.mark.parametrize(
    "command",
    [
        ("sbatch", "--array=1-1", WORKFLOWS / "slurm_array.sh"),
        ("qsub", "-t", "2-2", WORKFLOWS / "sge_array.sh"),
    ],
    ids=["slurm", "sge"],
)
def test_one_task_of_an_array_alone_has_its_share_of_all(videos, tmp_path, environment, command):
    out = tmp_path / "s"
    words = (*command, "--root", videos, "--out", out, *QUICK)
    assert submit(tmp_path, {**environment, "PARTS": "3"}, *words).returncode == 0
    (status,) = read_status(out).sets.values()
    assert 0 < status.sealed < status.shards


def fake_training(folder, code):
    """In place of torchrun and of train, so that their words are seen; the run ends with a code."""
    program(folder, "torchrun", f'printf "%s\\n" "$*" >> {folder}/words; exit 1')
    program(folder, "train", f'printf "%s\\n" "train $*" >> {folder}/words; exit {code}')


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (75, True), (2, False)])
def test_training_is_submitted_again_where_it_was_stopped(tmp_path, environment, code, requeued):
    fake_training(tmp_path / "bin", code)
    variables = {**environment, "RUN": "runs/x"}
    script = WORKFLOWS / "slurm_train.sh"
    done = submit(
        tmp_path, variables, "sbatch", "--nodes=2", script, "pretrain", "--labels", "my shards"
    )
    assert done.returncode == code, done.stderr
    *ranks, status = (tmp_path / "bin" / "words").read_text().splitlines()
    assert ranks == 2 * [
        "--nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-id 7 --rdzv-endpoint "
        "localhost:29500 --no-python train pretrain --labels my shards --out runs/x"
    ]
    assert status == "train status runs/x"
    assert (tmp_path / "requeued").exists() == requeued


@pytest.mark.cluster
def test_training_on_two_nodes(tmp_path, environment):
    labels = toy_shards(tmp_path / "toy", 24, shards=2)
    variables = {**environment, "RUN": str(tmp_path / "run"), "PORT": "29517"}
    options = ("--device", "cpu", "--recipe", "small", "--width", "0.03", "--epochs", "1")
    script = WORKFLOWS / "slurm_train.sh"
    words = ("pretrain", "--labels", labels, *options)
    done = submit(tmp_path, variables, "sbatch", "--nodes=2", script, *words)
    assert done.returncode == 0, done.stderr
    assert "finished" in done.stdout
    (record,) = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert json.loads(record)["epoch"] == 1


@pytest.mark.cluster
def test_a_cluster_of_dask_inside_a_job(videos, tmp_path, environment, plain):
    pytest.importorskip("distributed")
    out = tmp_path / "s"
    words = ("--root", videos, "--out", out, *QUICK)
    script = WORKFLOWS / "dask_slurm.sh"
    done = submit(tmp_path, environment, "sbatch", "--nodes=2", script, *words)
    assert done.returncode == 0, done.stderr
    assert digests(out) == plain
    assert not list(tmp_path.glob(".dask-*"))
    wrong = submit(tmp_path, environment, "sbatch", script, *words, "--crops", "every")
    assert wrong.returncode == 2
    assert "unknown crops 'every'" in wrong.stderr


def test_the_page_names_every_recipe_and_no_other():
    page = (REPOSITORY / "docs" / "scale.md").read_text(encoding="utf-8")
    assert set(re.findall(r"workflows/(\w+\.sh)", page)) == {f.name for f in WORKFLOWS.glob("*.sh")}


def test_the_stand_ins_know_what_they_are_told(tmp_path, environment):
    script = tmp_path / "job.sh"
    for line, command in (("#SBATCH --nodez=2", "sbatch"), ("#$ -x 3", "qsub")):
        script.write_text(f"#!/bin/bash\n{line}\n")
        done = submit(tmp_path, environment, command, script)
        assert "knows no" in done.stderr
