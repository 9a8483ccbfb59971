import html
import json
import re
import sys

import h5py
import numpy as np
import pytest
from browser import PHONE, WIDE
from click.testing import CliRunner
from conftest import moving_square, write_video
from extraction import extract

from labelgen import LABELS, Shards
from labelgen.cli import main
from labelgen.shards.claims import claimed
from labelgen.shards.times import TIMES_FILE


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Shards of all crops, with a still video and two that are no videos."""
    folder = tmp_path_factory.mktemp("report")
    write_video(folder / "v" / "a.avi", moving_square(50))
    write_video(folder / "v" / "still.avi", [moving_square(1)[0]] * 20)
    write_video(folder / "v" / "short.avi", moving_square(9))
    (folder / "v" / "<b>bad&.avi").touch()
    extract(folder / "v", folder / "s <i>", crops="all", frames="jpeg:90", clips_per_shard=2)
    return folder / "s <i>"


def report(*arguments):
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


@pytest.fixture(scope="module")
def page(made, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "report.html"
    found = report(made, "-o", file, "--examples", 1, "--workers", 1)
    assert found.exit_code == 0, found.output
    assert found.stdout == ""
    return file


def words_of(file):
    text = re.sub(r"<(style|script).*?</\1>", " ", file.read_text(), flags=re.DOTALL)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text)))


def test_it_tells_what_is_there(made, page):
    words = words_of(page)
    assert "4 clips of 2 videos in 3 shards" in words
    assert "All planned shards are there" in words
    assert "flow.method farneback" in words
    energy = Shards(made).energy
    slow = int((energy < 0.05).sum())
    assert 1 <= slow < 4
    assert f"({slow / 4:.1%}) below a motion energy of 0.05" in words
    assert f"({(energy == 0).mean():.1%}) without any motion" in words
    for reason, name in (("unopenable", "<b>bad&.avi"), ("too_short", "short.avi")):
        assert f"{reason} 1 {name}" in words
    assert "4 clips in " in words
    assert re.search(r"(flow|labels|decode|write) \d+%, \d+ ms per clip", words)
    assert page.read_text().count("data:image/png") == 1


def test_histograms_are_those_of_the_labels(made, page):
    shards = [h5py.File(file) for file in sorted(made.glob("*.h5"))]
    every = np.concatenate([shard["labels"][:] for shard in shards])
    assert every.shape == (4, 1020, 27)
    text = page.read_text()
    for number, (name, cardinality) in enumerate(LABELS):
        card = text[text.index(f"<code>{name}</code>") :]
        card = card[: card.index("</svg>")]
        told = re.findall(r"<title>(\d+): ([\d.]+)%</title>", card)
        assert [int(value) for value, _ in told] == list(range(1, cardinality + 1))
        for value, share in told:
            assert float(share) == pytest.approx(
                100 * (every[..., number] == int(value)).mean(), abs=0.051
            )
    grid = every.reshape(4, 17, 60, 27)[..., 0]
    across, down = grid[:, :, 1:] != grid[:, :, :-1], grid[:, 1:] != grid[:, :-1]
    expected = (across.sum() + down.sum()) / (across.size + down.size)
    assert f"neighbours differ: {expected:.1%}" in text


def test_a_folder_in_the_making_says_what_is_missing(made, tmp_path):
    seal = min(made.glob("*-of-*.json"))
    kept = seal.rename(tmp_path / seal.name)
    left = [json.loads(other.read_text())["clips"] for other in made.glob("*-of-*.json")]
    times, before = made / TIMES_FILE, (made / TIMES_FILE).read_text()
    # As many seconds to a clip as make the mean of the two shards that are there 90 s.
    seconds = 180 / sum(left) * 100
    times.write_text(json.dumps({"clips": 100, "seconds": seconds, "workers": 1, "stages": {}}))
    try:
        assert report(made, "-o", tmp_path / "x.html", "--examples", 0).exit_code == 0
        with claimed(seal.with_suffix(".h5")):
            assert report(made, "-o", tmp_path / "y.html", "--examples", 0).exit_code == 0
    finally:
        kept.rename(seal)
        times.write_text(before)
    words = words_of(tmp_path / "x.html")
    assert f"1 of 3 shards missing: {seal.stem}.h5" in words
    assert "about 1 min 30 s left" in words
    assert "Running the same extract command again goes on" in words
    words = words_of(tmp_path / "y.html")
    assert f"1 of 3 shards being made: {seal.stem}.h5" in words
    assert "Running the same" not in words


def test_folders_without_labels_or_clips_have_a_page_too(videos, tmp_path):
    extract(videos, tmp_path / "s", labels=False)
    assert report(tmp_path / "s", "-o", tmp_path / "x.html").exit_code == 0
    assert "The 27 labels" not in words_of(tmp_path / "x.html")
    for seal in (tmp_path / "s").glob("*-of-*.json"):
        seal.unlink()
    assert report(tmp_path / "s", "-o", tmp_path / "y.html").exit_code == 0
    assert "0 clips of 0 videos" in words_of(tmp_path / "y.html")


def test_without_matplotlib_there_are_no_examples(made, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert report(made, "-o", tmp_path / "x.html").exit_code == 0
    assert "Not drawn: a picture needs the package matplotlib" in words_of(tmp_path / "x.html")


def test_a_mistake_gives_one_sentence(made, tmp_path):
    found = report(tmp_path, "-o", tmp_path / "x.html")
    assert found.exit_code == 2
    assert "holds no shards" in found.stderr
    found = report(made, "-o", tmp_path / "none" / "x.html", "--examples", 0)
    assert found.exit_code == 2
    assert "x.html cannot be written" in found.stderr


@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_a_browser_shows_it_and_asks_for_nothing(chromium, page, size):
    chromium.open(page, size)
    assert chromium.driver.title == "Shards: s <i>"
    assert chromium.complaints() == []
    assert chromium.requests() == []
    assert chromium.overflow() <= 0
    assert len(chromium.run("return [...document.images].filter(i => i.naturalWidth > 900)")) == 1
    assert chromium.run("return document.querySelectorAll('svg rect').length") == sum(
        label.cardinality for label in LABELS
    )
