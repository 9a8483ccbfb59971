"""Extractions from frames and flow that lie on disk already."""

import csv
import json
import shutil
import tracemalloc

import h5py
import numpy as np
import pytest
from conftest import moving_square, write_frames
from extraction import digests, extract, failures, run_command

from labelgen import clip_labels
from labelgen.errors import LabelgenError
from labelgen.flow.methods import parse_flow
from labelgen.flow.precomputed import flow_levels, flow_of_levels
from labelgen.run.engines import Limits
from labelgen.run.pipeline import run
from labelgen.shards.settings import ExtractSettings
from labelgen.shards.verify import find_problems
from labelgen.video.clips import cut_clips
from labelgen.video.decode import Video
from labelgen.video.frames import FrameFolder
from labelgen.video.manifest import find_videos


def frames_of(path):
    """Decoded frames as they are."""
    with Video(path, size=(120, 160)) as video:
        return [frame.rgb for frame in video]


@pytest.fixture
def folders(videos, tmp_path):
    """The frames of the videos, without loss, as folders of images."""
    root = tmp_path / "frames"
    for row in find_videos(videos):
        frames = frames_of(videos / row.path)
        write_frames(root / row.path.removesuffix(".avi"), frames, pattern="img_{:05}.png")
    return root


@pytest.fixture
def flow_root(videos, tmp_path):
    """Flow of the videos that moves three pixels to the right in one place of each frame."""
    root = tmp_path / "flow"
    for row in find_videos(videos):
        count = len(frames_of(videos / row.path)) - 1
        for axis, levels in zip("uv", flow_images(count), strict=True):
            folder = root / axis / row.path.removesuffix(".avi")
            write_frames(folder, levels, pattern="frame{:06}.png")
    return root


def flow_images(count, size=(128, 171)):
    rng = np.random.default_rng(count)
    flow = rng.normal(size=(2, count, *size)).astype(np.float32)
    flow[:, :, 40:80, 30:90] += 3
    return flow_levels(flow, 20.0)


def shards(folder):
    for file in sorted(folder.glob("*.h5")):
        with h5py.File(file) as shard:
            yield shard


def arrays(folder, *names):
    return [np.concatenate([shard[name][:] for shard in shards(folder)]) for name in names]


def paths(folder):
    return {path for shard in shards(folder) for path in shard["videos/path"].asstr()[:]}


def read_flow(videos, out, flow_root, *, flow="precomputed", frames=False, workers=0, **settings):
    chosen = {"crops": "grid:16", "frames": "raw", "clips_per_shard": 3}
    return run(
        None,
        root=videos,
        out=out,
        name="x",
        settings=ExtractSettings(
            flow=parse_flow(flow), source="frames" if frames else "videos", **(chosen | settings)
        ),
        limits=Limits(workers),
        flow_root=flow_root,
    )


def test_frames_give_the_labels_of_their_videos(videos, folders, tmp_path):
    of_videos = extract(videos, tmp_path / "one")
    of_frames = extract(folders, tmp_path / "two", source="frames")
    assert of_videos.clips == of_frames.clips == 6
    names = ("labels", "frames", "motion_boundaries", "clips/start", "clips/video")
    found = [arrays(tmp_path / folder, *names) for folder in ("one", "two")]
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)
    assert paths(tmp_path / "two") == {"run/a", "run/b", "walk/c"}
    assert failures(tmp_path / "two")["walk/short"]["reason"] == "too_short"
    assert find_problems(tmp_path / "two")[1] == []


def test_a_manifest_of_videos_serves_for_their_frames(videos, folders, tmp_path):
    manifest = tmp_path / "videos.csv"
    rows = ["path", "run/a.avi", "walk/c.avi", "walk/none.avi"]
    manifest.write_text("\n".join(rows) + "\n", encoding="utf-8")
    extract(folders, tmp_path / "s", source="frames", manifest=manifest)
    assert paths(tmp_path / "s") == {"run/a.avi", "walk/c.avi"}
    assert failures(tmp_path / "s")["walk/none.avi"]["reason"] == "missing"
    with (tmp_path / "s" / "videos.rows.csv").open(encoding="utf-8", newline="") as stream:
        assert [row["frames"] for row in csv.DictReader(stream)] == ["50", "16", "0"]


def test_frames_and_videos_do_not_mix(videos, folders, tmp_path):
    manifest = tmp_path / "x.csv"
    manifest.write_text("path\nrun/b.avi\n", encoding="utf-8")
    extract(videos, tmp_path / "s", manifest=manifest)
    assert "source" not in json.loads((tmp_path / "s" / "run.json").read_text())["config"]
    with pytest.raises(LabelgenError, match=r"source \(absent, frames\)"):
        extract(folders, tmp_path / "s", manifest=manifest, source="frames")


@pytest.mark.parametrize("workers", [0, 2])
def test_damage_midway_costs_the_clips_from_there_on(folders, tmp_path, workers):
    image = folders / "run" / "a" / "img_00020.png"
    image.write_bytes(image.read_bytes()[:-20])
    (folders / "run" / "b" / "img_00009.png").unlink()
    extract(folders, tmp_path / "s", workers=workers, source="frames")
    found = failures(tmp_path / "s")
    assert (found["run/a"]["reason"], found["run/a"]["clips"]) == ("bad_frames", "1")
    assert (found["run/b"]["reason"], found["run/b"]["clips"]) == ("bad_frames", "0")
    assert "img_00020.png is damaged" in found["run/a"]["message"]
    assert "number 9 is missing" in found["run/b"]["message"]
    assert paths(tmp_path / "s") == {"run/a", "walk/c"}


@pytest.mark.parametrize("stride", [16, 15, 5])
@pytest.mark.parametrize("profile", ["paper", "authors"])
def test_labels_of_precomputed_flow(videos, flow_root, tmp_path, profile, stride):
    settings = {"profile": profile, "clip_stride": stride, "store_flow": "float32"}
    settings["crops"] = "center"
    read_flow(videos, tmp_path / "s", flow_root, **settings)
    for shard in shards(tmp_path / "s"):
        crops, counts = shard["crops"][:], shard["videos/frames"][:]
        for k, start in enumerate(shard["clips/start"][:]):
            levels = flow_images(counts[shard["clips/video"][k]] - 1)
            flow = flow_of_levels(levels, 20.0).swapaxes(0, 1)[start : start + 15]
            np.testing.assert_array_equal(shard["flow"][k], flow)
            expected = clip_labels(shard["frames"][k], flow, crops, profile=profile)
            np.testing.assert_array_equal(shard["labels"][k], expected)


def test_frames_and_flow_by_command_whatever_the_workers(folders, flow_root, tmp_path):
    """Roots are places: the same bytes come of a copy elsewhere."""
    made = []
    moved = shutil.copytree(flow_root, tmp_path / "elsewhere")
    for workers, root in ((0, flow_root), (2, moved)):
        out = tmp_path / f"s{workers}"
        done = run_command(
            *("extract", "--frames-from", folders, "--flow", "precomputed", "--flow-root", root),
            *("--flow-bound", 20, "--out", out, "--workers", workers, "--clips-per-shard", 3),
            *("--crops", "center", "--name", "x"),
        )
        assert done.returncode == 0, done.stderr
        made.append(digests(out))
    assert made[0] == made[1]
    again = run_command(
        *("extract", "--frames-from", folders, "--flow", "precomputed", "--flow-root", moved),
        *("--flow-bound", 32, "--out", tmp_path / "s0", "--crops", "center", "--name", "x"),
        *("--clips-per-shard", 3),
    )
    assert again.returncode == 2
    assert "flow.bound (20.0, 32.0)" in again.stderr


@pytest.mark.parametrize("frames", [False, True])
def test_flow_of_another_length_labels_nothing(videos, folders, flow_root, tmp_path, frames):
    """Flow of another version of a video is refused before its first clip."""
    for axis in "uv":
        images = sorted((flow_root / axis / "run" / "a").iterdir())
        images[-1].unlink()
        # One for each frame is as good as one for each pair.
        last = flow_root / axis / "run" / "b" / "frame000033.png"
        shutil.copy(last.with_name("frame000032.png"), last)
    read_flow(folders if frames else videos, tmp_path / "s", flow_root, frames=frames)
    suffix = "" if frames else ".avi"
    found = failures(tmp_path / "s")[f"run/a{suffix}"]
    assert (found["reason"], found["clips"]) == ("bad_flow", "0")
    assert "50 frames and 48 flow images; there must be 49 or 50" in found["message"]
    assert paths(tmp_path / "s") == {f"run/b{suffix}", f"walk/c{suffix}"}


def test_a_damaged_flow_image_costs_its_clip(videos, flow_root, tmp_path):
    image = flow_root / "v" / "run" / "a" / "frame000018.png"
    image.write_bytes(b"")
    read_flow(videos, tmp_path / "s", flow_root)
    found = failures(tmp_path / "s")["run/a.avi"]
    assert (found["reason"], found["clips"]) == ("bad_flow", "2")
    assert "a/frame000018.png is damaged" in found["message"]
    assert "the clip at frame 16 is left out" in found["message"]


def test_no_labels_need_no_flow(videos, flow_root, tmp_path):
    shutil.rmtree(flow_root / "u")
    assert read_flow(videos, tmp_path / "s", flow_root, labels=False).clips == 6


def test_memory_is_that_of_a_clip(tmp_path):
    """Only what a clip needs is read, not all of a folder."""
    write_frames(tmp_path / "a", moving_square(1))
    for number in range(2, 400):
        (tmp_path / "a" / f"frame{number:06}.jpg").hardlink_to(tmp_path / "a" / "frame000001.jpg")
    tracemalloc.start()
    with FrameFolder(tmp_path, "a") as video:
        assert len([start for start, _ in cut_clips(video, clip_length=16, stride=16)]) == 24
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 128 * 171 * 3
