"""Opening shards: what is accepted, and the sentence for what is not."""

import json
import os

import h5py
import numpy as np
import pytest
from train_helpers import SMALL_CROPS, toy_shards, write_seal

from labelgen.errors import LabelgenError
from train.data.shards import open_shards


def test_shards_become_one_sequence(tmp_path):
    folder = toy_shards(tmp_path / "s", 7, shards=3)
    shards = open_shards(folder)
    assert shards.clips == 7
    assert [shards.locate(clip)[0].path.name[4:9] for clip in range(7)] == [
        *["00000"] * 3, *["00001"] * 2, *["00002"] * 2,
    ]  # fmt: skip
    assert [shards.locate(clip)[1] for clip in range(7)] == [0, 1, 2, 0, 1, 0, 1]
    np.testing.assert_array_equal(shards.crops, SMALL_CROPS)


def test_videos_of_different_shards_are_different(tmp_path):
    shards = open_shards(toy_shards(tmp_path / "s", 8, shards=2, clips_per_video=2))
    paths, numbers = shards.videos()
    assert [paths[number] for number in numbers] == [
        f"{video:04d}.avi" for video in (0, 0, 1, 1, 2, 2, 3, 3)
    ]


def test_a_prefix_selects_one_split(tmp_path):
    toy_shards(tmp_path / "s", 4, prefix="set-train")
    toy_shards(tmp_path / "s", 3, prefix="set-test")
    assert open_shards(tmp_path / "s" / "set-train").clips == 4
    assert open_shards(tmp_path / "s" / "set-test").clips == 3


def test_of_several_splits_one_must_be_named(tmp_path):
    toy_shards(tmp_path / "s", 4, prefix="set-train")
    toy_shards(tmp_path / "s", 3, prefix="set-test")
    with pytest.raises(
        LabelgenError, match="holds several splits; name one of .*/s/set-test, .*/s/set-train"
    ):
        open_shards(tmp_path / "s")


def test_content_tells_shards_apart(tmp_path):
    one, same, other = (
        open_shards(toy_shards(tmp_path / name, 4, seed=seed)).content
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one == same != other


def test_shards_without_clips_are_passed_over(tmp_path):
    shards = open_shards(toy_shards(tmp_path / "s", 2, shards=3))
    assert shards.clips == 2
    assert len(shards.shards) == 2


def change(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def other_settings(folder):
    change(folder / "toy-00001-of-00002.json", config_hash="another")


def stray(folder):
    for suffix in ("h5", "json"):
        (folder / f"toy-00007-of-00009.{suffix}").write_bytes(b"")


def cut_short(folder):
    path = folder / "toy-00000-of-00002.h5"
    path.write_bytes(path.read_bytes()[:-5])


def rotten(old, new, *, silently=True):
    """Change a shard's bytes, and its time of change only if not silently, as a disk does."""

    def of_folder(folder):
        path = folder / "toy-00000-of-00002.h5"
        path.write_bytes(path.read_bytes().replace(old, new))
        sealed = path.with_suffix(".json").stat().st_mtime_ns
        if silently:
            os.utime(path, ns=(sealed, sealed))
        else:
            os.utime(path, ns=(sealed + 1, sealed + 1))

    return of_folder


MISTAKES = {
    "unsealed": (
        lambda f: (f / "toy-00001-of-00002.json").unlink(),
        r"1 of 2 shards .* not sealed .*\(first: toy-00001",
    ),
    "missing": (lambda f: (f / "toy-00000-of-00002.h5").unlink(), "toy-00000-of-00002.h5"),
    "mixed": (other_settings, "other settings"),
    "stray": (stray, "mixes extractions: toy-00007-of-00009.h5"),
    "cut short": (cut_short, r"not of their seal's size \(first: toy-00000"),
    "no run": (lambda f: (f / "run.json").unlink(), "shards? and no run.json; put a copy"),
    "bad json": (lambda f: (f / "run.json").write_text("{"), "run.json is damaged"),
    "future": (lambda f: change(f / "run.json", format_version=99), "format version 99"),
    "changed": (
        rotten(b"TREE", b"TREF", silently=False),
        "toy-00000-of-00002.h5 was changed since it was sealed; delete the shard",
    ),
    "no hdf5": (rotten(b"\x89HDF", b"\x89HDD"), "toy-00000-of-00002.h5 cannot be read .*; delete"),
    "no trees": (rotten(b"TREE", b"TREF"), "toy-00000-of-00002.h5 cannot be read .*; delete"),
    "odd failure": (
        lambda f: change(f / "toy-00000-of-00002.json", failures=[{"path": "a", "reasoo": "x"}]),
        "not sealed .*toy-00000",
    ),
    "miscounted": (lambda f: change(f / "toy-00000-of-00002.json", clips=3), "seal says 3"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_unusable_shards_are_refused_in_one_sentence(tmp_path, mistake):
    spoil, sentence = MISTAKES[mistake]
    folder = toy_shards(tmp_path / "s", 4, shards=2)
    spoil(folder)
    with pytest.raises(LabelgenError, match=sentence) as caught:
        open_shards(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("absent", "flag"), [("labels", "--no-labels"), ("frames", "--frames none")]
)
def test_what_training_needs_must_be_there(tmp_path, absent, flag):
    folder = toy_shards(tmp_path / "s", 2, drop=(absent,))
    with pytest.raises(LabelgenError, match=f"has no {absent} .*{flag}"):
        open_shards(folder)


def test_different_crops_do_not_mix(tmp_path):
    folder = toy_shards(tmp_path / "s", 4, shards=2)
    path = folder / "toy-00001-of-00002.h5"
    with h5py.File(path, "a") as file:
        digest = file.attrs["config_hash"]
        del file["crops"]
        file["crops"] = SMALL_CROPS[::-1]
    write_seal(path, clips=2, config_hash=digest)
    with pytest.raises(LabelgenError, match="other crops"):
        open_shards(folder)


def test_the_only_folder_below_is_found(tmp_path):
    folder = toy_shards(tmp_path / "s", 2)
    assert open_shards(tmp_path).shards == open_shards(folder).shards
    toy_shards(tmp_path / "t", 2)
    with pytest.raises(LabelgenError, match="several shard folders; name one of .*s, .*t"):
        open_shards(tmp_path)


def test_wrong_locations(tmp_path):
    folder = toy_shards(tmp_path / "s", 2)
    (tmp_path / "empty").mkdir()
    for location, sentence in (
        (tmp_path / "nowhere", "holds no shards"),
        (folder / "toy-00000-of-00001.h5", "is a file"),
        (tmp_path / "empty", "holds no shards"),
        (folder / "other", "No split 'other' in .*; it holds toy"),
    ):
        with pytest.raises(LabelgenError, match=sentence):
            open_shards(location)
