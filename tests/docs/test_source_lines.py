"""Links to the code lead to the line that they name, and a line that is gone is an error."""

from pathlib import Path

import pytest
from generate.source_lines import LINK, linked, locate, pages

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


def line(found):
    return (ROOT / found.path).read_text().splitlines()[found.number - 1]


def test_functions_classes_methods_and_constants_are_found():
    assert line(locate("numerics.tabular", "surrogate")).startswith("def surrogate(")
    assert line(locate("policies.distributions", "Gaussian")) == "class Gaussian:"
    assert line(locate("policies.distributions", "Categorical.kl")).strip().startswith("def kl(")
    assert line(locate("numerics.trust_region", "STEP_LENGTHS")).startswith("STEP_LENGTHS")


def test_a_piece_of_the_line_is_looked_for_in_the_body_of_its_name():
    assert line(locate("numerics.tabular", "penalty", "return")).strip().startswith("return 4.0 *")
    with pytest.raises(LookupError, match=r"no line of penalty in .*tabular\.py contains 'old\.visitation'"):
        locate("numerics.tabular", "penalty", "old.visitation")


@pytest.mark.parametrize(("module", "name"), [("numerics.nothing", "f"), ("numerics.tabular", "TabularMDP.nothing")])
def test_names_that_are_gone_are_one_line(module, name):
    with pytest.raises(LookupError, match=r"^\[x\]\(code:.*\): (there is no file|.*tabular.py has no TabularMDP)"):
        pages([f"[x](code:{module}:{name})"])


def test_a_link_becomes_one_to_the_page_of_its_file():
    text = 'see [`C` & more](code:numerics.tabular:penalty "return")'
    number = locate("numerics.tabular", "penalty", "return").number
    assert linked(text, lambda path: f"../{path}") == (
        f'see <a href="../source/trpo_lightning/numerics/tabular.md#__codelineno-0-{number}" '
        f'title="trpo_lightning/numerics/tabular.py, line {number}"><code>C</code> &amp; more</a>'
    )
    assert list(pages([text])) == ["source/trpo_lightning/numerics/tabular.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_all_links_of_the_pages_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    assert len(LINK.findall(text)) == text.count("](code:")
    linked(text, str)
