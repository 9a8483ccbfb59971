import json
import subprocess
import sys
import threading
import time

import pytest
from extraction import command, digests, extract

from labelgen.errors import LabelgenError
from labelgen.files import partial_name
from labelgen.progress import ProgressLine
from labelgen.run import pipeline
from labelgen.shards.claims import CLAIMS, claimed
from labelgen.shards.plan import ALL, Part, parse_part
from labelgen.shards.seal import seal_of

SECONDS = 60
PRESENT = """
import pathlib, sys
from labelgen.shards.claims import present
with present(pathlib.Path(sys.argv[1])) as presence:
    print(presence.is_alone(), flush=True)
    input()
"""


@pytest.fixture
def plain(videos, tmp_path):
    extract(videos, tmp_path / "plain", clips_per_shard=1)
    return digests(tmp_path / "plain")


def until(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("total", [2, 3, 50])
def test_parts_make_what_one_run_makes(videos, tmp_path, plain, total):
    out = tmp_path / "s"
    made = [
        extract(videos, out, clips_per_shard=1, part=Part(number, total)).shards
        for number in range(total)
    ]
    shards = sum(name.endswith(".h5") for name in plain)
    assert sum(made) == shards
    assert max(made) - min(made) <= 1
    assert digests(out) == plain


def test_a_part_leaves_what_is_not_its_own(videos, tmp_path):
    out = tmp_path / "s"
    extract(videos, out, clips_per_shard=1, part=Part(1, 2))
    before = digests(out)
    summary = extract(videos, out, clips_per_shard=1, part=Part(1, 2))
    assert summary.shards == 0
    assert digests(out) == before


@pytest.mark.parametrize(
    ("text", "one_based", "part"),
    [
        ("0/1", False, ALL), ("3/4", False, Part(3, 4)), ("1/4", True, Part(0, 4)),
        ("4/4", True, Part(3, 4)), ("4/4", False, None), ("0/4", True, None), ("5/4", True, None),
        ("0/0", False, None), ("1/0", True, None), ("-1/4", False, None), ("a/b", False, None),
        ("1", False, None), ("1/2/3", False, None), ("", False, None),
    ],
)  # fmt: skip
def test_parts_by_name(text, one_based, part):
    if part is None:
        with pytest.raises(LabelgenError, match=f"--part {text} names no part: give I/N"):
            parse_part(text, one_based=one_based)
    else:
        assert parse_part(text, one_based=one_based) == part


def test_two_runs_at_once_share_the_work(videos, tmp_path, plain):
    out = tmp_path / "s"
    words = command(
        *("extract", "--root", videos, "--out", out, "--crops", "grid:16", "--frames", "raw"),
        *("--flow", "farneback,levels=1,iterations=1", "--clips-per-shard", "1"),
        *("--name", "videos", "--workers", "1"),
    )
    runs = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [run.communicate(timeout=SECONDS)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert digests(out) == plain
    assert not (out / CLAIMS).exists()


@pytest.mark.parametrize("makes_it", [True, False])
def test_a_shard_that_another_run_is_at_is_waited_for(videos, tmp_path, plain, makes_it):
    out, ready = tmp_path / "s", tmp_path / "plain"
    theirs = sorted(ready.glob("*.h5"))[0]
    others = [seal_of(file).name for file in ready.glob("*.h5") if file != theirs]
    out.mkdir()

    def other_run():
        with claimed(out / theirs.name) as ours:
            assert ours
            begun.set()
            until(lambda: all((out / name).exists() for name in others))
            if makes_it:
                for file in (theirs, seal_of(theirs)):
                    (out / file.name).write_bytes(file.read_bytes())

    begun = threading.Event()
    other = threading.Thread(target=other_run)
    other.start()
    begun.wait(SECONDS)
    summary = extract(videos, out, clips_per_shard=1)
    other.join()
    assert (summary.shards, summary.left) == (len(others) + (not makes_it), int(makes_it))
    assert digests(out) == plain


def test_what_another_run_is_writing_stays(videos, tmp_path):
    out = tmp_path / "s"
    out.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", PRESENT, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"True\n"
        theirs = out / "videos-00000-of-00002.h5.elsewhere~77~0011aaff.part"
        theirs.write_bytes(b"half")
        extract(videos, out)
        assert theirs.exists()
        other.communicate(b"\n")
    extract(videos, out)
    assert not theirs.exists()


def test_shards_written_elsewhere_first_are_the_same(videos, tmp_path, plain):
    scratch = tmp_path / "new" / "scratch"
    scratch.mkdir(parents=True)
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    name = partial_name(scratch / "videos-00000-of-00002.h5").name.split("~")
    name[1] = str(finished.pid)
    (scratch / "~".join(name)).write_bytes(b"half")
    extract(videos, tmp_path / "s", clips_per_shard=1, scratch=scratch)
    assert digests(tmp_path / "s") == plain
    assert list(scratch.iterdir()) == []


def test_a_scratch_that_cannot_be_is_named(videos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LabelgenError, match=r"cannot write to .*file: File exists"):
        extract(videos, tmp_path / "s", scratch=tmp_path / "file")


def test_a_root_that_is_gone_makes_no_video_missing(videos, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    monkeypatch.setattr(pipeline, "_warm", lambda *_, **__: videos.rename(gone))
    with pytest.raises(LabelgenError, match="is not there, on .*; mount it, and run the same"):
        extract(videos, tmp_path / "s")
    assert not list((tmp_path / "s").glob("*.h5"))


def test_a_part_without_shards_says_so(videos, tmp_path):
    summary = extract(videos, tmp_path / "s", part=Part(8, 9))
    assert list(summary.lines()) == [
        f"nothing to do: {tmp_path / 's'} has fewer shards than 9 parts"
    ]


def test_what_another_run_made_again_is_not_made_once_more(videos, tmp_path):
    out = tmp_path / "s"
    (videos / "late.avi").write_bytes(b"")
    extract(videos, out, clips_per_shard=1)
    ready = extract(videos, out, clips_per_shard=1, retry=True)
    assert ready.shards + len(ready.kept) == 1
    shard = next(file for file in out.glob("*.h5") if "late.avi" in failed(seal_of(file)))
    begun = threading.Event()

    def other_run():
        with claimed(shard):
            begun.set()
            until(lambda: waiting.is_set())
            seal_of(shard).write_bytes(seal_of(shard).read_bytes())

    waiting = threading.Event()
    other = threading.Thread(target=other_run)
    other.start()
    begun.wait(SECONDS)
    say = ProgressLine.say
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProgressLine, "say", lambda line, text: (say(line, text), waiting.set()))
        summary = extract(videos, out, clips_per_shard=1, retry=True)
    other.join()
    assert (summary.shards, summary.left) == (0, 1)


def failed(seal):
    return [failure["path"] for failure in json.loads(seal.read_text())["failures"]]
