"""Flow from images of 8 bits: the formula, both layouts, the released code's way, what is wrong."""

import cv2
import numpy as np
import pytest
from conftest import moving_square, random_clip, write_frames

from labelgen import clip_labels, optical_flow
from labelgen.errors import LabelgenError, VideoError
from labelgen.flow.methods import flow_settings, parse_flow
from labelgen.flow.precomputed import (
    FlowImages,
    check_flow_apart,
    check_flow_root,
    flow_levels,
    flow_of_levels,
)
from labelgen.video.manifest import ManifestRow

LAYOUTS = ("uv", "xy")


def write_flow(root, video, flow, *, bound=20.0, layout="uv", suffix="png", first=1):
    """Write flow (N, 2, H, W) as images of 8 bits."""
    for axis, (letter, axis_name) in enumerate(("ux", "vy")):
        levels = flow_levels(flow[:, axis], bound)
        if layout == "uv":
            folder, pattern = root / letter / video, f"frame{{:06}}.{suffix}"
        else:
            folder, pattern = root / video, f"flow_{axis_name}_{{:05}}.{suffix}"
        write_frames(folder, levels, pattern=pattern, first=first, quality=95)


def lattice(shape, seed=0, bound=20.0):
    """Smooth flow of values that images of 8 bits hold exactly."""
    coarse = np.random.default_rng(seed).normal(size=(*shape[:2], 6, 8)).astype(np.float32)
    planes = [
        cv2.resize(plane, shape[:1:-1], interpolation=cv2.INTER_CUBIC)
        for plane in coarse.reshape(-1, 6, 8)
    ]
    return flow_of_levels(flow_levels(4 * np.reshape(planes, shape), bound), bound)


@pytest.mark.parametrize("bound", [20.0, 5.0, 32.0, 0.3])
def test_every_level_comes_back(bound):
    levels = np.arange(256, dtype=np.uint8)
    flow = flow_of_levels(levels, bound)
    assert flow.dtype == np.float32
    assert flow[0] == np.float32(-bound)
    assert flow[255] == np.float32(bound)
    np.testing.assert_array_equal(flow_levels(flow, bound), levels)
    expected = [2 * bound * level / 255 - bound for level in range(256)]
    np.testing.assert_allclose(flow, expected, atol=1e-6 * bound)


def test_flow_becomes_the_nearest_level_and_is_cut_at_the_bound():
    flow = np.random.default_rng(0).uniform(-20, 20, 1000).astype(np.float32)
    error = np.abs(flow_of_levels(flow_levels(flow, 20.0), 20.0) - flow)
    assert error.max() <= 20 / 255 + 1e-5
    assert flow_levels(np.float32([-1e9, -20.1, 20.1, 1e9]), 20.0).tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("video", ["run/a", "a"])
def test_both_layouts_by_whole_path_or_last_name(tmp_path, layout, video, first):
    flow = lattice((20, 2, 128, 171))
    write_flow(tmp_path, video, flow, layout=layout, first=first)
    # Strays: folders among the images, other videos, frames beside flow of the same video.
    for folder in [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]:
        (folder / "stray").mkdir()
        (folder / ".DS_Store").touch()
    if layout == "xy":
        write_frames(tmp_path / video, moving_square(3), pattern="img_{:05}.jpg")
    images = FlowImages(tmp_path, "run/a.avi", bound=20.0)
    assert images.count == 20
    np.testing.assert_array_equal(images.read(0, 15), flow[:15])
    np.testing.assert_array_equal(images.read(17, 3), flow[17:])


def test_flow_of_another_size_is_resized_and_its_vectors_scaled(tmp_path):
    flow = np.zeros((3, 2, 256, 342), np.float32)
    flow[:, 0], flow[:, 1] = 12.0, -4.0
    write_flow(tmp_path, "a", flow)
    for as_released in (False, True):
        found = FlowImages(tmp_path, "a.avi", bound=20.0, as_released=as_released).read(0, 3)
        assert found.shape == (3, 2, 128, 171)
        np.testing.assert_allclose(found[:, 0], 6.0, atol=0.05)
        np.testing.assert_allclose(found[:, 1], -2.0, atol=0.05)


def released_flow(root, video, count):
    """What the released code makes of flow images: it resizes levels, and leaves vectors long."""
    flow = []
    for number in range(1, count + 1):
        pair = []
        for letter in "uv":
            image = cv2.imread(str(root / letter / video / f"frame{number:06}.jpg"))[..., 0]
            pair.append(cv2.resize(image, (171, 128)).astype(np.float32) * 40.0 / 255.0 - 20)
        flow.append(pair)
    return np.array(flow, np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_labels_of_the_released_pipeline(tmp_path, seed):
    frames, _ = random_clip(seed)
    write_flow(tmp_path, "a", lattice((15, 2, 240, 320), seed), suffix="jpg")
    expected = released_flow(tmp_path, "a", 15)
    found = FlowImages(tmp_path, "a", bound=20.0, as_released=True).read(0, 15)
    scale = np.float32([171 / 320, 128 / 240])[:, None, None]
    np.testing.assert_allclose(found, expected * scale, rtol=1e-6)
    labels = [clip_labels(frames, flow, "grid:16", profile="authors") for flow in (found, expected)]
    np.testing.assert_array_equal(*labels)


def test_golden_clips_have_their_labels_as_far_as_8_bits_let_them(golden, tmp_path):
    """Of flow as it comes out of images; and those of the float flow wherever that hardly moves."""
    same = total = 0
    for clip in golden:
        write_flow(tmp_path, clip["name"], clip["flow"])
        flow = FlowImages(tmp_path, clip["name"], bound=20.0, as_released=True).read(0, 15)
        np.testing.assert_allclose(flow, clip["flow"].clip(-20, 20), atol=20 / 255 + 1e-5)
        labels = clip_labels(clip["frames"], flow, clip["crops"], profile="authors")
        same += (labels[:, :14] == clip["authors"][:, :14]).sum()
        total += labels[:, :14].size
        # Colours know nothing of flow.
        np.testing.assert_array_equal(labels[:, 14:], clip["authors"][:, 14:])
    # 90.4% was measured.
    assert same / total > 0.88


def test_golden_clips_have_their_labels_exactly_where_bits_suffice(golden, tmp_path):
    """Labels do not change where flow is put on the grid of levels before, not after."""
    for clip in golden:
        flow = flow_of_levels(flow_levels(clip["flow"], 20.0), 20.0)
        write_flow(tmp_path, clip["name"], flow)
        found = FlowImages(tmp_path, clip["name"], bound=20.0, as_released=True).read(0, 15)
        np.testing.assert_array_equal(found, flow)


@pytest.mark.parametrize(("frames", "fits"), [(19, False), (20, True), (21, True), (22, False)])
def test_there_is_an_image_for_each_pair_or_for_each_frame(tmp_path, frames, fits):
    write_flow(tmp_path, "a", lattice((20, 2, 32, 40)))
    images = FlowImages(tmp_path, "a", bound=20.0)
    if fits:
        images.check_count(frames)
    else:
        with pytest.raises(VideoError, match=f"{frames} frames and 20 flow images; there must be"):
            images.check_count(frames)


def spoil(root, how):
    u, v = (root / letter / "run" / "a" for letter in "uv")
    last = v / "frame000020.png"
    if how == "one component":
        for file in v.iterdir():
            file.unlink()
    elif how == "no folder":
        v.rename(root / "w")
    elif how == "fewer":
        last.unlink()
    elif how == "gap":
        (u / "frame000003.png").unlink()
    elif how == "both layouts":
        write_flow(root, "run/a", lattice((20, 2, 40, 50)), layout="xy")
    elif how == "size":
        cv2.imwrite(str(last), np.zeros((50, 40), np.uint8))
    elif how == "cut":
        last.write_bytes(last.read_bytes()[:-9])
    elif how == "16 bits":
        cv2.imwrite(str(last), np.zeros((40, 50), np.uint16))
    elif how == "colours":
        cv2.imwrite(str(last), moving_square(1)[0][:40, :50])
    elif how == "strange names":
        write_flow(root, "run/a", lattice((1, 2, 40, 50)), suffix="jpg")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("one component", "run/a.avi has 20 images of x flow and 0 of y flow"),
        ("no folder", "run/a.avi has 20 images of x flow and 0 of y flow"),
        ("fewer", "run/a.avi has 20 images of x flow and 19 of y flow"),
        ("gap", "the x flow of run/a.avi: number 3 is missing"),
        ("both layouts", "run/a.avi has flow in run/a and in u/run/a; keep one"),
        ("size", "flow of run/a.avi: a/frame000020.png is 40x50, the first 50x40"),
        ("cut", "flow of run/a.avi: a/frame000020.png is damaged, cut off"),
        ("16 bits", "is not of 8 bits but uint16"),
        ("colours", "is a picture in colours, not one component of flow"),
        ("strange names", "named in two ways"),
    ],
)
def test_what_is_wrong_is_refused_by_name(tmp_path, how, message):
    write_flow(tmp_path, "run/a", lattice((20, 2, 40, 50)))
    spoil(tmp_path, how)
    with pytest.raises(VideoError) as caught:
        FlowImages(tmp_path, "run/a.avi", bound=20.0).read(10, 10)
    assert caught.value.reason == "bad_flow"
    assert message in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_no_flow_is_missing(tmp_path):
    # A folder of frames alone is no flow.
    write_frames(tmp_path / "run" / "a", moving_square(3))
    with pytest.raises(
        VideoError, match="there is no flow of run/a.avi: neither u/run/a"
    ) as caught:
        FlowImages(tmp_path, "run/a.avi", bound=20.0)
    assert caught.value.reason == "missing"


def test_grey_pictures_that_were_saved_in_colours_are_flow(tmp_path):
    flow = lattice((4, 2, 128, 171))
    for letter, axis in (("u", 0), ("v", 1)):
        levels = flow_levels(flow[:, axis], 20.0)
        write_frames(tmp_path / letter / "a", np.repeat(levels[..., None], 3, axis=3), quality=95)
    found = FlowImages(tmp_path, "a", bound=20.0).read(0, 4)
    assert np.abs(found - flow).max() < 1


def test_it_is_a_method_that_computes_nothing():
    settings = parse_flow("precomputed", bound=32.0)
    assert settings == flow_settings("precomputed", {"bound": 32.0})
    assert settings.as_dict() == {"method": "precomputed", "size": "clip", "bound": 32.0}
    with pytest.raises(LabelgenError, match="read from images, not computed"):
        optical_flow(moving_square(2), method="precomputed")
    with pytest.raises(LabelgenError, match="leave --flow-size source away"):
        parse_flow("precomputed", size="source")


def test_a_root_goes_with_the_method_and_no_other(tmp_path):
    read, computed = parse_flow("precomputed"), parse_flow("tvl1")
    check_flow_root(None, computed, clip_stride=16)
    check_flow_root(tmp_path, read, clip_stride=16)
    for root, settings, message in [
        (None, read, "--flow precomputed needs the folder of the flow; add --flow-root"),
        (tmp_path, computed, "use --flow precomputed, or leave it away"),
        (tmp_path / "none", read, "none is not a folder"),
    ]:
        with pytest.raises(LabelgenError, match=message):
            check_flow_root(root, settings, clip_stride=16)


@pytest.mark.parametrize("folder", ["a", "u/a"])
def test_one_folder_of_flow_is_of_one_video(tmp_path, folder):
    rows = [ManifestRow("run/a.avi"), ManifestRow("walk/a.avi")]
    check_flow_apart(tmp_path, rows)
    (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(LabelgenError, match="would stand for run/a.avi and for walk/a.avi"):
        check_flow_apart(tmp_path, rows)
