import re

import pytest
from browser import PHONE, WIDE

from labelgen.errors import LabelgenError
from labelgen.page import Html, element, joined, page, picture, table, write_page

DOT = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a4944415478da6360000000020001e527defc0000000049454e44ae426082"
)


def test_texts_are_escaped_and_html_is_not():
    nasty = '<script>alert("x")</script> & more'
    assert element("p", nasty) == ('<p>&lt;script&gt;alert("x")&lt;/script&gt; &amp; more</p>')
    assert element("p", element("b", "x"), title='a "b" <c>') == (
        '<p title="a &quot;b&quot; &lt;c&gt;"><b>x</b></p>'
    )
    assert joined(["a<b", Html("<i>"), [element("br")]]) == "a&lt;b<i><br>"
    assert element("text", "3", class_="x", text_anchor="end") == (
        '<text class="x" text-anchor="end">3</text>'
    )


def test_columns_of_numbers():
    found = table(["name", "count"], [["a<b", "3"]], numbers=1)
    assert '<td>a&lt;b</td><td class="number">3</td>' in found
    assert '<th>name</th><th class="number">count</th>' in found


def test_a_page_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(LabelgenError, match="none/x.html cannot be written: No such file"):
        write_page(tmp_path / "none" / "x.html", page("x"))


@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_a_browser_shows_it_and_asks_for_nothing(chromium, tmp_path, size):
    file = tmp_path / "a page & more.html"
    wide = table([f"column {k}" for k in range(40)], [["a value"] * 40], numbers=39)
    script = "document.getElementById('told').textContent = 'ran'"
    body = (element("h1", "T" * 200), wide, picture(DOT, "a dot"), element("p", id="told"))
    write_page(file, page("a <title>", *body, script=script))
    chromium.open(file, size)
    assert chromium.driver.title == "a <title>"
    assert chromium.run("return document.getElementById('told').textContent") == "ran"
    assert chromium.run("return document.images[0].naturalWidth") == 1
    assert chromium.overflow() <= 0
    assert chromium.complaints() == []
    assert chromium.requests() == []


def test_the_browser_would_tell(chromium, tmp_path):
    """What the tests of pages rest on: errors, requests and width are seen."""
    file = tmp_path / "bad.html"
    content = page("x", element("div", "x", style="width:3000px"), script="nothing.at.all()")
    remote = element("img", src="http://127.0.0.1:9/x.png", alt="")
    allowed = re.sub("<meta http-equiv[^>]*>", "", content)
    file.write_text(allowed.replace("<div", f"{remote}<div"))
    chromium.open(file)
    assert chromium.overflow() > 0
    assert any("nothing is not defined" in line for line in chromium.complaints())
    assert chromium.requests() == ["http://127.0.0.1:9/x.png"]
    file.write_text(content.replace("<div", f"{remote}<div"))
    chromium.open(file)
    assert any("Content Security Policy" in line for line in chromium.complaints())
