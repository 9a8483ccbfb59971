"""What is held out: never a video, or a group of videos, on both sides."""

import dataclasses
import itertools

import h5py
import numpy as np
import pytest
from train_helpers import SMALL_CROPS, random_labels, toy_shards, write_seal, write_shards

from labelgen import LABELS
from train import TrainError
from train.data import split
from train.data.shards import open_shards
from train.data.split import hold_out, label_knowledge, open_data
from train.recipe import Recipe


def paths_of(shards, clips):
    paths, numbers = shards.videos()
    return {paths[number] for number in numbers[clips]}


def test_a_video_is_never_on_both_sides():
    paths = [f"{number}.avi" for number in range(30)]
    videos = np.repeat(np.arange(30), 3)
    train, held = hold_out(paths, videos, 0.2)
    assert set(videos[train]).isdisjoint(videos[held])
    assert 1 <= len(set(videos[held])) <= 12
    assert sorted([*train, *held]) == list(range(90))


def test_a_video_in_two_shards_is_one_video(tmp_path):
    """What two splits in one folder hold, and a shard that ends in the middle of a video."""
    folder = toy_shards(tmp_path / "s", 24, shards=4, clips_per_video=4)
    data = open_data(str(folder), "0.4", recipe=Recipe())
    trained, held = paths_of(data.train, data.train_clips), paths_of(data.held, data.held_clips)
    assert not trained & held
    assert len(trained | held) == 6


def test_the_choice_is_that_of_the_paths_alone():
    paths = [f"{number}.avi" for number in range(20)]
    _, held = hold_out(paths, np.arange(20), 0.2)
    names = {paths[i] for i in held}
    _, backwards = hold_out(paths[::-1], np.arange(20), 0.2)
    assert {paths[::-1][i] for i in backwards} == names


@pytest.mark.parametrize("fraction", [0.02, 0.2, 0.9])
def test_what_is_held_out_stays_held_out_when_a_set_grows(fraction):
    for trial in range(100):
        paths = [f"{trial}/{number}.avi" for number in range(300)]
        sides = []
        for count in (2, 10, 11, 40, 300):
            # In whatever order the videos come.
            some = paths[:count][::-1]
            train, held = (
                {some[i] for i in side} for side in hold_out(some, np.arange(count), fraction)
            )
            assert train
            assert held
            sides.append(held)
        for before, after in itertools.pairwise(sides):
            # One that was held out for want of any may give way.
            assert {path for path in before if split._share(path) < fraction} <= after


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.7])
def test_the_share_of_many_is_about_the_fraction(fraction):
    paths = [f"{number}.avi" for number in range(4000)]
    _, held = hold_out(paths, np.arange(4000), fraction)
    assert len(held) / 4000 == pytest.approx(fraction, abs=0.02)


def test_seeds_do_not_change_what_is_held_out(tmp_path):
    folder = toy_shards(tmp_path / "s", 20)
    one, other = (open_data(str(folder), "0.2", recipe=Recipe(seed=seed)) for seed in (0, 1))
    assert one.record() == other.record()


def test_recordings_of_ucf101_stay_whole():
    paths = [
        f"{folder}/v_{name}_g{group:02d}_c{part:02d}.avi"
        for folder, name in (("HandstandPushups", "HandStandPushups"), ("Archery", "Archery"))
        for group in range(1, 9)
        for part in range(1, 5)
    ]
    train, held = hold_out(paths, np.arange(len(paths)), 0.1)
    groups = [path.split("_c")[0] for path in paths]
    assert {groups[i] for i in train}.isdisjoint({groups[i] for i in held})
    assert len(held) in (4, 8, 12)  # about a tenth of 64, in whole groups


@pytest.mark.parametrize("pattern", [r"^[a-z]+/(\d+)", r"/\d+"])
def test_groups_can_be_told(pattern):
    paths = [f"{'ab'[part]}/{scene}-{part}.mp4" for scene in range(10) for part in range(2)]
    train, held = hold_out(paths, np.arange(20), 0.3, group_by=pattern)
    scenes = [path[2] for path in paths]
    assert {scenes[i] for i in train}.isdisjoint({scenes[i] for i in held})
    assert len(held) in range(2, 20, 2)


@pytest.mark.parametrize(
    ("paths", "group_by", "sentence"),
    [
        (["a.avi"], None, "needs two videos, and here is one video; use --val 0"),
        (["v_A_g01_c01.avi", "v_A_g01_c02.avi"], None, "here is one group of videos"),
        (["a1.avi", "b.avi"], r"\d", "fits nothing in the video's path b.avi"),
        (["a", "b"], "(", "is no regular expression"),
    ],
)
def test_what_cannot_be_split_is_said(paths, group_by, sentence):
    with pytest.raises(TrainError, match=sentence):
        hold_out(paths, np.arange(len(paths)), 0.2, group_by=group_by)


def test_held_out_shards_must_not_be_trained_on(tmp_path):
    folder = toy_shards(tmp_path / "s", 6)
    toy_shards(tmp_path / "t", 3, prefix="part")
    for val in (folder, folder / "toy"):
        with pytest.raises(TrainError, match=r"share 6 videos \(first: 0000.avi\)"):
            open_data(str(folder), str(val), recipe=Recipe())


def test_held_out_shards_must_not_share_recordings(tmp_path):
    def shards(name, part, energy):
        path = "v_A_g0{:d}_c" + part + ".avi"
        value = np.full(3, energy, np.float32)
        return str(toy_shards(tmp_path / name, 3, video_path=path, energy=value))

    train, val = shards("s", "01", 1.0), shards("t", "02", 2.0)
    with pytest.raises(TrainError, match="share a group of videos: v_A_g0._c01.avi is trained on"):
        open_data(train, val, recipe=Recipe())
    with pytest.raises(TrainError, match="share a group"):
        open_data(train, val, recipe=Recipe(), group_by=r"_g(\d+)_")
    with pytest.raises(TrainError, match="no regular expression"):
        open_data(train, val, recipe=Recipe(), group_by="(")
    with pytest.raises(TrainError, match="--group-by has nothing to do"):
        open_data(train, "0", recipe=Recipe(), group_by="x")


def test_the_same_video_measured_on_another_processor_is_the_same(tmp_path):
    one = toy_shards(tmp_path / "s", 4)
    energy = np.nextafter(np.full(4, 1.0, np.float32), 2)
    other = toy_shards(tmp_path / "t", 4, energy=energy)
    with pytest.raises(TrainError, match="share 4 videos"):
        open_data(str(one), str(other), recipe=Recipe())


def test_videos_without_clips_are_no_videos(tmp_path):
    path = toy_shards(tmp_path / "s", 2) / "toy-00000-of-00001.h5"
    with h5py.File(path, "a") as file:
        del file["videos/path"]
        file["videos/path"] = np.array(["a", "b", "none"], h5py.string_dtype())
    assert open_shards_as_they_are(path).videos()[0] == ["a", "b"]


def open_shards_as_they_are(path):
    with h5py.File(path) as file:
        digest = file.attrs["config_hash"]
    write_seal(path, clips=2, config_hash=digest)
    return open_shards(path.parent)


def test_videos_that_share_only_their_names_are_others(tmp_path):
    one = toy_shards(tmp_path / "s", 4)
    other = toy_shards(tmp_path / "t", 4, energy=np.full(4, 2.0, np.float32))
    assert len(open_data(str(one), str(other), recipe=Recipe()).held_clips) == 4


def test_labels_of_another_flow_are_no_yardstick(tmp_path, monkeypatch):
    toy = toy_shards(tmp_path / "s", 4)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "val").mkdir()
    monkeypatch.setattr(
        split,
        "open_shards",
        lambda place, labels: dataclasses.replace(
            open_shards(toy), flow="dis" if place == "val" else "tvl1"
        ),
    )
    with pytest.raises(TrainError, match="different profiles or flows"):
        open_data(str(toy), "val", recipe=Recipe())


def test_still_clips_are_left_out(tmp_path):
    energy = np.array([0.0, 0.01, 0.2, 3.0], np.float32)
    folder = str(toy_shards(tmp_path / "s", 4, energy=energy))
    assert open_data(folder, "0", recipe=Recipe()).train_clips.tolist() == [0, 1, 2, 3]
    kept = open_data(folder, "0", recipe=Recipe(drop_still=0.05)).train_clips
    assert kept.tolist() == [2, 3]
    with pytest.raises(TrainError, match="leaves no clips"):
        open_data(folder, "0", recipe=Recipe(drop_still=9.0))


def test_moments_are_those_of_the_training_clips(tmp_path):
    data = open_data(str(toy_shards(tmp_path / "s", 40, shards=3)), "0.5", recipe=Recipe())
    known = label_knowledge(data)
    mean, std = known["moments"].numpy()
    labels = data.train.crop_labels(0, np.arange(40))[data.train_clips]
    color = [label.name for label in LABELS].index("appearance/global/color")  # a flip keeps it
    assert mean[color] == pytest.approx(labels[:, color].mean())
    assert std[color] == pytest.approx(labels[:, color].std())
    twice = 2 * np.bincount(labels[:, color], minlength=17)  # with the mirror image
    assert known["counts"][color].tolist() == twice.tolist()
    grid = 0  # columns of the grid reverse in a flip, so that their mean is in the middle of a row
    assert (mean[grid] - 1) % 4 == pytest.approx(((labels[:, grid] - 1) // 4 * 4 + 1.5).mean() % 4)


def test_labels_of_chosen_clips_are_read_from_their_shards(tmp_path):
    rng = np.random.default_rng(0)
    labels = random_labels(rng, 11, len(SMALL_CROPS))
    frames = np.zeros((11, 1, 1, 1, 3), np.uint8)
    shards = open_shards(write_shards(tmp_path / "s", frames, labels, shards=4))
    chosen = np.array([1, 2, 7, 10])
    np.testing.assert_array_equal(shards.crop_labels(2, chosen), labels[chosen, 2])


def test_of_many_clips_some_tell_the_moments(tmp_path, monkeypatch):
    data = open_data(str(toy_shards(tmp_path / "s", 40)), "0", recipe=Recipe())
    monkeypatch.setattr(split, "_SAMPLED", 15)
    read = []
    real = split.ShardSet.crop_labels
    monkeypatch.setattr(
        split.ShardSet, "crop_labels",
        lambda self, crop, clips: read.append(clips) or real(self, crop, clips),
    )  # fmt: skip
    label_knowledge(data)
    assert read[0].tolist() == list(range(0, 40, 3))
