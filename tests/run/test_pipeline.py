import csv
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from conftest import moving_square, truncate, write_video

from labelgen import LABELS, clip_labels, motion_boundaries, optical_flow, read_clips
from labelgen.errors import LabelgenError
from labelgen.flow.methods import flow_settings
from labelgen.labels.crops import crop_positions
from labelgen.run.pipeline import run
from labelgen.shards.folder import find_shard_folder, locked
from labelgen.shards.index import write_index
from labelgen.shards.settings import ExtractSettings
from labelgen.shards.summary import summary_lines
from labelgen.shards.verify import find_problems

FLOW = flow_settings("farneback", {"levels": 1, "iterations": 1})


def extract(videos, out, workers=0, manifest=None, name=None, max_failures=None, **settings):
    chosen = {"flow": FLOW, "crops": "grid:16", "frames": "raw", "clips_per_shard": 3}
    return run(
        manifest,
        root=videos,
        out=out,
        name=name,
        settings=ExtractSettings(**(chosen | settings)),
        workers=workers,
        max_failures=max_failures,
    )


def digests(folder):
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.iterdir())
        if file.suffix in (".h5", ".json", ".csv")
    }


def failures(folder):
    with (folder / "failures.csv").open(encoding="utf-8", newline="") as stream:
        return {record["path"]: record for record in csv.DictReader(stream)}


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


def test_layout_is_the_contract(videos, tmp_path):
    extract(videos, tmp_path / "s", frames="jpeg:95")
    with h5py.File(tmp_path / "s" / "videos-00000-of-00002.h5") as shard:
        assert shard.attrs["format"] == "motion-appearance-labels"
        assert shard.attrs["format_version"] == 1
        assert json.loads(shard.attrs["flow"])["method"] == "farneback"
        assert json.loads(shard.attrs["config"])["clip_stride"] == 16
        assert shard.attrs["frame_size"].tolist() == [128, 171]
        for name in ("labelgen", "opencv", "numpy", "numba"):
            assert shard.attrs[f"{name}_version"]
        layout = {
            "labels": ((3, 8, 27), np.uint8, (1, 8, 27)),
            "motion_boundaries": ((3, 4, 128, 171), np.float16, (1, 4, 128, 171)),
            "frames": ((3, 16), object, (1, 16)),
        }
        for name, (shape, dtype, chunks) in layout.items():
            assert shard[name].shape == shape
            assert shard[name].dtype == dtype
            assert shard[name].chunks == chunks
        assert shard["labels"].attrs["names"].tolist() == [label.name for label in LABELS]
        assert shard["videos/class_name"].asstr()[:].tolist() == ["run"]
        assert shard["videos/frames"][:].tolist() == [50]
        jpeg = shard["frames"][2, 5]
        decoded = cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        clips = dict(read_clips(videos / "run" / "a.avi"))
        assert np.abs(decoded.astype(int) - clips[32][5]).mean() < 3


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
    (out / f"{second.name}.part").write_bytes(b"half")
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
    with pytest.raises(LabelgenError, match="manifests.m-one"):
        extract(videos, tmp_path / "s", manifest=file)
    file.write_text("path,split\nrun/b.avi,two\n")
    extract(videos, tmp_path / "s", manifest=file)
    assert find_problems(tmp_path / "s") == (2, [])


def test_a_second_run_on_the_same_folder_fails_fast(videos, tmp_path):
    with locked(tmp_path / "s"), pytest.raises(LabelgenError, match="another run is writing"):
        extract(videos, tmp_path / "s")


def command(*arguments):
    return [sys.executable, "-m", "labelgen.cli", *map(str, arguments)]


def start_long_run(tmp_path, workers):
    root = tmp_path / "long"
    for number in range(4):
        write_video(root / f"{number}.avi", moving_square(160, seed=number))
    # Many iterations: a shard takes about a second.
    arguments = ("extract", "--root", root, "--out", tmp_path / "s", "--clips-per-shard", "10")
    arguments = (*arguments, "--flow", "farneback:iterations=15", "--workers", workers)
    process = subprocess.Popen(
        command(*arguments),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that starts the tests in the background makes them ignore SIGINT.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    return arguments, process


def wait_for(condition, process, seconds=120):
    for _ in range(seconds * 20):
        if condition():
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    raise AssertionError("nothing happened")


def begun(path, clips=2):
    """Whether the shard being written holds something already."""
    parts = list(path.glob("*.part"))
    return bool(parts) and max(part.stat().st_size for part in parts) > 100_000 * clips


@pytest.mark.parametrize("workers", [0, 2])
def test_kill_in_mid_shard_and_resume(tmp_path, workers):
    arguments, process = start_long_run(tmp_path, workers)
    wait_for(lambda: begun(tmp_path / "s"), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert find_problems(tmp_path / "s")[1]
    again = subprocess.run(command(*arguments), capture_output=True, text=True, check=True)
    assert "clips/s" in again.stderr
    assert find_problems(tmp_path / "s") == (4, [])
    clean = [*arguments[:4], tmp_path / "clean", *arguments[5:]]
    subprocess.run(command(*clean), capture_output=True, check=True)
    assert digests(tmp_path / "s") == digests(tmp_path / "clean")


@pytest.mark.parametrize(
    ("workers", "number"), [(0, signal.SIGINT), (2, signal.SIGINT), (2, signal.SIGTERM)]
)
def test_interruption_stops_cleanly(tmp_path, workers, number):
    _, process = start_long_run(tmp_path, workers)
    wait_for(lambda: begun(tmp_path / "s"), process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    assert not list((tmp_path / "s").glob("*.part"))
    assert (tmp_path / "s" / "failures.csv").is_file()


def test_verify_names_what_is_wrong(videos, tmp_path):
    out = tmp_path / "s"
    extract(videos, out)
    first, second = sorted(out.glob("*.h5"))

    def problems_after(change):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(out, copy)
        change(copy)
        return " | ".join(find_problems(copy)[1])

    def flip_a_byte(folder):
        content = bytearray((folder / first.name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / first.name).write_bytes(content)

    def shorten(folder):
        os.truncate(folder / first.name, first.stat().st_size - 100)

    def set_label(folder):
        with h5py.File(folder / first.name, "r+") as shard:
            shard["labels"][1, 2, 0] = 17

    def swap(folder):
        (folder / first.name).replace(folder / "x")
        (folder / second.name).replace(folder / first.name)
        (folder / "x").replace(folder / second.name)

    assert "differs from its seal's SHA-256" in problems_after(flip_a_byte)
    assert "its seal says" in problems_after(shorten)
    assert "clip 1, crop 2: motion/grid/u_location is 17, not in 1..16" in problems_after(set_label)
    assert "seal" in problems_after(swap)
    assert "has no seal" in problems_after(lambda f: (f / first.name).with_suffix(".json").unlink())
    assert "planned but absent" in problems_after(lambda f: (f / first.name).unlink())
    assert "is damaged" in problems_after(
        lambda f: (f / first.name).with_suffix(".json").write_text("{")
    )
    assert "was being written" in problems_after(lambda f: (f / "x.h5.part").touch())
    assert "not in the plan" in problems_after(
        lambda f: shutil.copy(f / first.name, f / "other-00000-of-00001.h5")
    )
    assert problems_after(lambda f: None) == ""


@pytest.mark.parametrize("frames", ["raw", "jpeg:90", "none"])
def test_index_shows_all_shards_as_one(videos, tmp_path, frames):
    (videos / "a-first.avi").touch()
    extract(videos, tmp_path / "s", frames=frames, clips_per_shard=2)
    assert write_index(tmp_path / "s", tmp_path / "s" / "all.h5") == 6
    shutil.move(tmp_path / "s", tmp_path / "moved")
    whole = tmp_path / "moved" / "all.h5"
    clip = 0
    with h5py.File(whole) as index:
        for file in sorted((tmp_path / "moved").glob("*-of-*.h5")):
            with h5py.File(file) as shard:
                for k in range(len(shard["labels"])):
                    for name in ("labels", "motion_boundaries", "motion_energy", "clips/start"):
                        np.testing.assert_array_equal(index[name][clip], shard[name][k])
                    if frames != "none":
                        for one, other in zip(
                            index["frames"][clip], shard["frames"][k], strict=True
                        ):
                            np.testing.assert_array_equal(one, other)
                    here = shard["videos/path"].asstr()[shard["clips/video"][k]]
                    assert index["videos/path"].asstr()[index["clips/video"][clip]] == here
                    clip += 1
        assert clip == len(index["labels"]) == 6
        assert index.attrs["format"] == "motion-appearance-labels"
        assert index["labels"].attrs["names"].tolist() == [label.name for label in LABELS]
    assert find_problems(tmp_path / "moved")[1] == []


def test_index_of_an_incomplete_folder_is_refused(videos, tmp_path):
    extract(videos, tmp_path / "s")
    next(iter((tmp_path / "s").glob("*-of-*.json"))).unlink()
    with pytest.raises(LabelgenError, match="1 of 2 shards are sealed"):
        write_index(tmp_path / "s", tmp_path / "all.h5")
    assert not (tmp_path / "all.h5").exists()


def test_summary(videos, tmp_path):
    (videos / "bad.avi").touch()
    extract(videos, tmp_path / "s", frames="jpeg:95")
    text = "\n".join(summary_lines(tmp_path / "s"))
    assert "videos: 2 of 2 shards sealed, 3 videos, 6 clips" in text
    assert "failures: 1 unopenable, 1 too_short" in text or (
        "failures: 1 too_short, 1 unopenable" in text
    )
    assert "method farneback" in text
    assert text.count("most frequent") == 28


def test_shard_folder_is_found(videos, tmp_path):
    extract(videos, tmp_path / "all" / "one", labels=False)
    assert find_shard_folder(tmp_path / "all") == tmp_path / "all" / "one"
    assert find_shard_folder(tmp_path / "all" / "one") == tmp_path / "all" / "one"
    shutil.copytree(tmp_path / "all" / "one", tmp_path / "all" / "two")
    with pytest.raises(LabelgenError, match="several shard folders; name one of .*one, .*two"):
        find_shard_folder(tmp_path / "all")
    with pytest.raises(LabelgenError, match="holds no shards"):
        find_shard_folder(Path(tmp_path / "nowhere"))


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
