import os
import subprocess
import sys

import pytest

from labelgen.files import parse_partial, partial_name, replacing, write_json


def write_half(file):
    with replacing(file) as partial:
        partial.write_text("half")
        raise ZeroDivisionError


def test_a_file_is_whole_or_as_it_was(tmp_path):
    file = tmp_path / "x.json"
    write_json(file, {"a": 1})
    with pytest.raises(ZeroDivisionError):
        write_half(file)
    assert file.read_text() == '{\n  "a": 1\n}\n'
    assert os.listdir(tmp_path) == ["x.json"]


def test_names_of_partial_files_differ_and_can_be_read(tmp_path):
    names = {partial_name(tmp_path / "a.h5").name for _ in range(100)}
    assert len(names) == 100
    for name in names:
        assert parse_partial(tmp_path / name) == ("a.h5", os.getpid())
    assert parse_partial(tmp_path / "a.h5") is None
    assert parse_partial(tmp_path / "a.h5.elsewhere~12~00112233.part") == ("a.h5", None)


def test_what_a_dead_process_left_of_a_file_is_removed(tmp_path):
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    file = tmp_path / "last.pt"
    living, dead, other = (partial_name(tmp_path / name) for name in ("last.pt", "last.pt", "b.pt"))
    dead, other = (
        path.with_name(path.name.replace(f"~{os.getpid()}~", f"~{finished.pid}~"))
        for path in (dead, other)
    )
    for path in (living, dead, other):
        path.touch()
    with replacing(file) as partial:
        partial.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [living.name, other.name, "last.pt"]
    )


def test_a_folder_that_cannot_be_read(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    drop = tmp_path / "drop"
    drop.mkdir()
    drop.chmod(0o300)
    with replacing(drop / "x", tidy=False) as partial:
        partial.write_text("x")
    drop.chmod(0o700)
    assert (drop / "x").read_text() == "x"
