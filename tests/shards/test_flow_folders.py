"""Stored flow as images: what is written, what repeats, and the way back to labels."""

import json
import shutil

import cv2
import h5py
import numpy as np
import pytest
from conftest import moving_square, write_video
from extraction import extract, run_command

from labelgen import clip_labels
from labelgen.errors import LabelgenError
from labelgen.flow.methods import parse_flow
from labelgen.flow.precomputed import flow_levels, flow_of_levels
from labelgen.run.engines import Limits
from labelgen.run.pipeline import run
from labelgen.shards.flow_folders import _Images, export_flow
from labelgen.shards.settings import ExtractSettings


@pytest.fixture
def stored(videos, tmp_path):
    """Shards that hold flow of 3 clips, 2 clips and 1 clip."""
    extract(videos, tmp_path / "stored", store_flow="float32")
    return tmp_path / "stored"


def export(shards, output, **options):
    return export_flow(
        shards, output, **({"layout": "denseflow", "bound": 5.0, "quality": None} | options)
    )


def extract_again(videos, out, flow_root, **settings):
    chosen = {"flow": parse_flow("precomputed", bound=5.0), "crops": "grid:16", "frames": "raw"}
    return run(
        None,
        root=videos,
        out=out,
        name=None,
        settings=ExtractSettings(**(chosen | settings)),
        limits=Limits(0),
        flow_root=flow_root,
    )


def clips_of(folder, *names):
    """The arrays of all clips by video and start."""
    found = {}
    for file in sorted(folder.glob("*.h5")):
        with h5py.File(file) as shard:
            paths = shard["videos/path"].asstr()[:]
            for k, (video, start) in enumerate(
                zip(shard["clips/video"][:], shard["clips/start"][:], strict=True)
            ):
                found[paths[video], int(start)] = [shard[name][k] for name in names]
    return found


def files_in(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_layout_of_denseflow(stored, tmp_path):
    exported = export(stored, tmp_path / "flow", quality=95)
    assert (exported.videos, exported.problems) == (3, ())
    names = sorted(path.name for path in (tmp_path / "flow" / "walk" / "c").iterdir())
    assert names == [f"flow_{axis}_{number:05}.jpg" for axis in "xy" for number in range(1, 16)]
    images = list((tmp_path / "flow").rglob("*.jpg"))
    # 50, 33 and 16 frames; the one that is too short is in no shard.
    assert len(images) == 2 * (49 + 32 + 15)
    assert all(cv2.imread(str(image)).shape == (128, 171, 3) for image in images)
    (flow,) = clips_of(stored, "flow")["run/a.avi", 16]
    image = cv2.imread(str(tmp_path / "flow/run/a/flow_x_00020.jpg"), cv2.IMREAD_GRAYSCALE)
    assert np.abs(image.astype(int) - flow_levels(flow[3, 0], 5.0)).mean() < 1


def test_pairs_in_no_clip_repeat_the_one_before(stored, tmp_path):
    exported = export(stored, tmp_path / "flow", layout="two-stream")
    stored_flow = clips_of(stored, "flow")

    def image(axis, number):
        path = tmp_path / "flow" / axis / "run" / "a" / f"frame{number:06}.png"
        return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)

    # Pairs 16 and 32 lie between clips that touch, and 48 and 49 after the last one.
    sources = {16: (0, 14), 32: (16, 14), 48: (32, 14), 49: (32, 14)}
    for number in range(1, 50):
        start, pair = sources.get(number, ((number - 1) // 16 * 16, (number - 1) % 16))
        for axis, component in zip("uv", stored_flow["run/a.avi", start][0][pair], strict=True):
            np.testing.assert_array_equal(image(axis, number), flow_levels(component, 5.0))
    assert exported.repeated == 4 + 2 + 0
    assert "6 pairs in no clip" in " ".join(exported.lines(tmp_path, 5.0))


@pytest.mark.parametrize(("stride", "layout"), [(16, "denseflow"), (6, "two-stream")])
def test_the_way_back(videos, tmp_path, stride, layout):
    """Labels of what was exported are those of the flow at its levels."""
    extract(videos, tmp_path / "s", store_flow="float32", clip_stride=stride)
    export(tmp_path / "s", tmp_path / "flow", layout=layout)
    extract_again(videos, tmp_path / "again", tmp_path / "flow", clip_stride=stride)
    names = ("frames", "labels")
    first, again = clips_of(tmp_path / "s", "flow", *names), clips_of(tmp_path / "again", *names)
    assert set(first) == set(again)
    crops = np.array([[top, left] for top in (0, 16) for left in (0, 16, 32, 48)])
    for place, (flow, frames, _) in first.items():
        np.testing.assert_array_equal(again[place][0], frames)
        at_levels = flow_of_levels(flow_levels(flow, 5.0), 5.0)
        np.testing.assert_array_equal(again[place][1], clip_labels(frames, at_levels, crops))


def test_labels_agree_on_real_video(shared, tmp_path):
    """Of one clip each of three videos of UCF101, through JPEG flow of 8 bits."""
    videos = sorted((shared / "data" / "ucf101").rglob("*.avi"))[:3]
    for path in videos:
        frames = []
        capture = cv2.VideoCapture(str(path))
        while len(frames) < 17:
            frames.append(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB))
        write_video(tmp_path / "v" / path.name, frames)
    extract(tmp_path / "v", tmp_path / "s", store_flow="float32", flow=parse_flow("tvl1:fast"))
    export(tmp_path / "s", tmp_path / "flow", quality=95)
    extract_again(tmp_path / "v", tmp_path / "again", tmp_path / "flow")
    first, again = clips_of(tmp_path / "s", "labels"), clips_of(tmp_path / "again", "labels")
    same = np.mean([first[place][0][:, :14] == again[place][0][:, :14] for place in first])
    assert len(first) == 3
    assert same > 0.75


def test_what_is_whole_stays_and_what_is_not_is_made_again(stored, tmp_path):
    output = tmp_path / "flow"
    export(stored, output, layout="two-stream")
    whole = files_in(output)
    (output / "u" / "run" / "a" / "frame000001.png").write_bytes(b"mine")
    shutil.rmtree(output / "v" / "run" / "a")
    # Left behind by a process that was killed, and by one that still writes.
    dead = output / "v" / "run" / "a.host~1~00000000.part"
    dead.mkdir()
    exported = export(stored, output, layout="two-stream", workers=2)
    assert (exported.videos, exported.known) == (1, 2)
    again = files_in(output)
    assert again.pop("u/run/a/frame000001.png") == b"mine"
    assert again.items() <= whole.items()
    assert len(again) == len(whole) - 1


def test_ctrl_c_leaves_only_whole_folders(stored, tmp_path, monkeypatch):
    """Two of three videos have 162 images; 18 of the third are written before the interruption."""
    encoded, calls = _Images.encoded, []

    def interrupted(images, flow):
        calls.append(flow)
        if len(calls) > 180:
            raise KeyboardInterrupt
        return encoded(images, flow)

    export(stored, tmp_path / "whole")
    monkeypatch.setattr(_Images, "encoded", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(stored, tmp_path / "flow")
    assert {path.parent.name for path in (tmp_path / "flow").rglob("*.png")} == {"a", "b"}
    assert not list((tmp_path / "flow").rglob("*.part"))
    monkeypatch.setattr(_Images, "encoded", encoded)
    assert export(stored, tmp_path / "flow").known == 2
    assert files_in(tmp_path / "flow") == files_in(tmp_path / "whole")


def test_a_video_with_a_hole_is_left_out_by_name(stored, tmp_path):
    for file in stored.glob("*.h5"):
        with h5py.File(file, "r+") as shard:
            if "run/a.avi" in shard["videos/path"].asstr()[:]:
                # As if the flow of a clip had not been finite; the size is that of the seal.
                starts = shard["clips/start"][:]
                shard["clips/start"][:] = np.where(starts == 16, 32, starts)
    found = run_command("export-flow", stored, "-o", tmp_path / "flow", "--bound", 5)
    assert found.returncode == 1
    assert "run/a.avi: not written, the clip at frame 16 is not in its shard" in found.stderr
    assert sorted(path.name for path in (tmp_path / "flow").glob("*/*")) == ["b", "c"]


def test_mistakes(videos, stored, tmp_path):
    extract(videos, tmp_path / "plain")
    extract(videos, tmp_path / "far", store_flow="float16", clip_stride=17)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    export(stored, tmp_path / "flow")
    incomplete = shutil.copytree(stored, tmp_path / "incomplete")
    next(incomplete.glob("*.h5")).unlink()
    for shards, output, options, message in [
        ("plain", "x", {}, "holds no flow; extract into another folder with --store-flow"),
        ("far", "x", {}, "holds a clip every 17 frames, and no flow in between"),
        ("none", "x", {}, "holds no shards"),
        ("incomplete", "x", {}, "is not complete: 1 of 2 shards sealed"),
        ("stored", "full", {}, "full holds something already"),
        ("stored", "flow", {"bound": 6.0}, "other shards or options, differing in bound"),
        ("stored", "flow", {"quality": 95}, "differing in quality"),
        ("stored", "x", {"bound": -1.0}, "the bound must be above 0, got -1"),
    ]:
        with pytest.raises(LabelgenError, match=message):
            export(tmp_path / shards, tmp_path / output, **options)
        assert not (tmp_path / "x").exists()


def test_two_videos_of_one_name_are_refused(tmp_path):
    for name in ("a.avi", "a.mkv"):
        write_video(tmp_path / "v" / "a.avi", moving_square(16)).rename(tmp_path / "v" / name)
        write_video(tmp_path / "v" / "a.avi", moving_square(16))
    extract(tmp_path / "v", tmp_path / "s", store_flow="float16")
    with pytest.raises(LabelgenError, match=r"would stand for a\.avi and for a\.mkv"):
        export(tmp_path / "s", tmp_path / "flow")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flow": parse_flow("precomputed", bound=20.0)}, "with a bound of 5, not 20"),
        ({"clip_stride": 8}, "that of clips every 16 frames, and clips every 8 would use pairs"),
    ],
)
def test_exported_flow_is_read_as_it_was_written(videos, stored, tmp_path, settings, message):
    export(stored, tmp_path / "flow")
    with pytest.raises(LabelgenError, match=message):
        extract_again(videos, tmp_path / "again", tmp_path / "flow", **settings)
    (tmp_path / "flow" / "export.json").write_text(json.dumps({"bound": 5}))
    with pytest.raises(LabelgenError, match=r"export\.json is damaged"):
        extract_again(videos, tmp_path / "again", tmp_path / "flow")
