"""Every program of `examples/` runs as it is, in seconds, from a folder that has nothing.

Files that are there to be named on the command line (`module:Class`) are tested in test_extensions.py.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PROGRAMS = [file for file in EXAMPLES if re.search(r"^(# %%|if __name__)", file.read_text(encoding="utf-8"), re.M)]


@pytest.mark.parametrize("file", PROGRAMS, ids=[file.stem for file in PROGRAMS])
def test_an_example_runs_as_it_is(file, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"}
    ended = subprocess.run([sys.executable, str(file)], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_example_says_what_it_shows():
    for file in EXAMPLES:
        first = file.read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith(('"""', "# %%")), f"{file.name} begins with {first}"
