"""The tutorial's pages: their code runs as it does when the site is built, and what their text claims is true of it."""

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {path.stem: path for path in sorted((DOCS / "tutorial").glob("*.md"))}
BLOCK = re.compile(r'^```python exec="on"(?P<options>.*)\n(?P<code>(?:.*\n)*?)^```$', re.MULTILINE)


def run(name: str) -> dict:
    """The names that a page's blocks leave behind, run in order, and in `printed` what each block printed."""
    session: dict = {"printed": []}
    for block in BLOCK.finditer(PAGES[name].read_text()):
        with contextlib.redirect_stdout(io.StringIO()) as stdout:
            exec(compile(block["code"], f"{name}.md", "exec"), session)
        session["printed"].append(stdout.getvalue())
    return session


if __name__ == "__main__":
    sys.path.insert(0, str(DOCS / "code"))
    import time
    for name in sys.argv[1:] or PAGES:
        began = time.time()
        s = run(name)
        print("=" * 20, name, round(time.time() - began, 2), "s")
        for text in s["printed"]:
            print(text if len(text) < 3000 else text[:80] + "...")
