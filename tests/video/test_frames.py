"""Frames from folders of numbered images: what is read, what is passed over, what is refused."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from conftest import moving_square, write_frames

from labelgen.errors import LabelgenError, VideoError
from labelgen.video.datasets import find_dataset, write_dataset_manifest
from labelgen.video.decode import Video
from labelgen.video.frames import (
    FrameFolder,
    check_apart,
    claimed_images,
    find_frame_folders,
    folder_of,
    read_image,
)
from labelgen.video.manifest import ManifestRow, read_manifest


def read(root, path):
    with FrameFolder(root, path) as video:
        list(video)
        video.check_length(16)


def failure(root, path="run/a"):
    with pytest.raises(VideoError) as caught:
        read(root, path)
    return caught.value.reason, str(caught.value)


@pytest.fixture
def root(tmp_path):
    write_frames(tmp_path / "run" / "a", moving_square(20))
    return tmp_path


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("pattern", ["frame{:06}.jpg", "img_{:05}.png", "{}.JPEG", "Frame {}.jpg"])
def test_names_are_put_in_order_of_their_numbers(tmp_path, pattern, first):
    """Ten comes after nine, with leading zeros or without."""
    shades = [np.full((48, 64, 3), 10 * t, np.uint8) for t in range(20)]
    write_frames(tmp_path / "a", shades, pattern=pattern, first=first)
    with FrameFolder(tmp_path, "a.avi") as video:
        frames = list(video)
    assert video.claimed == video.decoded == 20
    assert [round(frame.rgb.mean() / 10) for frame in frames] == list(range(20))


def test_frames_are_those_of_a_video(tmp_path):
    """The same pixels, resized alike, for the clip and for flow."""
    path = tmp_path / "a.avi"
    codec = cv2.VideoWriter_fourcc(*"FFV1")
    writer = cv2.VideoWriter(str(path), codec, 25, (160, 120))
    for frame in moving_square(18):
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    with Video(path, size=(120, 160)) as video:
        decoded = [frame.rgb for frame in video]
    write_frames(tmp_path / "a", decoded, pattern="img_{:05}.png")
    with Video(path, flow_size="short:100") as video:
        expected = list(video)
    with FrameFolder(tmp_path, "a.avi", flow_size="short:100") as folder:
        found = list(folder)
    assert len(expected) == len(found) == 18
    for one, two in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one.rgb, two.rgb)
        np.testing.assert_array_equal(one.grey, two.grey)


def test_strays_are_passed_over(root):
    folder = root / "run" / "a"
    (folder / ".DS_Store").write_bytes(b"")
    (folder / "._frame000001.jpg").write_bytes(b"a copy's shadow")
    (folder / "notes.txt").write_text("hello")
    (folder / "cover.jpg").write_bytes(b"no number")
    for name in ("@eaDir", "thumbs", "frame000021.jpg"):
        (folder / name).mkdir()
    for axis in "xy":
        write_frames(folder, moving_square(19), pattern=f"flow_{axis}_{{:05}}.jpg")
    with FrameFolder(root, "run/a.avi") as video:
        assert len(list(video)) == 20


def spoil(folder, how):
    images = sorted(folder.iterdir())
    last = cv2.imread(str(images[-1]))
    if how == "gap":
        images[7].unlink()
    elif how == "late":
        images[0].unlink()
        images[1].unlink()
    elif how == "twice":
        (folder / "frame3.jpg").write_bytes(images[0].read_bytes())
    elif how == "two patterns":
        (folder / "img_00001.jpg").write_bytes(images[0].read_bytes())
    elif how == "jpg and png":
        cv2.imwrite(str(folder / "frame000001.png"), last)
    elif how == "sizes":
        cv2.imwrite(str(images[-1]), cv2.resize(last, (80, 60)))
    elif how == "cut":
        images[-1].write_bytes(images[-1].read_bytes()[:-700])
    elif how == "zeros":
        content = images[-1].read_bytes()
        images[-1].write_bytes(content[:-900] + bytes(900))
    elif how == "empty":
        images[-1].write_bytes(b"")
    elif how == "text":
        images[-1].write_text("no image")
    elif how == "dangling":
        images[-1].unlink()
        images[-1].symlink_to("nothing")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("gap", "number 8 is missing, 9 is there"),
        ("late", "begin with number 3"),
        ("twice", "have the same number"),
        ("two patterns", "named in two ways, as 'frame000001.jpg' and 'img_00001.jpg'"),
        ("jpg and png", "named in two ways"),
        ("sizes", "frame000020.jpg is 80x60, the frames before it 160x120"),
        ("cut", "frame000020.jpg is damaged, cut off"),
        ("zeros", "frame000020.jpg is damaged, cut off"),
        ("empty", "frame000020.jpg is damaged, cut off"),
        ("text", "frame000020.jpg is damaged, cut off, or no JPEG or PNG"),
        ("dangling", "frame000020.jpg cannot be read: No such file"),
    ],
)
def test_what_is_wrong_is_refused_by_name(root, how, message):
    spoil(root / "run" / "a", how)
    reason, said = failure(root)
    assert reason == "bad_frames"
    assert message in said
    assert "run/a" in said
    assert str(root) not in said


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_no_image_that_was_cut_off_passes(tmp_path, suffix, share):
    whole = cv2.imencode(suffix, moving_square(1)[0])[1].tobytes()
    file = tmp_path / "image"
    file.write_bytes(whole)
    assert read_image(file, name="x", reason="r").shape == (120, 160, 3)
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(VideoError, match="cut off"):
        read_image(file, name="x", reason="r")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_header_that_promises_too_much_is_not_believed(tmp_path, suffix):
    """Decoders would fill what is not there, and take half a minute for it."""
    whole = cv2.imencode(suffix, moving_square(1)[0])[1].tobytes()
    sides = {".jpg": struct.pack(">HH", 120, 160), ".png": struct.pack(">II", 160, 120)}[suffix]
    assert whole.count(sides) == 1
    huge = {".jpg": b"\xff\xf0\xff\xf0", ".png": b"\0\0\xff\xf0\0\0\xff\xf0"}[suffix]
    content = bytearray(whole.replace(sides, huge))
    if suffix == ".png":
        # The checksum of its first chunk is right, so that it is the size that counts.
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "image").write_bytes(content)
    with pytest.raises(VideoError, match="is damaged"):
        read_image(tmp_path / "image", name="x", reason="r")


def test_every_change_of_a_png_is_found(tmp_path):
    whole = cv2.imencode(".png", moving_square(1)[0])[1].tobytes()
    for place in np.random.default_rng(0).integers(0, len(whole), 200):
        content = bytearray(whole)
        content[place] ^= 1
        (tmp_path / "image").write_bytes(content)
        with pytest.raises(VideoError, match="is damaged"):
            read_image(tmp_path / "image", name="x", reason="r")


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(tmp_path):
    whole = cv2.imencode(".jpg", moving_square(1)[0])[1].tobytes()
    (tmp_path / "image").write_bytes(whole + b"\0\0trailer")
    assert read_image(tmp_path / "image", name="x", reason="r").shape == (120, 160, 3)


def test_reasons(root):
    (root / "empty").mkdir()
    write_frames(root / "short", moving_square(15))
    assert failure(root, "none.avi")[0] == "missing"
    assert failure(root, "empty.avi")[0] == "unopenable"
    assert failure(root, "short.avi") == (
        "too_short",
        "short.avi has 15 frames, fewer than a clip's 16",
    )
    assert [claimed_images(root, path) for path in ("run/a.mp4", "short", "none")] == [20, 15, 0]


def test_where_the_folder_of_a_video_is_looked_for(root):
    write_frames(root / "flat", moving_square(16))
    (root / "v1.5").mkdir()
    assert folder_of(root, "run/a.avi") == folder_of(root, "run/a") == root / "run" / "a"
    assert folder_of(root, "walk/flat.avi") == root / "flat"
    assert folder_of(root, "v1.5") == root / "v1.5"
    assert folder_of(root, "walk/none.avi") is None


def test_one_folder_is_of_one_video(root):
    (root / "flat").mkdir()

    def check(*paths):
        check_apart(map(ManifestRow, paths), lambda path: folder_of(root, path))

    # The same video in two splits, and two of one name of which each has a folder.
    check("run/a.avi", "run/a.avi", "walk/flat.avi", "none/a.avi")
    for pair in (("run/a.avi", "run/a.mp4"), ("walk/flat.avi", "run/flat.avi")):
        with pytest.raises(LabelgenError, match=f"for {pair[0]} and for {pair[1]}"):
            check(*pair)


def test_folders_of_frames_are_found(root):
    for name in ("walk/b", "walk/b/thumbs", "walk/@eaDir", ".trash/c"):
        write_frames(root / name, moving_square(2))
    write_frames(root / "walk" / "flow", moving_square(2), pattern="flow_x_{:05}.jpg")
    (root / "walk" / "loop").symlink_to(root)
    assert find_frame_folders(root) == [
        ManifestRow("run/a", "run", 0),
        ManifestRow("walk/b", "walk", 1),
    ]


def test_no_folder_of_frames_is_a_mistake(tmp_path):
    with pytest.raises(LabelgenError, match="there is no folder of frames below"):
        find_frame_folders(tmp_path)
    with pytest.raises(LabelgenError, match="is not a folder"):
        find_frame_folders(tmp_path / "none")


def frames_at(root, *names):
    for name in names:
        write_frames(root / name, moving_square(2))


def test_rows_of_frames_when_there_is_no_video(tmp_path):
    frames_at(tmp_path / "f", "run/a", "walk/b")
    lines = write_dataset_manifest("folder", tmp_path / "m.csv", root=tmp_path / "f", frames=True)
    assert lines[0] == "folder all: 2 of 2 videos, 2 classes"
    assert read_manifest(tmp_path / "m.csv", root=tmp_path) == [
        ManifestRow("run/a", "run", 0, "all", 2),
        ManifestRow("walk/b", "walk", 1, "all", 2),
    ]
    with pytest.raises(LabelgenError, match="or one of frames with --frames-from"):
        write_dataset_manifest("folder", tmp_path / "m.csv", root=tmp_path / "f")


def test_official_lists_find_frames_in_class_folders_or_side_by_side(tmp_path):
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Bowling\n2 HandstandPushups\n")
    videos = [f"Bowling/v_{name}" for name in ("a", "b", "gone")]
    videos.append("HandstandPushups/v_HandStandPushups")
    (lists / "trainlist01.txt").write_text("".join(f"{name}.avi 1\n" for name in videos))
    there = ("Bowling/v_a", "v_b", "v_HandstandPushups", "one/v_gone", "two/v_gone")
    frames_at(tmp_path / "f", *there)
    (found,) = find_dataset("ucf101", root=tmp_path / "f", lists=lists, frames=True)
    assert [(row.path, row.class_name) for row in found.rows] == [
        ("Bowling/v_a", "Bowling"),
        ("v_b", "Bowling"),
        ("v_HandstandPushups", "HandstandPushups"),
    ]
    # Two folders have its name, and neither lies in its class.
    assert found.missing == ["Bowling/v_gone.avi"]
