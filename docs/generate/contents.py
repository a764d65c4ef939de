"""All generated pages and files of the site, by path."""

from pathlib import Path

from generate import benchmarks, node, reference, results, root_files


def pages() -> dict[str, str]:
    """The Markdown of each generated page."""
    return {**reference.pages(), **results.pages(), **benchmarks.pages(), **root_files.pages()}


def files() -> dict[str, Path]:
    """The source of each file that is copied unchanged."""
    return {**node.assets(), **results.files(), **benchmarks.files()}
