"""What the README says is so."""

import re
from pathlib import Path

from trpo_lightning.settings import all_keys
from trpo_lightning.training.metrics import METRICS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_explains_every_metric_in_the_words_of_the_code():
    table = README[README.index("| metric |") :].split("\n\n")[0]
    rows = dict(re.findall(r"^\| `([a-z_]+(?:/[a-z_]+)?)` \| (.*) \|$", table, flags=re.MULTILINE))
    assert rows == METRICS


def test_the_keys_and_files_it_names_exist():
    for key in re.findall(r"[ `]([a-z]+\.[a-z_]+)=", README):
        assert key in all_keys() or key.startswith("env.kwargs"), key
    for path in re.findall(r"`((?:trpo_lightning|policies|rules|experiments)/[\w/.]+)`", README):
        assert any((root / path).exists() for root in (ROOT, ROOT / "trpo_lightning")), path
    for path in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / path).exists(), path


def test_its_make_targets_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for target in re.findall(r"`?make ([a-z-]+)", README):
        assert target in targets, target
