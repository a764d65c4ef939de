"""A MkDocs hook: links like `[surrogate](code:numerics.tabular:surrogate "return")` lead to that line of the package.

The address names a module and a function, class or constant in it; the title, if there is one, a piece of the line that
is meant. Each file that is linked to becomes a page of the site, so that links work without a network and show the
code that the site was built from. A name or a line that is gone fails the build.
"""

import ast
import html
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).parents[2]
PACKAGE = "trpo_lightning"
LINK = re.compile(r'\[(?P<label>[^\]\n]+)\]\(code:(?P<module>[\w.]+)(?::(?P<name>[\w.]+))?(?:\s+"(?P<text>[^"]+)")?\)')
PAGE = """---
search:
  exclude: true
hide:
  - toc
---
# {path}

~~~~~~ {{ .python linenums="1" }}
{source}
~~~~~~
"""


class Line(NamedTuple):
    """A line of the package: `path` relative to the repository's root, `number` from 1."""

    path: str
    number: int


def locate(module: str, name: str | None = None, text: str | None = None) -> Line:
    """The line of `name` in `module`, or the first line in its body that contains `text`.

    Raises:
        LookupError: there is no such module, name or line.
    """
    path = f"{PACKAGE}/{module.replace('.', '/')}.py"
    if not (ROOT / path).is_file():
        raise LookupError(f"there is no file {path}")
    source = (ROOT / path).read_text()
    node: ast.AST = ast.parse(source)
    for part in name.split(".") if name else ():
        node = next((child for child in ast.iter_child_nodes(node) if part in _names(child)), ast.Pass())
        if isinstance(node, ast.Pass):
            raise LookupError(f"{path} has no {name}")
    first, last = getattr(node, "lineno", 1), getattr(node, "end_lineno", len(source.splitlines()))
    if text is None:
        return Line(path, first)
    for number, line in enumerate(source.splitlines()[first - 1 : last], start=first):
        if text in line:
            return Line(path, number)
    raise LookupError(f"no line of {name or 'this file'} in {path} contains {text!r}")


def _names(node: ast.AST) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lets the pages' code import the modules beside this one."""
    folder = str(Path(__file__).parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return config


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Adds a page for each file of the package that some page links to."""
    texts = [file.content_string for file in files.documentation_pages()]
    for path in sorted({_located(match).path for text in texts for match in LINK.finditer(text)}):
        source = (ROOT / path).read_text().rstrip()
        content = PAGE.format(path=path, source=source)
        files.append(File.generated(config, _page_of(path), content=content, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Turns the links of a page into links to lines."""

    def replace(match: re.Match[str]) -> str:
        path, number = _located(match)
        target = files.get_file_from_path(_page_of(path))
        assert target is not None, path
        address = get_relative_url(target.url, page.url)
        label = re.sub("`(.+?)`", r"<code>\1</code>", html.escape(match["label"]))
        return (
            f'<a class="source-link" href="{address}#__codelineno-0-{number}" title="{path}, line {number}">{label}</a>'
        )

    return LINK.sub(replace, markdown)


def _page_of(path: str) -> str:
    return f"source/{path.removesuffix('.py')}.md"


def _located(match: re.Match[str]) -> Line:
    try:
        return locate(match["module"], match["name"], match["text"])
    except LookupError as error:
        raise PluginError(f"{match[0]}: {error}") from None
