import json
import re

import h5py
import numpy as np
import pytest
from extraction import extract

from labelgen import LABELS, Shards
from labelgen.errors import LabelgenError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Six clips of three videos in two shards, with flow."""
    from conftest import moving_square, write_video

    folder = tmp_path_factory.mktemp("sequence")
    for name, count in {"run/a.avi": 50, "run/b.avi": 33, "walk/c.avi": 16}.items():
        write_video(folder / "videos" / name, moving_square(count, seed=count))
    extract(folder / "videos", folder / "s", store_flow="float32", crops="grid:8")
    return folder / "s"


def rows_of(folder):
    for file in sorted(folder.glob("*.h5")):
        with h5py.File(file) as shard:
            paths = shard["videos/path"].asstr()[:]
            for row in range(len(shard["clips/video"])):
                yield shard, row, paths[shard["clips/video"][row]]


def test_every_clip_is_that_of_its_shard(made):
    shards = Shards(made)
    assert len(shards) == 6
    for i, (shard, row, path) in enumerate(rows_of(made)):
        central = shard["crops"][:].tolist().index([8, 32])
        expected = shard["labels"][row, central]
        assert shards.video(i) == (path, shard["clips/start"][row])
        assert list(shards[i].labels.values()) == expected.tolist()
        assert list(shards[i].labels) == [label.name for label in LABELS]
        assert shards[i].class_name == path.split("/")[0]
        np.testing.assert_array_equal(shards.labels[i], expected)
        np.testing.assert_array_equal(shards.frames(i), shard["frames"][row])
        np.testing.assert_array_equal(shards.flow(i), shard["flow"][row])
        np.testing.assert_array_equal(shards.motion_boundaries(i), shard["motion_boundaries"][row])
        assert shards.energy[i] == shard["motion_energy"][row]
        for k, (top, left) in enumerate(shard["crops"][:].tolist()):
            np.testing.assert_array_equal(shards.crop(i, top, left), shard["labels"][row, k])
    assert i == 5


def test_parts_are_shards_again(made):
    shards = Shards(made)
    part = shards[1:5][::2]
    assert len(part) == 2
    assert [part.video(i) for i in range(2)] == [shards.video(1), shards.video(3)]
    assert part.video(-1) == shards.video(3)
    np.testing.assert_array_equal(part.labels, shards.labels[[1, 3]])
    np.testing.assert_array_equal(part.frames(1), shards.frames(3))
    moving = shards[shards.energy >= np.median(shards.energy)]
    assert len(moving) == 3
    assert (moving.energy >= np.median(shards.energy)).all()
    assert len(shards[[5, 0]]) == 2
    assert shards[[5, 0]].video(0) == shards.video(5)
    assert [row.start for row in shards] == [start for _, start in map(shards.video, range(6))]
    with pytest.raises(IndexError, match="no clip 2"):
        part[2]


def test_a_clip_is_found_by_its_video(made):
    shards = Shards(made)
    for i in range(len(shards)):
        assert shards.find(*shards.video(i)) == i
    assert shards.video(shards.find("b.avi")) == ("run/b.avi", 0)
    for video, start, message in (
        ("d.avi", None, "no clip of a video d.avi"),
        ("vi", None, "no clip of a video vi"),
        ("run/a.avi", 5, "begins at frame 5; clips begin at 0, 16, 32"),
    ):
        with pytest.raises(LabelgenError, match=message):
            shards.find(video, start)


def test_a_crop_that_is_not_stored_is_named(made):
    with pytest.raises(LabelgenError, match=r"24 crops, and none of top 9, left 31; .* 8,32"):
        Shards(made).crop(0, 9, 31)


@pytest.mark.parametrize("frames", ["jpeg:95", "raw"])
def test_it_shows_itself(videos, tmp_path, frames):
    extract(videos, tmp_path / "<b>", frames=frames)
    shards = Shards(tmp_path / "<b>")
    assert re.fullmatch(r"Shards\('.*'\): 6 clips of 3 videos in 2 shards", repr(shards))
    assert repr(shards[:2]).endswith("2 of 6 clips")
    page = shards._repr_html_()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert 'alt="Frames of clips 0, 1, 2, 3, 4, 5"' in page
    assert "data:image/jpeg;base64," in page
    difference = shards.frames(0).astype(int) - next(iter_video(videos / "run" / "a.avi"))
    assert np.abs(difference).mean() < 3  # RGB, not BGR; JPEG


def iter_video(path):
    from labelgen import read_clips

    return (frames for _, frames in read_clips(path))


def test_what_is_not_stored_is_said(videos, tmp_path):
    extract(videos, tmp_path / "s", frames="none", boundaries=False)
    shards = Shards(tmp_path / "s")
    assert shards.flow(0) is None
    assert shards.motion_boundaries(0) is None
    assert "<img" not in shards._repr_html_()
    with pytest.raises(LabelgenError, match="holds no frames"):
        shards.frames(0)
    extract(videos, tmp_path / "t", labels=False)
    shards = Shards(tmp_path / "t")
    assert shards[0].labels == {}
    for attribute in (lambda: shards.labels, lambda: shards.crop(0, 8, 29)):
        with pytest.raises(LabelgenError, match="holds no labels"):
            attribute()


def test_a_folder_that_is_being_made_shows_what_is_sealed(videos, tmp_path):
    extract(videos, tmp_path / "s")
    first = min((tmp_path / "s").glob("*-of-*.json"))
    clips = json.loads(first.read_text())["clips"]
    first.unlink()
    shards = Shards(tmp_path / "s")
    assert len(shards) == 6 - clips == len(shards.labels)
    assert repr(shards).endswith("1 more not made yet")
    for seal in (tmp_path / "s").glob("*-of-*.json"):
        seal.unlink()
    assert len(Shards(tmp_path / "s")) == 0
    assert "0 clips" in Shards(tmp_path / "s")._repr_html_()
    with pytest.raises(LabelgenError, match="holds no shards"):
        Shards(tmp_path / "videos")
    with pytest.raises(LabelgenError, match="holds no clip yet"):
        Shards(tmp_path / "s").labels  # noqa: B018


def test_a_damaged_shard_is_named(videos, tmp_path):
    extract(videos, tmp_path / "s", clips_per_shard=100)
    shards = Shards(tmp_path / "s")
    file = next((tmp_path / "s").glob("*.h5"))
    file.write_bytes(file.read_bytes().replace(b"TREE", b"TREF"))
    with pytest.raises(LabelgenError, match=rf"{file.name} cannot be read .*`labelgen verify`"):
        shards.frames(0)


def test_a_video_that_is_not_in_a_selection(made):
    shards = Shards(made)
    with pytest.raises(LabelgenError, match="is among these 1"):
        shards[[0]].find(shards.video(len(shards) - 1)[0])
