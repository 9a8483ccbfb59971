"""Features: against the network alone, gone on with after a stop, never those of something else."""

import fcntl

import h5py
import numpy as np
import pytest
import torch
from train_helpers import classed_shards, write_seal

from train import TrainError
from train.data.shards import open_shards
from train.device import Machine
from train.evaluate import features
from train.evaluate.features import compute, extract, read_features, unit
from train.evaluate.protocols import Protocol
from train.models.weights import Weights
from train.recipe import PretrainRecipe

CPU = Machine(device="cpu", precision="fp32")
OURS = Protocol("ours")


def weights_of(seed=0, **recipe):
    settings = PretrainRecipe(width=0.03, init="kaiming", pixels="centred", **recipe)
    return Weights("toy", settings, {}, {}).randomised(seed)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Six videos of two clips in two shards, whose frames are raw."""
    torch.set_num_threads(1)
    return classed_shards(tmp_path_factory.mktemp("stored") / "s", 12, shards=2)


def by_hand(folder, weights, layer):
    """(12, D): a layer of each clip's central crop, one at a time."""
    frames = []
    for path in sorted(folder.glob("*.h5")):
        with h5py.File(path) as file:
            frames.append(file["frames"][:, :, 8 : 8 + 112, 29 : 29 + 112])
    net = weights.network()
    clips = torch.from_numpy(np.concatenate(frames))
    return np.concatenate([net(clip[None])[layer].flatten(1).numpy() for clip in clips])


def test_a_video_is_the_mean_of_its_clips(stored, tmp_path):
    weights = weights_of()
    found = extract(weights, str(stored), tmp_path / "f.h5", protocol=OURS, machine=CPU)
    exact = by_hand(stored, weights, "pool5").reshape(6, 2, -1).mean(axis=1)
    np.testing.assert_allclose(found.values, exact, rtol=1e-5, atol=1e-6)
    assert found.paths == [f"{number:04d}.avi" for number in range(6)]
    assert found.class_names == ["dark", "bright"] * 3
    assert found.starts is None


def test_a_row_can_be_a_clip_and_a_layer_conv5(stored, tmp_path):
    weights, protocol = weights_of(), Protocol("x", layer="conv5")
    found = extract(
        weights, str(stored), tmp_path / "f.h5", protocol=protocol, machine=CPU, rows="clip"
    )
    np.testing.assert_allclose(
        found.values, by_hand(stored, weights, "conv5"), rtol=1e-5, atol=1e-5
    )
    assert found.paths[:4] == ["0000.avi", "0000.avi", "0001.avi", "0001.avi"]
    assert (found.values >= 0).all()
    assert found.starts.tolist() == [0, 16] * 6


def test_neither_batch_nor_workers_change_a_number(stored, tmp_path):
    weights = weights_of(batch_norm=True)
    shape = compute(weights, str(stored), tmp_path / "1.h5", protocol=OURS, machine=CPU, batch=5)
    one = read_features(tmp_path / "1.h5")
    assert one.values.shape == shape
    several = Machine(device="cpu", precision="fp32", workers=2)
    other = extract(weights, str(stored), tmp_path / "2.h5", protocol=OURS, machine=several)
    np.testing.assert_allclose(one.values, other.values, rtol=1e-6, atol=1e-7)
    assert one.record == other.record


def test_a_protocol_takes_its_clips(stored, tmp_path):
    weights, first = weights_of(), Protocol("x", clips=1)
    found = extract(weights, str(stored), tmp_path / "f.h5", protocol=first, machine=CPU)
    exact = by_hand(stored, weights, "pool5")[::2]
    np.testing.assert_allclose(found.values, exact, rtol=1e-5, atol=1e-6)


def stopping_after(rows, monkeypatch):
    """Let the stream of clips break off, as a process that is killed does."""
    real = features.stream

    def stream(*arguments, **options):
        for number, value in enumerate(real(*arguments, **options)):
            if number == rows:
                raise KeyboardInterrupt
            yield value

    monkeypatch.setattr(features, "stream", stream)


@pytest.mark.parametrize("torn", [0, 7])
def test_a_stopped_command_goes_on_with_what_is_left(stored, tmp_path, monkeypatch, torn):
    weights, file = weights_of(), tmp_path / "f.h5"
    whole = extract(weights, str(stored), tmp_path / "whole.h5", protocol=OURS, machine=CPU)
    with monkeypatch.context() as patch:
        stopping_after(7, patch)
        with pytest.raises(KeyboardInterrupt):
            extract(weights, str(stored), file, protocol=OURS, machine=CPU)
    begun = tmp_path / "f.h5.begun"
    assert not file.exists()
    with begun.open("ab") as stream:
        stream.write(b"\1" * torn)  # of a row that was being written
    seen, real = [], features.stream
    monkeypatch.setattr(
        features, "stream", lambda *a, **k: (seen.append(v) or v for v in real(*a, **k))
    )
    found = extract(weights, str(stored), file, protocol=OURS, machine=CPU)
    assert len(seen) == 12 - 6  # three videos were whole
    np.testing.assert_array_equal(found.values, whole.values)
    assert not begun.exists()


def test_what_others_began_is_not_gone_on_with(stored, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stopping_after(7, patch)
        with pytest.raises(KeyboardInterrupt):
            extract(weights_of(1), str(stored), tmp_path / "f.h5", protocol=OURS, machine=CPU)
    found = extract(weights_of(0), str(stored), tmp_path / "f.h5", protocol=OURS, machine=CPU)
    again = extract(weights_of(0), str(stored), tmp_path / "g.h5", protocol=OURS, machine=CPU)
    np.testing.assert_array_equal(found.values, again.values)


def test_what_is_there_is_used_and_never_for_something_else(stored, tmp_path, monkeypatch):
    file = tmp_path / "f.h5"
    extract(weights_of(), str(stored), file, protocol=OURS, machine=CPU)
    monkeypatch.delattr(features, "stream")
    extract(weights_of(), str(stored), file, protocol=OURS, machine=CPU)
    with pytest.raises(TrainError, match="features of other weights"):
        extract(weights_of(1), str(stored), file, protocol=OURS, machine=CPU)
    with file.with_name("f.h5.begun").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(TrainError, match="is being computed by another process"):
            extract(weights_of(), str(stored), file, protocol=OURS, machine=CPU)
    with pytest.raises(TrainError, match="features of other layer"):
        extract(weights_of(), str(stored), file, protocol=Protocol("x", layer="conv5"), machine=CPU)


def test_a_file_can_be_renewed(stored, tmp_path):
    asked = {"protocol": OURS, "machine": CPU}
    extract(weights_of(1), str(stored), tmp_path / "f.h5", **asked)
    found = extract(weights_of(), str(stored), tmp_path / "f.h5", **asked, renew=True)
    again = extract(weights_of(), str(stored), tmp_path / "g.h5", **asked)
    np.testing.assert_array_equal(found.values, again.values)


def test_a_layer_that_is_not_there_is_named(stored, tmp_path):
    with pytest.raises(TrainError, match="no layer 'fc6'; it has conv5, pool5"):
        extract(
            weights_of(), str(stored), tmp_path / "f.h5", protocol=Protocol("x", layer="fc6"),
            machine=CPU,
        )  # fmt: skip


def test_damaged_and_foreign_files_are_told(tmp_path):
    with pytest.raises(TrainError, match=r"nothing\.h5 does not exist"):
        read_features(tmp_path / "nothing.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(TrainError, match=r"text\.h5 is damaged"):
        read_features(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    with pytest.raises(TrainError, match=r"other\.h5 holds no features"):
        read_features(tmp_path / "other.h5")


def test_a_shard_that_is_replaced_while_it_is_read_is_refused(tmp_path):
    folder = classed_shards(tmp_path / "s", 4)
    shards = open_shards(folder)
    other = classed_shards(tmp_path / "t", 6)
    name = "toy-00000-of-00001.h5"
    (other / name).rename(folder / name)
    write_seal(folder / name, clips=6, config_hash=shards.config_hash)
    with pytest.raises(TrainError, match="another file has taken its place"):
        list(features.stream(weights_of(), shards, np.arange(4), "pool5", machine=CPU))


def test_rows_are_of_norm_one_or_zero():
    rows = unit(np.array([[3, 4], [0, 0]], np.float32))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0]], rtol=1e-6)
