"""The gallery of results, and a page for each experiment: its question, figures, findings, claims, scores and origin."""

import functools
from pathlib import Path
from typing import Any

from generate import findings
from generate.folder import ResultsFolder
from generate.markdown import details, escaped, sections, table
from trpo_lightning.errors import UserError, nearest
from trpo_lightning.experiment.declaration import Experiment, load_experiment
from trpo_lightning.report.references import Reference, read_references

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
FINDINGS = "findings.md"

GROUPS = (
    ("First run", ("quickstart",)),
    ("The papers' figures and tables", ("trpo2015_", "gae2016_", "implementation_", "henderson2018_", "theory_")),
    ("What a setting is worth", ("ablation_", "first_", "search_", "sweep_")),
    ("More", ("",)),
)
"""Headings of the gallery, each with how the names of its experiments begin; the first that fits counts."""

CAPTIONS = {
    "learning_curves.png": "Returns while they learn: interquartile means over runs, bands are 95 % bootstrap intervals.",
    "sensitivity.png": "Score against the level.",
    "heat_map.png": "Score of each pair of levels.",
}


def pages(results: Path = RESULTS) -> dict[str, str]:
    """The gallery and the experiments' pages, by their paths."""
    folders = folders_of(results)
    return {
        "results/index.md": gallery(folders),
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
    """All folders of experiments; the benchmark has a page of its own."""
    return [ResultsFolder(file.parent) for file in sorted(results.glob("*/scores.csv"))]


def gallery(folders: list[ResultsFolder]) -> str:
    """A figure and title of each experiment."""
    parts = []
    left = list(folders)
    for heading, beginnings in GROUPS:
        chosen = [folder for folder in left if folder.name.startswith(beginnings)]
        left = [folder for folder in left if folder not in chosen]
        if chosen:
            cards = "\n\n".join(_card(folder) for folder in chosen)
            parts.append(f'## {heading}\n\n<div class="grid cards gallery" markdown>\n\n{cards}\n\n</div>')
    return sections(
        "# Results",
        "What has been run, each with its curves, findings, and claims that were fixed before the runs. A claim that does "
        "not hold, or is not decided, stands here like one that holds. The numbers in tables and text are read from the "
        "files in `experiments/results/` when this site is built. Scores are interquartile means with bootstrap intervals "
        "([Agarwal et al. 2021](https://arxiv.org/abs/2108.13264)); published numbers stand beside them with their own "
        "definitions of a score, which differ by more than algorithms do.",
        *parts,
    )


def page(folder: ResultsFolder) -> str:
    """All that is known of one experiment."""
    experiment = declared(folder)
    text = folder.path / FINDINGS
    found = findings.render(text, vocabulary(folder)) if text.exists() else ""
    return sections(
        f"# {title(folder)}",
        f"> **Hypothesis, written before the runs.** {escaped(experiment.hypothesis)}" if experiment else "",
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


def title(folder: ResultsFolder) -> str:
    """The experiment's, or what the folder's name says."""
    experiment = declared(folder)
    return experiment.title if experiment else folder.name.replace("_", " ").capitalize()


@functools.cache
def declared(folder: ResultsFolder) -> Experiment | None:
    """The experiment at the scale that was run; none for results of single runs."""
    if not (folder.path.parents[1] / f"{folder.name}.yaml").exists():
        return None
    return load_experiment(folder.name, folder.scale)


def vocabulary(folder: ResultsFolder) -> dict[str, Any]:
    """What findings can say: of their folder, of the experiment's settings, and of published scores."""

    def setting(key: str, env: str | None = None, variant: str | None = None) -> Any:
        experiment = declared(folder)
        cells = experiment.cells() if experiment else []
        chosen = [
            cell.settings
            for cell in cells
            if env in (None, cell.settings.env.id) and variant in (None, cell.settings.name)
        ]
        values = {str(value): value for value in (_setting(settings, key) for settings in chosen)}
        if len(values) != 1:
            raise UserError(
                f"{folder.name}: {key} has {len(values)} values in {env or 'all environments'}, "
                f"{variant or 'all variants'}: {', '.join(values) or 'there are no such runs'}"
            )
        return next(iter(values.values()))

    return findings.vocabulary(folder, published) | {"setting": setting}


def published(key: str, env: str) -> Reference:
    """The published score of a key in an environment, whatever its version. Raises `UserError` if there is none."""
    known = _references()
    if (key, env) not in known:
        choices = [f"{key} {env}" for key, env in known]
        hint = nearest(f"{key} {env}", choices)
        raise UserError(f"experiments/references: there is no published score {key} of {env}{hint}")
    return known[key, env]


@functools.cache
def _references() -> dict[tuple[str, str], Reference]:
    found = [
        row for file in sorted((ROOT / "experiments" / "references").glob("*.csv")) for row in read_references(file)
    ]
    return {(reference.key, reference.env): reference for reference in found}


def _setting(settings: Any, key: str) -> Any:
    from trpo_lightning.settings import get, keys

    if key not in keys():
        raise UserError(f"there is no setting {key}{nearest(key, list(keys()))}")
    return get(settings, key)


def _card(folder: ResultsFolder) -> str:
    figures = folder.figures()
    picture = f"[![]({folder.name}/{figures[0].name}){{ loading=lazy }}]({folder.name}.md)" if figures else ""
    name = f"[{title(folder)}]({folder.name}.md)"
    decided = [claim.verdict for claim in folder.claims]
    counts = [f"{decided.count(verdict)} {verdict}" for verdict in dict.fromkeys(decided)]
    lines = [f"-   **{name}**", picture, f"Claims: {', '.join(counts)}" if counts else ""]
    return "\n\n    ".join(line for line in lines if line)


def _figure(folder: ResultsFolder, file: Path) -> str:
    caption = CAPTIONS.get(file.name, file.stem.replace("_", " "))
    address = f"{folder.name}/{file.name}"
    return f"<figure markdown>\n[![{caption}]({address})]({address})\n<figcaption>{caption}</figcaption>\n</figure>"


def _claims(folder: ResultsFolder) -> str:
    if not folder.claims:
        return ""
    rows = [
        (escaped(claim.says), f"**{claim.verdict}**", claim.measured, f"`{claim.criterion}`", claim.seeds)
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
    return sections("## Scores", scores, details("What this means", explanation))


def _part(folder: ResultsFolder, heading: str) -> str:
    body = folder.section(heading)
    return f"## {heading}\n\n{escaped(body)}" if body else ""


def _list(heading: str, items: list[str]) -> str:
    return (
        "\n".join([f"## {heading}", "", *(f"- {escaped(' '.join(item.split()))}" for item in items)]) if items else ""
    )


def _origin(folder: ResultsFolder) -> str:
    """How to run it again, and what it was run with."""
    first = folder.provenances[0]
    packages = ", ".join(f"{name} {version}" for name, version in first["packages"].items())
    commits = {group["git"]["commit"][:12]: None for group in folder.provenances if "git" in group}
    commits |= {commit[:12]: None for commit in first.get("commits", {}).values()}
    machine = first["machine"]
    names = [
        f"[{name}]({folder.name}/{name})"
        for name in ("runs.csv", "scores.csv", "provenance.json")
        if (folder.path / name).exists()
    ]
    return sections(
        "## Run it again",
        f"```console\n$ {folder.command}\n```",
        f"These results: {', '.join(f'commit {commit}' for commit in commits)}; Python {first['python']}, {packages}; "
        f"{machine['cpu']}, {machine['cores']} cores, {first['threads']} thread a run. Files: {', '.join(names)}.",
    )


def _runs(folder: ResultsFolder) -> str:
    if not (folder.path / "runs.csv").exists():
        return ""
    rows = folder.rows("runs.csv")
    return details(f"All {len(rows)} runs", table(rows[0], [row.values() for row in rows]))
