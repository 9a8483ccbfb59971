import json
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from zlib import decompress

import cv2
import numpy as np
import pytest
from browser import PHONE, WIDE
from conftest import REPOSITORY, moving_square, write_video
from extraction import extract, run_command

from labelgen import LABELS, Shards, flip_labels
from labelgen.errors import LabelgenError
from labelgen.labels.partitions import MASKS
from labelgen.pictures.explorer import _jpeg, _outline, spread_clips, write_explorer

NAMES = [label.name for label in LABELS]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Shards of all crops of six clips of three videos, whose labels differ from crop to crop."""
    folder = tmp_path_factory.mktemp("explore")
    for name, count in {"run/a.avi": 50, "run/b<!--<script>.avi": 33, "walk/c.avi": 16}.items():
        write_video(folder / "videos" / name, moving_square(count, seed=count, step=1 + count % 3))
    extract(folder / "videos", folder / "shards", crops="all", frames="jpeg:95")
    return Shards(folder / "shards")


@pytest.fixture(scope="module")
def page(shards):
    file = shards.path.parent / "explore.html"
    assert write_explorer(shards.path, file) == len(shards) == 6
    return file


@pytest.fixture
def opened(chromium, page):
    """The page in a browser; after the test it must have asked for nothing and be well."""

    def open_at(size=WIDE):
        chromium.open(page, size)
        wait(chromium, "return document.body.dataset.ready === 'yes'")
        return chromium

    yield open_at
    assert chromium.complaints() == []
    assert chromium.requests() == []
    assert chromium.overflow() <= 0


def wait(chromium, script):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(chromium.driver, 30).until(lambda _: chromium.run(script))


def shown(chromium):
    """The 27 labels that the page shows, in order."""
    told = chromium.run(
        "return Object.fromEntries([...document.querySelectorAll('[data-label]')]"
        ".map(row => [row.dataset.label, Number(row.querySelector('.value').textContent)]))"
    )
    assert set(told) == set(NAMES)
    return [told[name] for name in NAMES]


def marked(chromium):
    """The blocks that are marked on the six panels."""
    return chromium.run(
        "return Object.fromEntries([...document.querySelectorAll('.panel [data-mark]')]"
        ".map(path => [path.dataset.mark, Number(path.dataset.block)]))"
    )


def place(chromium):
    """Top and left of the crop, from where it lies on the frame."""
    x, y = chromium.run(
        "const f = document.getElementById('frame').getBoundingClientRect(),"
        " c = document.getElementById('crop').getBoundingClientRect();"
        "return [171 * (c.left - f.left) / f.width, 128 * (c.top - f.top) / f.height]"
    )
    return round(y), round(x)


def check(chromium, shards, clip, crop, *, flip=False):
    top, left = crop
    labels = flip_labels(shards.crop(clip, top, 59 - left)) if flip else shards.crop(clip, *crop)
    assert place(chromium) == crop
    assert shown(chromium) == labels.tolist()
    told = dict(zip(NAMES, labels.tolist(), strict=True))
    assert marked(chromium) == {
        f"{partition} {what}": told[f"{branch}/{partition}/{what}_location"]
        for partition in ("grid", "rings", "triangles")
        for branch, whats in (("motion", "uv"), ("appearance", ("diverse", "stable")))
        for what in whats
    }


def drag(chromium, to, *, touch=False):
    """Take the crop in its middle and drag it to (top, left), in two steps."""
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.actions.pointer_input import PointerInput

    box = chromium.run(
        "document.getElementById('frame').scrollIntoView({block: 'center'});"
        "const b = document.getElementById('frame').getBoundingClientRect();"
        "return [b.left, b.top, b.width / 171]"
    )
    top, left = place(chromium)
    kind = "touch" if touch else "mouse"
    actions = ActionBuilder(chromium.driver, mouse=PointerInput(kind, kind), duration=20)
    pointer = actions.pointer_action

    def go(y, x):
        pointer.move_to_location(
            *(round(begin + (56 + k) * box[2]) for begin, k in zip(box[:2], (x, y), strict=True))
        )

    go(top, left)
    pointer.pointer_down()
    go((top + to[0]) / 2, (left + to[1]) / 2)
    go(*to)
    pointer.pointer_up()
    actions.perform()


def press(chromium, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(chromium.driver).send_keys(*keys).perform()


def click(chromium, selector):
    from selenium.webdriver.common.by import By

    chromium.driver.find_element(By.CSS_SELECTOR, selector).click()


@pytest.mark.parametrize(("size", "touch"), [(WIDE, False), (PHONE, True)])
def test_dragging_the_crop_shows_the_stored_labels(opened, shards, size, touch):
    chromium = opened(size)
    check(chromium, shards, 0, (8, 29))
    seen = set()
    for crop in [(2, 5), (14, 55), (16, 0), (0, 59)]:
        drag(chromium, crop, touch=touch)
        found = place(chromium)
        assert np.abs(np.subtract(found, crop)).max() <= 1
        check(chromium, shards, 0, found)
        seen.add(tuple(shown(chromium)))
    assert len(seen) > 2, "the clip's labels must differ from crop to crop"
    drag(chromium, (40, -40), touch=touch)
    check(chromium, shards, 0, (16, 0))


def test_flip_shows_the_labels_of_the_mirrored_clip(opened, shards):
    chromium = opened()
    drag(chromium, (5, 11))
    top, left = place(chromium)
    before = shown(chromium)
    picture = (
        "const canvas = document.createElement('canvas');"
        "const pen = canvas.getContext('2d', {willReadFrequently: true});"
        "pen.drawImage(document.getElementById('film'), 0, 0);"
        "return [...pen.getImageData(0, 60, 171, 1).data]"
    )
    row = np.reshape(chromium.run(picture), (171, 4))
    click(chromium, "#flip")
    check(chromium, shards, 0, (top, 59 - left), flip=True)
    assert shown(chromium) == flip_labels(np.array(before)).tolist() != before
    assert np.abs(np.reshape(chromium.run(picture), (171, 4)) - row[::-1]).max() <= 2
    drag(chromium, (12, 40))
    check(chromium, shards, 0, place(chromium), flip=True)
    press(chromium, "f")
    check(chromium, shards, 0, place(chromium))


def test_keys(opened, shards):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    chromium = opened()
    for keys, crop in [
        ([Keys.ARROW_RIGHT], (8, 30)),
        ([Keys.ARROW_DOWN, Keys.ARROW_DOWN], (10, 30)),
        ([Keys.ARROW_LEFT, Keys.ARROW_UP], (9, 29)),
    ]:
        press(chromium, *keys)
        check(chromium, shards, 0, crop)
    ActionChains(chromium.driver).key_down(Keys.SHIFT).send_keys(Keys.ARROW_LEFT).key_up(
        Keys.SHIFT
    ).perform()
    check(chromium, shards, 0, (9, 21))
    press(chromium, "n")
    check(chromium, shards, 1, (9, 21))
    press(chromium, "p", "p")
    wait(chromium, "return document.getElementById('title').textContent.includes('walk')")
    check(chromium, shards, 5, (9, 21))
    frame = "return document.querySelector('#times [aria-pressed=true]').textContent"
    assert chromium.run(frame) == "9"
    press(chromium, " ")
    wait(chromium, frame + " !== '9'")
    press(chromium, " ")
    assert chromium.run("return document.getElementById('play').textContent") == "Play"


def test_a_click_gives_the_keys_back_to_the_page(opened):
    chromium = opened()
    click(chromium, "#flip")
    press(chromium, " ")
    assert chromium.run("return [state.flip, state.playing]") == [True, True]
    press(chromium, " ")
    chromium.run("document.getElementById('flip').focus()")
    press(chromium, " ")
    assert chromium.run("return [state.flip, state.playing]") == [False, False]


def test_the_map_shows_how_often_labels_change(opened, shards):
    chromium = opened()
    for clip in (0, 3):
        labels = shards.all_crops(clip).reshape(17, 60, 27)
        differs, near = np.zeros((17, 60, 27)), np.zeros((17, 60, 1))
        for axis in (0, 1):
            changed = np.diff(labels.astype(int), axis=axis) != 0
            ends = (np.s_[:-1], np.s_[1:])
            for end in ends:
                place = (slice(None),) * axis + (end,)
                differs[place] += changed
                near[place] += 1
        expected = differs / near
        found = chromium.run(f"return [...DATA.clips[{clip}].rates]")
        np.testing.assert_allclose(
            np.reshape(found, (27, 17, 60)), expected.transpose(2, 0, 1), atol=1e-6
        )
    assert expected.any()
    name = "motion/triangles/u_location"
    click(chromium, f"[data-label='{name}']")
    assert chromium.run("return document.getElementById('asked').textContent").startswith(name)
    click(chromium, "[data-choice='scope all']")
    found = np.array(chromium.run("return [...heat()]"))
    k = NAMES.index(name)
    rates = [chromium.run(f"return [...DATA.clips[{c}].rates]") for c in range(6)]
    rates = np.reshape(rates, (6, 27, 1020))
    np.testing.assert_allclose(found, rates[:, k].mean(axis=0), atol=1e-6)
    click(chromium, "#every")
    found = np.array(chromium.run("return [...heat()]"))
    np.testing.assert_allclose(found, rates.sum(axis=1).mean(axis=0), atol=1e-5)


def test_every_control_has_a_name(opened):
    chromium = opened(PHONE)
    unnamed = chromium.run(
        "return [...document.querySelectorAll('button, canvas[role], [tabindex]')].filter(e =>"
        " !(e.textContent.trim() || e.ariaLabel || e.getAttribute('aria-labelledby'))).length"
    )
    assert unnamed == 0


def read_data(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_the_page_holds_what_shards_store(page, shards):
    data = read_data(page)
    assert [clip["number"] for clip in data["clips"]] == list(range(6))
    for i, clip in enumerate(data["clips"]):
        assert (clip["video"], clip["start"]) == shards.video(i)
        labels = np.frombuffer(decompress(b64decode(clip["labels"])), np.uint8)
        np.testing.assert_array_equal(labels.reshape(27, 1020).T, shards.all_crops(i))
        jpeg = np.frombuffer(b64decode(clip["film"].partition(",")[2]), np.uint8)
        sheet = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)[..., ::-1].reshape(4, 128, 4, 171, 3)
        frames = sheet.swapaxes(1, 2).reshape(16, 128, 171, 3)
        assert np.abs(frames.astype(float) - shards.frames(i)).mean() < 5


def test_24_clips_of_nothing_but_noise_are_below_25_mb():
    rng = np.random.default_rng(0)
    film = _jpeg(rng.integers(0, 256, (4 * 128, 4 * 171, 3), np.uint8))
    field = _jpeg(rng.integers(0, 256, (128, 171), np.uint8))
    labels = 1020 * 27 * 4 / 3
    assert 24 * (len(film) + 2 * len(field) + labels) < 25e6


def test_the_flip_table_is_that_of_flip_labels(page):
    data = read_data(page)
    for k, label in enumerate(data["labels"]):
        for value in range(1, label["values"] + 1):
            labels = np.ones(27, np.uint8)
            labels[k] = value
            assert label["flip"][value] == flip_labels(labels)[k]


def test_outlines_are_those_of_blocks():
    for mask in MASKS:
        lines = [
            np.array([point.split(",") for point in line.split()], float) - 0.5
            for line in _outline(mask).strip("MZ").split("ZM")
        ]
        drawn = np.zeros(mask.shape, np.uint8)
        cv2.fillPoly(drawn, [line.astype(np.int32) for line in lines], 1)
        np.testing.assert_array_equal(drawn.astype(bool), mask)


@pytest.mark.parametrize(
    ("sizes", "count", "expected"),
    [
        ([4], 2, [1, 3]),
        ([4], 9, [0, 1, 2, 3]),
        ([1, 9], 4, [0, 2, 5, 8]),
        ([2, 2, 2, 2, 2], 2, [3, 7]),
        ([1, 1, 5], 5, [0, 1, 2, 4, 6]),
    ],
)
def test_clips_are_spread_over_videos(sizes, count, expected):
    videos = np.repeat(np.arange(len(sizes)), sizes)
    assert spread_clips(videos, count).tolist() == expected


def test_shards_that_lack_what_the_page_needs_say_how_to_make_them(videos, tmp_path):
    for name, settings, told in (
        ("center", {"crops": "center"}, "labels of 1 crop per clip .* all 1020; .* --crops all"),
        ("bare", {"crops": "all", "frames": "none"}, "holds no frames .* --frames jpeg:95"),
        ("frames", {"labels": False}, "holds no labels: it was extracted with --no-labels"),
    ):
        extract(videos, tmp_path / name, **settings)
        with pytest.raises(LabelgenError, match=told):
            write_explorer(tmp_path / name, tmp_path / "x.html")
    done = run_command("explore", tmp_path / "center", "-o", tmp_path / "x.html")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "x.html").exists()


def test_the_command_says_what_it_wrote(shards, tmp_path):
    done = run_command("explore", shards.path, "--clips", 2, "-o", tmp_path / "x.html", check=True)
    assert done.stdout == ""
    assert re.fullmatch(r".*x\.html: 2 clips, \d+\.\d kB; open it in a browser\n", done.stderr)
    videos = {clip["video"] for clip in read_data(tmp_path / "x.html")["clips"]}
    assert len(videos) == 2


def test_a_package_holds_the_page_s_sources(tmp_path):
    pytest.importorskip("setuptools", reason="packages are built with setuptools")
    for name in ("labelgen", "train"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "data_manifest.csv"):
        shutil.copy(REPOSITORY / name, tmp_path)
    code = "from setuptools import setup; setup(script_args=['-q', 'build', '--build-lib', 'made'])"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    made = {file.name for file in (tmp_path / "made" / "labelgen" / "pictures" / "web").iterdir()}
    assert made == {"explore.css", "explore.html", "explore.js"}
