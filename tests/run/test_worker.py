"""One shard: still clips, faults of single clips, threads, a disk that is full."""

import resource
import shutil
import subprocess

import h5py
import numpy as np
import pytest
from conftest import moving_square, write_video
from extraction import FLOW, command, digests, extract, failures

from labelgen.errors import Interrupted, LabelgenError, StorageError
from labelgen.flow.methods import flow_settings
from labelgen.run import worker
from labelgen.run.tally import Tally
from labelgen.run.worker import ShardTask, make_shard
from labelgen.shards.plan import plan_set
from labelgen.shards.settings import ExtractSettings
from labelgen.shards.verify import find_problems
from labelgen.video.decode import with_frames
from labelgen.video.manifest import find_videos


@pytest.mark.parametrize("workers", [0, 2])
def test_a_still_clip_is_a_clip(tmp_path, workers):
    """Its 16 JPEGs have one length."""
    write_video(tmp_path / "v" / "black.avi", np.zeros((40, 120, 160, 3), np.uint8))
    write_video(tmp_path / "v" / "other.avi", moving_square(20))
    summary = extract(tmp_path / "v", tmp_path / "s", workers=workers, frames="jpeg:95")
    assert summary.clips == 3
    assert find_problems(tmp_path / "s")[1] == []
    with h5py.File(next((tmp_path / "s").glob("*.h5"))) as shard:
        jpegs = shard["frames"][1]
        assert len({len(jpeg) for jpeg in jpegs}) == 1
        assert bytes(jpegs[15][:2]) == b"\xff\xd8"
        assert shard["motion_energy"][:2].tolist() == [0, 0]


def task_of(root, tmp_path, **settings):
    settings = ExtractSettings(**{"flow": FLOW, "crops": "center", "frames": "raw"} | settings)
    rows = with_frames(find_videos(root), root=root, workers=1)
    (plan,) = plan_set(rows, set_name="x", settings=settings)
    Tally.create(tmp_path / "tally", 1)
    return ShardTask(plan, root, tmp_path, settings, tmp_path / "tally", 0)


@pytest.mark.parametrize("stride", [16, 15, 4, 12])
def test_threads_change_no_byte(videos, tmp_path, stride):
    one, many = tmp_path / "one", tmp_path / "many"
    shards = []
    for folder, threads in ((one, 1), (many, 3)):
        folder.mkdir()
        task = task_of(videos, folder, clip_stride=stride, store_flow="float32")
        Tally(task.tally).allow(0, threads)
        report = make_shard(task, tell=lambda failure: None)
        shards.append((folder / task.plan.file).read_bytes())
    assert report.clips > 4
    assert shards[0] == shards[1]


def test_threads_may_be_allowed_and_taken_away_midway(videos, tmp_path, monkeypatch):
    task = task_of(videos, tmp_path)
    expected = make_shard(task, tell=print)
    shard = task.file.read_bytes()
    task.file.unlink()
    turns = iter([1, 3, 3, 2, 1, 4, 4])
    monkeypatch.setattr(Tally, "threads", lambda tally, task: next(turns, 1))
    assert make_shard(task, tell=print).clips == expected.clips
    assert task.file.read_bytes() == shard


@pytest.mark.parametrize("threads", [1, 3])
def test_a_clip_whose_flow_is_not_finite_is_left_out(videos, tmp_path, monkeypatch, threads):
    measure = worker.flow_of_frames

    def spoilt(frames, settings):
        flow = measure(frames, settings)
        if np.array_equal(frames[0].rgb, second):
            flow[3, 1, 5, 5] = np.inf
        return flow

    from labelgen import read_clips

    second = dict(read_clips(videos / "run" / "a.avi"))[16][0]
    monkeypatch.setattr(worker, "flow_of_frames", spoilt)
    task, told = task_of(videos, tmp_path), []
    Tally(task.tally).allow(0, threads)
    make_shard(task, tell=told.append)
    assert told[0] == (
        "run/a.avi", "not_finite", "run/a.avi: the flow of the clip at frame 16 is not finite", 2
    )  # fmt: skip
    with h5py.File(tmp_path / task.plan.file) as shard:
        assert shard["clips/start"][:].tolist() == [0, 32, 0, 16, 0]
        assert shard["clips/video"][:].tolist() == [0, 0, 1, 1, 2]
        assert shard["videos/frames"][:].tolist() == [50, 33, 16]


def test_an_unforeseen_error_in_a_clip_names_video_and_clip(videos, tmp_path, monkeypatch):
    measure = worker.measure

    def spoilt(start, *rest):
        if start == 16:
            raise IndexError("something odd")
        return measure(start, *rest)

    monkeypatch.setattr(worker, "measure", spoilt)
    extract(videos, tmp_path / "s")
    found = failures(tmp_path / "s")
    message = "run/b.avi, clip at frame 16: IndexError: something odd"
    assert (found["run/b.avi"]["reason"], found["run/b.avi"]["message"]) == ("error", message)
    assert find_problems(tmp_path / "s")[1] == []


def test_a_shard_that_nobody_wants_is_not_sealed(videos, tmp_path):
    answers = iter([True, True, False])
    task = task_of(videos, tmp_path)
    with pytest.raises(Interrupted):
        make_shard(task, tell=print, go_on=lambda: next(answers))
    assert not list(tmp_path.glob("*.h5*"))


def test_how_the_root_was_spelt_changes_no_byte(videos, tmp_path, monkeypatch):
    (videos / "bad.avi").touch()
    monkeypatch.chdir(videos.parent)
    for name, root in (("one", videos), ("two", "./videos"), ("three", "videos/../videos/")):
        extract(type(videos)(root), tmp_path / name, name="v")
    assert digests(tmp_path / "one") == digests(tmp_path / "two") == digests(tmp_path / "three")
    assert failures(tmp_path / "one")["bad.avi"]["message"] == "bad.avi cannot be opened as a video"


def test_a_full_disk_is_one_sentence_and_the_rerun_goes_on(videos, tmp_path):
    """A limit on the size of files stands in for the disk's end."""
    arguments = ("extract", "--root", videos, "--out", tmp_path / "s", "--clips-per-shard", 3)
    arguments = (*arguments, "--flow", "dis", "--crops", "center", "--frames", "raw")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))

    for workers in (0, 2):
        done = subprocess.run(
            command(*arguments, "--workers", workers),
            capture_output=True,
            text=True,
            preexec_fn=limit,
        )
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        line = done.stderr.strip().splitlines()[-1]
        assert line.startswith(f"Error: cannot write {tmp_path / 's'}/videos-0000")
        assert "File too large" in line
        assert "takes about " in line
        assert line.endswith("make room, then run the same command again")
        assert not list((tmp_path / "s").glob("*.part"))
    subprocess.run(command(*arguments), capture_output=True, check=True)
    assert find_problems(tmp_path / "s") == (2, [])


def test_storage_errors_survive_the_way_from_a_worker():
    import pickle

    error = pickle.loads(pickle.dumps(StorageError("no room")))
    assert (type(error), str(error)) == (StorageError, "no room")


def test_flow_that_makes_no_sense_is_refused():
    for text in ({"epsilon": 1e-25}, {"alpha": 1e30}):
        with pytest.raises(Exception, match="between 1e-9 and 1e9"):
            flow_settings("brox", text)


def test_after_a_clip_that_failed_the_next_is_measured_whole(videos, tmp_path, monkeypatch):
    task = task_of(videos, tmp_path, clip_stride=4)
    make_shard(task, tell=print)
    with h5py.File(tmp_path / task.plan.file) as shard:
        expected = dict(zip(shard["clips/start"][:9].tolist(), shard["labels"][:9], strict=True))
    measure, calls = worker.flow_of_frames, []

    def spoilt(frames, settings):
        calls.append(len(frames))
        if len(calls) == 3:
            raise IndexError("odd")
        return measure(frames, settings)

    monkeypatch.setattr(worker, "flow_of_frames", spoilt)
    (tmp_path / task.plan.file).with_suffix(".json").unlink()  # a sealed one would lose nothing
    make_shard(task, tell=print)
    assert calls[:5] == [16, 5, 5, 16, 5]
    with h5py.File(tmp_path / task.plan.file) as shard:
        starts = shard["clips/start"][:8].tolist()
        assert starts == [0, 4, 12, 16, 20, 24, 28, 32]
        for start, labels in zip(starts, shard["labels"][:8], strict=True):
            np.testing.assert_array_equal(labels, expected[start])


def test_a_failure_is_told_while_clips_before_it_are_computed(videos, tmp_path, monkeypatch):
    (videos / "a").mkdir()
    shutil.move(videos / "walk" / "c.avi", videos / "a" / "c.avi")
    for number in range(100):
        (videos / "b").mkdir(exist_ok=True)
        (videos / "b" / f"{number}.avi").touch()
    task = task_of(videos, tmp_path)
    Tally(task.tally).allow(0, 3)
    on = []
    tally = Tally(task.tally)
    make_shard(task, tell=lambda failure: on.append(tally.video(0)[0]))
    assert on[0] <= 20


def test_what_a_thread_cannot_do_is_not_the_videos_fault(videos, tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    task, told = task_of(videos, tmp_path), []
    monkeypatch.setattr(worker.ThreadPoolExecutor, "submit", refuse)
    Tally(task.tally).allow(0, 2)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        make_shard(task, tell=told.append)
    assert told == []


def test_flow_beyond_float16_is_stored_as_its_largest(videos, tmp_path, monkeypatch):
    measure = worker.flow_of_frames
    monkeypatch.setattr(worker, "flow_of_frames", lambda *a: measure(*a) + np.float32(1e5))
    extract(videos, tmp_path / "s", store_flow="float16")
    assert find_problems(tmp_path / "s")[1] == []


def test_a_time_limit_needs_a_process(videos, tmp_path):
    with pytest.raises(LabelgenError, match="use --workers 1 or more"):
        extract(videos, tmp_path / "s", workers=0, timeout=5)
