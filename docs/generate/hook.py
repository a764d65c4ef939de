"""MkDocs hooks: add generated pages, link to the code, typeset formulas, check that pages fetch nothing."""

import logging
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).parents[2]
FOLDERS = [str(ROOT), str(ROOT / "docs")]
"""Folders of the modules that this file and the pages' code blocks import."""

sys.path[:0] = FOLDERS

from generate import contents, formulas, offline, source_lines  # noqa: E402
from trpo_lightning.errors import UserError  # noqa: E402

LOGGER = logging.getLogger("mkdocs.hooks.generate")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let code blocks import from `docs/`, too: MkDocs drops a hook's path after loading it."""
    sys.path[:0] = [folder for folder in FOLDERS if folder not in sys.path]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated files to those of the folder."""
    try:
        pages, copied = contents.pages(), contents.files()
    except (UserError, FileNotFoundError) as error:
        raise PluginError(str(error).replace(f"{ROOT}/", "")) from None
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    for path, source in copied.items():
        files.append(File.generated(config, path, abs_src_path=str(source)))
    try:
        sources = source_lines.pages(file.content_string for file in files.documentation_pages())
    except LookupError as error:
        raise PluginError(error.args[0]) from None
    for path, text in sources.items():
        files.append(File.generated(config, path, content=text, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to the code into links to lines of the pages that show it."""
    return source_lines.linked(markdown, lambda path: get_relative_url(files.src_uris[path].url, page.url))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Typeset the formulas of a page."""
    try:
        return formulas.typeset(html)
    except ValueError as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from None


def on_post_build(config: MkDocsConfig) -> None:
    """Warn of everything that a page would fetch from another server; a warning ends a strict build."""
    for line in offline.foreign_loads(Path(config.site_dir)):
        LOGGER.warning("loads from another server: %s", line)
