"""Classification: its loss and figures, and the loop around it on clips whose class can be seen."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from train_helpers import NAMES, classed_shards, toy_shards

from train import StoppedError, TrainError, checkpoint, job, loop
from train.data.classes import videos_of
from train.data.shards import open_shards
from train.device import Machine
from train.job import FinetuneJob, PretrainJob, like_source
from train.metrics import NO_CLASS, ClassStats
from train.models.heads import ClassifierNet, make_optimizer
from train.models.registry import make_backbone
from train.models.weights import read_weights
from train.recipe import FINETUNE_RECIPES, RECIPES, FinetuneRecipe, PretrainRecipe
from train.stop import StopRequest
from train.tasks.finetune import Finetuning

CPU = Machine(device="cpu", precision="fp32")
TINY = {"width": 0.03, "batch": 4, "epochs": 2, "lr": 0.003}


def finetune(folder, out, *, val="0", source="scratch", **recipe):
    torch.set_num_threads(1)  # reproducible sums
    settings = replace(FINETUNE_RECIPES["small"], **{**TINY, **recipe})
    settings = like_source(settings, source, given={})
    loop.learn(FinetuneJob(str(folder), str(val), settings, str(source)), out, machine=CPU)
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def classed(tmp_path_factory):
    return classed_shards(tmp_path_factory.mktemp("classed") / "s")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    recipe = replace(RECIPES["small"], width=0.03, batch=4, epochs=1)
    job = PretrainJob(str(toy_shards(folder / "s", 8)), "0", recipe)
    loop.learn(job, folder / "run", machine=CPU)
    return folder / "run"


def task_of(classes=3, **recipe):
    settings = FinetuneRecipe(width=0.03, **recipe)
    names = [f"class{number}" for number in range(classes)]
    return Finetuning(settings, classes=names, device=torch.device("cpu"))


def test_loss_is_the_sum_of_cross_entropies_and_nothing_for_no_clip():
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, 0.0], [9.0, 9.0, 9.0]], requires_grad=True)
    classes = torch.tensor([1, 2, NO_CLASS])
    loss = task_of().loss(logits, classes)
    exact = -math.log(math.exp(2) / (math.exp(1) + math.exp(2) + math.exp(0.5))) + math.log(3)
    assert loss.item() == pytest.approx(exact)
    loss.backward()
    assert logits.grad.any(dim=1).tolist() == [True, True, False]


def test_figures_against_counting_by_hand():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(40, 8)).astype(np.float32)
    classes = rng.integers(-1, 8, 40)
    figures = ClassStats(8, device=torch.device("cpu"))
    assert figures.is_empty()
    for rows in np.array_split(np.arange(40), 3):
        figures.add(torch.from_numpy(logits[rows]), torch.from_numpy(classes[rows]))
    assert not figures.is_empty()
    report = figures.report([str(i) for i in range(8)])
    counted = [(row, c) for row, c in zip(logits, classes, strict=True) if c >= 0]
    ranks = [(row > row[c]).sum() for row, c in counted]
    numbers = np.bincount([c for _, c in counted], minlength=8)
    assert report["clips"] == len(counted)
    assert report["top1"] == pytest.approx(np.mean([rank < 1 for rank in ranks]))
    assert report["top5"] == pytest.approx(np.mean([rank < 5 for rank in ranks]))
    assert report["chance1"] == pytest.approx(numbers.max() / len(counted))
    assert report["chance5"] == pytest.approx(np.sort(numbers)[-5:].sum() / len(counted))
    losses = [np.log(np.exp(row).sum()) - row[c] for row, c in counted]
    assert report["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    for c in range(8):
        right = [rank < 1 for rank, (_, own) in zip(ranks, counted, strict=True) if own == c]
        assert report["classes"][str(c)] == {"clips": numbers[c], "top1": np.mean(right)}


def test_top5_is_told_of_more_than_five_classes_alone():
    report = dict.fromkeys(("loss", "top1", "top5", "chance1", "chance5"), 0.5)
    assert "top5" in task_of(6).headline(report)
    assert "top5" not in task_of(5).headline(report)


def test_what_can_be_seen_is_learnt_and_shuffled_classes_are_not(tmp_path):
    """The same frames, held-out clips and steps: only whether classes belong to them differs."""
    held = {}
    for name in ("true", "shuffled"):
        order = None if name == "true" else np.random.default_rng(3).permutation(24)
        folder = classed_shards(tmp_path / name, 48, order=order)
        held[name] = finetune(folder, tmp_path / f"run {name}", val=0.4, epochs=3)[-1]["held_out"]
    assert held["true"]["top1"] == 1
    # Two clips of a video go together: three deviations of a coin that is thrown for each video.
    videos = held["shuffled"]["clips"] / 2
    assert abs(held["shuffled"]["top1"] - 0.5) < 3 * 0.5 / math.sqrt(videos)


def test_a_stopped_run_goes_on_bit_for_bit_though_units_drop_out(classed, tmp_path, monkeypatch):
    finetune(classed, tmp_path / "whole")
    asked = iter([False] * 6 + [True] * 99)
    with monkeypatch.context() as patch:
        heard = property(lambda _: next(asked), lambda *_: None)
        patch.setattr(StopRequest, "asked", heard, raising=False)
        with pytest.raises(StoppedError):
            finetune(classed, tmp_path / "run")
    finetune(classed, tmp_path / "run")
    one, other = (
        checkpoint.load(tmp_path / name / "last.pt")["model"] for name in ("whole", "run")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_units_drop_out_of_training_alone():
    net = task_of(dropout=0.5, init="kaiming").net
    clips = torch.randint(0, 255, (2, 16, 112, 112, 3), dtype=torch.uint8)
    assert not torch.equal(net.train()(clips), net(clips))
    assert torch.equal(net.eval()(clips), net(clips))


def test_the_backbone_begins_from_the_weights_and_the_rest_anew(pretrained):
    weights = read_weights(pretrained)
    recipe = like_source(FINETUNE_RECIPES["small"], str(pretrained), given={})
    assert recipe.network() == weights.recipe.network()
    what = FinetuneJob("", "0", recipe, str(pretrained))
    net = what.task({"classes": list(NAMES)}, torch.device("cpu")).net
    state = net.backbone.state_dict()
    assert state.keys() == weights.backbone.keys()
    assert all(torch.equal(state[name], weights.backbone[name]) for name in state)
    assert [layer.out_features for layer in net.head if hasattr(layer, "out_features")] == [
        61,
        61,
        2,
    ]


def test_another_network_than_that_of_the_weights_is_refused(pretrained):
    with pytest.raises(TrainError, match=r"has width 0\.03, unlike --width 0\.5"):
        like_source(FINETUNE_RECIPES["small"], str(pretrained), given={"width": 0.5})
    with pytest.raises(TrainError, match="has batch_norm True, unlike --no-batch-norm; leave"):
        like_source(FINETUNE_RECIPES["small"], str(pretrained), given={"batch_norm": False})


def test_backbones_that_always_have_batch_norm_may_be_asked_for_it(monkeypatch):
    weights = SimpleNamespace(recipe=PretrainRecipe(backbone="r3d"))
    monkeypatch.setattr(job, "read_weights", lambda _: weights)
    recipe = like_source(FINETUNE_RECIPES["paper"], "r", given={"batch_norm": True})
    assert recipe.backbone == "r3d"
    with pytest.raises(TrainError, match="r has batch_norm True, unlike --no-batch-norm"):
        like_source(FINETUNE_RECIPES["paper"], "r", given={"batch_norm": False})


def test_a_frozen_backbone_stays_as_it_is(classed, pretrained, tmp_path):
    finetune(classed, tmp_path / "probe", source=pretrained, freeze=True, epochs=1)
    before = read_weights(pretrained).backbone
    after = checkpoint.load(tmp_path / "probe" / "last.pt")["model"]
    assert all(torch.equal(before[name], after[f"backbone.{name}"]) for name in before)
    head = {name for name in after if name.startswith("head.") and "running" not in name}
    assert head == {"head.0.num_batches_tracked", "head.1.weight", "head.1.bias"}


def test_resuming_from_other_weights_is_refused(classed, pretrained, tmp_path):
    finetune(classed, tmp_path / "run", epochs=1)
    with pytest.raises(TrainError, match="weights 'scratch' there"):
        finetune(classed, tmp_path / "run", source=pretrained, epochs=2)
    with pytest.raises(TrainError, match="is of `train pretrain`; choose another --out"):
        finetune(classed, pretrained, epochs=2)


def test_shards_without_labels_are_enough_and_any_crop_is_seen(tmp_path):
    folder = classed_shards(tmp_path / "s", 8, labels=False)
    records = finetune(folder, tmp_path / "run", epochs=1)
    assert records[0]["train"]["clips"] == 8
    job = FinetuneJob(str(folder), "0", FinetuneRecipe())
    data = job.open_data()
    answers, held = job.answers(data, job.prepare(data))
    assert len(answers.crops) == 1020
    assert held is None


def test_classes_are_known_by_name_and_in_the_order_of_their_numbers(tmp_path):
    folder = classed_shards(tmp_path / "s", 8)
    videos = videos_of(open_shards(folder))
    assert videos.classes() == NAMES
    assert videos.numbers(("bright", "dark")).tolist() == [1, 0, 1, 0]
    assert videos.numbers(("bright",)).tolist() == [NO_CLASS, 0, NO_CLASS, 0]


def test_videos_without_a_class_and_a_single_class_are_refused(tmp_path):
    job = FinetuneJob(str(toy_shards(tmp_path / "a", 4)), "0", FinetuneRecipe())
    with pytest.raises(TrainError, match="4 videos of .* have no class"):
        job.prepare(job.open_data())
    folder = classed_shards(tmp_path / "b", 8, order=np.zeros(4, int))
    job = FinetuneJob(str(folder), "0", FinetuneRecipe())
    with pytest.raises(TrainError, match="holds one class, dark"):
        job.prepare(job.open_data())


def test_decay_of_all_weights_spares_biases_and_batch_norm():
    net = ClassifierNet(3, backbone=make_backbone("c3d", batch_norm=True, width=0.03), width=0.03)
    optimizer = make_optimizer(
        net, lr=0.1, momentum=0.9, weight_decay=0.005, bias_lr=2.0, decay="all"
    )
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in net.named_parameters():
        assert (decay[id(parameter)] > 0) == (parameter.dim() > 1), name


def test_initial_weights_of_c3ds_own_code():
    net = task_of(init="c3d").net
    biases = [m.bias for m in net.modules() if isinstance(m, torch.nn.Conv3d)]
    assert [float(bias.detach().mean()) for bias in biases] == [0, 1, 1, 1, 1]
    hidden = [m for m in net.head if isinstance(m, torch.nn.Linear)]
    assert [float(m.bias.detach().mean()) for m in hidden] == [1, 1, 0]


def test_recipes_are_those_of_the_papers():
    paper, own = FINETUNE_RECIPES["paper"], FINETUNE_RECIPES["c3d-ucf101"]
    assert (paper.batch, paper.lr, paper.lr_every, paper.epochs) == (30, 0.001, 5, 20)
    assert (paper.dropout, paper.weight_decay, paper.decay) == (0.5, 0.005, "linear")
    assert (own.lr, own.decay, own.init, own.bias_lr, own.dropout) == (0.003, "all", "c3d", 2, 0.5)
