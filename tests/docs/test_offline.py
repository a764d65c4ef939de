"""What a page would fetch from elsewhere is found, and what a reader clicks on is not taken for it."""

import pytest
from generate.offline import foreign_loads


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://a.org/x.js"></script>',
        "<script async src=//a.org/x.js></script>",
        '<link rel="stylesheet" href="https://a.org/x.css">',
        '<link rel="preconnect" href="https://fonts.gstatic.com" crossorigin>',
        '<img alt="" src="http://a.org/x.png">',
        '<img srcset="x.png 1x, https://a.org/x.png 2x">',
        '<iframe src="https://a.org/"></iframe>',
        "<style>@import 'https://a.org/x.css';</style>",
        '<p style="background: url(https://a.org/x.png)">',
        '<pre class="mermaid"><code>graph</code></pre>',
        '<a class="md-source" data-md-component="source" href="https://github.com/a/b">',
    ],
)
def test_a_page_that_loads_from_elsewhere(tmp_path, html):
    (tmp_path / "page.html").write_text(f"<html><body>{html}</body></html>")
    (found,) = foreign_loads(tmp_path)
    assert found.startswith("page.html: ")


@pytest.mark.parametrize(
    "style", ['@import "https://a.org/x.css";', "p{src:url(//a.org/x.woff2)}", "p{a:url('http://a.org/')}"]
)
def test_a_style_sheet_that_loads_from_elsewhere(tmp_path, style):
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "x.css").write_text(style)
    (found,) = foreign_loads(tmp_path)
    assert found.startswith("assets/x.css: ") and "a.org" in found


@pytest.mark.parametrize(
    "html",
    [
        '<a href="https://a.org/">a link</a>',
        '<script src="assets/x.js"></script><link rel="stylesheet" href="../x.css"><img src="x.png">',
        '<link rel="canonical" href="https://a.org/">',
        '<svg xmlns="http://www.w3.org/2000/svg"><use href="#x"/></svg>',
        '<img src="data:image/png;base64,//8=">',
        "<p>https://a.org/x.js and @import 'https://a.org/x.css'</p>",
        "<style>p{background:url(\"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>\")}</style>",
    ],
)
def test_what_is_no_load(tmp_path, html):
    (tmp_path / "page.html").write_text(f"<html><body>{html}</body></html>")
    assert foreign_loads(tmp_path) == []
