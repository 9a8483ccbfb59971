"""Batches: the same from any number of processes, none of which outlives its loader."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch
from train_helpers import spoilt, toy_shards

from train import TrainError
from train.data.answers import LabelAnswers
from train.data.dataset import ClipDataset
from train.data.loader import Loader
from train.data.sampler import HELD_OUT, Order
from train.data.shards import open_shards
from train.metrics import NO_LABEL

CPU = torch.device("cpu")


def loader_of(folder, *, workers=0, **options):
    shards = open_shards(folder)
    return Loader(
        ClipDataset(LabelAnswers(shards), LabelAnswers(shards), seed=1),
        workers=workers,
        device=CPU,
        **options,
    )


def keys(*clips, epoch=0):
    return [[(epoch, clip)] for clip in clips]


def test_workers_change_nothing_in_training_or_evaluation(tmp_path):
    folder = toy_shards(tmp_path / "s", 9, shards=2, jpeg=True)
    order = Order(np.arange(9), 3, seed=1)
    batches = {}
    for workers in (0, 2):
        with loader_of(folder, workers=workers) as loader:
            batches[workers] = [
                batch
                for plan in (order.steps_of(0), keys(4, 5, epoch=HELD_OUT), order.steps_of(1))
                for batch in loader.read(plan)
            ]
    assert len(batches[0]) == 8
    for alone, worked in zip(batches[0], batches[2], strict=True):
        assert alone.clips == worked.clips
        assert torch.equal(alone.frames, worked.frames)
        assert torch.equal(alone.answers, worked.answers)


class SimulatedError(Exception):
    pass


def fail_in_the_middle(folder):
    with loader_of(folder, workers=2) as loader:
        next(loader.read(keys(*range(9))))
        raise SimulatedError


def test_no_worker_is_left_after_an_error(tmp_path):
    with pytest.raises(SimulatedError):
        fail_in_the_middle(toy_shards(tmp_path / "s", 9))
    assert multiprocessing.active_children() == []


def kill_a_worker(folder):
    with loader_of(folder, workers=1) as loader:
        batches = loader.read(keys(*[0, 1, 2] * 50))
        next(batches)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        list(batches)


def test_a_worker_that_dies_is_one_sentence(tmp_path):
    with pytest.raises(TrainError, match=r"A loader process died \(.*; where memory is short"):
        kill_a_worker(toy_shards(tmp_path / "s", 3))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_clip_is_one_sentence(tmp_path, workers):
    folder = spoilt(toy_shards(tmp_path / "s", 4, jpeg=True), 2)
    with (
        pytest.raises(TrainError, match=r"toy-00000-of-00001.h5, clip 2: .*--skip-bad") as caught,
        loader_of(folder, workers=workers) as loader,
    ):
        list(loader.read(keys(0, 1, 2, 3)))
    assert "\n" not in str(caught.value)


def test_bad_clips_may_be_left_out_and_are_named_once(tmp_path, capsys):
    folder = spoilt(toy_shards(tmp_path / "s", 4, jpeg=True), 2)
    with loader_of(folder, skip_bad=True) as loader:
        for epoch in (0, 1):
            _, batch = loader.read([[(epoch, 0)], [(epoch, 2), (epoch, 3)]])
            assert (batch.answers == NO_LABEL).all(dim=1).tolist() == [True, False]
    said = capsys.readouterr().err
    assert said.count("\n") == said.count("left out") == said.count("clip 2") == 1


def test_other_clips_stand_in_for_bad_ones(tmp_path):
    """Batch norm sees all frames: none is to be black."""
    folder = spoilt(toy_shards(tmp_path / "s", 4, jpeg=True), 2)
    with loader_of(folder, skip_bad=True) as loader:
        (batch,) = loader.read([[(0, 2), (0, 3)]])
    assert torch.equal(batch.frames[0], batch.frames[1])
    assert batch.frames.any()


def die_while_the_loader_ends(folder, monkeypatch):
    with loader_of(folder, workers=2) as loader:
        next(loader.read(keys(*range(9))))
        iterator = loader._loader._iterator
        real = iterator._shutdown_workers

        def shut_down():
            os.kill(iterator._workers[0].pid, signal.SIGKILL)
            time.sleep(0.2)
            real()

        monkeypatch.setattr(iterator, "_shutdown_workers", shut_down)
        raise SimulatedError


def test_a_worker_that_dies_while_the_loader_ends_changes_nothing(tmp_path, monkeypatch):
    with pytest.raises(SimulatedError):
        die_while_the_loader_ends(toy_shards(tmp_path / "s", 9), monkeypatch)
    assert multiprocessing.active_children() == []


def test_a_pipe_that_breaks_elsewhere_is_no_worker(tmp_path):
    with pytest.raises(BrokenPipeError), loader_of(toy_shards(tmp_path / "s", 2)):
        raise BrokenPipeError


def test_when_all_is_bad_nothing_is_left_out(tmp_path):
    folder = spoilt(toy_shards(tmp_path / "s", 20, jpeg=True), *range(20))
    with (
        pytest.raises(TrainError, match="11 of 11 clips cannot be read .*too many to leave out"),
        loader_of(folder, skip_bad=True) as loader,
    ):
        list(loader.read(keys(*range(20))))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_is_gone_is_one_sentence(tmp_path, workers):
    folder = toy_shards(tmp_path / "s", 4)
    loader = loader_of(folder, workers=workers, skip_bad=True)
    (folder / "toy-00000-of-00001.h5").unlink()
    with (
        pytest.raises(TrainError, match="A shard cannot be read any more") as caught,
        loader,
    ):
        list(loader.read(keys(0)))
    assert "\n" not in str(caught.value)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_batches_on_a_gpu_are_those_on_the_cpu(tmp_path):
    shards = open_shards(toy_shards(tmp_path / "s", 9))
    plan = [[(0, 0), (0, 1)], [(0, 2)], [(0, 3), (0, 4)]]
    batches = {}
    for device in ("cpu", "cuda"):
        with Loader(
            ClipDataset(LabelAnswers(shards)), workers=2, device=torch.device(device)
        ) as loader:
            batches[device] = list(loader.read(plan))
    for one, other in zip(batches["cpu"], batches["cuda"], strict=True):
        assert torch.equal(one.frames, other.frames.cpu())
        assert torch.equal(one.answers, other.answers.cpu())
