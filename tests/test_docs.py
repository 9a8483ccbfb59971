"""README and docs: every block of code is marked, every command exists, worked examples work.

``make docs-check`` runs what is marked so, in a fresh clone on the demo set; `docpages` has the
markers.
"""

import ast
import os
import re
import shutil
import subprocess
import sys

import click
import clones
import docpages
import h5py
import numpy as np
import pytest
from conftest import REPOSITORY, moving_square, write_video

import labelgen.cli
import train.cli

BLOCKS = [block for page in docpages.PAGES for block in docpages.blocks_of(page)]
PROGRAMS = {"labelgen": labelgen.cli.main, "train": train.cli.cli}
EXTENDING = REPOSITORY / "docs" / "extending.md"
SHELL = ("sh", "console")
OUTPUT = ("output", "output: numbers vary")


def name_of(value):
    return value.place if isinstance(value, docpages.Block) else value.name


@pytest.mark.parametrize("block", BLOCKS, ids=name_of)
def test_a_block_says_whether_it_runs(block):
    assert block.verb in docpages.VERBS, (
        f"{block.place}: a block needs a marker on the line above it; see tests/docpages.py"
    )
    assert bool(block.told) == docpages.VERBS[block.verb]
    if block.verb == "tested":
        assert (REPOSITORY / block.told).is_file()
    if block.verb.startswith("run"):
        assert block.language in ("sh", "python")
    if block.verb == "run on":
        assert block.language == "python"


@pytest.mark.parametrize("page", docpages.PAGES, ids=name_of)
def test_output_stands_below_what_prints_it(page):
    before = None
    for block in docpages.blocks_of(page):
        if block.verb in OUTPUT:
            assert before in ("run", "run on"), block.place
        before = block.verb


@pytest.mark.parametrize("page", docpages.PAGES, ids=name_of)
def test_commands_stand_in_blocks(page):
    for number, line in docpages.outside_of_blocks(page):
        assert not re.match(r" {4}(labelgen|train|python|make|torchrun) ", line), (
            f"{page.name}:{number}: a command outside of a block cannot be checked"
        )


def parse(words):
    """Parse a command line of ours as the program does, and run nothing."""
    program, name, *arguments = words
    command = PROGRAMS[program].commands.get(name)
    assert command is not None, f"{program} has no command {name}"
    command.make_context(name, arguments)


def ours(words):
    """The part of a command line that is a call of labelgen or train, if there is one."""
    for at, word in enumerate(words):
        if word in PROGRAMS and (at == 0 or words[at - 1] == "--no-python" or "=" in words[at - 1]):
            return words[at:]
    return None


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in SHELL], ids=name_of)
def test_commands_parse(block, monkeypatch):
    # Files that are named need not be here.
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for words in docpages.commands_of(block):
        if call := ours(words):
            try:
                parse(call)
            except click.UsageError as error:
                pytest.fail(f"{block.place}: {' '.join(call)}\n{error.format_message()}")
        elif words[0] == "make":
            for target in (word for word in words[1:] if "=" not in word):
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{block.place}: {target}"
        elif words[0] == "python" and words[1].endswith(".py"):
            assert (REPOSITORY / words[1]).is_file(), f"{block.place}: {words[1]}"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=name_of)
def test_python_parses(block):
    ast.parse(block.text)


@pytest.mark.parametrize("page", docpages.PAGES, ids=name_of)
def test_commands_and_options_that_text_names_exist(page):
    for number, line in docpages.outside_of_blocks(page):
        for span in re.findall(r"`((?:labelgen|train) [a-z][^`]*)`", line):
            program, name, *rest = re.split(r"[\s=]+", span)
            command = PROGRAMS[program].commands.get(name)
            assert command is not None, f"{page.name}:{number}: {program} has no command {name}"
            known = {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}
            for word in rest:
                if word.startswith("-") and word not in ("--help", "-h"):
                    assert word in known, f"{page.name}:{number}: {span} has no option {word}"


def test_a_command_that_is_not_there_is_found():
    for line in ("labelgen extrakt", "labelgen extract --rot x", "train pretrain --labels"):
        with pytest.raises((AssertionError, click.UsageError)):
            parse(line.split())
    parse(["labelgen", "extract", "--root", "x"])


def test_an_output_that_differs_is_found(tmp_path):
    def block(text, verb="output"):
        return docpages.Block(REPOSITORY / "README.md", 1, "", text, verb, "")

    docpages.check_output(block("a 1\nb 2\n"), "a 1\nb 2\n")
    docpages.check_output(block("a 1\n...\nc\n"), "a 1\nb\nc\n")
    docpages.check_output(block("a 1,5\n", "output: numbers vary"), "x\na    22\n")
    for text, verb, printed in (
        ("a 1\n", "output", "a 2\n"),
        ("a 1\n", "output", "a 1\nb\n"),
        ("b\n...\na\n", "output", "a\nb\n"),
        ("a 1 s\n", "output: numbers vary", "a 1 m\n"),
    ):
        with pytest.raises(AssertionError):
            docpages.check_output(block(text, verb), printed)


def run_page(page, folder, environment, adapt=lambda line: line):
    """Run the blocks of a page that are to run, one after the other, and check their outputs."""
    printed, so_far = "", ""
    for block in docpages.blocks_of(page):
        if block.verb in OUTPUT:
            docpages.check_output(block, printed)
        if block.verb not in ("run", "run on"):
            continue
        if block.language == "python":
            # What was printed before is printed again, and left out.
            before = so_far if block.verb == "run on" else ""
            so_far = f"{before}\nprint('# from here')\n{block.text}"
            command = [sys.executable, "-c", so_far]
        else:
            lines = [adapt(line) for line in block.text.splitlines()]
            command = ["bash", "-euo", "pipefail", "-c", "\n".join(lines)]
        done = subprocess.run(
            command, cwd=folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, f"{block.place}\n{done.stdout}"
        printed = done.stdout.rpartition("# from here\n")[2]


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the sources with the changes of docs/extending.md, and variables to run it."""
    folder = tmp_path_factory.mktemp("extended")
    for name in ("labelgen", "train"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, folder / name, symlinks=True, ignore=ignored)
    shutil.copy(REPOSITORY / "data_manifest.csv", folder)
    for block in docpages.blocks_of(EXTENDING):
        file = folder / block.told
        if block.verb == "edit":
            file.write_text(docpages.edited(file.read_text(), block.text))
        if block.verb == "file":
            assert not file.exists()
            file.write_text(block.text)
    for name in ("run/a.avi", "walk/c.avi"):
        write_video(folder / "videos" / name, moving_square(33))
    for name in ("labelgen", "train"):
        script = folder / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {name}.cli "$@"\n')
        script.chmod(0o755)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return folder, {**os.environ, "PYTHONPATH": str(folder), "PATH": path}


def test_worked_examples_of_extensions_work(extended):
    run_page(EXTENDING, *extended)


@pytest.mark.docs
def test_extensions_label_and_train(extended):
    """A new method, partition and backbone, from videos to a network that was trained a little."""
    folder, environment = extended
    tiny = "--recipe small --width 0.1 --batch 2 --epochs 1 --val 0.5 --device cpu"
    for command in (
        "labelgen extract --root videos --flow deepflow --out shards --workers 0",
        f"train pretrain --labels shards --backbone separable --out run {tiny}",
    ):
        done = subprocess.run(command.split(), cwd=folder, env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
    (shard,) = (folder / "shards").glob("*.h5")
    with h5py.File(shard) as file:
        assert file["labels"].shape == (4, 1020, 35)
        names = file["labels"].attrs["names"].tolist()
        strips = file["labels"][..., names.index("motion/columns/u_location")]
    assert set(np.unique(strips)) <= {1, 2, 3, 4}
    assert (folder / "run" / "best.pt").exists()


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return clones.fresh_clone(tmp_path_factory.mktemp("docs") / "clone")


def run_in(clone, page):
    def adapt(line):
        return clones.make(line) if line.startswith("make ") else line

    run_page(page, clone, {**clones.environment_of(clone), "MPLBACKEND": "Agg"}, adapt)


@pytest.mark.docs
def test_the_tutorial_is_right(clone):
    run_in(clone, REPOSITORY / "docs" / "tutorial.md")


@pytest.fixture(scope="module")
def demo(clone):
    """A clone with what pages begin from: shards and two runs of the demo."""
    for words in ("make demo", "make pretrain TRAIN_FLAGS='--epochs 2'"):
        code, seen = clones.on_a_terminal(clones.make(words), clone)
        assert code == 0, seen
    return clone


ELSEWHERE = ("tutorial.md", "extending.md")
RUNNING = dict.fromkeys(
    block.page for block in BLOCKS if block.verb == "run" and block.page.name not in ELSEWHERE
)


@pytest.mark.docs
@pytest.mark.parametrize("page", RUNNING, ids=name_of)
def test_what_a_page_runs_is_right(demo, page):
    run_in(demo, page)
