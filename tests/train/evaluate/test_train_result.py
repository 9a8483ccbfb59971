"""Results and tables: means with errors, floors beside every figure, no cell without one."""

import csv
import json
import math
from dataclasses import replace

import pytest

from train import TrainError
from train.device import Machine
from train.evaluate import result as result_module
from train.evaluate.protocols import PROTOCOLS
from train.evaluate.result import Outcome, Trial, measured, read_result, table
from train.evaluate.tables import PAPER, put
from train.models.weights import Weights
from train.recipe import SCRATCH, PretrainRecipe


def weights_of(seed):
    drawn = Weights(f"run{seed}", PretrainRecipe(width=0.02), {}, {}).randomised(seed + 10)
    return replace(drawn, name=f"run{seed}", begun=SCRATCH)


def outcome_of(weights, folder):
    """A figure that tells which network it is of: runs .5, .6, ..., random weights .1, .2, ..."""
    number = int(folder.name.split("-")[1])
    share = {"run": 0.5, "random": 0.1, "scratch": 0.3}[folder.name.split("-")[0]] + number / 10
    figures = {"total": share, "other": 0.25}
    return Outcome(figures, {"total": 0.2, "other": 0.125}, {"labels": "abc"}, ["a note"])


@pytest.fixture(autouse=True)
def _toys_in_place_of_files(monkeypatch):
    monkeypatch.setattr(result_module, "read_weights", lambda name: weights_of(int(name)))


def trial_of(out, runs, **options):
    return Trial([str(run) for run in runs], out, PROTOCOLS["ours"], Machine("cpu"), **options)


def result_of(out, runs=3, seeds=2, scratch=1, command="evaluate"):
    trial = trial_of(out, range(runs), seeds=seeds, scratch=["9"] * scratch)
    return measured(command, trial, outcome_of, c=2)


def test_means_and_standard_errors_by_hand(tmp_path):
    figure = result_of(tmp_path)["figures"]["total"]
    assert figure["values"] == [0.5, 0.6, 0.7]
    assert figure["mean"] == pytest.approx(0.6)
    assert figure["standard_error"] == pytest.approx(0.1 / math.sqrt(3))
    assert figure["chance"] == 0.2
    assert figure["random"]["mean"] == pytest.approx(0.15)
    assert figure["scratch"] == {"values": [0.3], "mean": 0.3, "standard_error": None}


def test_one_run_named_twice_is_no_repetition(tmp_path):
    with pytest.raises(TrainError, match=r"2 runs hold only 1 different networks \(first: run0\)"):
        measured("evaluate", trial_of(tmp_path, [0, 0]), outcome_of)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"begun": "abc"}, "run9 was not trained from scratch"),
        (
            {"recipe": PretrainRecipe(width=0.02, pixels="unit")},
            "run9 is another network than run0",
        ),
    ],
)
def test_what_is_no_training_from_scratch_stands_beside_nothing(
    tmp_path, monkeypatch, change, sentence
):
    def changed(name):
        weights = weights_of(int(name))
        return replace(weights, **change) if name == "9" else weights

    monkeypatch.setattr(result_module, "read_weights", changed)
    with pytest.raises(TrainError, match=sentence):
        result_of(tmp_path)


def test_runs_of_other_recipes_are_no_repetitions(tmp_path, monkeypatch):
    def changed(name):
        return replace(weights_of(int(name)), recipe=PretrainRecipe(width=0.02, lr=0.1 + int(name)))

    monkeypatch.setattr(result_module, "read_weights", changed)
    with pytest.raises(TrainError, match="run1 was trained by another recipe than run0"):
        result_of(tmp_path, runs=2, scratch=0)


def test_a_smoke_takes_no_real_results_place(tmp_path):
    result_of(tmp_path / "r", command="scenes")
    cell = {"table": 6, "row": "ours", "column": "yupenn"}
    put(tmp_path / "r", tmp_path / "t.csv", **cell)
    with pytest.raises(TrainError, match="holds a real result in this cell"):
        put(tmp_path / "r", tmp_path / "t.csv", **cell, smoke=True)


def test_notes_of_all_runs_are_told_once(tmp_path):
    def noted(weights, folder):
        return outcome_of(weights, folder)._replace(notes=["of all", f"of {weights.name}"])

    found = measured("evaluate", trial_of(tmp_path, [0, 1]), noted)
    assert found["notes"] == ["of all", "of run0", "of run1"]


def test_everything_that_decides_is_written(tmp_path):
    result = result_of(tmp_path)
    assert read_result(tmp_path) == read_result(tmp_path / "result.json") == result
    assert result["data"] == {"labels": "abc"}
    assert result["protocol"]["hash"] == PROTOCOLS["ours"].record("evaluate", c=2)["hash"]
    hashes = [entry["hash"] for entry in result["weights"]]
    assert hashes == [weights_of(n).digest() for n in range(3)]
    assert len(set(hashes)) == 3
    assert [entry["hash"] for entry in result["scratch"]] == [weights_of(9).digest()]


def test_a_person_sees_result_and_floors_side_by_side(tmp_path):
    shown = table(result_of(tmp_path))
    assert "| total | 60.0% ± 5.8 | 20.0% | 15.0% ± 5.0 | 30.0% |" in shown
    assert shown.endswith("a note")
    alone = table(result_of(tmp_path, runs=1, seeds=1, scratch=0))
    assert "| total | 50.0% | 20.0% | 10.0% | - |" in alone


def cells(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_cell_stands_beside_the_papers_number(tmp_path):
    result_of(tmp_path / "r")
    file = tmp_path / "tables" / "t.csv"
    put(tmp_path / "r", file, table=3, row="motion", column="hmdb51")
    put(tmp_path / "r", file, table=1, row="random", column="ucf101", smoke=True)
    put(tmp_path / "r", file, table=3, row="motion", column="hmdb51", figure="other")
    first, second = cells(file)
    assert (first["table"], first["row"], first["smoke"]) == ("1", "random", "smoke")
    assert (first["paper"], first["ours"], first["standard_error"]) == ("45.4", "60.00", "5.77")
    assert (first["chance"], first["random"], first["scratch"]) == ("20.00", "15.00", "30.00")
    assert (second["paper"], second["ours"], second["figure"]) == ("29.95", "25.00", "other")


def test_a_floor_can_be_the_cell(tmp_path):
    result_of(tmp_path / "r", scratch=0, command="similarity")
    put(tmp_path / "r", tmp_path / "t.csv", table=5, row="random", column="aslan", of="random")
    assert cells(tmp_path / "t.csv")[0]["ours"] == "15.00"
    with pytest.raises(TrainError, match="has nothing from scratch"):
        put(
            tmp_path / "r", tmp_path / "t.csv", table=5, row="scratch", column="aslan", of="scratch"
        )


def test_a_fine_tuned_network_alone_is_no_cell(tmp_path):
    result_of(tmp_path / "r", scratch=0)
    with pytest.raises(TrainError, match="no floor for motion: evaluate again with --scratch"):
        put(tmp_path / "r", tmp_path / "t.csv", table=3, row="motion", column="ucf101")
    put(tmp_path / "r", tmp_path / "t.csv", table=3, row="scratch", column="ucf101")


def test_a_result_of_another_experiment_is_no_cell(tmp_path):
    result_of(tmp_path / "r", command="retrieve")
    with pytest.raises(TrainError, match="is of `train retrieve`; Table 3 takes `train evaluate`"):
        put(tmp_path / "r", tmp_path / "t.csv", table=3, row="scratch", column="ucf101")


@pytest.mark.parametrize("lacking", ["random", "chance"])
def test_a_cell_without_its_floor_is_refused(tmp_path, lacking):
    result = result_of(tmp_path / "r", command="scenes")
    result["figures"]["total"][lacking] = None
    (tmp_path / "r" / "result.json").write_text(json.dumps(result))
    with pytest.raises(TrainError, match="has no floor for total"):
        put(tmp_path / "r", tmp_path / "t.csv", table=6, row="ours", column="yupenn")
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"row": "colour"}, "Table 3 has no cell colour, ucf101; it has scratch"),
        ({"column": "aslan"}, "Table 3 has no cell motion, aslan"),
        ({"figure": "R@1"}, "has no figure 'R@1'; it has other, total"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, change, sentence):
    result_of(tmp_path / "r")
    asked = {"table": 3, "row": "motion", "column": "ucf101", **change}
    with pytest.raises(TrainError, match=sentence):
        put(tmp_path / "r", tmp_path / "t.csv", **asked)


def test_files_of_something_else_are_left_alone(tmp_path):
    result_of(tmp_path / "r", command="scenes")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(TrainError, match="is no table of such cells"):
        put(tmp_path / "r", tmp_path / "t.csv", table=6, row="ours", column="yupenn")
    assert (tmp_path / "t.csv").read_text() == "a,b\n1,2\n"
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(TrainError, match=r"x\.json is no result"):
        read_result(tmp_path / "x.json")


def test_numbers_are_those_that_the_paper_prints():
    flat = [v for rows in PAPER.values() for columns in rows.values() for v in columns.values()]
    assert len(flat) == 4 + 4 + 8 + 4 + 4 + 1
    assert PAPER[4]["ours-kinetics"] == {"ucf101": 61.2, "hmdb51": 33.4}
