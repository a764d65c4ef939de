"""Formulas are typeset while the site is built, so that pages need no JavaScript for them."""

import html
import json
import re

from generate import node

ARITHMATEX = re.compile(r'<(span|div) class="arithmatex">(?:\\\(|\\\[)(.*?)(?:\\\)|\\\])</\1>', re.DOTALL)

SCRIPT = r"""
const katex = require("katex");
const formulas = JSON.parse(require("fs").readFileSync(0, "utf-8"));
const written = formulas.map(([formula, displayMode]) => {
  try {
    return katex.renderToString(formula, { displayMode, strict: "error", trust: true });
  } catch (error) {
    console.error(`${formula}: ${error.message}`.replace(/\s+/g, " "));
    process.exit(1);
  }
});
console.log(JSON.stringify(written));
"""


def typeset(page: str) -> str:
    """Typeset the formulas that pymdownx.arithmatex has marked in a page's HTML.

    Raises:
        ValueError: KaTeX does not understand a formula; the message is one line that quotes it.
    """
    found = [(html.unescape(formula.strip()), tag == "div") for tag, formula in ARITHMATEX.findall(page)]
    if not found:
        return page
    try:
        written = iter(json.loads(node.run(SCRIPT, json.dumps(found))))
    except RuntimeError as error:
        raise ValueError(f"formula {error}") from None
    return ARITHMATEX.sub(lambda match: f'<{match[1]} class="formula">{next(written)}</{match[1]}>', page)
