"""Who may import whom: the rules of docs/architecture.md, read off the source."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

import labelgen

_GROUND = (
    *(
        "charts",
        "errors",
        "files",
        "geometry",
        "kernels",
        "options",
        "page",
        "processes",
        "progress",
    ),
    "signals",
)
GROUND = {f"labelgen.{name}" for name in _GROUND}

# Room -> the rooms it may use beside itself and the ground.
MAY_USE = {
    "labelgen.video": set(),
    "labelgen.flow": {"labelgen.video"},
    "labelgen.labels": set(),
    "labelgen.shards": {"labelgen.video", "labelgen.flow", "labelgen.labels"},
    "labelgen.run": {"labelgen.video", "labelgen.flow", "labelgen.labels", "labelgen.shards"},
    "labelgen.pictures": {"labelgen.video", "labelgen.flow", "labelgen.labels", "labelgen.shards"},
    "train.data": {"labelgen.labels", "labelgen.shards", "train.recipe", "train.metrics"},
    "train.models": {"train.recipe", "train.checkpoint"},
    "train.tasks": {
        *("labelgen.labels", "train.data", "train.models"),
        *("train.recipe", "train.metrics", "train.values"),
    },
    "train.evaluate": {
        *("labelgen.labels", "labelgen.shards", "train.data", "train.models"),
        *("train.metrics", "train.device", "train.recipe"),
    },
}
# What stands beside the rooms. Whom a room uses is ground itself, and uses no room of train.
BESIDE = {"labelgen", "labelgen.cli", "train"} | GROUND
TRAIN_GROUND = {f"train.{name}" for name in ("recipe", "metrics", "checkpoint", "device", "values")}
# What stands outside the rooms of train may use all of them, and of labelgen just these.
TRAIN_MAY_USE = {"labelgen.labels", "labelgen.shards"}
HEAVY = {"cv2", "h5py", "numba", "torch"}
DYNAMIC = {"importlib", "importlib.import_module"}


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
            for alias in node.names:
                assert alias.name != "*", "imports name what they import"
                # A public name is an import of the module that it comes from.
                public = node.module == "labelgen" and alias.name in labelgen.__all__
                yield labelgen._HOMES[alias.name] if public else f"{node.module}.{alias.name}"


def room_of(module):
    parts = module.split(".")
    if parts[0] not in ("labelgen", "train") or len(parts) < 2:
        return None
    return ".".join(parts[:2])


def known_rooms():
    return {name for name in MODULES if (REPOSITORY / name.replace(".", "/")).is_dir()}


def allowed(module, target):
    """Whether a module may import another one of ours."""
    own, room = room_of(module), room_of(target)
    if room == own or target in GROUND | {"labelgen"}:
        return True
    if module in GROUND | {"labelgen"}:
        return False
    if own in MAY_USE:
        # Of train every room may have the base of its errors.
        errors = target == "train" and own.startswith("train")
        return errors or room in MAY_USE[own] or target in MAY_USE[own]
    if module in TRAIN_GROUND:
        return room in TRAIN_MAY_USE or target in TRAIN_GROUND | {"train"}
    if module.startswith("train"):
        return target.startswith("train") or room in TRAIN_MAY_USE
    return module == "labelgen.cli" and target.startswith("labelgen.")


def trespasses(module, source):
    """Return the imports that the rules do not allow in a module."""
    found = DYNAMIC & set(imported(source))
    if module.startswith("labelgen"):
        found |= {target for target in imported(source) if target.split(".")[0] == "torch"}
    ours = {target for target in imported(source) if target in MODULES}
    return found | {target for target in ours if not allowed(module, target)}


@pytest.mark.parametrize("module", MODULES)
def test_a_room_uses_only_what_is_above_it(module):
    # The package itself names the homes of the public names, and loads them when they are used.
    assert module == "labelgen" or trespasses(module, MODULES[module]) == set()


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
        ("labelgen.video.clips", "import torch.nn"),
        ("labelgen.video.clips", "from labelgen import optical_flow"),
        ("labelgen.video.clips", "from importlib import import_module"),
        ("labelgen.video.clips", "from train import TrainError"),
        ("labelgen.cli", "from train.loop import pretrain"),
        ("train.recipe", "from train.models.c3d import C3D"),
        ("train.data.loader", "from train.tasks.task import Task"),
        ("train.models.heads", "from train.tasks.pretrain import Pretraining"),
        ("train.models.weights", "from train.data.shards import open_shards"),
        ("train.tasks.finetune", "from train.evaluate.features import extract"),
        ("train.evaluate.features", "from train.tasks.finetune import Finetuning"),
        ("train.checkpoint", "from train.models.weights import Weights"),
    ],
)
def test_a_forbidden_import_is_found(module, line):
    source = MODULES[module]
    indented = f"\ndef _later():\n{line if line.startswith(' ') else '    ' + line}\n"
    assert trespasses(module, source + indented)


def test_nothing_of_labelgen_stands_beside_the_rooms_without_a_rule():
    beside = {name for name in MODULES if name.count(".") < 2 and name not in known_rooms()}
    assert {name for name in beside if name.startswith("labelgen")} <= BESIDE


def test_every_room_has_its_rule_and_says_what_goes_in_and_out():
    rooms = {name for name in known_rooms() if "." in name}
    assert rooms == set(MAY_USE)
    for room in rooms:
        assert len(ast.parse(MODULES[room]).body) == 1, f"{room}/__init__.py is one sentence"
        assert ast.get_docstring(ast.parse(MODULES[room]))


def test_architecture_page_says_who_may_use_whom():
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    said = {row[0].strip("`"): row[2] for row in rows if len(row) == 3 and row[0].startswith("`")}
    for room, rule in MAY_USE.items():
        names = {name.split(".")[-1] for name in rule}
        cell = re.sub(r"train/([a-z]+)\.py", r"\1", said[room.split(".")[1]])
        told = set(re.findall(r"[a-z]+", cell))
        assert told - {"labelgen", "s", "nothing"} == names, room


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
    assert folders == {"tests", "train", "first_hour"} | {room.split(".")[1] for room in MAY_USE}
