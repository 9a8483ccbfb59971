"""Trained weights: the same network from wherever they lie, and one sentence where they do not."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from train import TrainError, checkpoint, load_backbone
from train.models.heads import ClassifierNet, StatisticsNet
from train.models.registry import make_backbone
from train.models.weights import Weights, read_weights
from train.recipe import FinetuneRecipe, PretrainRecipe

SMALL = {"width": 0.03, "batch_norm": True, "pixels": "centred", "init": "kaiming"}


def write_run(folder, net, recipe, **prepared):
    folder.mkdir(parents=True)
    checkpoint.save(
        folder / "best.pt", model=net, optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
        sums=torch.zeros(1), prepared=prepared, progress=checkpoint.Progress(), recipe=recipe,
        labels={"shards": "abc"},
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A pre-trained run and a fine-tuned one."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    for_labels, for_classes = PretrainRecipe(**SMALL), FinetuneRecipe(**SMALL)
    backbones = [make_backbone(**recipe.network()) for recipe in (for_labels, for_classes)]
    labels = StatisticsNet({"motion": 14}, backbone=backbones[0], init="kaiming", width=0.03)
    classes = ClassifierNet(3, backbone=backbones[1], init="kaiming", width=0.03)
    for net in (labels, classes):
        net.train()(clips())  # running figures of batch norm that are not those of the beginning
    write_run(folder / "labels", labels, for_labels, moments=torch.ones(2, 27))
    write_run(folder / "classes", classes, for_classes, classes=["a", "b", "c"])
    return folder


def clips(count=2):
    generator = torch.Generator().manual_seed(5)
    shape = (count, 16, 112, 112, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("run", "stages"),
    [("labels", {"conv5", "pool5"}), ("classes", {"conv5", "pool5", "fc6", "fc7", "logits"})],
)
def test_a_run_a_checkpoint_and_an_export_are_one_network(runs, tmp_path, run, stages):
    exported = tmp_path / "net.safetensors"
    checkpoint.export(runs / run, exported)
    places = (runs / run, runs / run / "best.pt", exported)
    found = [load_backbone(place)(clips()) for place in places]
    assert found[0].keys() == stages
    for other in found[1:]:
        assert all(torch.equal(found[0][name], other[name]) for name in stages)
    assert len({read_weights(place).digest() for place in places}) == 1
    assert {read_weights(place).shards for place in places} == {"abc"}


def test_stages_of_a_classifier_are_its_own_layers(runs):
    weights = read_weights(runs / "classes")
    stages, x = weights.network()(clips()), None
    for name, layer in (("fc6", "0"), ("fc7", "3"), ("logits", "6")):
        x = stages["pool5"] if x is None else x
        x = torch.nn.functional.linear(
            x, weights.head[f"{layer}.weight"], weights.head[f"{layer}.bias"]
        )
        x = x if name == "logits" else x.relu()
        torch.testing.assert_close(stages[name], x)


def test_it_is_in_inference_mode_and_gives_no_gradients(runs):
    net = load_backbone(runs / "labels")
    assert not any(module.training for module in net.modules())
    assert not any(p.requires_grad for p in net.parameters())
    one, both = net(clips(1))["pool5"], net(clips(2))["pool5"]
    torch.testing.assert_close(one, both[:1])  # batch norm looks at no batch
    assert not one.requires_grad


@pytest.mark.parametrize("name", ["r3d-18", "r2plus1d-18"])
def test_torchvisions_files_load_as_they_are(tmp_path, name):
    torch.manual_seed(0)
    theirs = make_backbone(name, pixels="kinetics").eval()
    state = {**theirs.state_dict(), "fc.weight": torch.ones(400, 512), "fc.bias": torch.ones(400)}
    torch.save(state, tmp_path / "net.pth")
    found = read_weights(tmp_path / "net.pth")
    assert (found.recipe.backbone, found.recipe.pixels) == (name, "kinetics")
    state = found.network().state_dict()
    assert all(torch.equal(state[f"_net.{k}"], v) for k, v in theirs.state_dict().items())


def test_random_weights_are_those_of_their_seed_and_of_the_same_network(runs):
    for run in ("labels", "classes"):
        weights = read_weights(runs / run)
        one, same, other = (weights.randomised(seed) for seed in (1, 1, 2))
        assert one.digest() == same.digest() != other.digest() != weights.digest()
        shapes = {name: t.shape for name, t in weights.backbone.items()}
        assert {name: t.shape for name, t in one.backbone.items()} == shapes
        assert one.network()(clips()).keys() == weights.network()(clips()).keys()


def test_a_hash_tells_weights_and_networks_apart(runs):
    weights = read_weights(runs / "labels")
    name = "layers.0.weight"
    changed = {**weights.backbone, name: weights.backbone[name] + 1e-6}
    scaled = replace(weights.recipe, pixels="unit")
    digests = {w.digest() for w in (weights, replace(weights, backbone=changed))}
    assert len({*digests, replace(weights, recipe=scaled).digest()}) == 3
    assert replace(weights, name="elsewhere").digest() == weights.digest()


def test_checkpoints_of_before_are_of_c3d(runs, tmp_path):
    content = torch.load(runs / "labels" / "best.pt")
    for field in ("backbone", "decay"):
        del content["recipe"][field]
    del content["task"]
    torch.save(content, tmp_path / "old.pt")
    old = read_weights(tmp_path / "old.pt")
    assert old.recipe == PretrainRecipe(**SMALL)
    assert old.digest() == read_weights(runs / "labels").digest()


def test_what_is_no_network_is_one_sentence(runs, tmp_path):
    def sentence(name, content=None):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(TrainError) as raised:
            read_weights(tmp_path / name)
        assert "\n" not in str(raised.value)
        assert name in str(raised.value)
        return str(raised.value)

    assert "does not exist" in sentence("nowhere.pt")
    assert "damaged or not a checkpoint" in sentence("text.pt", b"text")
    assert "damaged or was not exported" in sentence("text.safetensors", b"text")
    (tmp_path / "empty").mkdir()
    assert "no checkpoint" in sentence("empty")
    from safetensors.torch import save

    assert "was not exported" in sentence("x.safetensors", save({"a": torch.ones(1)}))
    weights = read_weights(runs / "labels")
    lacking = {k: v for k, v in weights.backbone.items() if k != "layers.0.weight"}
    with pytest.raises(TrainError, match="does not fit its own network"):
        Weights("x", weights.recipe, lacking, {}).network()


def test_train_alone_loads_no_torch():
    told = "print('torch' in sys.modules)"
    code = f"import train, sys; {told}; train.load_backbone; {told}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
