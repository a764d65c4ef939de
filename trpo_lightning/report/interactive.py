"""The figures once more, interactive: plotly's JSON and JavaScript, inlined into the page."""

from typing import Any

import numpy as np

from trpo_lightning.experiment.declaration import Experiment
from trpo_lightning.report.references import Reference, for_environment, letters
from trpo_lightning.report.style import (
    Sensitivity,
    Style,
    axis_scale,
    legend_label,
    numeric_axis,
    steps_text,
    value_label,
    value_text,
    x_label,
)
from trpo_lightning.report.summary import Curve

COLUMNS = 3
ROW_HEIGHT = 330
GREY = "#777777"
BUTTONS = ["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]
CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtons": [BUTTONS]}
"""Named buttons only: others talk to a server."""


def javascript() -> str:
    """Plotly's library, to stand in the page."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def curves_html(
    experiment: Experiment, drawn: list[Curve], styles: dict[str, Style], references: list[Reference]
) -> str:
    """Learning curves as a `div` with its script; a legend entry toggles a variant in all panels. Empty if none."""
    drawn = [curve for curve in drawn if curve.is_drawn]
    panels = {curve.panel: curve.env_id for curve in drawn}
    if not panels:
        return ""
    page = Panels(list(panels), x_label(experiment), value_label(experiment.metric))
    end = max(x.max() for curve in drawn for x in (curve.x, *(line.x for line in curve.lines)) if len(x))
    for curve in drawn:
        style = styles[curve.variant]
        same = [other for other in drawn if styles[other.variant].label == style.label]
        _add_curve(page, curve, style, legend_label(style, same))
    for panel, env_id in panels.items():
        for reference in for_environment(references, env_id):
            _add_reference(page, panel, reference, letters(references), float(end))
    return page.html("learning-curves")


def sensitivity_html(experiment: Experiment, groups: list[Sensitivity]) -> str:
    """Scores against the level of the only numeric axis, as a `div` with its script. Empty if there are none."""
    key = numeric_axis(experiment)
    if key is None or not groups:
        return ""
    page = Panels(list(dict.fromkeys(group.env_id for group in groups)), key, f"score ({experiment.score})")
    for group in groups:
        _add_sensitivity(page, group)
    levels = sorted({level for group in groups for level in group.levels})
    ticks = {"tickvals": levels, "ticktext": [f"{level:g}" for level in levels]} if len(levels) <= 8 else {}
    scale = axis_scale(levels)
    if scale == "even":
        ticks = {"categoryorder": "array", "categoryarray": levels}
    page.figure.update_xaxes(type="category" if scale == "even" else scale, **ticks)
    return page.html("sensitivity")


class Panels:
    """A figure with a panel for each environment, whose legend names each group once."""

    def __init__(self, env_ids: list[str], x: str, y: str) -> None:
        from plotly.subplots import make_subplots

        self.x = x
        self.columns = min(len(env_ids), COLUMNS)
        self.rows = -(-len(env_ids) // self.columns)
        self.place: dict[str, dict[str, Any]] = {
            e: {"row": i // self.columns + 1, "col": i % self.columns + 1} for i, e in enumerate(env_ids)
        }
        gap = 0.25 / self.rows
        self.figure = make_subplots(
            self.rows,
            self.columns,
            subplot_titles=env_ids,
            vertical_spacing=gap,
            horizontal_spacing=0.16 / self.columns,
        )
        for index, env_id in enumerate(env_ids):
            last = index + self.columns >= len(env_ids)
            self.figure.update_xaxes(title_text=x if last else None, **self.place[env_id])
            self.figure.update_yaxes(title_text=y if index % self.columns == 0 else None, **self.place[env_id])
        self.named: set[str] = set()

    def add(self, env_id: str, group: str, label: str, *, entry: bool = False, **facts: Any) -> None:
        """Add a line; the first of its group that may be an `entry` stands in the legend."""
        import plotly.graph_objects as go

        shown = entry and group not in self.named
        if shown:
            self.named.add(group)
        trace = go.Scatter(legendgroup=group, name=label, showlegend=shown, **facts)
        self.figure.add_trace(trace, **self.place[env_id])

    def html(self, name: str) -> str:
        """As a `div`, without the library."""
        height = ROW_HEIGHT * self.rows + 56
        self.figure.update_layout(
            template="plotly_white",
            height=height + 24 * (1 + len(self.named) // 2),
            margin={"l": 60, "r": 20, "t": 56, "b": 40},
            legend={"orientation": "h", "yanchor": "top", "y": -72 / height, "x": 0, "groupclick": "togglegroup"},
            font={"family": "system-ui, sans-serif", "size": 12, "color": "#222222"},
            hovermode="closest",
        )
        self.figure.update_annotations(font_size=14)
        return self.figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=CONFIG)


def _add_curve(page: Panels, curve: Curve, style: Style, label: str) -> None:
    group = f"variant {style.label.removesuffix(' (default)')}"
    stroke = {"color": style.color, "dash": style.dash, "width": style.width}
    for line in curve.lines:
        mode = "markers" if len(line.x) == 1 else "lines"
        finished = line.state == "finished"
        thin = {"color": style.color, "width": 1.2, "dash": style.dash if finished else "dot"}
        hover = f"{style.label}, seed {line.seed} ({line.state})<br>%{{x:,.0f}} {page.x}: %{{y:,.1f}}<extra></extra>"
        only = not len(curve.x) and finished
        facts = {"x": _short(line.x), "y": _short(line.y), "mode": mode, "line": thin, "hovertemplate": safe(hover)}
        page.add(curve.panel, group, label, entry=only or not len(curve.x), opacity=1 if finished else 0.6, **facts)
    if not len(curve.x):
        return
    around = {"x": [*_short(curve.x), *_short(curve.x[::-1])], "y": [*_short(curve.high), *_short(curve.low[::-1])]}
    fill = {"fill": "toself", "fillcolor": _faint(style.color), "line": {"width": 0}, "hoverinfo": "skip"}
    page.add(curve.panel, group, label, mode="lines", **around, **fill)
    ends = np.round(np.stack([curve.low, curve.high], axis=1), 2).tolist()
    interval = "95 %: %{customdata[0]:,.1f} to %{customdata[1]:,.1f}"
    hover = f"{style.label}<br>%{{x:,.0f}} {page.x}: %{{y:,.1f}}<br>{interval}"
    facts = {"x": _short(curve.x), "y": _short(curve.middle), "customdata": ends, "line": stroke}
    page.add(
        curve.panel, group, label, entry=True, mode="lines", hovertemplate=f"{safe(hover)}<extra></extra>", **facts
    )


def _add_reference(page: Panels, env_id: str, reference: Reference, marks: dict[str, str], end: float) -> None:
    """A dashed line over the whole width, with a diamond where the published budget ends if that is in view.

    Its letter stands at a place of its own along the line, so that near lines stay legible.
    """
    mark = marks[reference.key]
    label = f"{mark}: {reference.label}"
    letter = end * (0.03 + 0.06 * (list(marks).index(reference.key) % 15))
    budget = float(reference.env_steps)
    steps = [0.0, letter, min(budget, end), end]
    hover = f"{label}<br>{reference.env_id} {value_text(reference)}<br>after {steps_text(budget)} steps<extra></extra>"
    page.add(
        env_id,
        f"reference {reference.key}",
        label,
        entry=True,
        x=steps,
        y=[reference.score] * 4,
        mode="lines+markers+text",
        text=["", mark, "", ""],
        textposition="top center",
        textfont={"size": 10, "color": "#555555"},
        line={"color": GREY, "width": 1.2, "dash": "dash"},
        marker={"symbol": "diamond", "size": [0, 0, 8 if budget <= end * 1.02 else 0, 0], "color": GREY, "opacity": 1},
        hovertemplate=safe(hover),
    )


def _add_sensitivity(page: Panels, group: Sensitivity) -> None:
    values = [s.score.value for s in group.summaries]
    upper = [s.score.high - s.score.value if s.score.has_interval else None for s in group.summaries]
    lower = [s.score.value - s.score.low if s.score.has_interval else None for s in group.summaries]
    marks = [13 if s.is_default else 7 for s in group.summaries]
    edges = ["black" if s.is_default else group.style.color for s in group.summaries]
    texts = [
        f"{s.variant}{' (default)' if s.is_default else ''}, {s.finished}/{s.declared} runs" for s in group.summaries
    ]
    page.add(
        group.env_id,
        group.label,
        group.label,
        entry=True,
        x=group.levels,
        y=values,
        error_y={"type": "data", "array": upper, "arrayminus": lower, "thickness": 1.4},
        mode="lines+markers",
        line={"color": group.style.color, "dash": group.style.dash, "width": 2},
        marker={"size": marks, "color": group.style.color, "line": {"color": edges, "width": 1.5}},
        text=[safe(text) for text in texts],
        hovertemplate="%{text}<br>IQM %{y:,.1f}<br>+%{error_y.array:,.1f} -%{error_y.arrayminus:,.1f}<extra></extra>",
    )
    pairs = [(level, score) for level, s in zip(group.levels, group.summaries, strict=True) for score in s.scores]
    dots = {"x": [level for level, _ in pairs], "y": [round(float(score), 2) for _, score in pairs], "mode": "markers"}
    marker = {"size": 5, "color": group.style.color, "opacity": 0.35}
    page.add(
        group.env_id, group.label, group.label, **dots, marker=marker, hovertemplate="run: %{y:,.1f}<extra></extra>"
    )


def _short(values: np.ndarray) -> list[float]:
    """With as many digits as anyone can see."""
    return [float(f"{value:.6g}") for value in values]


def safe(text: str) -> str:
    """Names as text: plotly reads `<` as markup of its own, of which only line breaks are ours."""
    kept = {"<br>": "\0", "<extra></extra>": "\1"}
    for tag, mark in kept.items():
        text = text.replace(tag, mark)
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    for tag, mark in kept.items():
        text = text.replace(mark, tag)
    return text


def _faint(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"
