"""Trained weights: the same network from wherever they lie, and one sentence where they do not."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import train
from train import TrainError, checkpoint, load_backbone
from train.models.heads import ClassifierNet, StatisticsNet
from train.models.registry import make_backbone
from train.models.weights import read_weights
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
    """A pre-trained run, a fine-tuned one, and one of a linear output on a frozen network."""
    folder = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    for_labels, for_classes = PretrainRecipe(**SMALL), FinetuneRecipe(**SMALL)
    backbones = [make_backbone(**recipe.network()) for recipe in (for_labels, for_classes)]
    labels = StatisticsNet({"motion": 14}, backbone=backbones[0], init="kaiming", width=0.03)
    classes = ClassifierNet(3, backbone=backbones[1], init="kaiming", width=0.03)
    for net in (labels, classes):
        net.train()(clips())  # running figures of batch norm that are not those of the beginning
    write_run(
        folder / "labels", labels, for_labels, moments=torch.ones(2, 27), counts=torch.ones(27, 17)
    )
    write_run(folder / "classes", classes, for_classes, classes=["a", "b", "c"])
    probe = FinetuneRecipe(**SMALL, backbone="r3d", freeze=True)
    backbone = make_backbone(**probe.network())
    frozen = ClassifierNet(3, backbone=backbone, init="kaiming", width=0.03, freeze=True)
    frozen.train()(clips(4))  # what the features are standardised by
    write_run(folder / "probe", frozen, probe, classes=["a", "b", "c"])
    return folder


def write_export(path, tensors, **metadata):
    from safetensors.torch import save

    path.write_bytes(save(tensors, metadata={k: json.dumps(v) for k, v in metadata.items()}))
    return path


def clips(count=2):
    generator = torch.Generator().manual_seed(5)
    shape = (count, 16, 112, 112, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    ("run", "stages"),
    [
        ("labels", {"conv5", "pool5"}),
        ("classes", {"conv5", "pool5", "fc6", "fc7", "logits"}),
        ("probe", {"conv5", "pool5", "logits"}),
    ],
)
def test_a_run_a_checkpoint_and_an_export_are_one_network(runs, tmp_path, run, stages):
    exported = tmp_path / "net.safetensors"
    checkpoint.export(runs / run, exported)
    last = tmp_path / "last.pt"
    last.write_bytes((runs / run / "best.pt").read_bytes())
    places = (runs / run, str(runs / run / "best.pt"), last, exported)
    found = [load_backbone(place)(clips()) for place in places]
    assert found[0].keys() == stages
    assert all(torch.isfinite(values).all() and values.any() for values in found[0].values())
    for other in found[1:]:
        assert all(torch.equal(found[0][name], other[name]) for name in stages)
    assert len({read_weights(place).digest() for place in places}) == 1
    assert {read_weights(place).shards for place in places} == {("abc",)}


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


def test_a_classifier_gives_the_logits_that_it_was_tested_with(runs):
    weights = read_weights(runs / "probe")
    pool5 = weights.network()(clips())["pool5"]
    mean, var = weights.head["0.running_mean"], weights.head["0.running_var"]
    x = (pool5 - mean) / (var + 1e-5).sqrt()
    wanted = torch.nn.functional.linear(x, weights.head["1.weight"], weights.head["1.bias"])
    torch.testing.assert_close(weights.network()(clips())["logits"], wanted)
    assert weights.classes == ("a", "b", "c")


def test_it_is_in_inference_mode_and_gives_no_gradients(runs):
    net = load_backbone(runs / "labels")
    assert not any(module.training for module in net.modules())
    assert not any(p.requires_grad for p in net.parameters())
    one, both = net(clips(1))["pool5"], net(clips(2))["pool5"]
    torch.testing.assert_close(one, both[:1])  # batch norm looks at no batch
    assert not one.requires_grad
    with torch.enable_grad():
        asked = load_backbone(runs / "classes").requires_grad_()(clips(1))
    assert not any(values.requires_grad for values in asked.values())


@pytest.mark.parametrize("wrong", [clips(1).float(), clips(1)[0], clips(1).movedim(4, 1)])
def test_what_is_no_clip_is_told(runs, wrong):
    with pytest.raises(TrainError, match=r"Clips are \(B, 16, 112, 112, 3\) uint8, RGB"):
        load_backbone(runs / "labels")(wrong)


@pytest.mark.parametrize("name", ["r3d-18", "r2plus1d-18"])
@pytest.mark.parametrize("zipped", [True, False])  # torchvision's own files are of before zip
def test_torchvisions_files_load_as_they_are(tmp_path, name, zipped):
    torch.manual_seed(0)
    theirs = make_backbone(name, pixels="kinetics").eval()
    state = {**theirs.state_dict(), "fc.weight": torch.ones(400, 512), "fc.bias": torch.ones(400)}
    torch.save(state, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    found = read_weights(tmp_path / "net.pth")
    assert (found.recipe.backbone, found.recipe.pixels) == (name, "kinetics")
    assert (found.head, found.classes, found.shards) == ({}, (), ())
    state = found.network().state_dict()
    assert all(torch.equal(state[f"_net.{k}"], v) for k, v in theirs.state_dict().items())


def test_torchvisions_network_gives_the_same_features(tmp_path):
    torch.manual_seed(0)
    theirs = make_backbone("r3d-18", pixels="kinetics").eval()
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    with torch.no_grad():
        wanted = theirs.stages(clips(1))
    found = load_backbone(tmp_path / "net.pth")(clips(1))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[stage], values) for stage, values in wanted.items())


def test_random_weights_are_those_of_their_seed_and_of_the_same_network(runs):
    for run in ("labels", "classes", "probe"):
        weights = read_weights(runs / run)
        one, same, other = (weights.randomised(seed) for seed in (1, 1, 2))
        assert one.digest() == same.digest() != other.digest() != weights.digest()
        for part in ("backbone", "head"):
            tensors = [getattr(w, part) for w in (weights, one, same)]
            shapes = [{name: t.shape for name, t in held.items()} for held in tensors]
            assert shapes[0] == shapes[1]
            assert all(torch.equal(t, tensors[2][name]) for name, t in tensors[1].items())
        assert (one.recipe, one.classes, one.shards) == (
            weights.recipe, weights.classes, weights.shards,
        )  # fmt: skip
        assert one.network()(clips()).keys() == weights.network()(clips()).keys()


def test_a_hash_tells_weights_and_networks_apart(runs):
    weights = read_weights(runs / "labels")
    name = "layers.0.weight"
    changed = weights.backbone[name].clone()
    changed[0, 0, 0, 0, 0] += 1e-6
    others = [replace(weights, backbone={**weights.backbone, name: changed})]
    settings = ({"pixels": "unit"}, {"width": 0.04}, {"batch_norm": False}, {"backbone": "r3d"})
    others += [replace(weights, recipe=replace(weights.recipe, **field)) for field in settings]
    assert len({w.digest() for w in (weights, *others)}) == 6
    # Not by where they come from, how long they learnt, or how their memory lies.
    backwards = {
        n: t.to(memory_format=torch.channels_last_3d) if t.dim() == 5 else t
        for n, t in reversed(weights.backbone.items())
    }
    longer = replace(weights.recipe, epochs=99)
    same = replace(weights, name="elsewhere", shards="", recipe=longer, backbone=backwards)
    assert same.digest() == weights.digest() == read_weights(runs / "labels").digest()


def test_a_hash_is_of_the_classifier_too(runs):
    weights = read_weights(runs / "classes")
    changed = weights.head["6.bias"].clone()
    changed[0] += 1
    other = replace(weights, head={**weights.head, "6.bias": changed})
    assert other.digest() != weights.digest()
    # Beside it the same backbone has another one.
    assert replace(weights, head={}, classes=()).digest() != weights.digest()


def test_checkpoints_of_before_are_of_c3d(runs, tmp_path):
    content = torch.load(runs / "labels" / "best.pt")
    for field in ("backbone", "decay"):
        del content["recipe"][field]
    del content["task"]
    torch.save(content, tmp_path / "old.pt")
    old = read_weights(tmp_path / "old.pt")
    assert old.recipe == PretrainRecipe(**SMALL)
    assert old.recipe.backbone == "c3d"
    assert old.digest() == read_weights(runs / "labels").digest()
    found, wanted = (load_backbone(p)(clips()) for p in (tmp_path / "old.pt", runs / "labels"))
    assert all(torch.equal(found[stage], values) for stage, values in wanted.items())


def refusal(path):
    """The one sentence about a file, which names it."""
    with pytest.raises(TrainError) as raised:
        load_backbone(path)
    told = str(raised.value)
    assert "\n" not in told
    assert str(path) in told
    assert told.endswith(".")
    return told


def test_what_is_no_file_of_weights_is_one_sentence(runs, tmp_path):
    def written(name, content):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    assert "does not exist" in refusal(tmp_path / "nowhere.pt")
    (tmp_path / "empty").mkdir()
    assert "no checkpoint" in refusal(tmp_path / "empty")
    not_one, not_exported = "damaged or not a checkpoint", "damaged or was not exported"
    whole = (runs / "labels" / "best.pt").read_bytes()
    for content in (b"", b"some text\nof two lines\n", whole[: len(whole) // 2]):
        assert not_one in refusal(written("x.pt", content))
    checkpoint.export(runs / "labels", tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    for content in (b"", b"some text\nof two lines\n", whole[:100], whole[:-5]):
        assert not_exported in refusal(written("x.safetensors", content))


def test_a_flipped_bit_in_a_checkpoint_is_seen(runs, tmp_path):
    spoilt = bytearray((runs / "labels" / "best.pt").read_bytes())
    weight = read_weights(runs / "labels").backbone["layers.0.weight"]
    spoilt[spoilt.index(weight.numpy().tobytes())] ^= 1
    (tmp_path / "spoilt.pt").write_bytes(spoilt)
    assert "differs from its checksum" in refusal(tmp_path / "spoilt.pt")


def test_what_others_saved_is_one_sentence(runs, tmp_path):
    of_others = {"a": torch.ones(1), "conv1.weight": torch.ones(2)}
    for content in (of_others, torch.ones(3), [1, 2]):
        torch.save(content, tmp_path / "other.pt")
        assert "not a checkpoint" in refusal(tmp_path / "other.pt")
    torch.save(make_backbone("c3d", width=0.02), tmp_path / "module.pt")  # a pickle, with code
    assert "not a checkpoint" in refusal(tmp_path / "module.pt")
    path = write_export(tmp_path / "bare.safetensors", of_others)
    assert "was not exported by `train`" in refusal(path)
    write_export(path, of_others, labels={"shards": "abc"})
    assert "was not exported by `train`" in refusal(path)


def test_weights_that_do_not_fit_are_one_sentence(runs, tmp_path):
    def changed(model):
        content = torch.load(runs / "classes" / "best.pt")
        torch.save({**content, "model": model(content["model"])}, tmp_path / "x.pt")
        return tmp_path / "x.pt"

    unfit = "does not fit its own network"
    for name in ("backbone.layers.0.weight", "head.6.bias"):
        assert unfit in refusal(changed(lambda m, n=name: {k: v for k, v in m.items() if k != n}))
        assert unfit in refusal(changed(lambda m, n=name: {**m, n: torch.ones(7)}))
        assert unfit in refusal(changed(lambda m, n=name: {**m, f"{n}.more": torch.ones(7)}))
    weights = read_weights(runs / "labels")
    other = replace(weights.recipe, backbone="r3d").as_dict()
    path = write_export(tmp_path / "x.safetensors", weights.backbone, recipe=other)
    assert unfit in refusal(path)
    # Names as torchvision's, and another network: one block per stage, as in the joint release.
    torch.save(make_backbone("r3d", width=0.03).state_dict(), tmp_path / "x.pth")
    assert unfit in refusal(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("field", "reason"), [({"later": 1}, "'later'"), ({"backbone": "vgg"}, "not 'vgg'")]
)
def test_recipes_of_newer_programs_are_one_sentence(runs, tmp_path, field, reason):
    content = torch.load(runs / "labels" / "best.pt")
    content["recipe"].update(field)
    torch.save(content, tmp_path / "x.pt")
    weights = read_weights(runs / "labels").backbone
    exported = write_export(tmp_path / "x.safetensors", weights, recipe=content["recipe"])
    for path in (tmp_path / "x.pt", exported):
        told = refusal(path)
        assert "recipe unknown to this program" in told
        assert reason in told


def test_train_alone_loads_no_torch():
    told = "print('torch' in sys.modules)"
    code = f"import train, sys; {told}; train.load_backbone; {told}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_train_has_no_other_names():
    with pytest.raises(AttributeError, match="no attribute 'load_network'"):
        train.load_network  # noqa: B018
