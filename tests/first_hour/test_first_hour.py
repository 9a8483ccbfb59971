"""The first hour: README from a fresh clone to a backbone in Python, as a person sees it."""

import re
import shlex
import sys

import cv2
import pytest
from clones import fresh_clone, make, on_a_terminal
from conftest import REPOSITORY, moving_square, write_video

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL)


COMMANDS = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
LOAD, READ = blocks("python")[:2]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return fresh_clone(tmp_path_factory.mktemp("hour") / "clone")


@pytest.fixture(scope="module")
def my_videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("my") / "videos"
    for number in range(6):
        name = f"class {number % 2}/{number}.avi"
        write_video(folder / name, moving_square(48, seed=number, step=1 + number))
    return folder


@pytest.fixture(scope="module")
def labelled(clone):
    code, seen = on_a_terminal(make("make labels"), clone)
    assert code == 0, seen
    return clone, seen


def test_make_labels_says_what_it_does_and_what_comes_next(labelled):
    _, seen = labelled
    assert re.search(r"4 videos, about \d+ clips, in \d shards in shards/demo; \d to make", seen)
    assert "what decoding and writing take" in seen
    assert "next: labelgen inspect shards/demo" in seen
    assert "0 problems" in seen
    assert "Traceback" not in seen


def test_labels_again_is_one_line(labelled):
    clone, _ = labelled
    code, seen = on_a_terminal(make("make labels"), clone)
    assert code == 0, seen
    assert len(re.findall(r"nothing to do: \d shards in shards/demo", seen)) == 1
    assert "to make" not in seen


def test_shards_are_read_as_readme_says(labelled):
    clone, _ = labelled
    code, seen = on_a_terminal(f"{sys.executable} -c {shlex.quote(READ)}", clone)
    assert code == 0, seen
    assert len(re.findall(r"^(motion|appearance)/\S+ +\d+$", seen, re.MULTILINE)) == 27


def test_the_demo_ends_in_a_picture(labelled):
    clone, _ = labelled
    code, seen = on_a_terminal(make("make demo"), clone)
    assert code == 0, seen
    assert "skill: " in seen  # what the figures are is said where they stand
    assert "epoch 3: " in seen
    assert "curve.png: the learning curve of runs/demo-short" in seen
    picture = cv2.imread(str(clone / "runs" / "demo-short" / "curve.png"))
    assert picture.shape[1] > 800


def test_a_run_gives_features_as_the_documentation_says(labelled):
    clone, _ = labelled
    if not (clone / "runs" / "demo-short").exists():
        assert on_a_terminal(make("make demo"), clone)[0] == 0
    page = (REPOSITORY / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) == 5
    code, seen = on_a_terminal(f"{sys.executable} -c {shlex.quote(code)}", clone)
    assert code == 0, seen
    assert "'conv5': (1, 64, 2, 7, 7), 'pool5': (1, 1024)" in seen


def test_ones_own_videos_from_labels_to_a_backbone(labelled, my_videos):
    """All commands of README's first two blocks, with a smaller network and fewer crops."""
    clone, _ = labelled
    tiny = "--recipe small --width 0.03 --batch 4 --epochs 1 --val 0.2 --device cpu"
    variables = {"FLAGS": "--crops center --flow dis", "TRAIN_FLAGS": tiny}
    for line in COMMANDS:
        words = line.replace("/my/videos", str(my_videos)).replace("--workers 32", "--workers 2")
        if line in ("make labels", "make demo"):
            continue  # tested above
        if line.startswith("labelgen extract"):
            words += f" {variables['FLAGS']}"
        if line.startswith("train pretrain"):
            words += f" {tiny}"
        if line.startswith("train finetune"):  # the network is that of the run
            words += f" {tiny.replace('--width 0.03', '')}"
        command = make(words) if words.startswith("make") else words
        code, seen = on_a_terminal(command, clone, **variables)
        assert code == 0, f"{line}\n{seen}"
        assert "Traceback" not in seen
    assert (clone / "shards" / "videos" / "run.json").exists()
    assert (clone / "runs" / "videos" / "best.pt").exists()
    assert not (my_videos / "bikes.mp4").exists()
    code, seen = on_a_terminal(f"{sys.executable} -c {shlex.quote(LOAD)}", clone)
    assert code == 0, seen


def test_what_was_made_of_another_folder_of_the_name_is_not_trained_on(clone, tmp_path):
    roots = [tmp_path / name / "my films" for name in "ab"]
    for root in roots:
        write_video(root / "x" / "0.avi", moving_square(48))
    variables = {"FLAGS": "--crops center --flow dis"}
    here, there = (f"DATA_ROOT={shlex.quote(str(root))}" for root in roots)
    code, seen = on_a_terminal(make(f"make labels {here}"), clone, **variables)
    assert code == 0, seen
    assert "next: labelgen extract" not in seen
    assert (clone / "shards" / "my_films" / "run.json").exists()
    for target in ("labels", "pretrain"):
        code, seen = on_a_terminal(make(f"make {target} {there}"), clone, **variables)
        assert code != 0
        assert f"shards/my_films was made of the videos below {roots[0]}, not" in seen
        assert "to make" not in seen
    assert not (clone / "runs" / "my_films").exists()
    code, seen = on_a_terminal(make(f"make labels {here}"), clone, **variables)
    assert code == 0, seen
    assert "nothing to do" in seen


def test_shards_in_a_folder_with_a_space_are_not_made_again(clone):
    (clone / "my shards").mkdir()
    (clone / "my shards" / "run.json").touch()
    code, seen = on_a_terminal(make("make -n pretrain OUT='my shards'"), clone)
    assert code == 0, seen
    assert 'train pretrain --labels "my shards"' in seen
    assert "labelgen extract" not in seen


def test_the_current_folder_has_a_name(clone):
    code, seen = on_a_terminal(make("make help DATA_ROOT=."), clone)
    assert code == 0, seen
    assert "OUT=shards/clone  RUN=runs/clone" in seen


def test_the_demo_stays_out_of_ones_folders(clone, my_videos):
    before = sorted(my_videos.rglob("*"))
    code, seen = on_a_terminal(make(f"make labels DATASET=demo DATA_ROOT={my_videos}"), clone)
    assert code != 0
    assert "keeps them in data/demo" in seen
    assert sorted(my_videos.rglob("*")) == before


def test_a_known_dataset_is_labelled_and_trained_on_where_readme_says(clone, tmp_path):
    """UCF101 in small: the official layout and lists, and a video that is not there."""
    root = tmp_path / "ucf101"
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("1 Archery\r\n2 Biking\r\n")
    names = [
        f"{name}/v_{name}_g{group:02d}_c{part:02d}.avi"
        for name in ("Archery", "Biking") for group in (8, 9) for part in (1, 2)
    ]  # fmt: skip
    for number, name in enumerate(names):
        write_video(root / "UCF-101" / name, moving_square(40, seed=number))
    listed = [f"{name} {1 + ('Biking' in name)}\r\n" for name in [*names, "Biking/v_gone.avi"]]
    (lists / "trainlist01.txt").write_text("".join(listed))
    tiny = "--recipe small --width 0.03 --batch 4 --epochs 1 --val 0.3 --device cpu"
    variables = {"FLAGS": "--crops center --flow dis", "TRAIN_FLAGS": tiny}
    place = f"DATASET=ucf101 DATA_ROOT={root}"
    code, seen = on_a_terminal(make(f"make labels {place} WORKERS=2"), clone, **variables)
    assert code == 0, seen
    assert "1 listed video not on disk" in seen
    left_out = clone / "manifests" / "ucf101.left_out.csv"
    assert left_out.read_text() == "path,reason\nBiking/v_gone.avi,not on disk\n"
    assert (clone / "shards" / "ucf101" / "ucf101-train1-00000-of-00001.h5").exists()
    code, seen = on_a_terminal(make(f"make pretrain {place}"), clone, **variables)
    assert code == 0, seen
    assert (clone / "runs" / "ucf101" / "best.pt").exists()


def test_readme_is_short_before_its_commands_and_begins_with_a_picture():
    before = README[: README.index("## Commands")].splitlines()
    assert len(before) <= 100  # two screens of fifty lines
    picture = re.search(r"!\[.*?\]\((.*?)\)", "\n".join(before[:6]))[1]
    assert (REPOSITORY / picture).exists()
