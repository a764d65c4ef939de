"""How pages become a site. (That they name nothing that does not exist is checked in test_readme.py.)"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_strict_build_hears_warnings():
    """MkDocs' --quiet drops them before --strict counts them: broken links and failing code would pass."""
    (command,) = re.findall(r"^.*MKDOCS\) build.*$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert "--strict" in command and not re.search(r"--quiet| -q\b", command)


def test_links_of_root_files_are_those_of_their_pages():
    from generate.root_files import seen_from_docs

    text = "[a](docs/guide/first-run.md#x) [b](CHANGELOG.md) [c](https://a.org/) [d](trpo_lightning/errors.py) [e](#f)"
    assert seen_from_docs(text) == "[a](guide/first-run.md#x) [b](changelog.md) [c](https://a.org/) d [e](#f)"
