"""Who may import whom: the rules of docs/architecture.md, read off the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

GROUND = {"labelgen.errors", "labelgen.geometry", "labelgen.files", "labelgen.progress"}

# Room -> the rooms it may use beside itself and the ground.
MAY_USE = {
    "labelgen.video": set(),
    "labelgen.flow": {"labelgen.video"},
    "labelgen.labels": {"labelgen.video"},
    "labelgen.shards": {"labelgen.video", "labelgen.flow", "labelgen.labels"},
    "labelgen.run": {"labelgen.video", "labelgen.flow", "labelgen.labels", "labelgen.shards"},
    "train.data": {"labelgen.labels", "labelgen.shards", "train.recipe"},
    "train.models": {"train.recipe"},
}
# What stands outside the rooms of train may use all of them, and of labelgen just these.
TRAIN_MAY_USE = {"labelgen.labels", "labelgen.shards"}
HEAVY = {"cv2", "h5py", "numba", "torch"}


def read_modules():
    for package in ("labelgen", "train"):
        for file in sorted((REPOSITORY / package).rglob("*.py")):
            parts = file.relative_to(REPOSITORY).with_suffix("").parts
            yield ".".join(parts).removesuffix(".__init__"), file.read_text(encoding="utf-8")


MODULES = dict(read_modules())


def imported(source):
    """Every module that a source names in an import, wherever the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module):
    parts = module.split(".")
    if parts[0] not in ("labelgen", "train") or len(parts) < 2:
        return None
    return ".".join(parts[:2])


def known_rooms():
    return {name for name in MODULES if (REPOSITORY / name.replace(".", "/")).is_dir()}


def trespasses(module, source):
    """Return the imports that the rules do not allow in a module."""
    own = room_of(module)
    found = set()
    for target in set(imported(source)) & MODULES.keys() - {"labelgen", "train"}:
        room = room_of(target)
        if room == own or target in GROUND:
            continue
        if module in GROUND:
            found.add(target)
        elif own in MAY_USE:
            if room not in MAY_USE[own] and target not in MAY_USE[own]:
                found.add(target)
        elif module.startswith("train") and not (room.startswith("train") or room in TRAIN_MAY_USE):
            found.add(target)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_room_uses_only_what_is_above_it(module):
    source = MODULES[module]
    assert trespasses(module, source) == set()
    assert not (module.startswith("labelgen") and "torch" in set(imported(source)))


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("labelgen.video.clips", "from labelgen.flow.compute import clip_flow"),
        ("labelgen.flow.tvl1", "from labelgen.labels import motion"),
        ("labelgen.labels.motion", "    import labelgen.shards.seal"),
        ("labelgen.shards.index", "from labelgen.run.pipeline import run"),
        ("labelgen.files", "from labelgen.video.clips import read_clips"),
        ("train.loop", "from labelgen.flow.methods import parse_flow"),
        ("train.models.c3d", "from train.data.shards import open_shards"),
    ],
)
def test_a_forbidden_import_is_found(module, line):
    source = MODULES[module]
    indented = f"\ndef _later():\n{line if line.startswith(' ') else '    ' + line}\n"
    assert trespasses(module, source + indented)


def test_every_room_has_its_rule_and_says_what_goes_in_and_out():
    rooms = {name for name in known_rooms() if "." in name}
    assert rooms == set(MAY_USE)
    for room in rooms:
        assert len(ast.parse(MODULES[room]).body) == 1, f"{room}/__init__.py is one sentence"
        assert ast.get_docstring(ast.parse(MODULES[room]))


def test_architecture_page_names_every_module_and_no_other():
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = {cell.strip(" `") for cell in cells if ".py" in cell}
    files = {
        name.replace(".", "/") + ".py"
        for name in MODULES
        if name not in known_rooms() and not name.endswith("__init__")
    }
    assert named == files


def loaded_by(statement):
    code = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import labelgen.files, labelgen.geometry",
        "import labelgen.shards.plan",
        "from labelgen.shards.settings import ExtractSettings",
        "import labelgen.cli",
        "from labelgen import LABELS, flip_labels",
    ],
)
def test_what_is_light_stays_light(statement):
    assert not loaded_by(statement) & HEAVY


def test_tests_stand_in_the_rooms_of_what_they_test():
    folders = {path.parent.name for path in Path(REPOSITORY, "tests").rglob("test_*.py")}
    assert folders == {"tests", "train"} | {room.split(".")[1] for room in MAY_USE}
