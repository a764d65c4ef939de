"""Pages that are written by hand name nothing that does not exist."""

import re
from pathlib import Path

import pytest

from trpo_lightning.settings import all_keys

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_keys_files_and_make_targets_exist(page):
    text = page.read_text(encoding="utf-8")
    for key in re.findall(r"[ `]((?:env|rollout|rule|policy|value|checkpoint|tracking|normalize)\.[a-z_]+)=", text):
        shown_as_wrong = f"unknown key {key}" in text
        assert key in all_keys() or key.startswith("env.kwargs") or shown_as_wrong, key
    for path in re.findall(r"`((?:trpo_lightning|tests|examples)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for target in re.findall(r"`make ([a-z-]+)|\$ make ([a-z-]+)", text):
        assert "".join(target) in targets, target


def test_the_strict_build_hears_warnings():
    """MkDocs' --quiet drops them before --strict counts them: broken links and failing code would pass."""
    (command,) = re.findall(r"^.*MKDOCS\) build.*$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert "--strict" in command and not re.search(r"--quiet| -q\b", command)


def test_links_of_root_files_are_those_of_their_pages():
    from generate.root_files import seen_from_docs

    text = "[a](docs/guide/first-run.md#x) [b](CHANGELOG.md) [c](https://a.org/) [d](trpo_lightning/errors.py) [e](#f)"
    assert seen_from_docs(text) == "[a](guide/first-run.md#x) [b](changelog.md) [c](https://a.org/) d [e](#f)"
