"""A page of panels for print: fonts, sizes, title, legend and caption, saved as PNG and PDF."""

import io
import textwrap
from pathlib import Path
from typing import Any

from trpo_lightning.report.style import Style
from trpo_lightning.storage.files import write_atomically

COLUMNS, PANEL = 3, (4.3, 3.1)
"""Panels in a row, and the size of one in inches."""
SMALL_COLUMNS, SMALL_PANEL = 5, (2.6, 1.9)
"""The same for small multiples."""
DPI = 160
DASH = {"solid": "-", "dash": (0, (5, 2)), "dot": (0, (1, 1.4)), "dashdot": (0, (5, 2, 1, 2)), "longdash": (0, (10, 3))}
SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "pdf.fonttype": 42,  # keep text as text
}


class Page:
    """A figure of panels with a title above, one legend and a caption below; saved at the end.

    `size` is that of a panel in inches; the default depends on the kind of panels.
    """

    def __init__(
        self,
        title: str,
        caption: list[str],
        panels: int,
        path: Path,
        *,
        small: bool = False,
        size: tuple[float, float] | None = None,
    ) -> None:
        self.title, self.path, self.panels = title, path, panels
        self.size = size or (SMALL_PANEL if small else PANEL)
        self.columns = min(panels, SMALL_COLUMNS if small else COLUMNS)
        self.rows = -(-panels // self.columns)
        self.width = max(self.size[0] * self.columns, 5.6)
        wide = int(self.width * 17.5)
        self.caption = "\n".join(line for part in caption for line in textwrap.wrap(part, wide))
        self.handles: list[Any] = []

    def __enter__(self) -> "Page":
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        self._style = plt.rc_context(SETTINGS)
        self._style.__enter__()
        self.figure = plt.figure(figsize=(self.width, self.size[1] * self.rows), layout="constrained")
        grid = self.figure.subplots(self.rows, self.columns, squeeze=False)
        flat = list(grid.flat)
        for axis in flat[self.panels :]:
            axis.set_visible(False)
        self.axes = flat[: self.panels]
        return self

    def label(self, x: str, y: str) -> None:
        """Label the axes of the outer panels."""
        for index, axis in enumerate(self.axes):
            if index + self.columns >= self.panels:
                axis.set_xlabel(x)
            if index % self.columns == 0:
                axis.set_ylabel(y)

    def legend(self, handles: list[Any]) -> None:
        """Show a legend with these entries below the panels."""
        self.handles = handles

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        from matplotlib import pyplot as plt

        try:
            if kind is None:
                self._finish()
                self.path.parent.mkdir(parents=True, exist_ok=True)
                metadata = {".png": {}, ".pdf": {"CreationDate": None}}  # so that the same curves give the same bytes
                for suffix, facts in metadata.items():
                    file = io.BytesIO()
                    self.figure.savefig(file, format=suffix[1:], dpi=DPI, metadata=facts)
                    write_atomically(self.path.with_suffix(suffix), file.getvalue())
        finally:
            plt.close(self.figure)
            self._style.__exit__(kind, error, trace)

    def _finish(self) -> None:
        """Make room for legend and caption below the panels."""
        columns = max(1, min(len(self.handles), int(self.width * 13 / max(map(_length, self.handles), default=1))))
        legend = -(-len(self.handles) // columns) * 0.17 + (0.12 if self.handles else 0)
        text = 0.125 * (self.caption.count("\n") + 1) + 0.08
        height = self.size[1] * self.rows + 0.35 + legend + text
        self.figure.set_size_inches(self.width, height)
        self.figure.suptitle("\n".join(textwrap.wrap(self.title, int(self.width * 11))), fontsize=11, fontweight="bold")
        layout: Any = self.figure.get_layout_engine()
        layout.set(rect=(0, (text + legend) / height, 1, 1 - (text + legend) / height), wspace=0.04, hspace=0.04)
        if self.handles:
            corner = (0.5, (text + legend) / height)
            self.figure.legend(handles=self.handles, loc="upper center", bbox_to_anchor=corner, ncols=columns)
        self.figure.text(0.012, (text - 0.02) / height, self.caption, fontsize=6.8, color="#555555", va="top")


def handle(style: Style, label: str) -> Any:
    """The legend entry of a style."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=style.color, ls=DASH[style.dash], lw=style.width, label=label)


def _length(handle: Any) -> int:
    return len(handle.get_label()) + 6
