"""The targets that fill the paper's tables: every cell, and nothing made twice."""

import re
import subprocess

import pytest
from conftest import REPOSITORY

from train.evaluate.tables import PAPER

STAMPS = [f"-o{stamp}" for stamp in (".venv/.labelgen", ".venv/.train", ".venv/bin/pip")]


def planned(*words):
    """The commands that `make` would run."""
    made = ["make", "-n", "-C", str(REPOSITORY), "SMOKE=--smoke", *STAMPS, *words]
    done = subprocess.run(made, capture_output=True, text=True, check=True)
    return done.stdout


def cells(commands):
    return re.findall(r"train cell \S+ --table (\d) --row (\S+) --column (\S+)", commands)


def test_every_cell_is_filled_once():
    wanted = [
        (str(number), row, column)
        for number, rows in PAPER.items()
        for row, columns in rows.items()
        for column in columns
    ]
    assert sorted(cells(planned("tables"))) == sorted(wanted)


def test_nothing_is_trained_twice():
    commands = planned("tables", "SEEDS=3")
    outs = re.findall(
        r"train (?:pretrain|finetune|evaluate|scenes|similarity) .*?--out (\S+)",
        commands.replace("\\\n", " "),
    )
    assert len(outs) == len(set(outs)) == 9 + 15 + 15 + 3 + 1
    assert commands.count("--seeds 3") > 15


def test_a_dataset_names_its_column():
    assert {column for _, _, column in cells(planned("table3", "DATASET=hmdb51"))} == {"hmdb51"}
    assert {column for _, _, column in cells(planned("table3"))} == {"ucf101", "hmdb51"}


@pytest.mark.parametrize(
    ("row", "tasks"), [("pattern-1", "motion/grid"), ("global", "motion/global")]
)
def test_a_row_learns_its_labels(row, tasks):
    assert re.search(rf"--tasks {tasks} \\?\s*--out runs/paper/pretrain-{row} ", planned("tables"))


def test_shards_that_are_named_are_not_made_and_others_are_of_their_own_root():
    assert "make labels" in planned("table3", "DATASET=ucf101", "DATA_ROOT=/d", "SMOKE=")
    commands = planned("table4", "DATASET=ucf101", "DATA_ROOT=/d", "TRAIN_hmdb51=/x")
    made = re.findall(r'make labels DATASET=(\S+) .* DATA_ROOT="(\S+)"', commands)
    assert made == [("ucf101", "/d"), ("kinetics400", "data/kinetics400")]


def test_more_seeds_are_more_trainings_and_each_is_evaluated():
    commands = planned("table1", "SEEDS=3")
    assert "finetune-ucf101-scratch/seed-2 --labels" in commands
    assert "--scratch runs/paper/finetune-ucf101-scratch/seed-2" in commands
