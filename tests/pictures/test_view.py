import numpy as np
import oracle
import pytest
from conftest import random_clip
from extraction import extract

from labelgen import LABELS, Shards, clip_labels, motion_boundaries, optical_flow, read_clips
from labelgen.errors import LabelgenError, VideoError
from labelgen.labels.partitions import MASKS
from labelgen.pictures.palette import COLOURS, flow_colours, value_words
from labelgen.pictures.view import block_anchor, clip_view, film_view, stored_view, window

NAMES = [label.name for label in LABELS]
PARTS = ("grid", "rings", "triangles")


def block_of(partition, number):
    rows, columns = oracle.BLOCKS[partition][number - 1]
    order = np.lexsort((columns, rows))
    return rows[order], columns[order]


def view_of(clip, k, profile):
    crop = tuple(clip["crops"][k].tolist())
    return clip_view(clip[profile][k], video="x", start=0, crop=crop, profile=profile)


@pytest.mark.parametrize("profile", ["paper", "authors"])
def test_golden_clips_are_marked_as_their_labels_say(golden, profile):
    for clip in golden:
        for k in range(len(clip["crops"])):
            stored = dict(zip(NAMES, clip[profile][k].tolist(), strict=True))
            view = view_of(clip, k, profile)
            assert view.labels == stored
            marks = {(mark.partition, mark.what): mark for mark in view.marks}
            assert len(marks) == len(view.marks) == 12
            for (partition, what), mark in marks.items():
                branch = "motion" if what in "uv" else "appearance"
                assert mark.block == stored[f"{branch}/{partition}/{what}_location"]
                np.testing.assert_array_equal(
                    np.nonzero(mark.mask), block_of(partition, mark.block)
                )
                if branch == "appearance":
                    assert mark.angle is None
                    assert mark.colour == stored[f"{branch}/{partition}/{what}_color"]
                else:
                    assert mark.colour is None
            assert view.pairs["u"] == stored["motion/global/u_frame"]
            assert view.pairs["v"] == stored["motion/global/v_frame"]
            assert view.colour == stored["appearance/global/color"]


@pytest.mark.parametrize("profile", ["paper", "authors"])
def test_arrows_point_where_motion_grows(golden, profile):
    """More of M points the arrow's way, in the block, than any other way the profile knows."""
    for clip in golden:
        for k, crop in enumerate(clip["crops"].tolist()):
            if profile == "paper":
                m = motion_boundaries(clip["flow"])[(slice(None), *window(crop))]
            else:
                m = motion_boundaries(clip["flow"][(slice(None), slice(None), *window(crop))])
            for mark in view_of(clip, k, profile).marks:
                if mark.angle is None:
                    continue
                c = 2 * "uv".index(mark.what)
                size = np.hypot(m[c], m[c + 1])
                angle = np.rad2deg(np.arctan2(-m[c + 1], m[c]))

                def share(way, size=size, angle=angle, mask=mark.mask):
                    away = np.abs((angle - way + 180) % 360 - 180)
                    weight = away < 22.5 if profile == "paper" else np.maximum(1 - away / 45, 0)
                    return (weight * size)[mask].sum()

                shares = [share(mark.angle + 45 * turn) for turn in range(8)]
                assert shares[0] >= max(shares) * (1 - 1e-5)


def test_a_mark_stands_inside_its_block():
    for mask in MASKS:
        row, column = block_anchor(mask)
        assert mask[round(row), round(column)]
    rings = [block_anchor(mask) for mask in MASKS[16:20]]
    for (row, column), expected in zip(rings, (55.5, 34.5, 20.5, 6.5), strict=True):
        assert abs(row - expected) < 1.5
        assert abs(column - 55.5) < 1


def test_labels_of_nothing_mark_nothing():
    labels = np.ones(27, np.uint8)
    labels[
        [NAMES.index(f"motion/grid/{c}_{w}") for c in "uv" for w in ("location", "orientation")]
    ] = 0
    view = clip_view(labels, video="x", start=0, crop=(0, 0), profile="authors")
    assert {(m.partition, m.what) for m in view.marks} == {
        (p, w) for p in PARTS for w in ("u", "v", "diverse", "stable")
    } - {("grid", "u"), ("grid", "v")}


def test_words_of_values():
    def words(name, value, profile="paper"):
        return value_words(name, value, profile=profile)

    assert words("motion/grid/u_location", 3) == ""
    assert [words("motion/grid/u_orientation", k) for k in (1, 2, 8)] == [
        "0-45°", "45-90°", "315-360°",
    ]  # fmt: skip
    assert words("motion/grid/u_orientation", 5, "authors") == "337.5-22.5°"
    assert words("motion/grid/u_orientation", 1, "authors") == "157.5-202.5°"
    assert words("motion/global/v_frame", 15) == "15 to 16"
    assert words("appearance/rings/stable_color", 7) == "red"


def test_colours_are_in_their_octants():
    for number, (_, shade) in enumerate(COLOURS, 1):
        red, green, blue = bytes.fromhex(shade[1:])
        assert number == 1 + 4 * (blue < 128) + 2 * (red >= 128) + (green >= 128)


def test_flow_has_the_usual_colours():
    ways = {(1, 0): (255, 0, 0), (0, 1): (255, 229, 0), (-1, 0): (0, 209, 255), (0, 0): (255,) * 3}
    for (u, v), expected in ways.items():
        field = np.zeros((2, 1, 1), np.float32) + np.reshape([3 * u, 3 * v], (2, 1, 1))
        found = flow_colours(field, longest=3.0)
        assert found.shape == (1, 1, 3)
        assert np.abs(found[0, 0].astype(int) - expected).max() <= 12, (u, v, found)
    half = flow_colours(np.array([1.5, 0]).reshape(2, 1, 1), longest=3.0)[0, 0]
    assert half.tolist() == [255, 127, 127]
    assert flow_colours(np.zeros((15, 2, 4, 5)), longest=0.0).shape == (15, 4, 5, 3)


def test_a_stored_clip_is_shown_as_it_is_stored(videos, tmp_path):
    extract(videos, tmp_path / "s", store_flow="float32", crops="grid:8")
    shards = Shards(tmp_path / "s")
    view = stored_view(shards, 4, (16, 0))
    assert (view.video, view.start) == shards.video(4)
    assert list(view.labels.values()) == shards.crop(4, 16, 0).tolist()
    np.testing.assert_array_equal(view.frames, shards.frames(4))
    np.testing.assert_array_equal(view.flow, shards.flow(4))
    np.testing.assert_array_equal(view.boundaries, shards.motion_boundaries(4))
    assert stored_view(shards, 0).crop == (8, 32)
    with pytest.raises(LabelgenError, match="holds clips 0 to 5, and no clip 6"):
        stored_view(shards, 6)


def test_a_film_is_labelled_here_and_now(videos):
    view = film_view(videos / "run" / "a.avi", 5, (3, 40))
    frames = next(
        frames for start, frames in read_clips(videos / "run" / "a.avi", stride=1) if start == 5
    )
    flow = optical_flow(frames)
    expected = clip_labels(frames, flow, np.array([[3, 40]]))[0]
    assert list(view.labels.values()) == expected.tolist()
    np.testing.assert_array_equal(view.frames, frames)
    np.testing.assert_array_equal(view.boundaries, motion_boundaries(flow))
    with pytest.raises(LabelgenError, match="from frame 35 on; the last 16 begin at 34"):
        film_view(videos / "run" / "a.avi", 35)
    with pytest.raises(LabelgenError, match="top 17, left 0 lies outside"):
        film_view(videos / "run" / "a.avi", 0, (17, 0))
    with pytest.raises(VideoError, match="9"):
        film_view(videos / "walk" / "short.avi")


def test_random_clips_mark_the_oracle_s_blocks():
    frames, flow = random_clip(7)
    expected, margin = oracle.labels(frames, flow, 8, 29)
    view = clip_view(clip_labels(frames, flow)[0], video="x", start=0, crop=(8, 29))
    told = dict(zip(NAMES, expected.tolist(), strict=True))
    assert margin.min() > 1e-6
    for mark in view.marks:
        branch = "motion" if mark.what in "uv" else "appearance"
        assert mark.block == told[f"{branch}/{mark.partition}/{mark.what}_location"]
