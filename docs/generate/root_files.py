"""Pages from files in the repository's root, read in both places: the changelog, and how to contribute."""

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

FILES = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}


def pages(root: Path = ROOT) -> dict[str, str]:
    """The pages whose files exist, by path."""
    return {
        page: seen_from_docs((root / file).read_text("utf-8")) for page, file in FILES.items() if (root / file).exists()
    }


def seen_from_docs(text: str) -> str:
    """The text with its links as seen from `docs/`; files that are not pages of the site lose theirs."""
    pages = {file: page for page, file in FILES.items()}

    def link(match: re.Match[str]) -> str:
        label, address, anchor = match[1], match[2], match[3] or ""
        if "://" in address or not address:
            return match[0]
        path = pages.get(posixpath.normpath(address), address)
        if path.startswith("docs/") or path != address:
            return f"[{label}]({path.removeprefix('docs/')}{anchor})"
        return label

    return re.sub(r"\[([^\]]*)\]\(([^)#]*)(#[^)]*)?\)", link, text)
