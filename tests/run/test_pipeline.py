import shutil

import h5py
import numpy as np
import pytest
from conftest import moving_square, truncate, write_video
from extraction import FLOW, digests, extract, failures

from labelgen import clip_labels, motion_boundaries, optical_flow, read_clips
from labelgen.errors import LabelgenError
from labelgen.files import partial_name
from labelgen.flow.methods import flow_settings
from labelgen.labels.crops import crop_positions
from labelgen.run import pipeline, worker
from labelgen.shards.settings import ExtractSettings
from labelgen.shards.verify import find_problems


def test_shards_hold_what_the_python_functions_give(videos, tmp_path):
    out = tmp_path / "shards"
    summary = extract(videos, out, store_flow="float32")
    assert (summary.shards, summary.videos, summary.clips) == (2, 3, 6)
    assert find_problems(out) == (2, [])
    expected = {
        (name, start): frames
        for name in ("run/a.avi", "run/b.avi", "walk/c.avi")
        for start, frames in read_clips(videos / name)
    }
    crops = crop_positions("grid:16")
    found = set()
    for file in sorted(out.glob("*.h5")):
        with h5py.File(file) as shard:
            np.testing.assert_array_equal(shard["crops"], crops)
            names = shard["videos/path"].asstr()[:]
            for k, video in enumerate(shard["clips/video"]):
                key = (names[video], shard["clips/start"][k])
                found.add(key)
                frames = expected[key]
                flow = optical_flow(frames, method="farneback", levels=1, iterations=1)
                np.testing.assert_array_equal(shard["frames"][k], frames)
                np.testing.assert_array_equal(shard["flow"][k], flow)
                np.testing.assert_array_equal(shard["labels"][k], clip_labels(frames, flow, crops))
                boundaries = motion_boundaries(flow)
                np.testing.assert_array_equal(
                    shard["motion_boundaries"][k], boundaries.astype(np.float16)
                )
                energy = np.hypot(boundaries[::2], boundaries[1::2]).sum(axis=0).mean()
                assert shard["motion_energy"][k] == pytest.approx(energy, rel=1e-5)
    assert found == set(expected)


def test_bytes_do_not_depend_on_workers_or_place(videos, tmp_path):
    extract(videos, tmp_path / "one", workers=0, frames="jpeg:95")
    moved = tmp_path / "elsewhere" / "videos"
    shutil.copytree(videos, moved)
    extract(moved, tmp_path / "two", workers=2, frames="jpeg:95")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert str(tmp_path) not in (tmp_path / "one" / "videos-00001-of-00002.json").read_text()


def test_overlapping_clips_reuse_flow_without_changing_it(videos, tmp_path):
    extract(videos, tmp_path / "s", clip_stride=4, store_flow="float32")
    with h5py.File(min((tmp_path / "s").glob("*.h5"))) as shard:
        assert shard["clips/start"][:3].tolist() == [0, 4, 8]
        for k in (1, 2):
            flow = optical_flow(shard["frames"][k], method="farneback", levels=1, iterations=1)
            np.testing.assert_array_equal(shard["flow"][k], flow)


def test_flow_on_larger_frames(videos, tmp_path):
    flow = flow_settings("farneback", FLOW.parameters, size="source")
    extract(videos, tmp_path / "s", flow=flow, store_flow="float32")
    extract(videos, tmp_path / "small", store_flow="float32")
    found = []
    for folder in ("s", "small"):
        with h5py.File(min((tmp_path / folder).glob("*.h5"))) as shard:
            assert ("source" in shard.attrs["flow"]) == (folder == "s")
            found.append(shard["flow"][0])
    # The square moves two of 160 pixels to the right in each frame.
    for one in found:
        assert np.median(one[0, 0, 52:66, 14:32]) == pytest.approx(2 * 171 / 160, abs=0.5)
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_without_labels(videos, tmp_path):
    extract(videos, tmp_path / "s", labels=False)
    assert find_problems(tmp_path / "s")[1] == []
    with h5py.File(tmp_path / "s" / "videos-00000-of-00002.h5") as shard:
        assert not {"labels", "crops", "motion_boundaries", "motion_energy", "flow"} & set(shard)
        assert shard.attrs["flow"] == "null"
        assert len(shard["frames"]) == 3


def test_authors_profile(videos, tmp_path):
    extract(videos, tmp_path / "s", profile="authors", crops="center", boundaries=False)
    assert find_problems(tmp_path / "s")[1] == []
    with h5py.File(tmp_path / "s" / "videos-00000-of-00002.h5") as shard:
        frames = shard["frames"][0]
        flow = optical_flow(frames, method="farneback", levels=1, iterations=1)
        expected = clip_labels(frames, flow, profile="authors")
        np.testing.assert_array_equal(shard["labels"][0], expected)
        assert "motion_boundaries" not in shard


def test_failures_are_told_apart(videos, tmp_path):
    (videos / "empty.avi").touch()
    (videos / "text.mp4").write_text("text")
    truncate(write_video(videos / "cut.avi", moving_square(64)), 0.2)
    truncate(write_video(videos / "half.avi", moving_square(64)), 0.6)
    summary = extract(videos, tmp_path / "s")
    found = failures(tmp_path / "s")
    assert {path: record["reason"] for path, record in found.items()} == {
        "empty.avi": "unopenable",
        "text.mp4": "unopenable",
        "cut.avi": "truncated",
        "half.avi": "truncated",
        "walk/short.avi": "too_short",
    }
    # Whole clips of a truncated video are kept, and reported all the same.
    assert int(found["half.avi"]["clips"]) == 2
    assert found["half.avi"]["message"].startswith("half.avi gives ")
    assert summary.clips == 6 + 2
    assert find_problems(tmp_path / "s")[1] == []


def test_missing_files_and_unicode_names(videos, tmp_path):
    name = "naïve 视频 🎬.avi"
    shutil.copy(videos / "walk" / "c.avi", videos / name)
    (tmp_path / "mein manifest.csv").write_text(
        f"path,class_name,split\n{name},klasse ü,train\ngone.avi,,train\nrun/a.avi,,test\n",
        encoding="utf-8",
    )
    extract(videos, tmp_path / "s", manifest=tmp_path / "mein manifest.csv")
    assert sorted(file.name for file in (tmp_path / "s").glob("*.h5")) == [
        "mein manifest-test-00000-of-00001.h5",
        "mein manifest-train-00000-of-00001.h5",
    ]
    with h5py.File(tmp_path / "s" / "mein manifest-train-00000-of-00001.h5") as shard:
        assert shard["videos/path"].asstr()[:].tolist() == [name]
        assert shard["videos/class_name"].asstr()[:].tolist() == ["klasse ü"]
    assert failures(tmp_path / "s")["gone.avi"]["reason"] == "missing"
    assert find_problems(tmp_path / "s")[1] == []


def test_a_name_that_no_file_can_have_is_one_videos_fault(videos, tmp_path):
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"path\n{'x' * 300}.avi\nrun/a.avi\n")
    assert extract(videos, tmp_path / "s", manifest=manifest).clips == 3
    (found,) = failures(tmp_path / "s").values()
    assert found["reason"] == "error"


def test_max_failures(videos, tmp_path):
    for number in range(3):
        (videos / f"bad{number}.avi").touch()
    with pytest.raises(LabelgenError, match="more than --max-failures 1"):
        extract(videos, tmp_path / "s", max_failures=1)
    extract(videos, tmp_path / "s", max_failures=4)


def test_rerun_skips_sealed_shards_and_mends_the_rest(videos, tmp_path):
    out = tmp_path / "s"
    extract(videos, out)
    whole = digests(out)
    first, second = sorted(out.glob("*.h5"))
    before = first.stat().st_mtime_ns
    second.with_suffix(".json").unlink()
    partial_name(second).write_bytes(b"half")
    summary = extract(videos, out)
    assert (summary.shards, summary.skipped) == (1, 1)
    assert first.stat().st_mtime_ns == before
    assert digests(out) == whole
    assert not list(out.glob("*.part"))
    assert extract(videos, out).shards == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"crops": "center"}, r"crops \(grid:16, center\)"),
        ({"flow": flow_settings("dis")}, r"flow.method \(farneback, dis\)"),
        ({"flow": flow_settings("farneback", {"levels": 1})}, r"flow.iterations \(1, 3\)"),
        ({"clips_per_shard": 100}, r"clips_per_shard \(3, 100\)"),
    ],
)
def test_other_settings_are_refused(videos, tmp_path, change, named):
    extract(videos, tmp_path / "s")
    before = digests(tmp_path / "s")
    with pytest.raises(LabelgenError, match=named):
        extract(videos, tmp_path / "s", **change)
    assert digests(tmp_path / "s") == before


def test_another_manifest_is_refused_but_another_split_joins(videos, tmp_path):
    file = tmp_path / "m.csv"
    file.write_text("path,split\nrun/a.avi,one\n")
    extract(videos, tmp_path / "s", manifest=file)
    file.write_text("path,split\nrun/b.avi,one\n")
    with pytest.raises(LabelgenError, match="run/a.avi.* in m-one"):
        extract(videos, tmp_path / "s", manifest=file)
    file.write_text("path,split\nrun/b.avi,two\n")
    extract(videos, tmp_path / "s", manifest=file)
    assert find_problems(tmp_path / "s") == (2, [])


def test_real_videos(shared, tmp_path):
    """Every real video ends up in a shard or among the failures."""
    root = shared / "data"
    summary = extract(
        root, tmp_path / "s", workers=2, labels=False, frames="jpeg:50", clips_per_shard=64
    )
    listed = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.suffix in (".avi", ".mp4", ".mkv")
    }
    found = set(failures(tmp_path / "s"))
    for file in (tmp_path / "s").glob("*.h5"):
        with h5py.File(file) as shard:
            found |= set(shard["videos/path"].asstr()[:])
    assert found == listed
    assert summary.clips > 700
    assert find_problems(tmp_path / "s")[1] == []


def said_of_time(capsys):
    return next(line for line in capsys.readouterr().err.splitlines() if "decoding and" in line)


def test_more_workers_than_cores_are_no_faster(videos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pipeline, "warm_kernels", lambda settings: 10.0)
    monkeypatch.setattr(pipeline, "cpu_count", lambda: 2)
    monkeypatch.setattr(pipeline, "_make_shards", lambda *args, **options: None)
    extract(videos, tmp_path / "s", workers=64)
    assert "64 workers, some of them at one shard together: about 30 s" in said_of_time(capsys)
    extract(videos, tmp_path / "t", workers=1)
    assert "1 worker: about 1 min 00 s" in said_of_time(capsys)


def test_what_is_not_known_is_not_told_as_nothing(videos, tmp_path, monkeypatch, capsys):
    manifest = tmp_path / "m.csv"
    manifest.write_text("path,frames\nrun/a.avi,0\nrun/b.avi,0\n")
    extract(videos, tmp_path / "s", manifest=manifest)
    said = capsys.readouterr().err
    assert "2 videos, an unknown number of clips, in 1 shard" in said
    assert "1 to make, of unknown size" in said
    assert "1 worker: an unknown time and what decoding and writing take" in said
    # The size of the frames decides, which is not known before they are decoded.
    flow = flow_settings("farneback", FLOW.parameters, size="source")
    extract(videos, tmp_path / "t", flow=flow)
    assert "1 worker: an unknown time" in said_of_time(capsys)


@pytest.mark.parametrize(("stride", "frames"), [(1, 2), (4, 5), (15, 16), (16, 16), (40, 16)])
@pytest.mark.parametrize(("size", "grey"), [("clip", None), ("300x200", (200, 300))])
def test_a_clip_is_timed_as_it_is_made(monkeypatch, stride, frames, size, grey):
    """Without the pairs of frames that it shares with the one before, and at the size of flow."""
    seen = []

    def flow_of_frames(some, settings):
        seen.append((len(some), None if some[0].grey is None else some[0].grey.shape))
        return np.zeros((15, 2, 128, 171), np.float32)

    monkeypatch.setattr(worker, "flow_of_frames", flow_of_frames)
    flow = flow_settings("farneback", FLOW.parameters, size=size)
    assert worker.warm_kernels(ExtractSettings(flow=flow, clip_stride=stride)) > 0
    assert seen == [(16, grey), (frames, grey)]
