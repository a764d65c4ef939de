"""All that is generated: pages and files of the site, by their paths."""

from pathlib import Path

from generate import benchmarks, node, reference, results, root_files


def pages() -> dict[str, str]:
    """Markdown of each generated page."""
    return {**reference.pages(), **results.pages(), **benchmarks.pages(), **root_files.pages()}


def files() -> dict[str, Path]:
    """Where each file is that is copied as it is."""
    return {**node.assets(), **results.files(), **benchmarks.files()}
