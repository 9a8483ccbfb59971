"""Stand-ins for the commands of Slurm and Grid Engine, which run what they are given at once.

    python tests/schedulers.py sbatch|qsub|srun|scontrol WORD...

An option that is not known here is refused, whether it stands in a script or behind the command.
Nodes are processes of this machine. What is asked of `scontrol requeue` is written to the file
that FAKE_REQUEUED names.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SBATCH = {
    *("array", "job-name", "nodes", "ntasks-per-node", "cpus-per-task", "mem-per-cpu"),
    *("gpus-per-node", "time", "signal", "requeue", "open-mode", "output"),
}
# Of Grid Engine, with the number of words that follow.
QSUB = {"-t": 1, "-N": 1, "-S": 1, "-cwd": 0, "-V": 0, "-j": 1, "-r": 1, "-pe": 2, "-l": 1}


def long_options(words):
    """Take leading --name=value words off a list."""
    found = {}
    while words and words[0].startswith("--"):
        name, _, value = words.pop(0)[2:].partition("=")
        assert name in SBATCH, f"sbatch knows no --{name}"
        found[name] = value
    return found


def run_copies(script, words, environments):
    """Run a copy of a script, as schedulers do, under each environment; the worst exit code."""
    with tempfile.TemporaryDirectory() as spool:
        copy = shutil.copy(script, Path(spool, "job"))
        jobs = [
            subprocess.Popen([copy, *words], env={**os.environ, **more}) for more in environments
        ]
        return max(abs(job.wait()) for job in jobs)


def sbatch(words):
    given = long_options(words)
    script, *words = words
    lines = re.findall(r"^#SBATCH (--\S+)$", Path(script).read_text(), re.MULTILINE)
    options = long_options(lines) | given
    nodes = int(options.get("nodes", 1))
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_CPUS_PER_TASK": os.environ.get("FAKE_CPUS", options["cpus-per-task"]),
    }
    if "gpus-per-node" in options:
        job["SLURM_GPUS_ON_NODE"] = os.environ.get("FAKE_GPUS", options["gpus-per-node"])
    if "array" not in options:
        return run_copies(script, words, [job])
    first, last = map(int, options["array"].split("-"))
    array = {**job, "SLURM_ARRAY_TASK_MAX": str(last)}
    numbers = range(first, last + 1)
    return run_copies(
        script, words, [{**array, "SLURM_ARRAY_TASK_ID": str(number)} for number in numbers]
    )


def srun(words):
    nodes = int(os.environ["SLURM_JOB_NUM_NODES"])
    steps = [
        subprocess.Popen(words, env={**os.environ, "SLURM_NODEID": str(number)})
        for number in range(nodes)
    ]
    return max(abs(step.wait()) for step in steps)


def short_options(words):
    found = {}
    while words and words[0].startswith("-"):
        name = words.pop(0)
        assert name in QSUB, f"qsub knows no {name}"
        found[name], words[:] = words[: QSUB[name]], words[QSUB[name] :]
    return found


def qsub(words):
    given = short_options(words)
    script, *words = words
    options = {}
    for line in re.findall(r"^#\$ (.+)$", Path(script).read_text(), re.MULTILINE):
        options |= short_options(line.split())
    first, last = map(int, (options | given)["-t"][0].split("-"))
    slots = os.environ.get("FAKE_CPUS", options["-pe"][1])
    task = {"SGE_TASK_LAST": str(last), "NSLOTS": slots}
    numbers = range(first, last + 1)
    return run_copies(script, words, [{**task, "SGE_TASK_ID": str(number)} for number in numbers])


def scontrol(words):
    if words[:2] == ["show", "hostnames"]:
        print(words[2])
    elif words[0] == "requeue":
        Path(os.environ["FAKE_REQUEUED"]).write_text(words[1])
    else:
        raise AssertionError(f"scontrol knows no {words}")
    return 0


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[1]](sys.argv[2:]))
