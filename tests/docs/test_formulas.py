"""Formulas are typeset while the site is built; the one that cannot be is quoted."""

import pytest
from generate import formulas, node

try:
    node.package("katex")
except FileNotFoundError:
    pytest.skip("KaTeX is not installed: make docs", allow_module_level=True)


def test_formulas_in_a_line_and_on_their_own():
    page = (
        r'<p>a <span class="arithmatex">\(x &lt; \pi\)</span></p><div class="arithmatex">\[ \sum_i y_i \]</div><p>b</p>'
    )
    written = formulas.typeset(page)
    assert "arithmatex" not in written and written.startswith("<p>a <span") and written.endswith("</div><p>b</p>")
    assert written.count('class="katex"') == 2 and written.count("katex-display") == 1
    assert "<math" in written and "π" in written  # for those who listen, and for the clipboard


def test_a_page_without_formulas_is_left_alone(monkeypatch):
    monkeypatch.setattr(node, "run", None)
    assert formulas.typeset("<p>no formula, $5</p>") == "<p>no formula, $5</p>"


def test_a_formula_that_is_none_is_one_line():
    with pytest.raises(
        ValueError, match=r"formula \\fraq\{1\}: KaTeX parse error: Undefined control sequence: \\fraq"
    ) as error:
        formulas.typeset('<span class="arithmatex">\\(\\fraq{1}\\)</span>')
    assert "\n" not in str(error.value)


def test_the_site_gets_the_style_sheet_and_every_font_it_names():
    copied = node.assets()
    style = copied["assets/katex/katex.min.css"].read_text()
    fonts = {f"assets/katex/fonts/{part.split(')')[0]}" for part in style.split("url(fonts/")[1:]}
    assert {font for font in fonts if font.endswith(".woff2")} <= set(copied)
    assert all(file.is_file() for file in copied.values())
