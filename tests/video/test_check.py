"""Odd files of every kind: what `check` says of them, and that `extract` agrees."""

import csv
import io
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import moving_square, truncate, write_video
from extraction import extract, failures, hooked, run_command, start, wait_for
from odd_videos import SIZE, change, encode, rotate, sound

from labelgen.cli import main
from labelgen.video.check import COLUMNS, check_videos
from labelgen.video.manifest import read_manifest

# What each file must be called, and what its reason must say.
EXPECTED = {
    "plain.mp4": ("ok", "^$"),
    "short16.avi": ("ok", "^$"),
    "web.webm": ("ok", "^$"),
    "matroska.mkv": ("ok", "^$"),
    "variable.mp4": ("note", "^variable frame rate: 40 to 120 ms from frame to frame$"),
    "variable.mkv": ("note", "variable frame rate"),
    "clock.mkv": ("note", "claims [0-9]{4} frames, 40 decode; variable frame rate"),
    "rotated.mp4": ("note", "^rotated by 90 degrees"),
    "ten_bit.mp4": ("note", "^10 bits per channel"),
    "grey.mkv": ("note", "^grey$"),
    "grey.avi": ("note", "^grey$"),
    "odd_size.mkv": ("note", "^odd size 129x97$"),
    "tiny.mp4": ("note", "^small: 16x16"),
    "animation.gif": ("note", "^a GIF"),
    "one_frame.avi": ("bad", "^too_short: .* has 1 frame, "),
    "short15.avi": ("bad", "^too_short: .* has 15 frames, "),
    "sound.mp4": ("bad", "^unopenable: .* sound only$"),
    "sound_too.mkv": ("bad", "^unopenable: .* sound only$"),
    "empty.mp4": ("bad", "^unopenable: .* empty: 0 bytes$"),
    "half.mp4": ("bad", r"^unopenable: .* index \(moov\) is not there"),
    "half_indexed.mp4": ("bad", "^truncated: .* gives [0-9]+ of the 48 frames"),
    "half.avi": ("bad", "^truncated: .* gives [0-9]+ of the 48 frames"),
    "half.mkv": ("bad", "^truncated: .* gives [0-9]+ of the 48 frames"),
    "text.avi": ("bad", "^unopenable: .* is text that begins '<html>"),
    "change.ts": ("bad", "^size: the frames of change.ts change from 128x96 to 160x120 after 40"),
    "change.webm": ("bad", "^size: .* change from 128x96 to 160x120 after 40 frames"),
    "wide.avi": ("bad", "^size: .* frames of 20000x16 pixels"),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder with a file of every kind that people have."""
    root = tmp_path_factory.mktemp("odd")
    frames = moving_square(40, size=SIZE)
    long = moving_square(48, size=SIZE)
    uneven = np.cumsum([20 + 60 * (number % 3) for number in range(40)]).tolist()
    grey = np.repeat(frames[..., :1], 3, axis=3)
    encode(root / "plain.mp4", frames)
    encode(root / "web.webm", frames, "libvpx-vp9", pixels="yuv420p")
    encode(root / "matroska.mkv", frames, "mpeg4")
    for name, rate in (("variable.mp4", 25), ("variable.mkv", 12), ("clock.mkv", 1000)):
        encode(root / name, frames, times=uneven, rate=rate)
    rotate(encode(root / "rotated.mp4", frames))
    encode(root / "ten_bit.mp4", frames, pixels="yuv420p10le")
    encode(root / "grey.mkv", frames, "ffv1", pixels="gray")
    write_video(root / "grey.avi", grey)
    encode(root / "odd_size.mkv", moving_square(20, size=(97, 129)), "ffv1", pixels="yuv444p")
    encode(root / "tiny.mp4", [frame[:16, :16] for frame in frames], "mpeg4")
    encode(root / "animation.gif", frames, "gif", pixels="rgb8", rate=10)
    for name, count in (("one_frame", 1), ("short15", 15), ("short16", 16)):
        write_video(root / f"{name}.avi", long[:count])
    for name in ("sound.mp4", "sound_too.mkv"):
        sound(root / name)
    (root / "empty.mp4").touch()
    truncate(encode(root / "half.mp4", long), 0.5)
    whole = {"codec": "mjpeg", "pixels": "yuvj420p"}  # every frame takes the same room
    truncate(encode(root / "half_indexed.mp4", long, **whole, movflags="faststart"), 0.5)
    truncate(write_video(root / "half.avi", long), 0.5)
    truncate(encode(root / "half.mkv", long, **whole), 0.5)
    change(root / "change.ts", "libx264", [SIZE, (120, 160)])
    change(root / "change.webm", "libvpx", [SIZE, (120, 160)])
    (root / "text.avi").write_text("<html>404: not found</html>\n" * 50)
    encode(root / "wide.avi", np.zeros((16, 16, 20000, 3), np.uint8), **whole)
    return root


def invoke(*arguments):
    return CliRunner().invoke(main, ["check", *map(str, arguments)])


def table(text):
    reader = csv.DictReader(io.StringIO(text))
    assert tuple(reader.fieldnames) == COLUMNS
    return {record["path"]: record for record in reader}


def test_check_names_every_fault(odd):
    found = invoke("--root", odd, "--workers", 2)
    assert found.exit_code == 1
    records = table(found.stdout)
    assert list(records) == sorted(EXPECTED)
    seen = {path: (record["verdict"], record["reason"]) for path, record in records.items()}
    for path, (verdict, reason) in EXPECTED.items():
        assert seen[path][0] == verdict, (path, seen[path])
        assert re.search(reason, seen[path][1]), (path, seen[path])
    assert records["plain.mp4"] | {"seconds": ""} == {
        **{"path": "plain.mp4", "verdict": "ok", "reason": "", "claimed": "40", "found": "40"},
        **{"fps": "25.00", "width": "128", "height": "96", "clips": "2", "seconds": ""},
    }
    upright = records["rotated.mp4"]
    assert (upright["width"], upright["height"]) == ("96", "128")
    assert "27 videos: 4 ok, 10 with a note, 13 bad (" in found.stderr
    assert "5 unopenable" in found.stderr


def test_extract_takes_what_is_not_bad_and_fails_on_what_is(odd, tmp_path):
    checked = {seen.path: seen for seen in check_videos(sorted(EXPECTED), root=odd, workers=0)}
    extract(odd, tmp_path / "s", labels=False)
    failed = failures(tmp_path / "s")
    bad = {path for path, seen in checked.items() if seen.verdict == "bad"}
    assert bad == failed.keys()
    for path in bad:
        reason, _, message = checked[path].reason.partition(": ")
        assert reason == failed[path]["reason"]
        assert message.startswith(failed[path]["message"])
        assert checked[path].clips == int(failed[path]["clips"])


def test_the_manifest_without_the_bad(odd, tmp_path):
    rows = "path,class_name,class_index,split,frames\n"
    rows += (
        "plain.mp4,a,0,train1,41\nplain.mp4,a,0,train2,\nempty.mp4,b,1,train1,\ngone.mp4,b,1,,7\n"
    )
    (tmp_path / "m.csv").write_text(rows)
    good = tmp_path / "new" / "good.csv"
    found = invoke("--manifest", tmp_path / "m.csv", "--root", odd, "--write-manifest", good)
    assert found.exit_code == 1
    assert list(table(found.stdout)) == ["plain.mp4", "empty.mp4", "gone.mp4"]
    assert "missing: gone.mp4 does not exist" in found.stdout
    assert f"{good}: 2 rows of 4" in found.stderr
    kept = read_manifest(good, root=odd)
    assert [(row.path, row.split, row.frames) for row in kept] == [
        ("plain.mp4", "train1", 41),
        ("plain.mp4", "train2", 40),
    ]
    assert invoke("--manifest", good, "--root", odd, "--workers", 0).exit_code == 0


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("abort", "crashed: c.avi: the worker process died of SIGABRT, 2 times"),
        ("memory", "crashed: c.avi: the worker process ended with exit code 12, 2 times"),
        ("hang", "timed_out: c.avi: not one frame in 2 s"),
        ("raise", "error: first line second line"),
    ],
)
def test_a_decoder_that_crashes_or_hangs_costs_one_video(tmp_path, how, reason):
    for name in "abcd":
        write_video(tmp_path / f"{name}.avi", moving_square(24))
    options = ("--root", tmp_path, "--workers", 2, "--patience", 2)
    done = run_command("check", *options, hook=f"{how}:c.avi")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    records = table(done.stdout)
    assert list(records) == ["a.avi", "b.avi", "c.avi", "d.avi"]
    verdicts = {path: (record["verdict"], record["reason"]) for path, record in records.items()}
    assert verdicts.pop("c.avi") == ("bad", reason)
    assert set(verdicts.values()) == {("ok", "")}


def test_workers_that_cannot_begin_are_no_fault_of_the_videos(tmp_path):
    write_video(tmp_path / "a.avi", moving_square(24))
    done = run_command("check", "--root", tmp_path, "--workers", 1, hook="no-worker")
    assert done.returncode == 2
    assert "ended with exit code 3 before any video, twice" in done.stderr


def children(process):
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_ctrl_c_ends_workers_that_hang(tmp_path, monkeypatch):
    for name, value in hooked("hang:c.avi").items():
        monkeypatch.setenv(name, value)
    write_video(tmp_path / "c.avi", moving_square(24))
    process = start("check", "--root", tmp_path, "--workers", 1)
    wait_for(lambda: children(process), process)
    workers = children(process)
    os.killpg(process.pid, signal.SIGINT)
    assert "Traceback" not in process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert not [number for number in workers if Path(f"/proc/{number}").exists()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--root", "nowhere"), "nowhere is not a folder"),
        (("--root", "."), "there is no video below"),
        (("--manifest", "none.csv"), "none.csv does not exist"),
        (("--patience", "0"), "--patience"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    found = invoke(*arguments)
    assert found.exit_code == 2
    assert message in found.stderr
    assert found.stdout == ""


def test_a_manifest_that_cannot_be_written_is_told_before_the_work(odd, tmp_path):
    (tmp_path / "file").touch()
    found = invoke("--root", odd, "--write-manifest", tmp_path / "file" / "m.csv")
    assert found.exit_code == 2
    assert "cannot write" in found.stderr
    assert found.stdout == ""


def test_real_videos_are_fine(shared):
    """Headers of HMDB51 claim one frame too many: that is normal."""
    root = shared / "data"
    files = [file for name in ("ucf101", "hmdb51") for file in (root / name).rglob("*.avi")]
    paths = sorted(str(file.relative_to(root)) for file in files)
    found = list(check_videos(paths, root=root, workers=0))
    assert len(found) == 9
    assert {(seen.verdict, seen.reason) for seen in found} == {("ok", "")}
