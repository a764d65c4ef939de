"""What all figures share: colours, dashes, labels, captions, and the points of a sensitivity plot."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from trpo_lightning.experiment.declaration import Experiment
from trpo_lightning.report.records import Record
from trpo_lightning.report.references import Reference, letters
from trpo_lightning.report.summary import ALL, Curve, Summary
from trpo_lightning.training.metrics import METRICS

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Colours that colour-blind readers can tell apart (Okabe & Ito 2008), without the yellow, which is faint on paper."""
VIRIDIS = ("#440154", "#46327E", "#365C8D", "#277F8E", "#1FA187", "#4AC16D", "#9FDA3A")
"""Colours for ordered levels: matplotlib's viridis at 0 to 0.85, evenly spaced."""
DASHES = ("solid", "dash", "dashdot", "longdash")
"""Dashes of variants, by Plotly's names; dots are reserved for unfinished runs."""
LOG_SPAN = 20
"""Levels that span more than this factor get a logarithmic axis."""
CROWDED = 0.06
"""Levels closer together than this share of the axis are drawn at equal distances."""

MOST_IN_A_PANEL = 6
"""Most variants in one panel: the bands of more would overlap, so each variant gets its own small panel."""
MULTIPLES_CAPTION = "Each panel shows one in colour, the others' middles in grey, on the same axes."
INTERVALS_CAPTION = (
    "Interquartile mean over finished runs with 95 % bootstrap interval (of few runs too narrow, of one none), best "
    "first; small dots: single runs."
)


@dataclass(frozen=True)
class Style:
    """How a variant is drawn in all figures."""

    color: str
    dash: str
    label: str
    width: float


@dataclass(frozen=True)
class Sensitivity:
    """Scores against the levels of a numeric axis: one line in one panel."""

    env_id: str
    label: str
    style: Style
    levels: list[float]
    summaries: list[Summary]


def numeric_axis(experiment: Experiment) -> str | None:
    """The key of the only numeric axis with several levels, or None."""
    numeric = [key for key, levels in experiment.axes.items() if len(set(map(str, levels))) > 1 and _numbers(levels)]
    return numeric[0] if len(numeric) == 1 else None


def heat_axes(experiment: Experiment) -> tuple[str, str] | None:
    """The keys of exactly two axes, if both are numeric and have several levels: they span a heat map."""
    axes = [key for key, levels in experiment.axes.items() if len(set(map(str, levels))) > 1]
    if len(axes) != 2 or experiment.variants or not all(_numbers(experiment.axes[key]) for key in axes):
        return None
    return axes[0], axes[1]


def panel_of(experiment: Experiment, records: list[Record]) -> Callable[[Record], str]:
    """A panel for each environment; where two axes span a heat map, for each level of the first one too."""
    axes, several = heat_axes(experiment), len({record.env_id for record in records}) > 1

    def panel(record: Record) -> str:
        if axes is None or axes[0] not in record.levels:
            return record.env_id
        level = level_label(axes[0], record.levels[axes[0]])
        return f"{record.env_id}, {level}" if several else level

    return panel


def level_label(key: str, level: Any) -> str:
    """A level as text, such as `delta=0.01`."""
    return f"{key.rpartition('.')[2]}={level:g}"


def styles(experiment: Experiment, records: list[Record], default: str) -> dict[str, Style]:
    """A style for each variant: colour by the level of a numeric axis, else by variant; the default is thicker.

    Where two axes span a heat map, the colour and the label are those of the second; the panels show the first.
    """
    variants = {record.variant: record.levels for record in reversed(records)}
    variants = {record.variant: variants[record.variant] for record in records}
    axes = heat_axes(experiment)
    if axes is not None and all(axes[1] in levels for levels in variants.values()):
        key = axes[1]
        colors = _colors(sorted({levels[key] for levels in variants.values()}), ordered=True)
        return {
            name: Style(colors[levels[key]], DASHES[0], level_label(key, levels[key]), 2.6 if name == default else 1.8)
            for name, levels in variants.items()
        }
    axis = numeric_axis(experiment)
    ordered = axis is not None and all(axis in levels for levels in variants.values())
    first = [levels[axis] if axis is not None and ordered else name for name, levels in variants.items()]
    colors = _colors(sorted(set(first)) if ordered else list(dict.fromkeys(first)), ordered)
    rests = list(dict.fromkeys(_rest(levels, axis) for levels in variants.values()))
    found = {}
    for index, (name, levels) in enumerate(variants.items()):
        turn = rests.index(_rest(levels, axis)) if ordered else index // len(OKABE_ITO)
        marked = name == default and len(variants) > 1
        label = f"{name} (default)" if marked else name
        found[name] = Style(colors[first[index]], DASHES[turn % len(DASHES)], label, 2.6 if marked else 1.8)
    return found


def seeds_text(curve: Curve) -> str:
    """How many of the declared runs a curve contains, as text."""
    unit = "seed" if curve.declared == 1 else "seeds"
    return f"{curve.declared} {unit}" if curve.runs == curve.declared else f"{curve.runs} of {curve.declared} {unit}"


def legend_label(style: Style, drawn: list[Curve]) -> str:
    """The variant's label, with its number of seeds if that is the same in all panels."""
    texts = {seeds_text(curve) for curve in drawn}
    return f"{style.label}, {texts.pop()}" if len(texts) == 1 else style.label


def x_label(experiment: Experiment) -> str:
    """The x axis label of learning curves."""
    return experiment.x.replace("_", " ")


def value_label(metric: str) -> str:
    """The y axis label for a metric."""
    return {
        "episode/return_mean": "return of training episodes",
        "evaluation/return_mean": "return of evaluation episodes (deterministic)",
        "evaluation/return_mean_stochastic": "return of evaluation episodes (sampled actions)",
    }.get(metric, metric)


def curves_caption(experiment: Experiment, drawn: list[Curve]) -> str:
    """The caption of learning curves, in sentences."""
    parts = [f"{experiment.metric}: {METRICS.get(experiment.metric, 'a metric of this experiment')}."]
    if any(len(curve.x) for curve in drawn):
        parts.append(
            "Lines with a band: interquartile mean over finished seeds, pointwise 95 % bootstrap interval; linear "
            "between iterations, not smoothed, only where all these seeds have data."
        )
    if any(not len(curve.x) and curve.runs for curve in drawn):
        parts.append("Thin lines: single seeds, too few for an interval.")
    if any(line.state != "finished" for curve in drawn for line in curve.lines):
        parts.append("Thin dotted lines: runs that are not finished; they are in no statistic.")
    if any(curve.runs < curve.declared for curve in drawn):
        missing = sum(curve.declared - curve.runs for curve in drawn)
        parts.append(
            f"{missing} of {sum(curve.declared for curve in drawn)} runs are not finished or have no such data."
        )
    return " ".join(parts)


def references_caption(references: list[Reference], env_ids: list[str]) -> list[str]:
    """A line for each published score: its letter, value, interval, budget, environment and definition."""
    marks, found = letters(references), []
    if references:
        found.append("Dashed lines: published scores, each with its own definition; diamonds: where their budget ends.")
    for key in marks:
        group = [r for r in references if r.key == key]
        values = ", ".join(f"{r.env_id} {value_text(r)}" for r in group)
        budget = " or ".join(dict.fromkeys(steps_text(r.env_steps) for r in group))
        text = (
            f"{marks[key]}: {group[0].label}: {values} after {budget} steps; {group[0].definition} ({group[0].source})."
        )
        found.append(text)
    shown = sorted({e for e in env_ids for r in references if e.startswith(f"{r.env}-") and e != r.env_id})
    if shown:
        found.append(f"Published for other versions of the environments than {', '.join(shown)}: returns may differ.")
    return found


def value_text(reference: Reference) -> str:
    """A reference's score and interval, as text."""
    if reference.low != reference.low:
        return f"{reference.score:,.0f}"
    return f"{reference.score:,.0f} [{reference.low:,.0f}, {reference.high:,.0f}]"


def steps_text(steps: float) -> str:
    """A number of steps as short text, such as `1.5M`, `300k` or `128`."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if steps >= size:
            return f"{steps / size:.3g}{unit}"
    return f"{steps:.0f}"


def sensitivities(experiment: Experiment, summaries: list[Summary]) -> list[Sensitivity]:
    """A line for each environment and combination of other levels, along the only numeric axis; empty without one."""
    axis = numeric_axis(experiment)
    if axis is None:
        return []
    groups: dict[tuple[str, tuple], list[Summary]] = defaultdict(list)
    for summary in summaries:
        levels = summary.records[0].levels
        if summary.env_id != ALL and axis in levels and len(summary.scores):
            groups[summary.env_id, _rest(levels, axis)].append(summary)
    rests = list(dict.fromkeys(rest for _, rest in groups))
    found = []
    for (env_id, rest), group in groups.items():
        group.sort(key=lambda summary: summary.records[0].levels[axis])
        label = ", ".join(f"{key.rpartition('.')[2]}={value}" if key != "variant" else value for key, value in rest)
        index = rests.index(rest)
        style = Style(OKABE_ITO[index % 7], DASHES[index // 7 % 4], label or "interquartile mean", 1.8)
        found.append(Sensitivity(env_id, style.label, style, [s.records[0].levels[axis] for s in group], group))
    return found


def axis_scale(levels: list[float]) -> str:
    """`log` for positive levels that span more than `LOG_SPAN`, `even` where labels would overlap, else `linear`."""
    if min(levels) > 0 and max(levels) > LOG_SPAN * min(levels):
        return "log"
    ordered = sorted(set(levels))
    closest = min((b - a for a, b in pairwise(ordered)), default=0.0)
    return "even" if closest < CROWDED * (ordered[-1] - ordered[0]) else "linear"


def _colors(levels: list[Any], ordered: bool) -> dict[Any, str]:
    if not ordered:
        return {level: OKABE_ITO[i % len(OKABE_ITO)] for i, level in enumerate(levels)}
    last = max(len(levels) - 1, 1)
    return {level: _viridis(i / last) for i, level in enumerate(levels)}


def _viridis(position: float) -> str:
    """The colour at a position from 0 to 1, linear between the anchors."""
    place = position * (len(VIRIDIS) - 1)
    index = min(int(place), len(VIRIDIS) - 2)
    ends = [[int(VIRIDIS[index + k][i : i + 2], 16) for i in (1, 3, 5)] for k in (0, 1)]
    return "#" + "".join(f"{round(a + (b - a) * (place - index)):02X}" for a, b in zip(*ends, strict=True))


def _numbers(levels: list[Any]) -> bool:
    return all(isinstance(level, int | float) and not isinstance(level, bool) for level in levels)


def _rest(levels: dict[str, Any], axis: str | None) -> tuple[tuple[str, str], ...]:
    return tuple((key, str(value)) for key, value in levels.items() if key != axis)
