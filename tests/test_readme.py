"""What README.md, CONTRIBUTING.md, CHANGELOG.md and the pages of docs/ say is so."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from trpo_lightning import __version__
from trpo_lightning.command_line import build_parser
from trpo_lightning.experiment.experiment_file import experiment_names
from trpo_lightning.settings import all_keys
from trpo_lightning.training.metrics import METRICS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
GENERATED = ("reference/", "results/", "tutorial/", "extend/", "benchmarks.md", "changelog.md", "contributing.md")
"""Below docs/: pages that are made while the site is built, or by others; its strict build looks at links to them."""
GROUPS = {key.split(".")[0] for key in all_keys() if "." in key}

EXTEND = ROOT / "docs" / "extend"
"""Its pages name settings of their own programs, which are run by tests of their own."""

pages = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks_of(page: Path) -> list[tuple[str, str]]:
    """Fenced blocks: what stands behind the opening fence, and the lines between."""
    found, info, lines = [], None, []
    for line in text_of(page).splitlines():
        if line.startswith("```") and info is None:
            info, lines = line.removeprefix("```"), []
        elif line == "```":
            found.append((info or "", "\n".join(lines)))
            info = None
        else:
            lines.append(line)
    assert info is None, f"{page.name}: a block is not closed"
    return found


def prose_of(page: Path) -> str:
    """The text without its fenced blocks."""
    text = text_of(page)
    for _, block in blocks_of(page):
        text = text.replace(block, "")
    return text


def commands_of(page: Path) -> list[str]:
    """Lines with a prompt in `console` blocks, all lines of blocks without a language."""
    found = []
    for info, block in blocks_of(page):
        prompt = {"console": "$ ", "": ""}.get(info)
        if prompt is not None:
            lines = block.replace("\\\n", " ").splitlines()
            found += [line.removeprefix(prompt) for line in lines if line.startswith(prompt)]
    return found


def test_the_readme_can_be_read_in_one_go():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 150


@pages
def test_the_settings_a_page_names_exist(page):
    if EXTEND in page.parents:
        return
    for key in re.findall(r"(?<![\w./])([a-z_]+\.[a-z_]+)=", text_of(page)):
        group = key.split(".")[0]
        if group in GROUPS and not key.startswith("rule.dleta"):  # the guide's example of a misspelled key
            assert key in all_keys() or key.startswith("env.kwargs"), f"{page.name}: {key}"


@pages
def test_the_metrics_a_page_names_exist(page):
    groups = {name.split("/")[0] for name in METRICS if "/" in name} - {"value", "update", "population"}
    for name in re.findall(r"`([a-z]+/[a-z_]+)`", text_of(page)):
        group = name.split("/")[0]
        if group in groups and f"{group}/" not in ("rollout/", "time/") and not (ROOT / name).exists():
            assert name in METRICS, f"{page.name}: {name}"


@pages
def test_the_files_and_modules_a_page_names_exist(page):
    if page.name == "CHANGELOG.md":  # it names what has gone, too
        return
    text = text_of(page)
    for path in re.findall(r"`((?:trpo_lightning|experiments|examples|tests|docs)/[\w./]+)`", text):
        assert (ROOT / path).exists(), f"{page.name}: {path}"
    for name in re.findall(r"`(trpo_lightning\.[\w.]+)`", text):
        path = ROOT / Path(*name.split("."))
        assert path.is_dir() or path.with_suffix(".py").exists(), f"{page.name}: {name}"
    for path in re.findall(r'^--8<-- "([^"]+)"', text, flags=re.M):
        assert (ROOT / path).exists(), f"{page.name}: {path}"


@pages
def test_the_links_of_a_page_lead_somewhere(page):
    for address in re.findall(r"\]\(((?!http|#|mailto)[^)\s]+)\)", prose_of(page)):
        path, _, anchor = address.partition("#")
        target = (page.parent / path).resolve()
        below = str(target.relative_to(ROOT / "docs")) if target.is_relative_to(ROOT / "docs") else ""
        if not below.startswith(GENERATED):
            assert target.exists(), f"{page.name}: {address}"
        if anchor and target.exists():
            headings = re.findall(r"^#+ (.+)$", text_of(target), flags=re.M)
            slugs = [re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{page.name}: {address}"


@pages
def test_the_make_targets_of_a_page_exist(page):
    targets = re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), flags=re.M)
    for target in re.findall(r"(?:`|^|\$ )make ([a-z-]+)", text_of(page), flags=re.M):
        assert target in targets, f"{page.name}: make {target}"


@pages
def test_the_commands_of_a_page_are_understood(page):
    for line in commands_of(page):
        if not line.startswith("python -m trpo_lightning "):
            continue
        words = shlex.split(line, comments=True)
        options, rest = build_parser().parse_known_args(words[3:])
        for override in [*getattr(options, "overrides", []), *rest]:  # argparse leaves what follows an option behind
            key = override.split("=")[0]
            known = key in all_keys() or key.startswith("env.kwargs.") or key == "rule.dleta" or EXTEND in page.parents
            assert known, f"{page.name}: {line}"
        if options.command in ("experiment", "report", "sweep"):
            assert options.name in [*experiment_names(), "lambda_on_cartpole", "kl_penalty"], f"{page.name}: {line}"


@pages
def test_the_python_of_a_page_is_python(page):
    for info, block in blocks_of(page):
        if info.startswith("python") and not block.startswith("--8<--"):
            ast.parse(block)


def test_the_guide_shows_the_commands_that_made_its_runs(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from docs.guide.curves import RUNS, RUNS_DIR, command

    shown = [" ".join(line.split()) for line in commands_of(ROOT / "docs" / "guide" / "reading-a-run.md")]
    for name in RUNS:
        assert command(name) in shown, name
        assert (RUNS_DIR / f"{name}.csv").is_file()


def test_the_figures_of_the_guide_can_be_drawn(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    page, drawn = ROOT / "docs" / "guide" / "reading-a-run.md", []
    monkeypatch.setattr("builtins.print", drawn.append)
    for info, block in blocks_of(page):
        if info == 'python exec="on" html="on"':
            exec(compile(block, page.name, "exec"), {})
    assert len(drawn) == 9 and all("<svg" in figure and "aria-label" in figure for figure in drawn)


def test_the_experiment_of_the_guide_is_one(tmp_path, monkeypatch):
    (declared,) = [b for _, b in blocks_of(ROOT / "docs" / "guide" / "experiments.md") if b.startswith("title:")]
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "lambda_on_cartpole.yaml").write_text(declared)
    monkeypatch.chdir(tmp_path)
    from trpo_lightning.experiment.declaration import load_experiment

    experiment = load_experiment("lambda_on_cartpole")
    assert len(experiment.cells()) == 15 and len(experiment.claims) == 2
    assert len(load_experiment("lambda_on_cartpole", "quick").cells()) == 6


def test_the_version_is_the_same_everywhere():
    latest = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", text_of(ROOT / "CHANGELOG.md"), flags=re.M)[0]
    citation = text_of(ROOT / "CITATION.cff")
    assert latest[0] == __version__
    assert f"\nversion: {latest[0]}\ndate-released: {latest[1]}\n" in citation
