"""The benchmark's output: `results.json` with every repeat, tables for the console and for readers, and a figure."""

import json
from pathlib import Path
from typing import Any

from trpo_lightning.benchmark.results import Result, from_dict, to_dict
from trpo_lightning.errors import UserError
from trpo_lightning.report.tables import number
from trpo_lightning.storage.files import write_atomically, writing

HEADINGS = ("section", "where", "what", "median", "lowest to highest", "n", "target", "")
FILE = "results.json"

Sections = dict[str, dict[str, Any]]
"""By section: `results`, with the `provenance`, `options`, `notes` and `versions` of the run that measured them."""


def read(folder: Path) -> Sections:
    """Read the results of earlier runs. Raises `UserError` if the file is not a benchmark result."""
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        sections = json.loads(path.read_text(encoding="utf-8"))["sections"]
        for section in sections.values():
            section["results"] = [from_dict(result) for result in section["results"]]
        return sections
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: is not a result of this benchmark: move it away, or choose another --out") from error


def write(sections: Sections, folder: Path) -> None:
    """Write the JSON, Markdown and figure of all sections."""
    from trpo_lightning.benchmark.figure import draw

    plain = {name: {**s, "results": [to_dict(result) for result in s["results"]]} for name, s in sections.items()}
    text = json.dumps({"sections": plain}, indent=1, allow_nan=False)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / FILE, text.encode() + b"\n")
    lines = ["# Benchmark", "", *markdown(sections), "", *machine(sections), *notes(sections)]
    write_atomically(folder / "table.md", ("\n".join(lines) + "\n").encode())
    draw({name: section["results"] for name, section in sections.items()}, folder / "benchmark.png")


def rows(sections: Sections, targets_only: bool = False) -> list[tuple[str, ...]]:
    """The table's rows below `HEADINGS`, as text."""
    found = []
    for name, section in sections.items():
        for r in section["results"]:
            if targets_only and r.target is None:
                continue
            spread = f"{number(r.low, 4)} to {number(r.high, 4)}" if len(r.values) > 1 else "-"
            median = f"{number(r.median, 4)} {r.unit}" if r.values else "-"
            target = str(r.target or "")
            found.append((name, r.subject, r.quantity, median, spread, str(len(r.values)), target, r.verdict))
    return found


def console(sections: Sections) -> list[str]:
    """The table as aligned lines."""
    table = [HEADINGS, *rows(sections)]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEADINGS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def markdown(sections: Sections, targets_only: bool = False) -> list[str]:
    """The table as lines of Markdown; `targets_only` leaves out the rows that have no target."""
    body = [f"| {' | '.join(row)} |" for row in rows(sections, targets_only)]
    return [f"| {' | '.join(HEADINGS)} |", f"|{' --- |' * len(HEADINGS)}", *body]


def machine(sections: Sections) -> list[str]:
    """A list item for each benchmark run: machine, date, commit, command."""
    found = dict.fromkeys(_origin(section) for section in sections.values())
    return [
        f"- {', '.join(name for name, section in sections.items() if _origin(section) == origin)}: {origin}"
        for origin in found
    ]


def notes(sections: Sections) -> list[str]:
    """List items with the sections' notes and the versions of the other libraries."""
    lines = [f"- {name}: {note}" for name, section in sections.items() for note in section["notes"]]
    versions = {peer: v for section in sections.values() for peer, v in section["versions"].items()}
    lines += [f"- {peer}: {', '.join(f'{k} {v}' for k, v in found.items())}" for peer, found in versions.items()]
    return lines


def _origin(section: dict[str, Any]) -> str:
    p = section["provenance"]
    commit = str(p["git"]["commit"] or "no commit")[:12] + (" with changes" if p["git"].get("diff_sha256") else "")
    packages = ", ".join(f"{name} {p['packages'][name]}" for name in ("torch", "envpool", "mujoco"))
    where = f"{p['machine']['cpu']}, {p['machine']['cores']} cores"
    told = "".join(f", {name}={value}" for name, value in p["machine"].get("told", {}).items())
    return f"{where}, {p['started'][:10]}, commit {commit}, {packages}{told}; `{section['command']}`."


def summary(results: list[Result]) -> str:
    """How many targets were met, as text."""
    verdicts = [result.verdict for result in results if result.verdict]
    return f"{verdicts.count('met')} of {len(verdicts)} targets met"
