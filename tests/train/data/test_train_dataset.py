"""Samples: crops, mirror images, and choices that depend on (seed, epoch, clip) alone."""

import os
import pickle
import resource
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from train_helpers import (
    SMALL_CROPS,
    moving_shards,
    random_labels,
    spoilt,
    toy_shards,
    write_shards,
)

from labelgen import LABELS
from labelgen.labels.crops import central_crop
from train.data import dataset as module
from train.data.answers import LabelAnswers
from train.data.chunks import StoredClips
from train.data.dataset import ClipDataset
from train.data.sampler import HELD_OUT, uncounted, views_of
from train.data.shards import open_shards
from train.metrics import NO_LABEL


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


WAYS = {
    "raw": {},
    "raw checked": {"fletcher32": True},
    "raw packed": {"compression": "gzip"},
    "raw by threes": {"chunks": (3, 16, 128, 171, 3)},
    "jpeg": {},
}


@pytest.fixture(scope="module", params=WAYS)
def stored(request, tmp_path_factory):
    """Noise in every way of storing frames: a shard set, and the frames and labels one must get."""
    rng = np.random.default_rng(3)
    frames = rng.integers(0, 256, (3, 16, 128, 171, 3), dtype=np.uint8)
    labels = random_labels(rng, 3, len(SMALL_CROPS))
    folder = tmp_path_factory.mktemp("stored")
    jpeg = request.param == "jpeg"
    write_shards(folder, frames, labels, jpeg=jpeg, filters=WAYS[request.param])
    if jpeg:
        with h5py.File(folder / "toy-00000-of-00001.h5") as file:
            frames = np.array(
                [[cv2.imdecode(j, cv2.IMREAD_COLOR)[..., ::-1] for j in c] for c in file["frames"]]
            )
    return open_shards(folder), frames, labels


@pytest.mark.parametrize("views", [1, 3])
def test_samples_equal_the_slow_way(stored, views):
    shards, frames, labels = stored
    dataset = ClipDataset(LabelAnswers(shards), seed=5, views=views)
    seen = set()
    for epoch in range(20):
        for clip in range(3):
            item = dataset[epoch, clip]
            drawn = views_of(5, epoch, clip, crops=len(SMALL_CROPS), count=views)
            seen.update(drawn)
            assert (item.clip, item.wrong, len(item.frames)) == (clip, "", views)
            for got_frames, got_labels, (crop, flip) in zip(
                item.frames, item.answers, drawn, strict=True
            ):
                top, left = SMALL_CROPS[crop]
                wanted = frames[clip, :, top : top + 112, left : left + 112]
                np.testing.assert_array_equal(got_frames, wanted[:, :, ::-1] if flip else wanted)
                values = labels[clip, crop]
                assert got_labels.tolist() == (
                    mirrored_by_the_book(values) if flip else values.tolist()
                )
    assert len(seen) == 2 * len(SMALL_CROPS)


def test_held_out_view_is_the_central_crop_as_it_is(stored):
    shards, frames, labels = stored
    item = ClipDataset(LabelAnswers(shards), LabelAnswers(shards), views=3)[HELD_OUT, 1]
    np.testing.assert_array_equal(item.frames, frames[1:2, :, 8:120, 29:141])
    np.testing.assert_array_equal(item.answers, labels[1:2, 0])


@pytest.mark.parametrize("names", [("motion_boundaries",), ("motion_boundaries", "flow")])
def test_fields_are_those_of_the_crop_mirrored_as_motion_is(tmp_path, names):
    shards = open_shards(moving_shards(tmp_path / "s", 2))
    with h5py.File(shards.shards[0].path) as file:
        maps = [file[name][:].reshape(2, -1, 128, 171) for name in names]
    whole = np.concatenate(maps, axis=1)
    dataset = ClipDataset(LabelAnswers(shards, fields=names), seed=2, views=4)
    signs = np.array([1, -1, -1, 1] + [-1, 1] * 15)[: whole.shape[1]]
    flips = 0
    for clip in range(2):
        drawn = views_of(2, 0, clip, crops=len(SMALL_CROPS), count=4)
        for got, (crop, flip) in zip(dataset[0, clip].fields, drawn, strict=True):
            assert got.dtype == torch.float16
            top, left = SMALL_CROPS[crop]
            for channel in range(whole.shape[1]):
                for y, x in ((0, 0), (0, 113), (57, 3), (113, 60), (113, 113)):
                    # The rim repeats the frame's edge; column x of a mirrored crop is 113 - x.
                    row = min(max(top + y - 1, 0), 127)
                    column = min(max(left + (113 - x if flip else x) - 1, 0), 170)
                    sign = signs[channel] if flip else 1
                    assert got[channel, y, x] == sign * whole[clip, channel, row, column]
            flips += flip
    assert 0 < flips < 8


def test_every_crop_has_its_rim_from_flow_of_either_width(tmp_path):
    rng = np.random.default_rng(0)
    flow = rng.normal(0, 1, (1, 15, 2, 128, 171)).astype(np.float32)
    crops = np.array([(top, left) for top in (0, 1, 15, 16) for left in (0, 1, 58, 59)], np.int16)
    folder = moving_shards(tmp_path / "s", 1, fields={"flow": flow}, crops=crops)
    shards = open_shards(folder)
    answers = LabelAnswers(shards, fields=("flow",))
    stored = StoredClips(shards.shards[0].path, stamp=shards.shards[0].stamp, fields=("flow",))
    views = [(crop, flip) for crop in range(16) for flip in (False, True)]
    got = answers.fields(0, views, stored=stored)
    half = flow.astype(np.float16).reshape(30, 128, 171)
    whole = np.pad(half, ((0, 0), (1, 1), (1, 1)), mode="edge")
    for (crop, flip), cut in zip(views, got, strict=True):
        top, left = crops[crop]
        part = whole[:, top : top + 114, left : left + 114]
        signs = np.array([-1, 1] * 15)[:, None, None]
        np.testing.assert_array_equal(cut, part[..., ::-1] * signs if flip else part)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 70_000.0])
def test_flow_that_float16_cannot_hold_is_damage(tmp_path, value):
    flow = np.zeros((1, 15, 2, 128, 171), np.float32)
    flow[0, 3, 1, 5, 5] = value
    shards = open_shards(moving_shards(tmp_path / "s", 1, fields={"flow": flow}))
    item = ClipDataset(LabelAnswers(shards, fields=("flow",)))[0, 0]
    assert item.wrong.endswith("clip 0: it cannot be read (motion that is no number in float16)")


def test_without_a_wish_there_are_no_fields(tmp_path):
    shards = open_shards(moving_shards(tmp_path / "s", 2))
    assert ClipDataset(LabelAnswers(shards))[0, 1].fields.shape == (1, 0, 114, 114)


def test_central_crop_of_all_is_central():
    everything = np.array([(top, left) for top in range(17) for left in range(60)])
    assert everything[central_crop(everything)].tolist() == [8, 29]


def test_views_are_even_and_differ_between_seeds_epochs_and_clips():
    views = [drawn(0, epoch, clip) for epoch in range(40) for clip in range(100)]
    crops, flips = np.array(views).T
    assert np.bincount(crops).min() > 330  # 400 expected, sd 19
    assert abs(flips.mean() - 0.5) < 0.03
    assert views[:100] != views[100:200]
    assert views[:100] != [drawn(1, 0, clip) for clip in range(100)]


def drawn(seed, epoch, clip, count=1):
    views = views_of(seed, epoch, clip, crops=10, count=count)
    return views[0] if count == 1 else views


def test_the_first_of_several_views_is_the_only_one_of_one():
    for clip in range(20):
        assert drawn(0, 1, clip, count=4)[0] == drawn(0, 1, clip)


def test_a_dataset_that_has_read_can_be_sent_to_a_worker(stored):
    dataset = ClipDataset(LabelAnswers(stored[0]))
    before = dataset[0, 0].frames
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(dataset))[0, 0].frames, before)


def open_files(folder):
    links = Path("/proc/self/fd").iterdir()
    paths = [os.readlink(link) for link in links if link.is_symlink()]
    return {path[-17:-12] for path in paths if path.startswith(str(folder)) and path[-3:] == ".h5"}


def test_few_files_stay_open_those_used_last(tmp_path, monkeypatch):
    monkeypatch.setattr(module.resource, "getrlimit", lambda _: (5, 5))
    folder = toy_shards(tmp_path / "s", 4, shards=4)
    dataset = ClipDataset(LabelAnswers(open_shards(folder)))
    for clip in (0, 1, 2, 3, 2, 0):
        assert dataset[0, clip].wrong == ""
    assert open_files(folder) == {"00002", "00000"}
    del dataset
    assert open_files(folder) == set()


@pytest.mark.parametrize(
    ("limit", "kept"), [(1024, 512), (1, 1), (resource.RLIM_INFINITY, sys.maxsize)]
)
def test_files_kept_open_suit_the_system(monkeypatch, limit, kept):
    monkeypatch.setattr(module.resource, "getrlimit", lambda _: (limit, limit))
    assert module._files_to_keep() == kept


def test_a_clip_that_is_not_to_count_is_shown_without_labels(stored):
    dataset = ClipDataset(LabelAnswers(stored[0]), views=2)
    item = dataset[uncounted((0, 1))]
    assert torch.equal(item.frames, dataset[0, 1].frames)
    assert (item.answers == NO_LABEL).all()
    assert item.wrong == ""
    assert item.clip < 0


def test_a_damaged_frame_is_named_and_gives_no_sample(tmp_path):
    dataset = ClipDataset(
        LabelAnswers(open_shards(spoilt(toy_shards(tmp_path / "s", 2, jpeg=True), 1)))
    )
    item = dataset[0, 1]
    assert item.wrong.endswith("toy-00000-of-00001.h5, clip 1: it cannot be read (not a JPEG)")
    assert (item.answers == NO_LABEL).all()
    assert dataset[0, 0].wrong == ""
