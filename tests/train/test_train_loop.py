"""The loop: it learns what can be learnt and nothing else, and goes on exactly where it stopped."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from train_helpers import (
    bright_frames,
    moving_shards,
    random_labels,
    toy_shards,
    write_seal,
    write_shards,
)

from labelgen import LABELS
from labelgen.errors import LabelgenError
from labelgen.shards.claims import locked
from train import NonFiniteError, StoppedError, TrainError, job, loop
from train.checkpoint import load
from train.device import Machine, choose_device
from train.job import PretrainJob
from train.ranks import Ranks
from train.recipe import RECIPES, Recipe
from train.state import recorded, run_status
from train.stop import StopRequest
from train.tasks.pretrain import Pretraining

TINY = {"width": 0.03, "batch": 4, "epochs": 2, "lr": 0.003, "schedule": "step"}
CPU = Machine(device="cpu", precision="fp32")


def tiny(**recipe):
    return dataclasses.replace(RECIPES["small"], **{**TINY, **recipe})


def pretrain(folder, out, *, val="0", machine=CPU, save_every=0, **recipe):
    torch.set_num_threads(1)  # reproducible sums
    settings = tiny(**recipe)
    with recorded(out):
        what = PretrainJob(str(folder), str(val), settings)
        loop.learn(what, out, machine=machine, save_every=save_every)
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


def run_on(folder, out, **recipe):
    torch.set_num_threads(1)
    settings = tiny(**recipe)
    what, device = PretrainJob(str(folder), "0", settings), torch.device("cpu")
    return loop.Run(what, what.open_data(), machine=CPU, ranks=Ranks(), device=device, out=out)


def test_one_batch_can_be_learnt_by_heart(toy, tmp_path):
    run = run_on(toy, tmp_path)
    batch = next(run.loader.read(run.order.steps_of(0)))
    losses = [run.learner.step([batch], figures=run.figures).read().loss for _ in range(90)]
    assert losses[0] > 1.5  # two branches of unit variance
    assert losses[-1] < 0.02


def test_what_frames_tell_is_learnt_and_shuffled_labels_are_not(tmp_path):
    """The same frames, held-out clips and steps: only whether labels belong to them differs."""
    rng = np.random.default_rng(1)
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


@pytest.mark.parametrize("loss", ["ce", "ce-soft", "statistics"])
def test_distributions_are_learnt_from_true_labels_alone(tmp_path, loss):
    """The same frames, held-out clips and steps: only whether labels belong to them differs."""
    rng = np.random.default_rng(1)
    labels = random_labels(rng, 80, 1)
    labels[..., RING] = 1 + 3 * (labels[..., 0] > 8)  # a mirror image has the same
    frames = bright_frames(labels, rng)
    boundaries = moved_rings(labels[:, 0, RING])
    told = {}
    for name, order in (("true", np.arange(80)), ("shuffled", rng.permutation(80))):
        folder = write_shards(
            tmp_path / name, frames, labels[order], crops=np.array([(8, 29)], np.int16),
            fields={"motion_boundaries": boundaries[order]},
        )  # fmt: skip
        recipe = {"epochs": 6, "tasks": ("motion/rings/u_location",), "lr": 0.01}
        log = pretrain(folder, tmp_path / f"run {name}", val=0.5, loss=loss, **recipe)
        told[name] = log[-1]["held_out"]["labels"]["motion/rings/u_location"]
    assert told["true"]["information"] > 0.3
    assert told["true"]["accuracy"] > told["true"]["chance"] + 0.1
    assert told["shuffled"]["information"] <= 0.05
    assert told["shuffled"]["accuracy"] < told["shuffled"]["chance"] + 0.1


RING = [label.name for label in LABELS].index("motion/rings/u_location")


def moved_rings(places):
    """(N, 4, 128, 171) float16: motion in one ring of the central crop, the first or the fourth."""
    boundaries = np.zeros((len(places), 4, 128, 171), np.float16)
    boundaries[places == 4, 0, 8:120, 29:141] = 1
    boundaries[places == 4, 0, 22:106, 43:127] = 0
    boundaries[places == 1, 0, 50:78, 71:99] = 1
    return boundaries


@pytest.mark.parametrize("loss", ["ce", "ce-soft", "statistics"])
def test_one_batch_can_be_fitted_to_its_entropy(tmp_path, loss):
    folder = moving_shards(tmp_path / "s", 8)
    run = run_on(folder, tmp_path / "run", loss=loss, lr=0.02)
    batch = next(run.loader.read(run.order.steps_of(0)))
    targets = run.task.targets(batch)
    each = targets.wanted if loss == "statistics" else targets.wanted.unbind(1)
    left = [-torch.xlogy(w, w / w.sum(-1, keepdim=True)).nansum() / len(w) for w in each]
    per_branch = [sum(left[:14]) / 14, sum(left[14:]) / 13]
    losses = [run.learner.step([batch], figures=run.figures).read().loss for _ in range(120)]
    entropy = sum(float(value) for value in per_branch)
    assert losses[0] > entropy + 1
    assert losses[-1] < entropy + 0.1


@pytest.mark.parametrize(
    "recipe",
    [{"loss": "ce-soft", "schedule": "one-cycle"}, {"loss": "statistics", "views": 2}],
)
def test_other_losses_and_rates_go_on_bit_for_bit(tmp_path, monkeypatch, recipe):
    folder = moving_shards(tmp_path / "s", 12)
    whole = pretrain(folder, tmp_path / "whole", val=0.2, **recipe)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopRequest", StopAfter)
        patch.setattr(StopAfter, "answers", 2)
        with pytest.raises(StoppedError):
            pretrain(folder, tmp_path / "run", val=0.2, **recipe)
    assert whole == [
        {**record, **times(whole[k])}
        for k, record in enumerate(pretrain(folder, tmp_path / "run", val=0.2, **recipe))
    ]
    assert_same_weights(tmp_path / "whole", tmp_path / "run")


def times(record):
    """What differs between two runs that do the same."""
    names = ("seconds", "samples_per_second", "data_wait", "grad_norm", "grad_norm_max")
    return {name: record[name] for name in names}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fields": None}, r"has no motion boundaries \(extracted with --no-boundaries\?\)"),
        ({"profile": "authors"}, "holds labels of profile authors, and --loss statistics"),
    ],
)
def test_statistics_need_what_they_are_made_of(tmp_path, options, sentence):
    folder = moving_shards(tmp_path / "s", 8, **options)
    with pytest.raises(TrainError, match=sentence):
        pretrain(folder, tmp_path / "run", loss="statistics")


def test_flow_on_one_side_only_is_said_where_frames_are_asked(tmp_path):
    train = moving_shards(tmp_path / "train", 8)
    held = moving_shards(tmp_path / "held", 8, seed=1, drop=("flow",), video_path="h{:04d}.avi")
    with pytest.raises(TrainError, match="held holds no flow, and .*train does"):
        pretrain(train, tmp_path / "run", val=str(held), loss="statistics")
    places = {"loss": "statistics", "epochs": 1, "tasks": ("motion/grid",)}
    assert pretrain(train, tmp_path / "places", val=str(held), **places)


def test_appearance_alone_needs_no_motion(tmp_path):
    folder = toy_shards(tmp_path / "s", 8)
    colours = {"loss": "statistics", "epochs": 1, "tasks": ("appearance",)}
    assert pretrain(folder, tmp_path / "run", **colours)


def test_clips_without_any_motion_are_no_statistics_to_learn(tmp_path):
    folder = moving_shards(tmp_path / "s", 8, energy=np.zeros(8, np.float32))
    with pytest.raises(TrainError, match="Nothing moves in the clips of .*s, and --loss stat"):
        pretrain(folder, tmp_path / "run", loss="statistics")


def test_labels_out_of_range_are_named(tmp_path):
    labels = random_labels(np.random.default_rng(0), 8, 2)
    crops = np.array([(0, 0), (8, 29)], np.int16)
    frames = np.zeros((8, 16, 128, 171, 3), np.uint8)
    labels[3, 1, 5] = 17
    folder = write_shards(tmp_path / "known", frames, labels, crops=crops)
    with pytest.raises(TrainError, match="h5 holds a label that is out of range; delete the shard"):
        pretrain(folder, tmp_path / "run")
    labels[3, :, 5] = 200, 1  # of a crop of which nothing is known beforehand
    folder = write_shards(tmp_path / "one", frames, labels, crops=crops)
    with pytest.raises(TrainError, match=r"clip 3: it cannot be read \(a label that is out of r"):
        pretrain(folder, tmp_path / "two", loss="ce")


def test_motion_that_is_no_number_is_damage(tmp_path, capsys):
    folder = moving_shards(tmp_path / "s", 12)
    (path,) = folder.glob("*.h5")
    with h5py.File(path, "a") as file:
        file["motion_boundaries"][3, 1, 60, 80] = np.nan
        digest = file.attrs["config_hash"]
    write_seal(path, clips=12, config_hash=digest)
    with pytest.raises(TrainError, match=r"clip 3: it cannot be read \(motion that is no number"):
        pretrain(folder, tmp_path / "run", loss="statistics", epochs=1, batch=12)
    machine = dataclasses.replace(CPU, skip_bad=True)
    log = pretrain(folder, tmp_path / "skip", loss="statistics", epochs=1, machine=machine)
    assert log[0]["left_out"] == 1
    assert math.isfinite(log[0]["loss"])


def test_not_one_clip_that_can_be_read_ends_the_run(tmp_path):
    fields = {"motion_boundaries": np.full((8, 4, 128, 171), np.nan, np.float16)}
    folder = moving_shards(tmp_path / "s", 8, fields=fields)
    machine = dataclasses.replace(CPU, skip_bad=True)
    recipe = {"loss": "statistics", "tasks": ("motion/grid",), "batch": 8, "epochs": 1}
    with pytest.raises(TrainError, match="Not one training clip of this epoch can be read"):
        pretrain(folder, tmp_path / "run", machine=machine, **recipe)


@pytest.mark.parametrize("loss", ["ce-soft", "statistics"])
def test_parts_of_a_batch_change_no_other_loss(tmp_path, loss):
    folder = moving_shards(tmp_path / "s", 8)
    recipe = {"loss": loss, "batch_norm": False, "epochs": 1, "batch": 8}
    pretrain(folder, tmp_path / "whole", **recipe)
    pretrain(folder, tmp_path / "parts", machine=dataclasses.replace(CPU, accumulate=3), **recipe)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts", rtol=1e-4, atol=1e-6)


def test_a_run_of_an_older_version_is_not_gone_on_with(toy, tmp_path):
    pretrain(toy, tmp_path / "run", epochs=1)
    content = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    del content["counts"]
    torch.save(content, tmp_path / "run" / "last.pt")
    with pytest.raises(TrainError, match="begun by an older version"):
        pretrain(toy, tmp_path / "run", epochs=2)


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


@pytest.mark.parametrize("answers", [2, 3, 9, 11])
def test_a_stopped_run_goes_on_bit_for_bit(toy, tmp_path, monkeypatch, answers):
    whole = pretrain(toy, tmp_path / "whole", val=0.2)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "StopRequest", StopAfter)
        patch.setattr(StopAfter, "answers", answers)
        with pytest.raises(StoppedError):
            pretrain(toy, tmp_path / "run", val=0.2)
    assert run_status(tmp_path / "run")[1] == 75
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
    "--recipe",
    "small",
    "--schedule",
    "step",
    "--width",
    0.03,
    "--batch",
    4,
    "--lr",
    0.003,
    "--val",
    0.2,
)


def test_sigterm_saves_and_the_same_command_goes_on(toy, tmp_path):
    out = tmp_path / "run"
    arguments = command("--labels", toy, "--out", out, "--workers", 1, "--epochs", 6, *OPTIONS)
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


def test_accumulated_parts_equal_the_whole_batch(toy, tmp_path):
    settings = {"batch_norm": False, "epochs": 1}
    pretrain(toy, tmp_path / "whole", **settings)
    pretrain(toy, tmp_path / "parts", machine=Machine(device="cpu", accumulate=4), **settings)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts", rtol=1e-4, atol=1e-6)


def spoil_call(monkeypatch, number, spoil):
    """Let one call of the task's loss return something else."""
    real, calls = Pretraining.loss, []

    def loss(self, predicted, targets):
        calls.append(1)
        value = real(self, predicted, targets)
        return spoil(value, predicted) if len(calls) == number else value

    monkeypatch.setattr(Pretraining, "loss", loss)


class InfiniteGradient(torch.autograd.Function):
    """A finite number whose gradient is not."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.inf


SPOILT = {
    "loss": (lambda value, _: value * math.nan, r"The loss is nan .*epoch 1, step 4"),
    "gradient": (
        lambda value, _: InfiniteGradient.apply(value),
        r"norm of its gradient (nan|inf) in epoch 1, step 4",
    ),
}


@pytest.mark.parametrize("what", SPOILT)
@pytest.mark.parametrize("save_every", [1, 3])
def test_what_is_not_finite_changes_no_weight_and_no_checkpoint(
    toy, tmp_path, monkeypatch, what, save_every
):
    spoil, sentence = SPOILT[what]
    pretrain(toy, tmp_path / "other", epochs=1)  # a run of the same steps, unspoilt
    spoil_call(monkeypatch, 4, spoil)
    pattern = sentence + r", on clips toy-0000\d-of-00002.h5:\d"
    with pytest.raises(NonFiniteError, match=pattern):
        pretrain(toy, tmp_path / "run", save_every=save_every)
    kept = load(tmp_path / "run" / "last.pt")
    assert kept["progress"]["step"] == 3
    assert all(torch.isfinite(tensor).all() for tensor in kept["model"].values())
    assert run_status(tmp_path / "run")[1] == 3


def test_a_step_that_is_not_finite_is_not_taken(toy, tmp_path, monkeypatch):
    run = run_on(toy, tmp_path)
    first, second, *_ = run.loader.read(run.order.steps_of(0))
    run.learner.step([first], figures=run.figures)
    before = [p.detach().clone() for p in run.learner.net.parameters()]
    spoil_call(monkeypatch, 1, SPOILT["gradient"][0])
    assert not run.learner.step([second], figures=run.figures).read().finite
    for old, new in zip(before, run.learner.net.parameters(), strict=True):
        assert torch.equal(old, new)
    assert run.learner.is_finite()


def test_weights_that_are_not_finite_are_not_saved(toy, tmp_path, monkeypatch):
    run = run_on(toy, tmp_path)
    with torch.no_grad():
        run.learner.net.backbone.layers[0].weight[0] = math.inf
    with pytest.raises(NonFiniteError, match="A weight is not finite"):
        run.save("last.pt")
    assert not (tmp_path / "last.pt").exists()


def test_momentum_that_is_not_finite_is_not_saved(toy, tmp_path):
    run = run_on(toy, tmp_path)
    (first, *_) = run.learner.optimizer.state.values()
    first["momentum_buffer"][0] = math.nan
    with pytest.raises(NonFiniteError, match="A weight is not finite"):
        run.save("last.pt")


def test_best_is_the_epoch_of_lowest_held_out_loss(toy, tmp_path, monkeypatch):
    losses = iter([9.0, 3.0, 9.0, 1.0, 9.0, 2.0])  # of training and of held-out clips, in turns
    monkeypatch.setattr(Pretraining, "objective", lambda self, figures: next(losses))
    pretrain(toy, tmp_path / "run", val=0.2, epochs=3)
    best, last = (load(tmp_path / "run" / name)["progress"] for name in ("best.pt", "last.pt"))
    assert (best["epoch"], last["epoch"], best["best"], last["best"]) == (2, 3, 1.0, 1.0)


def test_moments_are_those_of_the_beginning(toy, tmp_path, monkeypatch):
    pretrain(toy, tmp_path / "run", epochs=1)
    monkeypatch.delattr(job, "label_knowledge")
    pretrain(toy, tmp_path / "run", epochs=2)


def test_a_run_without_its_last_checkpoint_is_not_begun_anew(toy, tmp_path):
    pretrain(toy, tmp_path / "run", epochs=1)
    (tmp_path / "run" / "last.pt").unlink()
    with pytest.raises(TrainError, match="holds best.pt of an earlier run, and no last.pt"):
        pretrain(toy, tmp_path / "run", epochs=1)


def test_parts_leave_batch_norm_nothing_but_clips_to_see(toy, tmp_path):
    """Two clips in four parts: no part is empty, or black."""
    whole = {"views": 4, "batch": 8, "epochs": 1}
    pretrain(toy, tmp_path / "two", machine=Machine(device="cpu", accumulate=2), **whole)
    pretrain(toy, tmp_path / "four", machine=Machine(device="cpu", accumulate=4), **whole)
    assert_same_weights(tmp_path / "two", tmp_path / "four")


def test_bf16_is_refused_where_its_gradients_are_wrong(toy, tmp_path):
    with pytest.raises(TrainError, match="--precision bf16: on CPUs"):
        pretrain(toy, tmp_path / "run", machine=Machine(device="cpu", precision="bf16"))


def test_more_views_than_there_are_are_refused(toy, tmp_path):
    with pytest.raises(TrainError, match="have 4 crops, so only 8 views"):
        pretrain(toy, tmp_path / "run", views=9, batch=9)


def test_a_held_out_loss_that_is_not_finite_is_no_best(toy, tmp_path, monkeypatch):
    real = Pretraining.objective
    calls = []

    def objective(self, figures):
        calls.append(1)
        return math.nan if len(calls) == 4 else real(self, figures)

    monkeypatch.setattr(Pretraining, "objective", objective)
    with pytest.raises(NonFiniteError, match="held-out loss is nan after epoch 2"):
        pretrain(toy, tmp_path / "run", val=0.2)
    for name in ("best.pt", "last.pt"):
        assert math.isfinite(load(tmp_path / "run" / name)["progress"]["best"])


def test_gradients_are_clipped_to_the_norm_that_is_asked_for(toy, tmp_path):
    run = run_on(toy, tmp_path, clip_grad=0.5)
    batch = next(run.loader.read(run.order.steps_of(0)))
    report = run.learner.step([batch], figures=run.figures).read()
    gradients = [p.grad.flatten() for p in run.learner.net.parameters()]
    assert report.grad_norm > 1  # as it was
    assert torch.cat(gradients).norm().item() == pytest.approx(0.5, rel=1e-4)
    (record,) = pretrain(toy, tmp_path / "run", epochs=1)
    assert 0 < record["grad_norm"] <= record["grad_norm_max"]


def test_tasks_shrink_outputs_and_report(toy, tmp_path):
    history = pretrain(toy, tmp_path / "run", tasks=("motion/grid",), epochs=1)
    assert load(tmp_path / "run" / "last.pt")["model"]["branches.motion.4.weight"].shape[0] == 4
    assert [name.rsplit("/", 1)[0] for name in history[0]["train"]["labels"]] == ["motion/grid"] * 4


def test_rates_fall_as_in_the_paper():
    assert [Recipe().rate(e) for e in (0, 4, 5, 19)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-6])


def test_one_cycle_rises_and_falls():
    recipe = Recipe(schedule="one-cycle", lr=0.1, epochs=10)
    rates = [recipe.rate(epoch) for epoch in (0, 1.5, 3, 6.5, 10)]
    assert rates == pytest.approx([0.004, 0.052, 0.1, 0.050005, 0.00001])


def test_a_cycle_is_planned_for_its_epochs(toy, tmp_path):
    pretrain(toy, tmp_path / "run", schedule="one-cycle", epochs=1)
    with pytest.raises(TrainError, match=r"trained differently \(epochs 1 there, 2 here\)"):
        pretrain(toy, tmp_path / "run", schedule="one-cycle", epochs=2)


def test_another_recipe_or_other_labels_are_not_resumed(toy, tmp_path):
    pretrain(toy, tmp_path / "run", epochs=1)
    with pytest.raises(TrainError, match=r"trained differently \(lr 0.003 there, 0.5 here\)"):
        pretrain(toy, tmp_path / "run", epochs=1, lr=0.5)
    for options, differing in (({"config": "others"}, "labels"), ({"seed": 1}, "shards")):
        other = toy_shards(tmp_path / differing, 24, shards=2, **options)
        with pytest.raises(TrainError, match=rf"{differing} '.*' there"):
            pretrain(other, tmp_path / "run", epochs=1)


def test_a_finished_run_can_be_extended_but_not_shortened(toy, tmp_path):
    pretrain(toy, tmp_path / "run", val=0.2, epochs=1)
    pretrain(toy, tmp_path / "run", val=0.2, epochs=2)
    whole = pretrain(toy, tmp_path / "whole", val=0.2, epochs=2)
    assert_same_weights(tmp_path / "whole", tmp_path / "run")
    assert len(whole) == 2
    with pytest.raises(TrainError, match="learnt for 2 epochs already; --epochs 1 cannot undo it"):
        pretrain(toy, tmp_path / "run", val=0.2, epochs=1)


def test_a_log_that_was_lost_is_written_again(toy, tmp_path):
    pretrain(toy, tmp_path / "run", epochs=1)
    before = (tmp_path / "run" / "log.jsonl").read_bytes()
    (tmp_path / "run" / "log.jsonl").unlink()
    pretrain(toy, tmp_path / "run", epochs=1)
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == before


def test_two_runs_do_not_share_a_folder(toy, tmp_path):
    with locked(tmp_path / "run"), pytest.raises(LabelgenError, match="another run is writing to"):
        pretrain(toy, tmp_path / "run")


def test_views_of_a_clip_are_samples_of_one_step(toy, tmp_path):
    (record,) = pretrain(toy, tmp_path / "run", views=2, epochs=1)
    assert record["train"]["clips"] == 2 * 24


def test_a_finished_run_is_left_as_it_is(toy, tmp_path):
    pretrain(toy, tmp_path / "run", epochs=1)
    before = (tmp_path / "run" / "last.pt").read_bytes()
    pretrain(toy, tmp_path / "run", epochs=1)
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(toy):
    for name in ("cuda", "cuda:1"):
        with pytest.raises(TrainError, match=f"--device {name}: PyTorch .* sees no GPU"):
            choose_device(name)
    assert choose_device("auto").type == "cpu"


def test_more_ranks_than_gpus_are_refused_by_every_rank(monkeypatch):
    """Or those that have one would wait for the others."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(TrainError, match="8 ranks need a GPU each, and this machine has 4"):
        choose_device("auto")
    with pytest.raises(TrainError, match="cuda:1 names one GPU for 8 ranks"):
        choose_device("cuda:1")


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
        with pytest.raises(StoppedError):
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
        ".lock", "last.pt", "best.pt", "log.jsonl", "recipe.json", "state.json",
    }  # fmt: skip
