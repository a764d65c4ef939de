"""MkDocs' side of it: adds the generated pages and files, typesets formulas, and looks that nothing is fetched."""

import logging
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
FOLDERS = [str(ROOT), str(ROOT / "docs")]
"""Of the modules that this file needs, and that code blocks of pages import."""

sys.path[:0] = FOLDERS

from generate import contents, formulas, offline  # noqa: E402
from trpo_lightning.errors import UserError  # noqa: E402

LOGGER = logging.getLogger("mkdocs.hooks.generate")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let code blocks import from `docs/`, too: MkDocs forgets the path of a hook when it has loaded it."""
    sys.path[:0] = [folder for folder in FOLDERS if folder not in sys.path]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is generated to the files of the folder."""
    try:
        pages, copied = contents.pages(), contents.files()
    except (UserError, FileNotFoundError) as error:
        raise PluginError(str(error).replace(f"{ROOT}/", "")) from None
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    for path, source in copied.items():
        files.append(File.generated(config, path, abs_src_path=str(source)))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Typeset the formulas of a page."""
    try:
        return formulas.typeset(html)
    except ValueError as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from None


def on_post_build(config: MkDocsConfig) -> None:
    """Warn, which ends a strict build, of all that a page would fetch from another server."""
    for line in offline.foreign_loads(Path(config.site_dir)):
        LOGGER.warning("loads from another server: %s", line)
