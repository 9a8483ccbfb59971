"""The experiments whole: on clips whose class can be seen, on real ones, and as commands."""

import csv
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import truncate, write_video
from train_helpers import NAMES, classed_shards

from labelgen.video.manifest import ManifestRow, write_manifest
from train import TrainError, cli, loop
from train.device import Machine
from train.evaluate import experiments, result
from train.evaluate.protocols import PROTOCOLS
from train.evaluate.result import Trial
from train.job import FinetuneJob
from train.recipe import FINETUNE_RECIPES

CPU = Machine(device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def classed(tmp_path_factory):
    return classed_shards(tmp_path_factory.mktemp("classed") / "s", 16)


@pytest.fixture(scope="module")
def fitted(classed, tmp_path_factory):
    """Two seeds of a network that has learnt its own training set by heart."""
    torch.set_num_threads(1)
    folders = [tmp_path_factory.mktemp("fitted") / f"seed-{seed}" for seed in (0, 1)]
    for seed, out in enumerate(folders):
        recipe = replace(
            FINETUNE_RECIPES["small"],
            width=0.03,
            batch=4,
            epochs=6,
            lr=0.003,
            seed=seed,
            dropout=0.0,
        )
        loop.learn(FinetuneJob(str(classed), "0", recipe), out, machine=CPU)
    return [str(out) for out in folders]


def trial(runs, out, **options):
    return Trial(runs, out, PROTOCOLS["ours"], CPU, **options)


def test_what_is_known_by_heart_is_recognised(classed, fitted, tmp_path):
    found = experiments.classify(trial(fitted, tmp_path, seeds=3), str(classed))
    figures = found["figures"]
    assert list(figures) == ["video top-1", "clip top-1"]
    for figure in figures.values():
        assert figure["values"] == [1, 1]
        assert figure["standard_error"] == 0
        assert figure["chance"] == 0.5
        assert len(figure["random"]["values"]) == 3
    with (tmp_path / "run-1" / "confusion.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows == [
        ["class", *NAMES, "no clip", "accuracy"],
        ["dark", "4", "0", "0", "1.0000"],
        ["bright", "0", "4", "0", "1.0000"],
    ]
    assert (tmp_path / "run-0" / "confusion.png").exists()


def test_classes_that_the_network_does_not_know_are_named(fitted, tmp_path):
    other = classed_shards(tmp_path / "s", 4, names=("dark", "blue"))
    with pytest.raises(TrainError, match=r"1 classes that .* was not trained on \(first: blue\)"):
        experiments.classify(trial(fitted, tmp_path / "out"), str(other))


def test_a_backbone_alone_classifies_nothing(classed, fitted, tmp_path, monkeypatch):
    bare = replace(experiments.read_weights(fitted[0]), classes=(), head={})
    monkeypatch.setattr(result, "read_weights", lambda _: bare)
    with pytest.raises(TrainError, match="has no classifier; `train finetune` makes one"):
        experiments.classify(trial(["x"], tmp_path), str(classed))


def test_videos_are_found_by_their_class(classed, fitted, tmp_path):
    gallery = classed_shards(tmp_path / "gallery", 24, seed=5)
    found = experiments.retrieve(
        trial(fitted[:1], tmp_path), queries=str(classed), gallery=str(gallery)
    )
    assert found["figures"]["R@1"]["values"] == [1]
    assert found["figures"]["R@1"]["chance"] == 0.5
    assert list(found["figures"]) == ["R@1", "R@5", "R@10"]  # of 12 videos
    with (tmp_path / "run-0" / "neighbours.csv").open(newline="") as stream:
        nearest = [row for row in csv.DictReader(stream) if row["rank"] == "1"]
    assert len(nearest) == 8
    assert all(row["hit"] == "1" for row in nearest)
    assert (tmp_path / "neighbours.png").read_bytes().startswith(b"\x89PNG")


def test_scenes_and_pairs_are_told_apart(classed, fitted, tmp_path):
    scenes = trial(fitted[:1], tmp_path / "scenes")
    found = experiments.recognise_scenes(scenes, str(classed))
    assert found["figures"]["accuracy"]["values"] == [1]
    lines = (tmp_path / "scenes" / "run-0" / "predictions.csv").read_text().splitlines()
    assert lines[:2] == ["path,class,said", "0000.avi,dark,dark"]
    with pytest.raises(TrainError, match="Give --folds or --group-by, not both"):
        experiments.recognise_scenes(scenes, str(classed), folds=2, group_by="x")
    pairs = tmp_path / "pairs.csv"
    rows = [
        f"{one:04d},{other:04d},{int(one % 2 == other % 2)},{(one + other) % 2}"
        for one in range(8)
        for other in range(one)
    ]
    # Sums of numbers of one class are even: folds must hold both kinds.
    rows = [f"{row.rsplit(',', 1)[0]},{number % 2}" for number, row in enumerate(rows)]
    pairs.write_text("first,second,same,fold\n" + "\n".join(rows) + "\n")
    found = experiments.tell_similar(
        trial(fitted[:1], tmp_path / "similarity"), str(classed), pairs=pairs
    )
    assert found["figures"]["accuracy"]["values"][0] > 0.9
    assert json.loads((tmp_path / "similarity" / "run-0" / "folds.json").read_text())["c"] == 1


def command(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr()
    return left.value.code or 0, said.out, said.err


def test_commands_print_tables_and_say_where_the_result_is(
    classed, fitted, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "e"
    code, table, said = command(
        capsys, monkeypatch, "evaluate", *fitted, "--labels", classed, "--out", out, "--device",
        "cpu", "--scratch", fitted[0], "--clips", "1", "--average", "logits",
    )  # fmt: skip
    assert code == 0, said
    assert "| video top-1 | 100.0% ± 0.0 | 50.0% |" in table
    assert said.endswith(f"{out / 'result.json'} holds the result\n")
    protocol = json.loads((out / "result.json").read_text())["protocol"]
    assert (protocol["clips"], protocol["average"]) == (1, "logits")
    code, _, said = command(
        capsys, monkeypatch, "cell", out, "--table", 1, "--row", "random", "--column", "ucf101",
        "-o", tmp_path / "t.csv",
    )  # fmt: skip
    assert code == 0, said


def test_features_of_random_weights_are_a_command(classed, fitted, tmp_path, capsys, monkeypatch):
    asked_for = ("--labels", classed, "--device", "cpu", "--layer", "fc7")
    for name, more in (("a", ()), ("b", ("--random", 3)), ("c", ("--random", 3))):
        code, _, said = command(
            capsys, monkeypatch, "features", fitted[0], *asked_for, "-o", tmp_path / name, *more
        )
        assert code == 0, said
        assert said.endswith(f"{tmp_path / name}: 8 rows of 61 features\n")
    from train.evaluate.features import read_features

    a, b, c = (read_features(tmp_path / name).values for name in "abc")
    np.testing.assert_array_equal(b, c)
    assert not np.allclose(a, b)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evaluate", "nowhere", "--labels", "{classed}"], "nowhere does not exist; give a run"),
        (["evaluate", "{run}", "--labels", "nowhere"], "holds no shards"),
        (["evaluate", "{run}", "--labels", "{classed}", "--clips", "0"], "--clips takes a number"),
        (
            ["scenes", "{run}", "--labels", "{classed}", "--layer", "conv9"],
            "no layer 'conv9'; it has conv5, pool5, fc6, fc7, logits",
        ),
        (
            ["attention", "{run}", "--labels", "{classed}", "-o", "a.png"],
            "has no motion boundaries",
        ),
        (
            ["attention", "{run}", "--labels", "{classed}", "-o", "a.png", "--clip", "99"],
            "has clips 0 to 15, and no 99",
        ),
    ],
)
def test_mistakes_are_one_sentence(
    classed, fitted, tmp_path, capsys, monkeypatch, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    filled = [part.format(run=fitted[0], classed=classed) for part in arguments]
    code, _, said = command(capsys, monkeypatch, *filled, "--device", "cpu")
    assert code == 2
    assert sentence in said
    assert said.count("\n") == 1


def test_videos_that_give_no_clip_count_as_wrong_and_are_named(fitted, tmp_path):
    from extraction import extract

    root = tmp_path / "videos"
    frames = np.full((20, 120, 160, 3), 50, np.uint8)
    for name, value in (("dark/a", 50), ("bright/b", 170), ("dark/short", 50)):
        write_video(root / f"{name}.avi", (frames + value - 50)[: 9 if "short" in name else None])
    write_video(root / "bright/cut.avi", frames)
    truncate(root / "bright/cut.avi", 0.02)
    names = ("bright/b", "bright/cut", "dark/a", "dark/short")
    rows = [ManifestRow(f"{name}.avi", name.split("/")[0], 0) for name in names]
    write_manifest(rows, tmp_path / "m.csv")
    extract(root, tmp_path / "s", manifest=tmp_path / "m.csv", labels=False)
    found = experiments.classify(trial(fitted[:1], tmp_path / "out"), str(tmp_path / "s"))
    assert found["figures"]["video top-1"]["values"] == [0.5]
    assert found["figures"]["clip top-1"]["values"] == [1]
    assert "bright/cut.avi, dark/short.avi" in found["notes"][0]


def test_attention_is_drawn_beside_motion_boundaries(fitted, videos, tmp_path):
    from extraction import extract

    extract(videos, tmp_path / "s")
    experiments.show_attention(
        fitted[0], str(tmp_path / "s"), tmp_path / "a.png", machine=CPU, clips=[0, 5]
    )
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_protocols_give_different_numbers_on_real_features(shared, tmp_path):
    """Fights with random weights: more clips, centred features and lost queries all count."""
    from extraction import extract

    root = shared / "data" / "fights"
    files = sorted(root.rglob("*.mp4"))
    sides = {"queries": files[1:150:14], "gallery": files[:150:10]}
    for name, several in sides.items():
        rows = [
            ManifestRow(str(f.relative_to(root)), f.parent.name, int(f.parent.name == "noFight"))
            for f in several
        ]
        write_manifest(rows, tmp_path / f"{name}.csv")
        extract(
            root, tmp_path / name, manifest=tmp_path / f"{name}.csv", labels=False,
            frames="jpeg:95",
        )  # fmt: skip
    from train.models.weights import Weights
    from train.recipe import PretrainRecipe

    recipe = PretrainRecipe(width=0.03, init="kaiming", pixels="centred")
    drawn = Weights("toy", recipe, {}, {}).randomised(0)
    monkey = pytest.MonkeyPatch()
    monkey.setattr(result, "read_weights", lambda _: drawn)
    found = {}
    for name, protocol in PROTOCOLS.items():
        found[name] = experiments.retrieve(
            Trial(["x"], tmp_path / name, protocol, CPU),
            queries=str(tmp_path / "queries"),
            gallery=str(tmp_path / "gallery"),
        )
    monkey.undo()
    hashes = {one["protocol"]["hash"] for one in found.values()}
    assert len(hashes) == 3
    numbers = {name: one["figures"]["R@1"]["mean"] for name, one in found.items()}
    assert len(set(numbers.values())) == 3, numbers
    # Of 11 queries vcop drops 3, and says so; nothing else is lost.
    assert found["vcop"]["notes"] == ["3 queries fill no batch of 8 and are dropped."]
    assert found["ours"]["notes"] == found["coclr"]["notes"] == []
