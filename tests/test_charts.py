import xml.etree.ElementTree as ET

import pytest

from labelgen.charts import Series, bars, curves, line_key, mark_key, ticks, track, tracks


def shapes(svg, name):
    return [one for one in ET.fromstring(svg).iter() if one.tag == name]


def test_a_bar_is_as_high_as_its_share():
    svg = bars([0.5, 0.25, 0.25, 0.0], reference=0.25, alt="a & b")
    heights = [float(bar.get("height")) for bar in shapes(svg, "rect")]
    assert heights == [68, 34, 34, 0]
    assert shapes(svg, "title")[0].text == "1: 50.0%"
    line = next(path for path in shapes(svg, "path") if path.get("class") == "reference")
    assert line.get("d").startswith("M0 46.0H")  # as high as a quarter: 96 - 16 - 34
    assert ET.fromstring(svg).get("aria-label") == "a & b"


def test_curves_go_where_their_values_are():
    series = [Series("up", [0.0, 0.5, 1.0], 0), Series("gaps", [None, -3.0, 1.0], 1, 1)]
    svg = curves(series, alt="x", unit="epoch", lowest=-0.5)
    groups = list(ET.fromstring(svg).iter("g"))
    dots = [[(float(c.get("cx")), float(c.get("cy"))) for c in g.iter("circle")] for g in groups]
    up, gaps = dots
    assert [x for x, _ in up] == [40, 236, 432]
    assert up[0][1] - up[1][1] == pytest.approx(up[1][1] - up[2][1], abs=0.2)
    assert up[2][1] == 8  # 1 is the highest tick
    assert [x for x, _ in gaps] == [236, 432]
    assert gaps[0][1] == 230 - 34  # on the lower edge
    assert [g.find("title").text for g in groups] == ["up", "gaps"]
    assert {text.text for text in shapes(svg, "text")} >= {"-0.5", "0", "1", "2", "3", "epoch"}


@pytest.mark.parametrize("values", [[], [None], [0.3], [0.0, 0.0]])
def test_few_values_are_drawn_all_the_same(values):
    svg = curves([Series("x", values, 0)], alt="x", unit="epoch")
    assert len(shapes(svg, "circle")) == len([value for value in values if value is not None])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-0.5, 0.31, [-0.6, -0.4, -0.2, 0, 0.2, 0.4]),
        (1, 20, [0, 5, 10, 15, 20]),
        (0, 0, [0]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == expected


def test_marks_stand_at_their_values():
    drawn = track([0.25, None, 1.5], reference=0.1)
    places = [mark.get("style").split(";")[0] for mark in ET.fromstring(drawn)]
    assert places == ["left:10.0%", "left:25.0%", "left:100.0%"]
    assert "<div>a&lt;b</div>" in tracks([("a<b", drawn)])
    assert "a&lt;b" in line_key(Series("a<b", [], 2, 1))
    assert "a&lt;b" in mark_key("a<b", 1)
