"""Recipes for clusters, under schedulers that only seem to be there: they run a job at once."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY, moving_square, write_video
from extraction import digests, extract
from train_helpers import toy_shards

SECONDS = 600
RECIPES = sorted((REPOSITORY / "workflows").glob("*.sh"))
WHAT = (
    "--flow", "farneback,levels=1,iterations=1", "--crops", "grid:16", "--frames", "raw",
    "--clips-per-shard", "1",
)  # fmt: skip

# Of both schedulers: a job is a copy of the script elsewhere, and what comes of it is kept.
JOB = """
import json, os, pathlib, shutil, subprocess, sys
spool = pathlib.Path(os.environ["SPOOL"])
number = 7 + len(list(spool.glob("*.job")))
words = sys.argv[1:]

def value(*names):
    for k, word in enumerate(words):
        name, equals, rest = word.partition("=")
        if name in names:
            return rest if equals else words[k + 1]

def submit(script, arguments, tasks, **environment):
    place = spool / f"{number}.job"
    place.write_text(script)
    for task in tasks:
        env = {**os.environ, **{name: text.format(task) for name, text in environment.items()}}
        done = subprocess.run(["bash", place, *arguments], env=env, capture_output=True, text=True)
        record = {"words": words, "code": done.returncode, "said": done.stdout + done.stderr}
        (spool / f"{number}.{task}.json").write_text(json.dumps(record))
"""
PROGRAM = "from {} import main\nif __name__ == '__main__':\n    main()\n"
TOOLS = {
    "sbatch": JOB
    + """
environment = {"SLURM_JOB_ID": str(number), "SLURM_CPUS_PER_TASK": "1"}
first, last = 0, 0
if array := value("--array"):
    first, last = map(int, array.split("-"))
    environment["SLURM_ARRAY_TASK_ID"] = "{}"
place = next((k for k, word in enumerate(words) if word.endswith(".sh")), None)
script = value("--wrap") if place is None else pathlib.Path(words[place]).read_text()
arguments = [] if place is None else words[place + 1:]
submit(script, arguments, range(first, last + 1), **environment)
print(f"{number};cluster" if "--parsable" in words else f"Submitted batch job {number}")
""",
    "qsub": JOB
    + """
environment = {"SGE_TASK_ID": "undefined", "NSLOTS": "1"}
first, last = 1, 1
if array := value("-t"):
    first, last = map(int, array.split("-"))
    environment["SGE_TASK_ID"] = "{}"
place = next((k for k, word in enumerate(words) if word.endswith(".sh")), None)
script = sys.stdin.read() if place is None else pathlib.Path(words[place]).read_text()
arguments = [] if place is None else words[place + 1:]
submit(script, arguments, range(first, last + 1), **environment)
print(f"{number}.{first}-{last}:1" if array else f'Your job {number} ("x") has been submitted')
""",
    # As many tasks at once as the job asked for.
    "srun": """
import os, signal, subprocess, sys
words = sys.argv[1:]
while words[0].startswith("--"):
    del words[0]
tasks = [subprocess.Popen(words) for _ in range(int(os.environ.get("SLURM_NTASKS", 1)))]
signal.signal(signal.SIGTERM, lambda *_: [task.terminate() for task in tasks])
sys.exit(max(abs(task.wait()) for task in tasks))
""",
    "scontrol": """
import os, pathlib, sys
if sys.argv[1] == "show":
    print("127.0.0.1\\nnode1")
else:
    pathlib.Path(os.environ["SPOOL"], "requeued").write_text(sys.argv[2])
""",
    "labelgen": PROGRAM.format("labelgen.cli"),
    "train": PROGRAM.format("train.cli"),
    "torchrun": PROGRAM.format("torch.distributed.run"),
    "dask": PROGRAM.format("dask.__main__"),
}


@pytest.fixture
def tools(tmp_path):
    """Environment with the tools of a cluster, and the project's commands, on the path."""
    folder, spool = tmp_path / "bin", tmp_path / "spool"
    folder.mkdir()
    spool.mkdir()
    for name, source in TOOLS.items():
        (folder / name).write_text(f"#!{sys.executable}\n{source}")
        (folder / name).chmod(0o755)
    (folder / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "python3").chmod(0o755)
    kept = {name: text for name, text in os.environ.items() if not name.startswith("SLURM_")}
    return {
        **kept,
        "PATH": os.pathsep.join([str(folder), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
        "SPOOL": str(spool),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Videos, one of them missing, a manifest of them, and the shards of a plain run."""
    folder = tmp_path_factory.mktemp("plain")
    counts = {"run/a.avi": 50, "run/b.avi": 33, "walk/c.avi": 16}
    for name, count in counts.items():
        write_video(folder / "videos" / name, moving_square(count, seed=count))
    rows = (f"{path},{count}\n" for path, count in {**counts, "walk/gone.avi": 20}.items())
    (folder / "m.csv").write_text("path,frames\n" + "".join(rows))
    extract(folder / "videos", folder / "s", manifest=folder / "m.csv", clips_per_shard=1)
    return folder


@pytest.fixture
def named(plain, tmp_path):
    """Variables of a recipe."""
    places = {"MANIFEST": plain / "m.csv", "ROOT": plain / "videos", "OUT": tmp_path / "s p"}
    return {name: str(path) for name, path in places.items()}


def run_recipe(name, *options, **environment):
    return subprocess.run(
        ["bash", REPOSITORY / "workflows" / name, *options],
        env=environment, capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip


def jobs(tmp_path):
    """What came of each task, by job."""
    found = {}
    for file in sorted((tmp_path / "spool").glob("*.json")):
        found.setdefault(file.name.partition(".")[0], []).append(json.loads(file.read_text()))
    return found


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.name)
def test_recipes_are_bash(recipe):
    done = subprocess.run(["bash", "-n", recipe], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "set -euo pipefail" in recipe.read_text()


@pytest.mark.parametrize(
    ("recipe", "tasks", "after"),
    [
        ("slurm_array.sh", "--array=0-1", "--dependency=afterany:7"),
        ("sge_array.sh", "1-2", "7"),
    ],
)
def test_an_array_makes_what_one_run_makes(recipe, tasks, after, plain, named, tools, tmp_path):
    expected = digests(plain / "s")
    scratch = tmp_path / "scratch"
    done = run_recipe(recipe, *WHAT, **tools, **named, TASKS="2", LOCAL=str(scratch))
    assert done.returncode == 0, done.stderr
    shards = sum(name.endswith(".h5") for name in expected)
    assert f"{shards} shards, 0 of them sealed" in done.stderr
    array, last = jobs(tmp_path).values()
    assert [task["code"] for task in array] == [0, 0], array
    assert all("clips/s" in task["said"] for task in array), array
    assert tasks in array[0]["words"]
    assert digests(tmp_path / "s p") == expected
    assert after in last[0]["words"]
    assert last[0]["code"] == 0, last
    assert f"{shards} shards checked, 0 problems" in last[0]["said"]


def test_what_is_sealed_is_not_submitted(plain, named, tools, tmp_path):
    shutil.copytree(plain / "s", tmp_path / "s p")
    done = run_recipe("slurm_array.sh", *WHAT, **tools, **named)
    assert done.returncode == 0, done.stderr
    assert jobs(tmp_path) == {}


def test_a_mistake_ends_an_array_before_it_is_submitted(tools, tmp_path):
    done = run_recipe("slurm_array.sh", **tools, MANIFEST=str(tmp_path / "none.csv"))
    assert done.returncode != 0
    assert "none.csv" in done.stderr
    assert jobs(tmp_path) == {}


@pytest.mark.cluster
def test_a_dask_cluster_in_a_job(plain, named, tools, tmp_path):
    of_job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "CLUSTER": str(tmp_path / "dask")}
    done = run_recipe("dask_slurm.sh", *WHAT, **tools, **named, **of_job)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "s p") == digests(plain / "s")
    workers = (tmp_path / "dask" / "workers.log").read_text()
    assert workers.count("Start worker at") == 2, workers


@pytest.mark.cluster
def test_a_dask_cluster_without_workers_ends(named, tools, tmp_path):
    (tmp_path / "bin" / "srun").write_text("#!/bin/sh\necho no machine >&2; exit 1\n")
    of_job = {"SLURM_JOB_ID": "7", "CLUSTER": str(tmp_path / "dask"), "PATIENCE": "20"}
    done = run_recipe("dask_slurm.sh", *WHAT, **tools, **named, **of_job)
    assert done.returncode == 1
    assert "no machine" in done.stderr
    assert not (tmp_path / "s p").exists()


OF_TRAINING = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[0-1]", "SLURM_JOB_NUM_NODES": "1"}
SMALL = (
    "--device", "cpu", "--recipe", "small", "--width", "0.03", "--epochs", "1", "--val", "0",
    "--workers", "0",
)  # fmt: skip


def test_training_with_two_ranks(tools, tmp_path):
    labels = toy_shards(tmp_path / "shards", 16)
    of_run = {"LABELS": str(labels), "RUN": str(tmp_path / "run"), "RANKS": "2"}
    done = run_recipe("slurm_train.sh", *SMALL, **tools, **OF_TRAINING, **of_run)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "last.pt").exists()
    assert not (tmp_path / "spool" / "requeued").exists()


@pytest.mark.parametrize(
    ("state", "restarts", "code", "requeued"),
    [("running", "49", 75, True), ("running", "50", 75, False), ("none", "0", 2, False)],
)
def test_training_that_was_stopped_is_put_back(state, restarts, code, requeued, tools, tmp_path):
    (tmp_path / "bin" / "torchrun").write_text("#!/bin/sh\nexit 1\n")
    if state != "none":
        (tmp_path / "run").mkdir()
        record = json.dumps({"state": state, "message": ""})
        (tmp_path / "run" / "state.json").write_text(record)
    of_run = {"RUN": str(tmp_path / "run"), "SLURM_RESTART_COUNT": restarts}
    done = run_recipe("slurm_train.sh", *SMALL, **tools, **OF_TRAINING, **of_run)
    assert done.returncode == code, done.stderr
    assert (tmp_path / "spool" / "requeued").exists() == requeued
