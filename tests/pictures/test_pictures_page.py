"""docs/pictures.md: its commands run, and its example gives what it says it does."""

import os
import re
import shlex
import subprocess
import sys

import cv2
import pytest
from conftest import REPOSITORY, moving_square, write_video
from extraction import extract, run_command

from train import cli

PAGE = (REPOSITORY / "docs" / "pictures.md").read_text(encoding="utf-8")


def blocks(kind):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == kind]


COMMANDS = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder as after `make labels`, of made-up videos."""
    folder = tmp_path_factory.mktemp("docs")
    film = write_video(folder / "data" / "demo" / "bigbuckbunny.avi", moving_square(64))
    film.rename(film.with_suffix(".mp4"))
    extract(folder / "data" / "demo", folder / "shards" / "demo", crops="all", frames="jpeg:95")
    return folder


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] == "labelgen"])
def test_commands_of_labelgen(checkout, words):
    done = run_command(*words[1:], cwd=checkout, check=True)
    output = checkout / words[-1]
    assert done.stdout == ""
    if output.suffix == ".png":
        assert cv2.imread(str(output)).shape[1] > 1000
    else:
        assert output.read_text().startswith("<!DOCTYPE html>")


def test_commands_of_train():
    found = [words for words in COMMANDS if words[0] == "train"]
    assert found
    for _, command, *arguments in found:
        parsed = cli.cli.commands[command].make_context(command, arguments)
        assert len(parsed.params["runs"]) == 2


def test_the_example_runs(checkout):
    pytest.importorskip("pandas", reason="the example of docs/pictures.md uses pandas")
    code = "\n".join(blocks("python"))
    assert 10 <= len(blocks("python")[0].strip().splitlines()) <= 12
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    said = "\n".join(blocks("")).splitlines()
    # Other videos: the same lines with other numbers.
    assert told[0].split() == ["size", "mean", "max"] == said[0].split()
    assert told[-2].endswith(", 27)")
    assert told[-1] == said[-1] == "2"
    assert "(16, 128, 171, 3) (4, 128, 171)" in told
    assert cv2.imread(str(checkout / "places.png")) is not None
