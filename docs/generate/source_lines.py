"""Links such as `[surrogate](code:numerics.tabular:surrogate "return")`, which lead to that line of the package.

The address names a module and a function, class or constant in it; the title, if any, quotes a piece of the line. Each
linked file becomes a page of the site, so that links work without a network and show the code that the site was built
from.
"""

import ast
import html
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = "trpo_lightning"
LINK = re.compile(r'\[(?P<label>[^\]]+)\]\(code:(?P<module>[\w.]+):(?P<name>[\w.]+)(?:\s+"(?P<text>[^"]+)")?\)')
PAGE = """---
search:
  exclude: true
hide:
  - navigation
  - toc
---
# {path}

<style>
.highlight code {{ position: relative; }}
.highlight code a[id]:target {{
  background: var(--md-accent-fg-color); height: 1.4em; left: 0; opacity: 0.2; right: 0; visibility: visible;
}}
</style>

~~~~~~ {{ .python linenums="1" }}
{source}
~~~~~~
"""


class Line(NamedTuple):
    """A line of the package: `path` relative to the repository's root, `number` from 1."""

    path: str
    number: int


def locate(module: str, name: str, text: str | None = None) -> Line:
    """The line of `name` in `module` (without the package's name), or the first line in its body with `text` in it.

    Raises:
        LookupError: There is no such module, name or line.
    """
    path = f"{PACKAGE}/{module.replace('.', '/')}.py"
    if not (ROOT / path).is_file():
        raise LookupError(f"there is no file {path}")
    source = (ROOT / path).read_text(encoding="utf-8")
    node: ast.AST = ast.parse(source)
    for part in name.split("."):
        found = [child for child in ast.iter_child_nodes(node) if part in _names(child)]
        if not found:
            raise LookupError(f"{path} has no {name}")
        node = found[0]
    assert isinstance(node, ast.stmt)
    lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
    for number, line in enumerate(lines, start=node.lineno):
        if text is None or text in line:
            return Line(path, number)
    raise LookupError(f"no line of {name} in {path} contains {text!r}")


def _names(node: ast.AST) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def page_of(path: str) -> str:
    """The page that shows a file of the package, relative to the root of the documentation."""
    return f"source/{path.removesuffix('.py')}.md"


def pages(texts: Iterable[str]) -> dict[str, str]:
    """A page, by its path, for each file that one of the Markdown `texts` links to. Raises `LookupError`."""
    paths = sorted({_located(match).path for text in texts for match in LINK.finditer(text)})
    return {page_of(path): PAGE.format(path=path, source=(ROOT / path).read_text("utf-8").rstrip()) for path in paths}


def linked(markdown: str, address: Callable[[str], str]) -> str:
    """Markdown with its links to the code as HTML; `address` gives the URL of a page. Raises `LookupError`."""

    def link(match: re.Match[str]) -> str:
        path, number = _located(match)
        label = re.sub("`(.+?)`", r"<code>\1</code>", html.escape(match["label"]))
        return f'<a href="{address(page_of(path))}#__codelineno-0-{number}" title="{path}, line {number}">{label}</a>'

    return LINK.sub(link, markdown)


def _located(match: re.Match[str]) -> Line:
    try:
        return locate(match["module"], match["name"], match["text"])
    except LookupError as error:
        raise LookupError(f"{match[0]}: {error}") from None
