"""A page of HTML that needs no other file: text that cannot break it, one style, pictures inline.

Whoever writes a page builds it of `element`, which escapes every text that it is given; what is
HTML already has the type `Html`. The browser is told to fetch nothing.
"""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from labelgen.errors import LabelgenError
from labelgen.files import replacing

_VOID = ("br", "img", "input", "link", "meta")
_POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; font-src data:; connect-src data: blob:"
)
_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1b1b; --quiet: #5f6368;
  --line: #d5d7da; --panel: #f5f6f7; --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #a2578a;
  --c4: #8a6d00; --c5: #3d8ebf; --c6: #1b1b1b; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #e8e8e8; --quiet: #a3a8ae;
  --line: #3a3f45; --panel: #1f2327; --c0: #56b4e9; --c1: #ff8a3d; --c2: #2cc596; --c3: #dd9cc6;
  --c4: #f0e442; --c5: #9fd4f5; --c6: #e8e8e8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 75rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
p { max-width: 50rem; margin: .5rem 0; }
.quiet { color: var(--quiet); font-size: .875rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .75rem .2rem 0; text-align: left; vertical-align: top; }
thead th { border-bottom: 1px solid var(--line); vertical-align: bottom; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
code { font-size: .9em; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
figcaption { color: var(--quiet); font-size: .875rem; }
img, svg { max-width: 100%; height: auto; }
.plot { background: #fff; border-radius: 4px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; }
"""


class Html(str):
    """Text that is HTML already, and is not escaped again."""

    __slots__ = ()


def element(name: str, /, *children: str | Iterable[str], **attributes: str | int | float) -> Html:
    """Return an element; texts in it are escaped, `Html` is not.

    Parameters
    ----------
    name : str
        Of the tag.
    *children : str, or iterable of str
        What it holds.
    **attributes : str or number
        An underscore at the end is dropped, as of ``class_``; others become hyphens.
    """
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
    )
    if name in _VOID:
        return Html(f"<{name}{told}>")
    return Html(f"<{name}{told}>{joined(*children)}</{name}>")


def joined(*children: str | Iterable[str]) -> Html:
    """Return parts one after the other, escaped where they are not `Html`."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, str):
            parts.append(html.escape(child, quote=False))
        else:
            parts.append(joined(*child))
    return Html("".join(parts))


def section(title: str, *content: str | Iterable[str]) -> Html:
    """Return a part of a page under its heading."""
    return element("section", element("h2", title), *content)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int = 0) -> Html:
    """Return a table that scrolls sideways where it is too wide.

    Parameters
    ----------
    head : sequence of str
        Names of the columns.
    rows : iterable of sequences of str
    numbers : int, optional
        How many columns, from the right, are aligned as numbers.
    """

    def line(cells: Sequence[str], tag: str) -> Html:
        plain = len(cells) - numbers
        marked = [{} if k < plain else {"class_": "number"} for k in range(len(cells))]
        return element(
            "tr", (element(tag, cell, **more) for cell, more in zip(cells, marked, strict=True))
        )

    body = element("tbody", (line(row, "td") for row in rows))
    return element("div", element("table", element("thead", line(head, "th")), body), class_="wide")


def data_url(content: bytes, kind: str) -> str:
    """Return bytes as an address, for a kind such as ``image/png``."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def picture(content: bytes, alt: str, *, kind: str = "image/png") -> Html:
    """Return an image with its bytes inside, and the words for those who do not see it."""
    return element("img", src=data_url(content, kind), alt=alt, class_="plot")


def page(title: str, *body: str, style: str = "", script: str = "") -> Html:
    """Return a whole page.

    Parameters
    ----------
    title : str
    *body : str
        Its content.
    style, script : str, optional
        CSS after the common one; JavaScript that is run at the end. Neither may hold ``</``.
    """
    head = (
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        # Without one, a browser may ask a server for it.
        element("link", rel="icon", href="data:,"),
        element("title", title),
        Html(f"<style>{_STYLE}{style}</style>"),
    )
    run = Html(f"<script>{script}</script>") if script else Html("")
    whole = element("html", element("head", *head), element("body", *body, run), lang="en")
    return Html(f"<!DOCTYPE html>\n{whole}\n")


def write_page(file: Path, content: Html) -> None:
    """Write a page.

    Raises
    ------
    LabelgenError
        If it cannot be written.
    """
    try:
        with replacing(file) as partial:
            partial.write_text(content, encoding="utf-8")
    except OSError as error:
        raise LabelgenError(f"{file} cannot be written: {os.strerror(error.errno or 0)}") from None
