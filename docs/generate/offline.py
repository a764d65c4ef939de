"""Checks that the built site's pages fetch nothing from elsewhere."""

import re
from html.parser import HTMLParser
from pathlib import Path

LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "object": "data",
}
RELATIONS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload", "manifest"}

FROM_STYLE = re.compile(r"""(?:@import\s+|url\(\s*)["']?((?:https?:)?//[^"')\s;]+)""")


def foreign_loads(site: Path) -> list[str]:
    """A line for each load from another server: the file and the address.

    Links that a reader may follow do not count. What the theme's script might fetch is recognised by its cause: a
    Mermaid diagram, or a repository's address.
    """
    found = []
    for page in sorted(site.rglob("*.html")):
        parser = _Loads()
        parser.feed(page.read_text(encoding="utf-8"))
        found += [f"{page.relative_to(site)}: {address}" for address in parser.loads]
    for style in sorted(site.rglob("*.css")):
        found += [f"{style.relative_to(site)}: {address}" for address in FROM_STYLE.findall(style.read_text("utf-8"))]
    return found


class _Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        addresses = [values.get(LOADED.get(tag, ""), ""), *values.get("srcset", "").split(",")]
        if tag == "link" and RELATIONS & set(values.get("rel", "").split()):
            addresses.append(values.get("href", ""))
        self.loads += [address.strip() for address in addresses if re.match(r"\s*(https?:)?//", address)]
        self.loads += FROM_STYLE.findall(values.get("style", ""))
        if "mermaid" in values.get("class", "").split():
            self.loads.append("a Mermaid diagram, which the theme draws with a script from elsewhere")
        if values.get("data-md-component") == "source":
            self.loads.append("a repository's address, whose stars the theme asks for")
        self._in_style = tag == "style"

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.loads += FROM_STYLE.findall(data)
