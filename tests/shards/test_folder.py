import csv
import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from extraction import digests, extract, failures

from labelgen.errors import LabelgenError
from labelgen.files import partial_name
from labelgen.flow.methods import flow_settings
from labelgen.shards import folder as folder_module
from labelgen.shards.folder import find_shard_folder
from labelgen.shards.status import read_status
from labelgen.shards.verify import find_problems


def test_shard_folder_is_found(videos, tmp_path):
    extract(videos, tmp_path / "all" / "one", labels=False)
    assert find_shard_folder(tmp_path / "all") == tmp_path / "all" / "one"
    assert find_shard_folder(tmp_path / "all" / "one") == tmp_path / "all" / "one"
    shutil.copytree(tmp_path / "all" / "one", tmp_path / "all" / "two")
    with pytest.raises(LabelgenError, match="several shard folders; name one of .*one, .*two"):
        find_shard_folder(tmp_path / "all")
    with pytest.raises(LabelgenError, match="holds no shards"):
        find_shard_folder(Path(tmp_path / "nowhere"))


def test_other_peoples_partial_files_stay(videos, tmp_path):
    out = tmp_path / "s"
    out.mkdir()
    (out / "film.mp4.part").write_bytes(b"a download")
    (out / "x.part").mkdir()
    (out / "videos-00000-of-00002.h5.part").write_bytes(b"a download, too")
    partial_name(out / "videos-00001-of-00002.h5").write_bytes(b"half")
    partial_name(out / "run.json").write_bytes(b"half")
    extract(videos, out)
    assert sorted(file.name for file in out.glob("*.part")) == [
        "film.mp4.part",
        "videos-00000-of-00002.h5.part",
        "x.part",
    ]
    assert find_problems(out)[1] == []


def test_a_refused_run_touches_nothing(videos, tmp_path):
    extract(videos, tmp_path / "s")
    partial_name(tmp_path / "s" / "videos-00001-of-00002.h5").write_bytes(b"half")
    before = sorted(file.name for file in (tmp_path / "s").iterdir())
    with pytest.raises(LabelgenError, match="was begun with other settings"):
        extract(videos, tmp_path / "s", crops="center")
    assert sorted(file.name for file in (tmp_path / "s").iterdir()) == before


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(videos, tmp_path, monkeypatch, capsys, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    out = tmp_path / "s"
    out.mkdir()
    # Two files that others may be writing: one of another machine, one of a living process here.
    other = out / "videos-00000-of-00002.h5.elsewhere~77~0011aaff.part"
    living, dead = (partial_name(out / "videos-00001-of-00002.h5") for _ in range(2))
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    dead = dead.with_name(dead.name.replace(f"~{os.getpid()}~", f"~{finished.pid}~"))
    for file in (other, living, dead):
        file.write_bytes(b"half")
    extract(videos, out)
    said = capsys.readouterr().err
    assert said.count("without locks") == 1
    assert "with --add or --retry-failures they would undo each other's work" in said
    assert other.exists()
    assert living.exists()
    assert not dead.exists()


def test_no_cell_is_a_formula(videos, tmp_path):
    for name in ("=1+1.avi", "-x.avi", "@y.avi", "+z.avi"):
        (videos / name).touch()
    extract(videos, tmp_path / "s")
    with (tmp_path / "s" / "failures.csv").open(newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    assert "'=1+1.avi" in cells
    seals = [json.loads(file.read_text()) for file in (tmp_path / "s").glob("*-of-*.json")]
    assert "=1+1.avi" in {failure["path"] for seal in seals for failure in seal["failures"]}


def test_a_complete_folder_needs_no_room(videos, tmp_path, monkeypatch, capsys):
    extract(videos, tmp_path / "s")
    before = (tmp_path / "s" / "run.json").stat().st_mtime_ns, digests(tmp_path / "s")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folder_module, "_write_failures", full)
    summary = extract(videos, tmp_path / "s")
    assert (summary.skipped, len(summary.failures)) == (2, 1)
    assert "failures.csv could not be written: No space left" in capsys.readouterr().err
    assert ((tmp_path / "s" / "run.json").stat().st_mtime_ns, digests(tmp_path / "s")) == before


@pytest.mark.parametrize("change", [{"plan": {"videos": "nine"}}, {"versions": None}, {"plan": 3}])
def test_a_run_record_that_lacks_something_is_damaged(videos, tmp_path, change):
    extract(videos, tmp_path / "s")
    file = tmp_path / "s" / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    for work in (find_problems, lambda folder: extract(videos, folder)):
        with pytest.raises(LabelgenError, match="run.json is damaged"):
            work(tmp_path / "s")


def test_shards_whose_run_record_is_gone_are_not_written_over(videos, tmp_path):
    extract(videos, tmp_path / "s")
    (tmp_path / "s" / "run.json").unlink()
    before = digests(tmp_path / "s")
    with pytest.raises(
        LabelgenError, match=r"2 sealed shards that no run\.json knows, and .* settings"
    ):
        extract(videos, tmp_path / "s", crops="center")
    assert digests(tmp_path / "s") == before
    assert extract(videos, tmp_path / "s").shards == 0  # the same settings write it again
    assert find_problems(tmp_path / "s")[1] == []


def test_a_line_break_in_a_name_is_a_letter(videos, tmp_path):
    for number, letter in enumerate(("\r", "\n", "\r\n", '"', ",")):
        shutil.copy(videos / "walk" / "c.avi", videos / f"a{letter}{number}.avi")
        (videos / f"bad{letter}{number}.avi").touch()
    first = extract(videos, tmp_path / "s")
    assert (first.clips, len(failures(tmp_path / "s"))) == (6 + 5, 1 + 5)
    assert extract(videos, tmp_path / "s").shards == 0
    assert "bad\r0.avi" in failures(tmp_path / "s")
    assert find_problems(tmp_path / "s")[1] == []


def test_a_grown_folder_whose_run_record_is_gone_is_left_alone(videos, tmp_path):
    out = tmp_path / "s"
    extract(videos, out)
    shutil.copy(videos / "walk" / "c.avi", videos / "d.avi")
    extract(videos, out, add=True)
    (out / "run.json").unlink()
    before = digests(out)
    for add in (False, True):
        with pytest.raises(
            LabelgenError, match=r"holds 3 sealed shards that no run\.json knows, and "
        ):
            extract(videos, out, add=add)
    with pytest.raises(LabelgenError, match=r"holds 3 shards and no run\.json; put a copy"):
        find_problems(out)
    assert digests(out) == before


def test_another_method_is_told_without_its_parameters(videos, tmp_path):
    extract(videos, tmp_path / "s")
    with pytest.raises(LabelgenError) as raised:
        extract(videos, tmp_path / "s", flow=flow_settings("dis", {}))
    assert str(raised.value).endswith("Differing (there, now): flow.method (farneback, dis)")


def test_a_folder_that_is_a_link_to_nothing_is_named(videos, tmp_path):
    (tmp_path / "s").symlink_to(tmp_path / "gone")
    with pytest.raises(LabelgenError, match="s is a link to nothing; make the folder"):
        extract(videos, tmp_path / "s")


def test_a_run_record_that_is_a_folder_is_damaged_for_all(videos, tmp_path):
    (tmp_path / "s" / "run.json").mkdir(parents=True)
    for work in (find_problems, lambda folder: extract(videos, folder)):
        with pytest.raises(LabelgenError, match=r"run\.json is damaged or is no run record"):
            work(tmp_path / "s")


def test_a_link_to_nothing_above_a_folder_is_named(videos, tmp_path):
    (tmp_path / "away").symlink_to(tmp_path / "gone")
    with pytest.raises(LabelgenError, match="away is a link to nothing; make the folder"):
        extract(videos, tmp_path / "away" / "s")


def test_an_old_copy_of_the_run_record_lets_no_addition_be_written_over(videos, tmp_path):
    out = tmp_path / "s"
    extract(videos, out)
    shutil.copy(out / "run.json", tmp_path)
    shutil.copy(videos / "walk" / "c.avi", videos / "d.avi")
    extract(videos, out, add=True)
    shutil.copy(tmp_path / "run.json", out)
    shutil.copy(videos / "walk" / "c.avi", videos / "e.avi")
    before = digests(out)
    with pytest.raises(
        LabelgenError, match=r"1 sealed shard that no run\.json knows, and videos\+1"
    ):
        extract(videos, out, add=True)
    assert digests(out) == before
    (videos / "e.avi").unlink()
    assert extract(videos, out, add=True).shards == 0  # what was added before is known again


def test_other_settings_are_told_without_what_follows_from_them(videos, tmp_path):
    extract(videos, tmp_path / "s")
    with pytest.raises(LabelgenError) as raised:
        extract(videos, tmp_path / "s", clips_per_shard=2)
    assert str(raised.value).endswith("Differing (there, now): clips_per_shard (3, 2)")


def test_failures_are_in_the_order_of_what_was_added(videos, tmp_path):
    (videos / "y.avi").touch()
    extract(videos, tmp_path / "s")
    (videos / "x.avi").touch()
    extract(videos, tmp_path / "s", add=True)
    assert [name for name in failures(tmp_path / "s") if len(name) == 5] == ["y.avi", "x.avi"]


def test_settings_that_are_not_those_of_their_hash_are_damage(videos, tmp_path):
    extract(videos, tmp_path / "s")
    file = tmp_path / "s" / "run.json"
    record = json.loads(file.read_text())
    lacking = {key: value for key, value in record["config"].items() if key != "clip_stride"}
    for config in (lacking, record["config"] | {"clip_stride": "16"}):
        file.write_text(json.dumps(record | {"config": config}))
        for look in (find_problems, read_status):
            with pytest.raises(LabelgenError, match=r"run\.json is damaged: its settings"):
                look(tmp_path / "s")
