"""The loop: it learns what can be learnt and nothing else, and goes on exactly where it stopped."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from train_helpers import bright_frames, random_labels, toy_shards, write_shards

from labelgen import LABELS
from train import TrainError, loop
from train.checkpoint import load
from train.device import Machine, StopRequest, choose_device
from train.recipe import Recipe, task_columns

TINY = {
    "width": 0.03, "batch": 4, "epochs": 2, "lr": 0.003, "batch_norm": True, "init": "kaiming",
    "targets": "standard", "pixels": "centred",
}  # fmt: skip
CPU = Machine(device="cpu", precision="fp32")


def pretrain(folder, out, *, val="0", machine=CPU, save_every=0, **recipe):
    torch.set_num_threads(1)  # reproducible sums
    settings = Recipe(**{**TINY, **recipe})
    loop.pretrain(
        labels=str(folder),
        out=out,
        val=str(val),
        recipe=settings,
        machine=machine,
        save_every=save_every,
    )
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def assert_same_weights(one, other, **tolerance):
    a, b = load(one / "last.pt")["model"], load(other / "last.pt")["model"]
    assert a.keys() == b.keys()
    for name in a:
        if tolerance:
            torch.testing.assert_close(a[name], b[name], **tolerance, msg=name)
        else:
            assert torch.equal(a[name], b[name]), name


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """24 clips: five steps and a rest in an epoch of batches of 4, when some are held out."""
    return toy_shards(tmp_path_factory.mktemp("toy") / "s", 24, shards=2)


def run_on(folder, **recipe):
    torch.set_num_threads(1)
    settings = Recipe(**{**TINY, **recipe})
    data = loop.open_data(str(folder), "0", recipe=settings)
    return loop.Run(
        data, recipe=settings, machine=CPU, ranks=loop.Ranks(), device=torch.device("cpu")
    )


def test_one_batch_can_be_learnt_by_heart(toy):
    run = run_on(toy)
    (batch, *_) = run.loader
    losses = []
    for _ in range(90):
        run.optimizer.zero_grad()
        losses.append(run.train_step([batch]).item())
        run.optimizer.step()
    assert losses[0] > 1.5  # two branches of unit variance
    assert losses[-1] < 0.02


def test_what_frames_tell_is_learnt_and_shuffled_labels_are_not(tmp_path):
    """The same frames, held-out clips and steps: only whether labels belong to them differs."""
    rng = np.random.default_rng(0)
    labels = random_labels(rng, 80, 1)
    frames = bright_frames(labels, rng)
    held = {}
    for name, order in (("true", np.arange(80)), ("shuffled", rng.permutation(80))):
        crop = np.array([(8, 29)], np.int16)
        folder = write_shards(tmp_path / name, frames, labels[order], crops=crop)
        run = tmp_path / f"run {name}"
        held[name] = pretrain(folder, run, val=0.5, epochs=6, lr_every=5)[-1]["held_out"]
    told = "motion/grid/u_location"
    assert held["true"]["labels"][told]["explained_variance"] > 0.5
    assert held["shuffled"]["labels"][told]["explained_variance"] <= 0
    assert all(
        branch["explained_variance"] <= 0 for branch in held["shuffled"]["branches"].values()
    )


class StopAfter(StopRequest):
    """A signal that comes after so many questions."""

    answers = 0

    @property
    def asked(self):
        StopAfter.answers -= 1
        return StopAfter.answers < 0

    @asked.setter
    def asked(self, value):
        pass


@pytest.mark.parametrize("answers", [2, 6, 8])
def test_a_stopped_run_goes_on_bit_for_bit(toy, tmp_path, monkeypatch, answers):
    whole = pretrain(toy, tmp_path / "whole", val=0.2)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopRequest", StopAfter)
        patch.setattr(StopAfter, "answers", answers)
        with pytest.raises(loop.StoppedError):
            pretrain(toy, tmp_path / "run", val=0.2)
    resumed = pretrain(toy, tmp_path / "run", val=0.2)
    assert_same_weights(tmp_path / "whole", tmp_path / "run")
    for one, other in zip(whole, resumed, strict=True):
        for figure in ("loss", "held_out_loss", "train", "held_out"):
            assert one[figure] == other[figure]


def command(*arguments):
    return [sys.executable, "-m", "train.cli", "pretrain", "--device", "cpu", *map(str, arguments)]


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


OPTIONS = (
    "--width", 0.03, "--batch", 4, "--lr", 0.003, "--init", "kaiming", "--targets", "standard",
    "--pixels", "centred", "--val", 0.2,
)  # fmt: skip


def test_sigterm_saves_and_the_same_command_goes_on(toy, tmp_path):
    out = tmp_path / "run"
    arguments = command(
        "--labels", toy, "--out", out, "--workers", 1, "--epochs", 6, "--batch-norm", *OPTIONS
    )
    with subprocess.Popen(
        arguments, env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        while not (out / "log.jsonl").exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate()
    assert process.returncode == 75, said
    assert "Run the same command again" in said
    assert len((out / "log.jsonl").read_text().splitlines()) < 6
    pretrain(toy, out, val=0.2, epochs=6)
    pretrain(toy, tmp_path / "whole", val=0.2, epochs=6)
    assert_same_weights(tmp_path / "whole", out)


def test_two_processes_learn_what_one_does(toy, tmp_path):
    arguments = command("--labels", toy, "--out", tmp_path / "two", "--epochs", 1, *OPTIONS)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, *arguments[1:]],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (one,) = pretrain(toy, tmp_path / "one", val=0.2, batch_norm=False, epochs=1)
    assert_same_weights(tmp_path / "one", tmp_path / "two", rtol=1e-4, atol=1e-6)
    two = json.loads((tmp_path / "two" / "log.jsonl").read_text())
    assert two["train"]["clips"] == one["train"]["clips"]
    assert two["held_out_loss"] == pytest.approx(one["held_out_loss"], rel=1e-4)


def test_accumulated_parts_equal_the_whole_batch(toy, tmp_path):
    settings = {"batch_norm": False, "epochs": 1}
    pretrain(toy, tmp_path / "whole", **settings)
    pretrain(toy, tmp_path / "parts", machine=Machine(device="cpu", accumulate=4), **settings)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts", rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_not_finite_stops_before_the_step(toy, tmp_path, monkeypatch):
    real, calls = loop.Run.loss, []

    def loss(self, squares):
        calls.append(1)
        return real(self, squares) * (math.nan if len(calls) == 4 else 1.0)

    monkeypatch.setattr(loop.Run, "loss", loss)
    with pytest.raises(
        loop.NonFiniteLossError, match=r"epoch 1, step 4, on clips toy-0000\d-of-00002.h5:\d"
    ):
        pretrain(toy, tmp_path / "run", save_every=1)
    kept = load(tmp_path / "run" / "last.pt")
    assert kept["progress"]["step"] == 3
    assert all(torch.isfinite(tensor).all() for tensor in kept["model"].values())


@pytest.mark.parametrize(
    ("tasks", "counts"),
    [
        (("motion",), {"motion": 14}),
        (("motion/grid", "motion/global"), {"motion": 6}),
        (("appearance/global/color", "motion"), {"motion": 14, "appearance": 1}),
    ],
)
def test_tasks_shrink_the_branches(tasks, counts):
    columns = task_columns(tasks)
    assert {branch: len(chosen) for branch, chosen in columns.items()} == counts
    for chosen in columns.values():
        for column in chosen:
            assert any(LABELS[column].name.startswith(task) for task in tasks)


def test_tasks_shrink_outputs_and_report(toy, tmp_path):
    history = pretrain(toy, tmp_path / "run", tasks=("motion/grid",), epochs=1)
    assert load(tmp_path / "run" / "last.pt")["model"]["branches.motion.4.weight"].shape[0] == 4
    assert [name.rsplit("/", 1)[0] for name in history[0]["train"]["labels"]] == ["motion/grid"] * 4


def test_loss_is_the_weighted_sum_of_branch_errors(toy):
    run = run_on(toy, motion_weight=2.0, appearance_weight=0.1, targets="raw")
    squares = torch.cat([torch.full((5, 14), 3.0), torch.full((5, 13), 7.0)], dim=1)
    assert run.loss(squares).item() == pytest.approx(2 * 3 + 0.1 * 7)


def test_still_clips_are_left_out(tmp_path):
    energy = np.array([0.0, 0.01, 0.2, 3.0], np.float32)
    folder = toy_shards(tmp_path / "s", 4, energy=energy)
    assert loop.open_data(str(folder), "0", recipe=Recipe()).train_clips.tolist() == [0, 1, 2, 3]
    kept = loop.open_data(str(folder), "0", recipe=Recipe(drop_still=0.05)).train_clips
    assert kept.tolist() == [2, 3]
    with pytest.raises(TrainError, match="leaves no clips"):
        loop.open_data(str(folder), "0", recipe=Recipe(drop_still=9.0))


def test_standard_targets_have_the_moments_of_the_training_clips(tmp_path):
    folder = toy_shards(tmp_path / "s", 40)
    data = loop.open_data(str(folder), "0.5", recipe=Recipe())
    mean, std = loop.label_moments(data)
    labels = np.concatenate([data.train.crop_labels(0)[data.train_clips]])
    color = [label.name for label in LABELS].index("appearance/global/color")  # a flip keeps it
    assert mean[color] == pytest.approx(labels[:, color].mean())
    assert std[color] == pytest.approx(labels[:, color].std())
    grid = 0  # columns of the grid reverse in a flip, so that their mean is in the middle of a row
    assert (mean[grid] - 1) % 4 == pytest.approx(((labels[:, grid] - 1) // 4 * 4 + 1.5).mean() % 4)


def test_rates_fall_as_in_the_paper():
    assert [Recipe().rate(e) for e in (0, 4, 5, 19)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-6])


def test_another_recipe_or_other_labels_are_not_resumed(toy, tmp_path):
    pretrain(toy, tmp_path / "run", epochs=1)
    with pytest.raises(TrainError, match=r"trained differently \(lr 0.003 there, 0.5 here\)"):
        pretrain(toy, tmp_path / "run", epochs=1, lr=0.5)
    other = toy_shards(tmp_path / "other", 24, config="others")
    with pytest.raises(TrainError, match=r"labels '.*' there"):
        pretrain(other, tmp_path / "run", epochs=1)


def test_a_finished_run_is_left_as_it_is(toy, tmp_path):
    pretrain(toy, tmp_path / "run", epochs=1)
    before = (tmp_path / "run" / "last.pt").read_bytes()
    pretrain(toy, tmp_path / "run", epochs=1)
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


def test_labels_of_another_flow_are_no_yardstick(toy, tmp_path, monkeypatch):
    import dataclasses

    real = loop.open_shards
    monkeypatch.setattr(
        loop, "open_shards",
        lambda place: dataclasses.replace(real(toy), flow="dis") if place == "val" else real(place),
    )  # fmt: skip
    with pytest.raises(TrainError, match="different profiles or flows"):
        loop.open_data(str(toy), "val", recipe=Recipe())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(toy):
    for name in ("cuda", "cuda:1"):
        with pytest.raises(TrainError, match=f"--device {name}: PyTorch .* sees no GPU"):
            choose_device(name)
    assert choose_device("auto").type == "cpu"


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.cuda
@cuda
@pytest.mark.parametrize("compiled", [False, True])
def test_cuda_trains_in_bf16(toy, tmp_path, compiled):
    machine = Machine(device="cuda", precision="bf16", workers=2, compiled=compiled)
    history = pretrain(toy, tmp_path / "run", machine=machine, val=0.2)
    assert math.isfinite(history[-1]["held_out_loss"])


@pytest.mark.cuda
@cuda
def test_cuda_in_fp32_learns_what_the_cpu_does(toy, tmp_path):
    torch.set_float32_matmul_precision("highest")
    settings = {"batch_norm": False, "epochs": 1}
    pretrain(toy, tmp_path / "cpu", **settings)
    pretrain(toy, tmp_path / "gpu", machine=Machine(device="cuda", precision="fp32"), **settings)
    assert_same_weights(tmp_path / "cpu", tmp_path / "gpu", rtol=1e-2, atol=1e-3)


@pytest.mark.cuda
@cuda
def test_cuda_goes_on_where_it_stopped(toy, tmp_path, monkeypatch):
    machine = Machine(device="cuda", precision="fp32")
    pretrain(toy, tmp_path / "whole", machine=machine)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopRequest", StopAfter)
        patch.setattr(StopAfter, "answers", 3)
        with pytest.raises(loop.StoppedError):
            pretrain(toy, tmp_path / "run", machine=machine)
    pretrain(toy, tmp_path / "run", machine=machine)
    # Max-pooling's backward pass on CUDA may add in any order.
    assert_same_weights(tmp_path / "whole", tmp_path / "run", rtol=1e-3, atol=1e-4)


@pytest.mark.cuda
@cuda
def test_a_gpu_beyond_the_last_is_said():
    with pytest.raises(TrainError, match="there is no GPU 99"):
        choose_device("cuda:99")


def test_no_file_is_half_written(toy, tmp_path):
    pretrain(toy, tmp_path / "run", epochs=1)
    assert {path.name for path in Path(tmp_path / "run").iterdir()} == {
        "last.pt", "best.pt", "log.jsonl", "recipe.json",
    }  # fmt: skip
