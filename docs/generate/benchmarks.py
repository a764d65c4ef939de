"""The benchmark's page: how it works, what it found, and everything that was measured."""

from pathlib import Path
from typing import Any

from generate import findings
from generate.markdown import details, sections
from trpo_lightning.benchmark import report
from trpo_lightning.benchmark.results import Result
from trpo_lightning.errors import UserError, nearest

FOLDER = Path(__file__).parents[2] / "experiments" / "results" / "benchmark"
FIGURE = "benchmark.png"


def pages(folder: Path = FOLDER) -> dict[str, str]:
    """The page, by its path."""
    measured = report.read(folder)
    return {
        "benchmarks.md": sections(
            "# Benchmarks",
            f"![ratios of the benchmark]({FIGURE})",
            findings.render(folder / "findings.md", vocabulary(folder, measured)),
            "## What has a target",
            "\n".join(report.markdown(measured, targets_only=True)),
            details("All that was measured", "\n".join(report.markdown(measured))),
            "## Where it was measured",
            "\n".join([*report.machine(measured), *report.notes(measured)]),
        )
    }


def files(folder: Path = FOLDER) -> dict[str, Path]:
    """The figure, by its path in the site."""
    return {FIGURE: folder / FIGURE}


def vocabulary(folder: Path, measured: report.Sections) -> dict[str, Any]:
    """Functions for the findings: `measured("ceiling", "Hopper-v5, 1 thread", "ceiling ratio").median`."""

    def of(section: str, subject: str, quantity: str) -> Result:
        results = {(r.subject, r.quantity): r for name, s in measured.items() if name == section for r in s["results"]}
        if (subject, quantity) not in results:
            known = [" / ".join(key) for key in results] or list(measured)
            hint = nearest(f"{subject} / {quantity}", known) or f": it has {', '.join(known)}"
            raise UserError(f"{folder / report.FILE}: {section} has no {subject} / {quantity}{hint}")
        return results[subject, quantity]

    return {"measured": of}
