"""The gallery of results, and a page for each experiment: question, figures, findings, claims, scores and origin."""

import re
from pathlib import Path

from generate import findings
from generate.declared import FINDINGS, declared, title, vocabulary
from generate.folder import ResultsFolder
from generate.markdown import details, escaped, sections, table, unbroken
from trpo_lightning.report.provenance_summary import duration
from trpo_lightning.report.verdicts import FAILS, HOLDS, UNDECIDED

RESULTS = Path(__file__).parents[2] / "experiments" / "results"

GROUPS = (
    ("First run", ("quickstart",)),
    ("The papers' figures and tables", ("trpo2015_", "gae2016_", "implementation_", "henderson2018_", "theory_")),
    ("What a setting is worth", ("ablation_", "first_", "search_", "sweep_")),
    ("More", ("",)),
)
"""Headings of the gallery, each with the prefixes of its experiments' names; the first match counts."""

INTRODUCTION = """
All experiments that have been run, with their curves, their findings, and claims that were fixed before the runs (if
they were not, the findings say so). A claim that does not hold, or is not decided, is shown like one that holds. The
numbers in tables and text are read from the files in `experiments/results/` when this site is built. Scores are
interquartile means with bootstrap intervals ([Agarwal et al. 2021](https://arxiv.org/abs/2108.13264)); published
numbers stand beside them with their own definitions of a score, which differ by more than algorithms do.
"""

CAPTIONS = {
    "learning_curves.png": "returns along training",
    "sensitivity.png": "score against the level",
    "heat_map.png": "score of each pair of levels",
}
"""Alternative texts; the pictures themselves say what they show."""


def pages(results: Path = RESULTS) -> dict[str, str]:
    """The gallery and the experiments' pages, by path."""
    groups = _grouped(folders_of(results))
    folders = [folder for chosen in groups.values() for folder in chosen]
    order = "".join(f"  - {folder.name}.md\n" for folder in folders)
    return {
        "results/index.md": gallery(groups),
        "results/.nav.yml": f"title: Results\nnav:\n  - index.md\n{order}",
        **{f"results/{folder.name}.md": page(folder) for folder in folders},
    }


def files(results: Path = RESULTS) -> dict[str, Path]:
    """Figures and tables that the pages show and link to."""
    found = [
        file
        for folder in folders_of(results)
        for pattern in ("*.png", "*.csv", "provenance.json")
        for file in sorted(folder.path.glob(pattern))
    ]
    return {f"results/{file.parent.name}/{file.name}": file for file in found}


def folders_of(results: Path) -> list[ResultsFolder]:
    """All folders of experiments; the benchmark has its own page."""
    return [ResultsFolder(file.parent) for file in sorted(results.glob("*/scores.csv"))]


def gallery(groups: dict[str, list[ResultsFolder]]) -> str:
    """A figure and the title of each experiment, under the heading of its group."""
    parts = []
    for heading, folders in groups.items():
        cards = "\n\n".join(_card(folder) for folder in folders)
        parts.append(f'## {heading}\n\n<div class="grid cards gallery" markdown>\n\n{cards}\n\n</div>')
    return sections(
        "# Results",
        INTRODUCTION,
        *parts,
    )


def page(folder: ResultsFolder) -> str:
    """The page of one experiment."""
    experiment = declared(folder)
    text = folder.path / FINDINGS
    found = findings.render(text, vocabulary(folder)) if text.exists() else ""
    found = re.sub(r"^# .*\n", "", found)
    return sections(
        f"# {title(folder)}",
        f"> **Hypothesis.** {escaped(experiment.hypothesis)}" if experiment else "",
        *(_figure(folder, file) for file in folder.figures()),
        f"## Findings\n\n{found}" if found else "",
        _claims(folder),
        _scores(folder),
        _part(folder, "Published scores"),
        _list("What differs from the paper", experiment.known_differences if experiment else []),
        _part(folder, "Warnings"),
        _origin(folder),
        _runs(folder),
        details(f"experiments/{experiment.file.name}", f"```yaml\n{experiment.file.read_text()}```")
        if experiment
        else "",
    )


def _grouped(folders: list[ResultsFolder]) -> dict[str, list[ResultsFolder]]:
    """The folders by the headings of `GROUPS`, without empty groups."""
    found: dict[str, list[ResultsFolder]] = {heading: [] for heading, _ in GROUPS}
    for folder in folders:
        found[next(heading for heading, names in GROUPS if folder.name.startswith(names))].append(folder)
    return {heading: chosen for heading, chosen in found.items() if chosen}


def _card(folder: ResultsFolder) -> str:
    figures = folder.figures()
    picture = f"[![]({folder.name}/{figures[0].name}){{ loading=lazy }}]({folder.name}.md)" if figures else ""
    name = f"[{title(folder)}]({folder.name}.md)"
    lines = [f"-   **{name}**", picture, _verdicts(folder)]
    return "\n\n    ".join(line for line in lines if line)


def _verdicts(folder: ResultsFolder) -> str:
    """How many claims hold, do not hold, and are not decided."""
    verdicts = [claim.verdict for claim in folder.claims]
    plural = {HOLDS: "hold", FAILS: "do not hold", UNDECIDED: UNDECIDED}
    counts = {verdict: verdicts.count(verdict) for verdict in plural}
    said = [f"{count} {verdict if count == 1 else plural[verdict]}" for verdict, count in counts.items() if count]
    return f"Claims: {', '.join(said)}" if said else ""


def _figure(folder: ResultsFolder, file: Path) -> str:
    address = f"{folder.name}/{file.name}"
    return f"[![{CAPTIONS.get(file.name, file.stem)}]({address})]({address})"


def _claims(folder: ResultsFolder) -> str:
    if not folder.claims:
        return ""
    rows = [
        (escaped(claim.says), f"**{claim.verdict}**", unbroken(claim.measured), f"`{claim.criterion}`", claim.seeds)
        for claim in folder.claims
    ]
    explanation = folder.section("Claims").rpartition("\n\n")[2]
    return sections(
        "## Claims",
        table(("claim", "verdict", "measured", "holds if", "seeds"), rows),
        details("What this means", explanation),
    )


def _scores(folder: ResultsFolder) -> str:
    written = folder.section("")
    if not written:
        rows = folder.rows("scores.csv")
        return sections("## Scores", details("All scores", table(rows[0], [row.values() for row in rows])))
    scores, _, explanation = written.partition("\n\n")
    return sections("## Scores", unbroken(scores), details("What this means", explanation))


def _part(folder: ResultsFolder, heading: str) -> str:
    body = folder.section(heading)
    return f"## {heading}\n\n{escaped(body)}" if body else ""


def _list(heading: str, items: list[str]) -> str:
    return (
        "\n".join([f"## {heading}", "", *(f"- {escaped(' '.join(item.split()))}" for item in items)]) if items else ""
    )


def _origin(folder: ResultsFolder) -> str:
    """How to run it again, and how it was run."""
    first = folder.provenances[0]
    commits = [group["git"]["commit"] for group in folder.provenances if "git" in group]
    commits += first.get("commits", {}).values()
    machine = first["machine"]
    facts = [
        *_size(folder),
        *(f"commit {commit[:12]}" for commit in dict.fromkeys(commits)),
        f"Python {first['python']}",
        *(f"{name} {version}" for name, version in first["packages"].items()),
        f"{machine['cpu']} with {machine['cores']} cores",
        f"{first['threads']} thread a run",
    ]
    names = [name for name in ("runs.csv", "scores.csv", "provenance.json") if (folder.path / name).exists()]
    links = ", ".join(f"[{name}]({folder.name}/{name})" for name in names)
    command = f"```console\n$ {folder.command}\n```"
    return sections("## Run it again", command, f"These results: {', '.join(facts)}.", f"Their files: {links}.")


def _size(folder: ResultsFolder) -> list[str]:
    """The size of the experiment, as texts."""
    if not (folder.path / "runs.csv").exists():
        return []
    steps, seconds = (sum(folder.column("runs.csv", name)) for name in ("env_steps", "wall_seconds"))
    finished = len(folder.column("runs.csv", "seed", state="finished"))
    return [f"{finished} runs", f"{steps:,.0f} env steps", f"{duration(seconds)} one run after another"]


def _runs(folder: ResultsFolder) -> str:
    if not (folder.path / "runs.csv").exists():
        return ""
    rows = folder.rows("runs.csv")
    return details(f"All {len(rows)} runs", table(rows[0], [row.values() for row in rows]))
