"""Samples: crops, mirror images, and choices that depend on (seed, epoch, clip) alone."""

import pickle

import cv2
import h5py
import numpy as np
import pytest
from train_helpers import SMALL_CROPS, random_labels, toy_shards, write_shards

from labelgen import LABELS
from labelgen.labels.crops import central_crop
from train import TrainError
from train.data.dataset import ClipDataset, make_loader
from train.data.sampler import ClipSampler, ordered_batches, split_by_video, view_of
from train.data.shards import open_shards


def mirrored_by_the_book(labels):
    """The flip rule of the label definition, label by label."""
    triangles = {1: 4, 2: 3, 3: 2, 4: 1, 5: 8, 6: 7, 7: 6, 8: 5}
    out = []
    for (name, _), value in zip(LABELS, labels.tolist(), strict=True):
        _, where, what = name.split("/")
        if what.endswith("_location") and where == "grid":
            row, column = divmod(value - 1, 4)
            value = 4 * row + (3 - column) + 1
        elif what.endswith("_location") and where == "triangles":
            value = triangles[value]
        elif what == "u_orientation":
            value = 7 - (value - 1) + 1
        elif what == "v_orientation":
            value = (3 - (value - 1)) % 8 + 1
        out.append(value)
    return out


@pytest.fixture(scope="module", params=["raw", "raw checked", "raw packed", "jpeg"])
def stored(request, tmp_path_factory):
    """Noise in every way of storing frames: a shard set, and the frames and labels one must get."""
    rng = np.random.default_rng(3)
    frames = rng.integers(0, 256, (3, 16, 128, 171, 3), dtype=np.uint8)
    labels = random_labels(rng, 3, len(SMALL_CROPS))
    folder = tmp_path_factory.mktemp("stored")
    jpeg = request.param == "jpeg"
    filters = {"raw checked": {"fletcher32": True}, "raw packed": {"compression": "gzip"}}
    write_shards(folder, frames, labels, jpeg=jpeg, filters=filters.get(request.param, {}))
    if jpeg:
        with h5py.File(folder / "toy-00000-of-00001.h5") as file:
            frames = np.array(
                [[cv2.imdecode(j, cv2.IMREAD_COLOR)[..., ::-1] for j in c] for c in file["frames"]]
            )
    return open_shards(folder), frames, labels


def test_samples_equal_the_slow_way(stored):
    shards, frames, labels = stored
    dataset = ClipDataset(shards, seed=5, augment=True)
    seen = set()
    for epoch in range(20):
        for clip in range(3):
            crop, flip = view_of(5, epoch, clip, len(SMALL_CROPS))
            seen.add((crop, flip))
            got_frames, got_labels, got_clip = dataset[epoch, clip]
            top, left = SMALL_CROPS[crop]
            wanted = frames[clip, :, top : top + 112, left : left + 112]
            np.testing.assert_array_equal(got_frames, wanted[:, :, ::-1] if flip else wanted)
            values = labels[clip, crop]
            assert got_labels.tolist() == (
                mirrored_by_the_book(values) if flip else values.tolist()
            )
            assert got_clip == clip
    assert len(seen) == 2 * len(SMALL_CROPS)


def test_held_out_view_is_the_central_crop_as_it_is(stored):
    shards, frames, labels = stored
    got_frames, got_labels, _ = ClipDataset(shards, augment=False)[9, 1]
    np.testing.assert_array_equal(got_frames, frames[1, :, 8:120, 29:141])
    np.testing.assert_array_equal(got_labels, labels[1, 0])


def test_central_crop_of_all_is_central():
    everything = np.array([(top, left) for top in range(17) for left in range(60)])
    assert everything[central_crop(everything)].tolist() == [8, 29]


def test_views_are_even_and_differ_between_seeds_epochs_and_clips():
    views = [view_of(0, epoch, clip, 10) for epoch in range(40) for clip in range(100)]
    crops, flips = np.array(views).T
    assert np.bincount(crops).min() > 330  # 400 expected, sd 19
    assert abs(flips.mean() - 0.5) < 0.03
    assert views[:100] != views[100:200]
    assert views[:100] != [view_of(1, 0, clip, 10) for clip in range(100)]


def test_a_dataset_that_has_read_can_be_sent_to_a_worker(stored):
    dataset = ClipDataset(stored[0], augment=False)
    before = dataset[0, 0][0]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(dataset))[0, 0][0], before)


def test_few_files_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr("train.data.dataset.OPEN_FILES", 2)
    dataset = ClipDataset(open_shards(toy_shards(tmp_path / "s", 4, shards=4)), augment=False)
    for clip in (0, 1, 2, 3, 0):
        dataset[0, clip]
    assert len(dataset._open) == 2


def test_workers_change_nothing(tmp_path):
    shards = open_shards(toy_shards(tmp_path / "s", 9, shards=2, jpeg=True))
    batches = {}
    for workers in (0, 2):
        sampler = ClipSampler(np.arange(9), 3, seed=1)
        dataset = ClipDataset(shards, seed=1, augment=True)
        loader = make_loader(dataset, sampler, workers=workers, pin=False)
        batches[workers] = []
        for epoch in (0, 1):
            sampler.start(epoch, 0)
            batches[workers] += list(loader)
    for alone, worked in zip(batches[0], batches[2], strict=True):
        for a, b in zip(alone, worked, strict=True):
            np.testing.assert_array_equal(a, b)


def sampled(clips=20, batch=8, **options):
    sampler = ClipSampler(np.arange(clips), batch, seed=4, **options)
    sampler.start(3, 0)
    return list(sampler)


@pytest.mark.parametrize(("ranks", "accumulate"), [(1, 1), (2, 1), (4, 2), (1, 8)])
def test_ranks_and_parts_share_each_batch(ranks, accumulate):
    whole = sampled()
    shared = [sampled(ranks=ranks, rank=rank, accumulate=accumulate) for rank in range(ranks)]
    for step, batch in enumerate(whole):
        parts = slice(step * accumulate, (step + 1) * accumulate)
        pieces = [key for rank in shared for part in rank[parts] for key in part]
        assert sorted(pieces) == sorted(batch)
        assert {len(part) for rank in shared for part in rank} == {8 // ranks // accumulate}


def test_an_epoch_can_begin_at_any_step_and_epochs_differ():
    sampler = ClipSampler(np.arange(20), 4, seed=4)
    whole = list(sampler)
    sampler.start(0, 3)
    assert list(sampler) == whole[3:]
    assert len(sampler) == 2
    sampler.start(1, 0)
    assert [[clip for _, clip in batch] for batch in sampler] != [[c for _, c in b] for b in whole]


def test_no_clip_comes_twice_in_an_epoch():
    clips = [clip for batch in sampled(23, 5) for _, clip in batch]
    assert len(clips) == 20 == len(set(clips))


def test_evaluation_sees_every_clip_once():
    shared = [ordered_batches(np.arange(11), 3, rank=rank, ranks=2) for rank in range(2)]
    assert sorted(clip for rank in shared for batch in rank for _, clip in batch) == list(range(11))


def test_batches_that_do_not_fit_are_refused():
    with pytest.raises(TrainError, match="batch of 30 is larger than the training set of 20 clips"):
        sampled(20, 30)
    with pytest.raises(TrainError, match="batch of 8 cannot be shared by 3 ranks"):
        sampled(20, 8, ranks=3)


def test_a_video_is_never_on_both_sides():
    videos = np.repeat(np.arange(30), 3)
    train, held = split_by_video(videos, 0.2, seed=0)
    assert set(videos[train]).isdisjoint(videos[held])
    assert len(set(videos[held])) == 6
    assert sorted([*train, *held]) == list(range(90))
    with pytest.raises(TrainError, match="two videos"):
        split_by_video(np.zeros(5, int), 0.2, seed=0)


def test_a_damaged_frame_is_named(tmp_path):
    folder = toy_shards(tmp_path / "s", 2, jpeg=True)
    path = folder / "toy-00000-of-00001.h5"
    with h5py.File(path, "a") as file:
        file["frames"][1, 4] = np.frombuffer(b"no picture", np.uint8)
    shards = open_shards_ignoring_size(folder, path)
    with pytest.raises(TrainError, match=r"toy-00000-of-00001.h5, clip 1: frames do not decode"):
        ClipDataset(shards, augment=False)[0, 1]


def open_shards_ignoring_size(folder, path):
    import json

    seal = path.with_suffix(".json")
    seal.write_text(json.dumps({**json.loads(seal.read_text()), "bytes": path.stat().st_size}))
    return open_shards(folder)
