import dataclasses
import sys

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import moving_square, random_clip, write_video
from extraction import extract

from labelgen import LABELS, clip_labels, motion_boundaries
from labelgen.cli import main
from labelgen.pictures.figure import clip_figure
from labelgen.pictures.view import clip_view


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder ``videos`` and shards of it, ``s``, with 8 crops."""
    folder = tmp_path_factory.mktemp("figure")
    for name, count in {"run/a.avi": 50, "run/b.avi": 33, "walk/c.avi": 16}.items():
        write_video(folder / "videos" / name, moving_square(count, seed=count))
    extract(folder / "videos", folder / "s", crops="grid:16")
    return folder


def show(*arguments):
    return CliRunner().invoke(main, ["show", *map(str, arguments)])


def texts_of(figure):
    artists = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    return [text for text in artists if text.get_text()]


def view_with(seed=3, profile="paper", **without):
    frames, flow = random_clip(seed)
    known = {"frames": frames, "boundaries": motion_boundaries(flow), "flow": flow}
    labels = clip_labels(frames, flow, np.array([[8, 29]]), profile=profile)[0]
    return clip_view(
        labels, video="a/film.avi", start=32, crop=(8, 29), profile=profile, **(known | without)
    )


def test_the_27_numbers_stand_there_by_name():
    view = view_with()
    texts = [text.get_text() for text in clip_figure(view).texts]
    for name, cardinality in LABELS:
        at = texts.index(name)
        assert texts[at + 1 : at + 3] == [str(view.labels[name]), f"of {cardinality}"]
    assert "a/film.avi, frames 32 to 47  |  crop at top 8, left 29" in texts


@pytest.mark.parametrize(
    ("profile", "without"),
    [("paper", {}), ("authors", {"flow": None, "frames": None, "boundaries": None})],
)
def test_no_text_lies_on_another_or_beyond_the_sheet(profile, without):
    view = view_with(profile=profile, **without)
    view = dataclasses.replace(view, video=f"{'a_long_folder/' * 9}film.avi", start=100_000)
    figure = clip_figure(view)
    figure.canvas.draw()
    sheet = figure.bbox
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts_of(figure)]
    assert len(boxes) > 80
    for k, (text, box) in enumerate(boxes):
        assert box.x0 >= sheet.x0, text
        assert box.x1 <= sheet.x1, text
        assert box.y0 >= sheet.y0, text
        assert box.y1 <= sheet.y1, text
        for other, there in boxes[k + 1 :]:
            across = min(box.x1, there.x1) - max(box.x0, there.x0)
            along = min(box.y1, there.y1) - max(box.y0, there.y0)
            # Lines of text may touch by the room that letters such as g need.
            assert across <= 0 or along <= 2, (text, other)


@pytest.mark.parametrize("without", [{}, {"frames": None, "boundaries": None}])
def test_panels_are_of_the_crop_whatever_is_stored(without):
    figure = clip_figure(view_with(flow=None, **without))
    sizes = [axes.get_xlim()[1] - axes.get_xlim()[0] for axes in figure.axes]
    assert sizes == [171] * 16 + 3 * [171, 112, 112, 112]


def test_a_still_clip_is_said_to_be_one():
    frames, _ = random_clip(0)
    still = np.repeat(frames[:1], 16, axis=0)
    flow = np.zeros((15, 2, 128, 171), np.float32)
    view = clip_view(
        clip_labels(still, flow)[0], video="x", start=0, crop=(8, 29), frames=still,
        boundaries=motion_boundaries(flow), flow=flow,
    )  # fmt: skip
    figure = clip_figure(view)
    figure.canvas.draw()
    texts = [text.get_text() for text in figure.texts]
    assert any("a still clip" in text for text in texts)
    assert sum(text.startswith("Nothing moves") for text in texts) == 2


def test_pictures_of_shards_and_of_films(made, tmp_path):
    videos = made / "videos"
    found = show(made / "s", "--video", "run/b.avi", "--start", 16, "-o", tmp_path / "a.png")
    assert found.exit_code == 0, found.output
    assert found.stdout == ""
    assert "run/b.avi from frame 16" in found.stderr
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture.shape[1] == round(12.6 * 130)
    assert show(made / "s", "--clip", 4, "--crop", "0,48", "-o", tmp_path / "b.svg").exit_code == 0
    assert (tmp_path / "b.svg").read_text().lstrip().startswith("<?xml")
    film = videos / "walk" / "c.avi"
    found = show(film, "-o", tmp_path / "c.png")
    assert found.exit_code == 0, found.output
    assert cv2.imread(str(tmp_path / "c.png")).shape[0] > picture.shape[0]  # it shows flow


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("s", "--clip", "6"), "holds clips 0 to 5, and no clip 6"),
        (("s", "--crop", "1,2"), "holds labels of 8 crops, and none of top 1, left 2"),
        (("s", "--crop", "1"), "'1' is no crop; give top and left, as in 8,29"),
        (("s", "--crop", "-1,2"), "is no crop"),
        (("s", "--start", "16"), "--start 16 needs the --video"),
        (("s", "--video", "x.avi"), "no clip of a video x.avi"),
        (("s", "--video", "b.avi", "--start", "3"), "begins at frame 3; clips begin at 0, 16"),
        (("s", "--video", "b.avi", "--clip", "3"), "not both"),
        (("videos/run/a.avi", "--clip", "3"), "is a video: --clip and --video choose from shards"),
        (("videos/walk/c.avi", "--start", "1"), "no 16 frames from frame 1 on"),
        (("nowhere",), "nowhere holds no shards"),
        (("s", "-o", "a.bad"), "a.bad is no name for a picture"),
    ],
)
def test_a_mistake_gives_one_sentence(made, monkeypatch, arguments, message):
    monkeypatch.chdir(made)
    output = () if "-o" in arguments else ("-o", "x.png")
    found = show(*arguments, *output)
    assert found.exit_code == 2, found.output
    assert message in found.stderr
    assert len(found.stderr.strip().splitlines()) <= 4
    assert sorted(file.name for file in made.iterdir()) == ["s", "videos"]


def test_without_matplotlib_it_says_what_is_needed(made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    found = show(made / "s", "-o", tmp_path / "x.png")
    assert found.exit_code == 2
    assert "needs the package matplotlib" in found.stderr


def test_a_name_is_no_formula(videos, tmp_path):
    file = videos / "$\\frac$ & $x_1$.avi"
    (videos / "run" / "a.avi").rename(file)
    found = show(file, "-o", tmp_path / "x.png")
    assert found.exit_code == 0, found.output
    assert (tmp_path / "x.png").stat().st_size > 10_000
