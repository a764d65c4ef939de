"""Markdown that several pages need."""

import re
from collections.abc import Iterable

NOTICE = "*Made from the code when this site was built.*"


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; cells may hold Markdown, and what would end a cell is escaped."""
    lines = [tuple(headings)]
    lines += [tuple(row) for row in rows]
    written = [f"| {' | '.join(_cell(text) for text in line)} |" for line in lines]
    return "\n".join([written[0], "|" + " --- |" * len(lines[0]), *written[1:]])


def details(title: str, body: str, kind: str = "note") -> str:
    """A block that a reader can open."""
    inner = "\n".join(f"    {line}" if line else "" for line in body.splitlines())
    return f'??? {kind} "{title}"\n\n{inner}'


def escaped(text: str) -> str:
    """Text with all markup escaped, such as underscores in names and asterisks."""
    return re.sub(r"([_*<>\[\]])", r"\\\1", text)


def unbroken(text: str) -> str:
    """Text whose intervals and deviations, such as `[1, 2]` and `3 ± 4`, stay on one line."""
    text = re.sub(r"\[[^\][]*\](?!\()", lambda match: match[0].replace(" ", "\u00a0"), text)
    return text.replace(" ± ", "\u00a0±\u00a0")


def sections(*parts: str) -> str:
    """The parts that are not empty, separated by blank lines, with a final newline."""
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _cell(text: str) -> str:
    return re.sub(r"[ \n]+", " ", text.replace("|", "\\|")).strip(" ")
