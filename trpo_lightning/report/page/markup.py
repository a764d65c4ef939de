"""Pieces of HTML: sections, lists, tables, and embedded data and images."""

import base64
import gzip
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path


def packed(name: str, text: str) -> str:
    """A text compressed to a third and embedded in the page, to be unpacked by its scripts."""
    data = base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()  # no time: same text, same bytes
    return f'<script type="text/plain" id="{name}">{data}</script>'


def figure(name: str, says: str, image: Path | None = None) -> str:
    """Room for an interactive figure, and the still one that is shown until it is drawn, or for good."""
    room = f'<div class="plot" id="{name}" role="img" aria-label="{escape(says)}"></div>'
    if image is None:
        return room
    data = base64.b64encode(image.read_bytes()).decode()
    return f'{room}<img class="still" alt="{escape(says)}" src="data:image/png;base64,{data}">'


def section(title: str, content: str) -> str:
    """A part of the page with a title; nothing if it has no content."""
    return f"<section><h2>{title}</h2>\n{content}</section>" if content else ""


def items(texts: Sequence[str]) -> str:
    """A list of texts; nothing if there are none."""
    return f"<ul>{''.join(f'<li>{escape(str(text))}</li>' for text in texts)}</ul>" if texts else ""


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names and their meanings."""
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in pairs)}</dl>"


def table(headings: Sequence[str], rows: list[tuple[str, list[str]]], numeric: Sequence[int]) -> str:
    """A table whose cells are HTML; each row is preceded by its class."""
    kinds = [' class="n"' if index in numeric else "" for index in range(len(headings))]
    head = "".join(f"<th{kind}>{escape(text)}</th>" for kind, text in zip(kinds, headings, strict=True))
    lines = []
    for name, cells in rows:
        inner = "".join(f"<td{kind}>{text}</td>" for kind, text in zip(kinds, cells, strict=True))
        lines.append(f'<tr class="{name}">{inner}</tr>' if name else f"<tr>{inner}</tr>")
    whole = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{whole}</div>'  # focusable, so that it can be scrolled by keyboard
