"""The page about runs: figures are those of the logs, runs stand side by side."""

import html
import json
import re
import shutil
import sys

import pytest
from browser import PHONE, WIDE
from train_helpers import classed_shards, toy_shards

from train import cli, curve, report

TINY = ["--device", "cpu", "--width", "0.03", "--batch", "4", "--batch-norm"]


def train(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code or 0, capsys.readouterr().err


def learn(command, folder, out, *options):
    words = [command, "--labels", folder, "--out", out, "--epochs", 1, *TINY, *options]
    with pytest.raises(SystemExit) as left:
        cli.cli(list(map(str, words)))
    assert left.value.code == 0
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of labels; one that is like it but for name, rate and motion; and one of classes."""
    folder = tmp_path_factory.mktemp("runs")
    one = learn("pretrain", toy_shards(folder / "s", 12), folder / "one", "--val", 0.3)
    write_log(one, log_of(one) * 2)
    two = folder / "<b>two"
    shutil.copytree(one, two)
    recipe = json.loads((two / "recipe.json").read_text())
    (two / "recipe.json").write_text(json.dumps({**recipe, "lr": 0.125}))
    history = log_of(two)
    for record in history:
        record["held_out"]["branches"]["motion"]["skill"] = 0.75
        record["held_out"]["labels"]["motion/grid/u_location"]["accuracy"] = 0.625
    write_log(two, history)
    classes = learn(
        "finetune",
        classed_shards(folder / "c", 8),
        folder / "classes",
        "--val",
        0,
        "--init",
        "scratch",
    )
    return one, two, classes


def write_log(run, history):
    (run / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in history))


def log_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "r.html"
    with pytest.raises(SystemExit) as left:
        cli.cli(["report", str(runs[0]), str(runs[1]), "-o", str(file)])
    assert left.value.code == 0
    return file


def rows_of(file):
    """The cells of every table row of a page."""
    for row in re.findall(r"<tr>(.*?)</tr>", file.read_text()):
        cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)
        yield [html.unescape(re.sub("<[^>]*>", "", cell)) for cell in cells]


def test_numbers_are_those_of_the_logs(runs, page):
    rows = list(rows_of(page))
    held = [log_of(run)[-1]["held_out"]["labels"] for run in runs[:2]]
    assert len(held[0]) == 27
    for name, told in held[0].items():
        expected = [name.split("/", 1)[1]]
        for one in (told, held[1][name]):
            ev = one["explained_variance"]
            expected += [f"{one['accuracy']:.3f}", f"{one['chance']:.3f}"]
            expected += ["-" if ev is None else f"{ev:+.3f}"]
        assert expected in rows
    assert "0.625" in next(row for row in rows if row[0] == "grid/u_location")
    last = log_of(runs[0])[-1]
    assert [
        str(runs[0]), "finished", "2 of 1", str(last["train"]["clips"]),
        str(last["held_out"]["clips"]), f"{last['loss']:.3f}", f"{last['held_out_loss']:.3f}",
    ] in rows  # fmt: skip


def test_only_settings_that_differ_are_set_side_by_side(runs, page):
    text = page.read_text()
    differ = text[text.index("<h2>Settings that differ") :]
    differ = differ[: differ.index("<details")]
    assert re.findall(
        r"<tbody><tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr></tbody>", differ
    ) == [("lr", "0.001", "0.125")]
    assert ["epochs", "1"] in rows_of(page)


def test_curves_are_those_of_both_branches(runs, page):
    svgs = re.findall(r"<svg[^>]*aria-label=\"(\w+) over epochs\".*?</svg>", page.read_text())
    assert svgs == ["motion", "appearance"]
    motion = page.read_text().split('aria-label="motion over epochs"')[1].split("</svg>")[0]
    lines = re.findall(r"<title>(.*?)</title><path d=\"(M[^\"]*)\"", motion)
    names = [html.unescape(name) for name, _ in lines]
    assert names == [f"{run}, {of}" for of in ("held-out", "training") for run in runs[:2]]
    heights = re.findall(r" ([\d.]+)", lines[1][1])
    assert len(set(heights)) == 1  # .75 in both epochs
    assert "Fewer than 50 held-out clips" in page.read_text()


def test_what_tells_values_is_drawn_by_what_it_gains_on_the_prior(runs, tmp_path):
    for run in runs[:2]:
        shutil.copytree(run, tmp_path / run.name)
    history = log_of(tmp_path / "one")
    for record in history:
        for of in ("train", "held_out"):
            for kind in record[of]["kinds"].values():
                kind.update(surprise=1.0, accuracy=0.4, prior_accuracy=0.2)
            record[of]["kinds"]["motion: when"]["prior_accuracy"] = 1.0  # nothing to gain
    write_log(tmp_path / "one", history)
    lines = curve._lines(history)
    assert lines["held_out", "motion: where"] == [pytest.approx(0.25)] * 2
    assert lines["train", "motion: when"] == [None] * 2
    assert {what for _, what in lines} == set(history[0]["train"]["kinds"])
    assert curve._caption(history[-1]).startswith("gain = ")
    curve.draw_curve(tmp_path / "one", tmp_path / "c.png")
    report.write_report([tmp_path / "one", tmp_path / "<b>two"], tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    titles = re.findall(r'aria-label="([\w: ]+) over epochs"', text)
    assert titles == list(history[0]["train"]["kinds"])  # of both losses, by what both can tell
    assert "Gain = (accuracy" in text


def test_one_run_and_runs_of_classes(runs, tmp_path, capsys, monkeypatch):
    for run in (runs[0], runs[2]):
        assert train(capsys, monkeypatch, "report", run, "-o", tmp_path / "x.html")[0] == 0
    text = (tmp_path / "x.html").read_text()
    figures = log_of(runs[2])[-1]["train"]
    assert f"{figures['chance1']:.1%} for {html.escape(str(runs[2]))}" in text
    assert "they do not show what is learnt of other clips" in text
    assert "<div>bright</div>" in text
    assert "Settings that differ" not in text


def test_a_mistake_gives_one_sentence(runs, tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "log.jsonl").touch()
    for arguments, message in (
        ((runs[0], runs[2]), "different tasks"),
        ((tmp_path,), "give the folder of a run of `train pretrain`"),
        ((tmp_path / "empty",), "no finished epoch to report on yet"),
        ((runs[0], "-o", tmp_path / "none" / "x.html"), "x.html cannot be written"),
    ):
        code, said = train(capsys, monkeypatch, "report", "-o", tmp_path / "x.html", *arguments)
        assert (code, said.count("\n")) == (2, 1), said
        assert message in said


@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_a_browser_shows_it_and_asks_for_nothing(chromium, page, size):
    chromium.open(page, size)
    assert "<b>two" in chromium.driver.title
    assert chromium.complaints() == []
    assert chromium.requests() == []
    assert chromium.overflow() <= 0
    assert chromium.run("return document.querySelectorAll('.track').length") == 27
