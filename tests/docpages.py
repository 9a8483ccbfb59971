"""Code blocks of README and of docs, and what the marker above each says of it.

A marker is a comment, which readers do not see, on the line above the block:

    <!-- doc: run -->                    runs as it stands, after those above it, and succeeds
    <!-- doc: run on -->                 Python that goes on where the block before it ended
    <!-- doc: output -->                 what the block before it prints; ... is left out
    <!-- doc: output: numbers vary -->   lines of what it prints, whatever numbers are in them
    <!-- doc: tested: FILE -->           run by the tests in FILE
    <!-- doc: not run: WHY -->           such as: needs UCF101
    <!-- doc: text -->                   no code
    <!-- doc: edit: FILE -->             a change of a source file, as a diff
    <!-- doc: file: FILE -->             a whole new source file
"""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
VERBS = {
    "run": False,
    "run on": False,
    "output": False,
    "output: numbers vary": False,
    "tested": True,
    "not run": True,
    "text": False,
    "edit": True,
    "file": True,
}
"""Verb -> whether something is told after it."""

_MARKER = re.compile(r"<!-- doc: (.+?) -->")


class Block(NamedTuple):
    """A code block: where it stands, its language, its text, what its marker says."""

    page: Path
    line: int
    language: str
    text: str
    verb: str
    told: str

    @property
    def place(self):
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def blocks_of(page):
    """All fenced blocks of a page, in order; the verb is empty where there is no marker."""
    lines = page.read_text(encoding="utf-8").splitlines()
    fences = [k for k, line in enumerate(lines) if line.startswith("```")]
    assert len(fences) % 2 == 0, f"{page}: a block does not end"
    for begin, end in zip(fences[::2], fences[1::2], strict=True):
        marker = _MARKER.fullmatch(lines[begin - 1])
        said = marker[1] if marker else ""
        verb, _, told = said.partition(": ")
        if said in VERBS:
            verb, told = said, ""
        text = "".join(f"{line}\n" for line in lines[begin + 1 : end])
        yield Block(page, begin + 1, lines[begin].strip("`"), text, verb, told)


def outside_of_blocks(page):
    """The lines of a page that stand in no block, with their numbers."""
    inside = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            inside = not inside
        elif not inside:
            yield number, line


def commands_of(block):
    """The commands of a block, each as words, without comments and what is printed."""
    lines = re.sub(r"\\\n\s*", " ", block.text).splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    found = [shlex.split(line, comments=True) for line in lines]
    return [words for words in found if words]


def edited(source, diff):
    """A text after a change that a diff tells; what it changes must stand there just once."""
    lines = [(line[:1] or " ", line[1:]) for line in diff.splitlines()]
    assert all(mark in " +-" for mark, _ in lines)
    before, after = (
        "".join(f"{line}\n" for mark, line in lines if mark in marks) for marks in (" -", " +")
    )
    assert source.count(before) == 1, f"not once in the source:\n{before}"
    return source.replace(before, after)


def check_output(block, printed):
    """Hold what was printed against an output block, line by line, in order."""
    vary = block.verb.endswith("vary")
    form = _plain if vary else str.rstrip
    said, found = ([form(line) for line in text.splitlines()] for text in (block.text, printed))
    if not vary and "..." not in said:
        assert found == said, f"{block.place}\n{printed}"
    left = iter(found)
    for line in said:
        assert line == "..." or line in left, f"{block.place}: {line!r} is not in\n{printed}"


def _plain(line):
    """A line without its numbers and without the room that they take."""
    return " ".join(re.sub(r"[-+]?\d[\d.,]*", "0", line).split())
