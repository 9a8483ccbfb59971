"""docs/figures.py: what is drawn to explain a label is what the label is decided by."""

import runpy

import pytest
from conftest import REPOSITORY, moving_square, write_video

from labelgen import read_clips
from labelgen.labels.partitions import PARTITIONS

FIGURES = runpy.run_path(str(REPOSITORY / "docs" / "figures.py"))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    file = tmp_path_factory.mktemp("figures") / "film.avi"
    return write_video(file, moving_square(24, seed=3, step=3))


def test_the_figures_numbers_give_the_labels(video):
    frames = next(frames for start, frames in read_clips(video, stride=1) if start == 4)
    seen = FIGURES["measure"](frames, (5, 40))
    for k, (name, masks, _) in enumerate(PARTITIONS):
        for c in "uv":
            block = int(seen.means[c][k].argmax())
            sums = FIGURES["bin_sums"](seen.fields[c], masks[block])
            assert seen.labels[f"motion/{name}/{c}_location"] == 1 + block
            assert seen.labels[f"motion/{name}/{c}_orientation"] == 1 + sums.argmax()
        found = seen.scores[k].argmin(), seen.scores[k].argmax()
        assert seen.labels[f"appearance/{name}/diverse_location"] == 1 + found[0]
        assert seen.labels[f"appearance/{name}/stable_location"] == 1 + found[1]
        counts = FIGURES["colour_counts"](seen.frames, masks[found[0]])
        assert seen.labels[f"appearance/{name}/diverse_color"] == 1 + counts.argmax()
    for c in "uv":
        assert seen.labels[f"motion/global/{c}_frame"] == 1 + seen.pairs[c].argmax()


def test_all_figures_are_drawn_and_small(video, tmp_path):
    FIGURES["main"](video, tmp_path, start=0, crop=(8, 29))
    made = {file.name: file for file in tmp_path.glob("*.png")}
    page = (REPOSITORY / "docs" / "labels.md").read_text(encoding="utf-8")
    assert made
    for name, file in made.items():
        assert f"]({name})" in page
        assert file.stat().st_size < 150_000
        assert (REPOSITORY / "docs" / name).stat().st_size < 150_000
