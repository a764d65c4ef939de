"""Where the runs of a report came from: code, versions, machines, commands and cost, over all runs."""

from dataclasses import dataclass
from typing import Any

from trpo_lightning.report.records import Record


@dataclass(frozen=True)
class Fact:
    """A property of runs: each value that occurs, and the runs that have it."""

    name: str
    values: dict[str, list[str]]


def provenances(records: list[Record]) -> list[Fact]:
    """Code, versions and machine, over all starts of all runs."""
    facts: dict[str, dict[str, list[str]]] = {}
    for record in records:
        for entry in record.provenance:
            for name, value in _facts(entry).items():
                runs = facts.setdefault(name, {}).setdefault(value, [])
                if record.name not in runs:
                    runs.append(record.name)
    return [Fact(name, values) for name, values in facts.items()]


def commands(records: list[Record]) -> list[tuple[str, str, str]]:
    """Run, time and command line of each start."""
    return [
        (record.name, str(entry.get("started", "")), " ".join(map(str, entry.get("command") or [])))
        for record in records
        for entry in record.provenance
    ]


def provenance_warnings(records: list[Record]) -> list[str]:
    """Warnings about code, versions or machines that differ between runs or are unknown."""
    found = []
    for fact in provenances(records):
        if len(fact.values) > 1:
            values = "; ".join(f"{value} ({len(runs)})" for value, runs in fact.values.items())
            found.append(f"runs differ in {fact.name}: {values}")
        elif fact.name == "code" and "uncommitted" in next(iter(fact.values)):
            found.append("all runs were made with uncommitted changes")
    unknown = [record.name for record in records if record.run_dir and record.columns and not record.provenance]
    if unknown:
        found.append(f"origin unknown, no provenance.json: {', '.join(unknown)}")
    return found


def costs(records: list[Record]) -> dict[str, str]:
    """Total env steps and time of all runs, as text by name."""
    seconds = sum(r.wall_seconds for r in records if r.wall_seconds == r.wall_seconds)
    steps = sum(record.env_steps for record in records)
    rates = f"{steps / seconds:,.0f}" if seconds else "-"
    return {
        "runs with data": str(sum(bool(record.env_steps) for record in records)),
        "env steps": f"{steps:,}",
        "time of all runs": duration(seconds),
        "env steps per second of a run": rates,
    }


def duration(seconds: float) -> str:
    """Format seconds, such as `2 h 05 min`, `3 min 20 s` or `4.2 s`."""
    if seconds != seconds:
        return "-"
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
    if seconds >= 60:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{seconds:.1f} s"


def _facts(entry: dict[str, Any]) -> dict[str, str]:
    """The properties that should be the same for all runs of a comparison."""
    git, machine = entry.get("git") or {}, entry.get("machine") or {}
    packages = {name: version for name, version in (entry.get("packages") or {}).items() if version}
    facts = {
        "code": _code(git, str(entry.get("trpo_lightning", "?"))),
        "python": str(entry.get("python", "?")),
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items()),
        "machine": ", ".join(str(machine[k]) for k in ("cpu", "platform") if machine.get(k)),
        "cores": str(machine.get("cores", "?")),
        "backend": str(entry.get("backend", "?")),
        "threads": str(entry.get("threads", "?")),
    }
    return {name: value for name, value in facts.items() if value not in ("", "?")}


def _code(git: dict[str, Any], version: str) -> str:
    if not git.get("commit"):
        return f"trpo_lightning {version}, commit unknown"
    described = f" ({git['describe']})" if git.get("describe") else ""
    diff = git.get("diff_sha256")
    changes = f", with uncommitted changes {diff[:12]}" if diff else ""
    return f"trpo_lightning {version}, commit {git['commit'][:12]}{described}{changes}"
