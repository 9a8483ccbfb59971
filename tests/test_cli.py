import shlex
import subprocess
import sys

import pytest
from click.testing import CliRunner
from conftest import moving_square, truncate, write_frames, write_video
from extraction import command, run_command

import labelgen
from labelgen.cli import main
from labelgen.progress import count_text

QUICK = ("--flow", "dis", "--crops", "center")


def invoke(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_whole_way(videos, tmp_path):
    manifest = tmp_path / "m.csv"
    found = invoke("manifest", "folder", "--root", videos, "-o", manifest)
    assert found.exit_code == 0, found.output
    assert "4 of 4 videos" in found.stderr
    arguments = ("--manifest", manifest, "--root", videos, "--out", tmp_path / "s", "--workers", 0)
    found = invoke("extract", *arguments, "--flow", "dis", "--store-flow", "--crops", "random:3")
    assert found.exit_code == 0, found.output
    assert "6 clips of 3 videos" in found.stderr
    assert "1 too_short" in found.stderr
    assert found.stdout == ""
    found = invoke("verify", tmp_path / "s")
    assert (found.exit_code, found.stdout) == (0, "1 shard checked, 0 problems\n")
    found = invoke("inspect", tmp_path / "s")
    assert found.exit_code == 0
    assert "6 clips" in found.stdout
    assert invoke("index", tmp_path / "s", "-o", tmp_path / "all.h5").exit_code == 0
    (tmp_path / "s" / "m-all-00000-of-00001.h5").unlink()
    found = invoke("verify", tmp_path / "s")
    assert found.exit_code == 1
    assert "absent" in found.stdout


@pytest.mark.parametrize("by_make", [False, True])
def test_the_next_command_can_be_pasted_and_make_goes_on_by_itself(tmp_path, monkeypatch, by_make):
    monkeypatch.delenv("MAKELEVEL", raising=False)
    if by_make:
        monkeypatch.setenv("MAKELEVEL", "1")
    root, output = tmp_path / "my videos", tmp_path / "m v.csv"
    root.mkdir()
    (root / "a.avi").touch()
    found = invoke("manifest", "folder", "--root", root, "-o", output)
    assert "folder all: 1 of 1 video\n" in found.stderr
    words = f"labelgen extract --manifest '{output}' --root '{root}' --out shards"
    assert (f"next: {words}\n" in found.stderr) != by_make
    assert ("next: " in found.stderr) != by_make


def test_the_next_command_after_a_manifest_of_frames(tmp_path, monkeypatch):
    monkeypatch.delenv("MAKELEVEL", raising=False)
    write_frames(tmp_path / "f" / "a", moving_square(2))
    found = invoke("manifest", "folder", "--frames-from", tmp_path / "f", "-o", tmp_path / "m.csv")
    words = f"--manifest {tmp_path / 'm.csv'} --frames-from {tmp_path / 'f'} --out shards"
    assert f"next: labelgen extract {words}\n" in found.stderr


def test_extract_alone_takes_the_current_folder(videos, monkeypatch):
    monkeypatch.chdir(videos)
    found = invoke("extract", "--workers", 32, "--flow", "dis", "--crops", "center")
    assert found.exit_code == 0, found.output
    assert (videos / "shards" / "videos-00000-of-00001.h5").is_file()
    assert invoke("extract", "--workers", 32, "--flow", "dis", "--crops", "center").exit_code == 0


def test_not_one_clip_is_an_error(tmp_path):
    (tmp_path / "bad.avi").touch()
    found = invoke("extract", "--root", tmp_path, "--out", tmp_path / "s", "--workers", 0)
    assert found.exit_code == 1
    assert "1 video gave no clip (1 unopenable)" in found.stderr


def test_not_one_clip_of_what_was_added_is_an_error(videos, tmp_path):
    arguments = ("extract", "--root", videos, "--out", tmp_path / "s", "--workers", 0, *QUICK)
    assert invoke(*arguments).exit_code == 0
    (videos / "run" / "new.avi").touch()
    assert invoke(*arguments, "--add").exit_code == 1
    assert invoke(*arguments).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("extract", "--root", "nowhere"), "nowhere is not a folder"),
        (("extract", "--crops", "every"), "unknown crops 'every'"),
        (("extract", "--crops", "random:2000"), "unknown crops"),
        (("extract", "--flow", "sift"), "unknown flow method 'sift'"),
        (("extract", "--frames", "png"), "unknown frame format 'png'"),
        (("extract", "--frames", "jpeg:101"), "unknown frame format"),
        (("extract", "--workers", "-1"), "--workers"),
        (("extract", "--profile", "authors", "--crops", "all"), "authors"),
        (("extract", "--no-labels", "--frames", "none"), "nothing to write"),
        (("extract", "--manifest", "none.csv"), "none.csv does not exist"),
        (("extract", "--crops", "random:3", "--seed", "-1"), "-1 is not in the range x>=0"),
        (("extract", "--flow", "tvl1:epsilon=-1"), "flow method tvl1: epsilon must be between"),
        (("extract", "--frames-from", "nowhere"), "nowhere is not a folder"),
        (("extract", "--frames-from", "."), "there is no folder of frames below"),
        (("extract", "--flow-bound", "9"), "flow method tvl1 has no parameter 'bound'"),
        (("manifest", "kinetics", "-o", "x.csv"), "unknown dataset 'kinetics'"),
        (("verify", "nowhere"), "holds no shards"),
        (("inspect", "."), "holds no shards"),
        (("index", ".", "-o", "all.h5"), "holds no shards"),
        (("extract", "--flow", "precomputed"), "needs the folder of the flow; add --flow-root"),
        (("extract", "--flow", "precomputed", "--flow-root", "no"), "--flow-root no is not a fold"),
        (("extract", "--flow-root", "."), "use --flow precomputed, or leave it away"),
        (("extract", "--flow", "precomputed", "--flow-bound", "-2"), "bound must be above 0, got"),
        (("export-flow", ".", "-o", "flow"), "holds no shards"),
        (("export-flow", ".", "-o", "flow", "--bound", "0"), "the bound must be above 0"),
        (("manifest", "folder", "--frames-from", ".", "-o", "x.csv"), "no folder of frames"),
    ],
)
def test_a_mistake_gives_one_sentence(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    found = invoke(*arguments)
    assert found.exit_code == 2
    assert message in found.stderr
    assert "Traceback" not in found.output
    assert len(found.stderr.strip().splitlines()) <= 4


def test_unwritable_folder(videos, tmp_path):
    (tmp_path / "file").touch()
    found = invoke("extract", "--root", videos, "--out", tmp_path / "file" / "s", "--workers", 0)
    assert found.exit_code == 2
    assert "cannot write to" in found.stderr


def test_help_needs_no_heavy_package():
    code = (
        "import sys\n"
        "from labelgen.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'cv2', 'numba', 'numpy', 'h5py', 'joblib', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "extract" in found.stdout


def test_labelgen_never_imports_torch():
    code = (
        "import sys, pkgutil, importlib, labelgen\n"
        "for module in pkgutil.walk_packages(labelgen.__path__, 'labelgen.'):\n"
        "    importlib.import_module(module.name)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_version():
    assert invoke("--version").stdout == f"labelgen, version {labelgen.__version__}\n"


def test_decoders_are_quiet(tmp_path):
    """What is wrong with a video stands in failures.csv, once."""
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "text.avi").write_text("no film")
    truncate(write_video(tmp_path / "v" / "cut.avi", moving_square(64)), 0.5)
    for arguments in (
        ("manifest", "folder", "--root", tmp_path / "v", "-o", tmp_path / "m.csv"),
        ("extract", "--root", tmp_path / "v", "--out", tmp_path / "s", *QUICK, "--workers", 0),
        ("extract", "--root", tmp_path / "v", "--out", tmp_path / "t", *QUICK, "--workers", 1),
    ):
        done = run_command(*arguments, check=True)
        # What is said is ours: no line of a decoder's.
        ours = ("video", "clip", "time by", "worker", "compiling", "next: ", "--retry-failures")
        said = [line for line in done.stderr.splitlines() if not any(w in line for w in ours)]
        assert said == []


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(videos, tmp_path, closed):
    arguments = ("extract", "--root", videos, "--out", tmp_path / "s", *QUICK, "--workers", 1)
    line = f"{shlex.join(command(*arguments))} {closed}"
    assert subprocess.run(["bash", "-c", line]).returncode == 0
    assert invoke("verify", tmp_path / "s").stdout == "1 shard checked, 0 problems\n"


@pytest.mark.parametrize(("count", "text"), [(0, "0 clips"), (1, "1 clip"), (2, "2 clips")])
def test_one_is_not_many(count, text):
    assert count_text(count, "clip") == text
