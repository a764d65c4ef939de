"""The tutorial's drawings, as inline SVG that follows the page's text colour: one drawing for light and for dark.

Each function takes the numbers that its page has computed and returns HTML; nothing is computed here.
"""

import html
import io
import re
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike

INK = "#010203"
"""Stands for the page's text colour until the SVG is written."""
BLUE, ORANGE, GREEN, PURPLE, GREY = "#3c86cf", "#dd7226", "#2f9a6a", "#9b6fd0", "#85888f"
"""Each at least 3:1 against white and against the dark theme's background."""
STYLE = {
    "svg.fonttype": "none",  # text stays text, in the page's own font
    "svg.hashsalt": "trpo_lightning",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 2.0,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
EXPONENTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _figure(columns: int = 1, *, width: float = 7.2, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = list(figure.subplots(1, columns, squeeze=False)[0])
        for ax in axes:
            ax.grid(True)
            ax.set_axisbelow(True)
    return figure, axes


def _logarithmic(ax: Axes, axes: str) -> None:
    """Powers of ten in plain characters: mathtext would ask for glyphs that the page's font may lack."""
    for name in axes:
        getattr(ax, f"set_{name}scale")("log")
        axis: Axis = getattr(ax, f"{name}axis")
        axis.set_major_locator(LogLocator(numticks=9))
        axis.set_major_formatter(FuncFormatter(lambda x, _: "10" + str(round(np.log10(x))).translate(EXPONENTS)))
        axis.set_minor_formatter(NullFormatter())


def _label(ax: Axes, x: str, y: str, *, legend: bool = True, **position: str) -> None:
    with matplotlib.rc_context(STYLE):
        ax.set_xlabel(x)
        ax.set_ylabel(y)
        if legend:
            ax.legend(**position)


def _html(figure: Figure, caption: str) -> str:
    stream = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]+"', "<g", svg).replace(INK, "currentColor")  # ids repeat from figure to figure
    svg = re.sub(r'font-family: [^;"]+', "font-family: inherit", svg)
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"|height="[\d.]+pt"|width="[\d.]+pt"', "", svg)
    svg = svg.replace("<svg ", f'<svg width="100%" role="img" aria-label="{html.escape(caption)}" ', 1)
    text = f'<figcaption style="max-width: 36rem">{html.escape(caption)}</figcaption>'
    return f'<figure style="width: 100%; max-width: 40rem">{svg}{text}</figure>'


def river(policies: Mapping[str, ArrayLike], actions: Sequence[str], mossy: int) -> str:
    """The stones between the banks, and below each stone a bar per policy: the probabilities of its actions."""
    tables = {name: np.asarray(table) for name, table in policies.items()}
    stones = len(next(iter(tables.values())))
    figure, (ax,) = _figure(height=1.6 + 0.75 * len(tables))
    ax.grid(False)
    ax.axis("off")
    ax.add_patch(Rectangle((-0.5, 0.55), stones, 0.9, color=BLUE, alpha=0.18, linewidth=0))
    for left, name in ((-1.5, "near bank"), (stones - 0.5, "far bank")):
        ax.add_patch(Rectangle((left, 0.55), 1.0, 0.9, color=ORANGE, alpha=0.25, linewidth=0))
        ax.text(left + 0.5, 1.0, name, ha="center", va="center", color=INK)
    for stone in range(stones):
        ax.add_patch(Circle((stone, 1.0), 0.28, color=GREEN if stone == mossy else GREY, alpha=0.9, linewidth=0))
        ax.text(stone, 1.0, str(stone), ha="center", va="center", color="white", weight="bold")
    colours = (GREY, BLUE, ORANGE)
    for row, (name, table) in enumerate(tables.items()):
        y = -0.1 - 0.55 * row
        ax.text(-0.55, y, name, ha="right", va="center", color=INK)
        for stone in range(stones):
            left = stone - 0.42
            for share, colour in zip(table[stone], colours, strict=True):
                ax.add_patch(Rectangle((left, y - 0.17), 0.84 * share, 0.34, color=colour, linewidth=0))
                left += 0.84 * share
    for i, (action, colour) in enumerate(zip(actions, colours, strict=True)):
        x, y = 0.4 + 1.5 * i, -0.65 - 0.55 * (len(tables) - 1)
        ax.add_patch(Rectangle((x, y), 0.2, 0.2, color=colour, linewidth=0))
        ax.text(x + 0.3, y + 0.1, action, va="center", color=INK)
    ax.set_xlim(-2.2, stones + 0.6)
    ax.set_ylim(-0.8 - 0.55 * (len(tables) - 1), 1.5)
    return _html(figure, f"The river, stone {mossy} covered with moss. Below: each action's probability on each stone.")


def learning_curves(curves: Mapping[str, ArrayLike], optimum: float, caption: str) -> str:
    """The return over updates, one thin line for each run `[runs, updates]` and a colour for each method."""
    figure, (ax,) = _figure()
    for (name, runs), colour in zip(curves.items(), (BLUE, GREEN, ORANGE, PURPLE), strict=False):
        for i, run in enumerate(np.atleast_2d(runs)):
            ax.plot(run, color=colour, alpha=0.8, linewidth=1.5, label=name if i == 0 else None)
    ax.axhline(optimum, color=GREY, linestyle="--", linewidth=1.5, label="best policy of all")
    _label(ax, "updates", "expected return J(θ)", legend=False)
    with matplotlib.rc_context(STYLE):
        figure.legend(loc="outside upper center", ncols=4)
    return _html(figure, caption)


def weight_spread(second_moments: ArrayLike, sampled: ArrayLike) -> str:
    """Standard deviation of the trajectory weights after t actions: exact, and measured."""
    figure, (ax,) = _figure()
    exact = np.sqrt(np.asarray(second_moments) - 1.0)
    steps = np.arange(1, len(exact) + 1)
    ax.plot(steps, exact, color=BLUE, label="exact")
    ax.plot(steps, sampled, "o", color=ORANGE, markersize=4, label="measured on trajectories")
    _logarithmic(ax, "y")
    _label(ax, "actions t that the weight is a product of", "standard deviation of the weight")
    return _html(figure, "A product of ratios spreads exponentially: few trajectories carry all of the estimate.")


def tangent(length: ArrayLike, returns: ArrayLike, surrogates: ArrayLike, best: int) -> str:
    """J and L along one direction; L touches J at 0. `best` is the index of J's maximum."""
    figure, (ax,) = _figure()
    length, returns = np.asarray(length), np.asarray(returns)
    ax.plot(length, returns, color=BLUE, label="true return J")
    ax.plot(length, surrogates, color=ORANGE, label="surrogate L")
    ax.plot([0.0], [returns[np.argmin(np.abs(length))]], "o", color=INK, label="old policy")
    ax.plot(length[best], returns[best], "v", color=BLUE, markersize=8, label="best policy on this line")
    _label(ax, "step length β along x = F⁻¹ g", "expected return")
    return _html(figure, "The surrogate touches the true return at the old policy and promises too much further out.")


def error_against_kl(kl: ArrayLike, gain: ArrayLike, error: ArrayLike, fit: ArrayLike, slope: float) -> str:
    """What L promises, and what it is wrong by, against the KL on logarithmic axes, with the fitted line."""
    figure, (ax,) = _figure(height=3.9)
    ax.plot(kl, gain, color=BLUE, label="promised gain L - J(old)")
    ax.plot(kl, error, "o", color=ORANGE, markersize=4, label="error |J - L|")
    ax.plot(kl, fit, color=ORANGE, linewidth=1.0, label=f"fitted line, slope {slope:.2f}")
    _logarithmic(ax, "xy")
    _label(ax, "mean KL(old ‖ new)", "return")
    return _html(figure, "The gain grows with the root of the KL, the error with the KL itself.")


def kl_directions(new: ArrayLike, curves: Mapping[str, ArrayLike], old: float) -> str:
    """KLs of two actions against the new probability of the first."""
    figure, (ax,) = _figure()
    for (name, curve), colour, style in zip(curves.items(), (BLUE, ORANGE, GREY), ("-", "-", "--"), strict=True):
        ax.plot(new, curve, style, color=colour, label=name)
    ax.axvline(old, color=INK, linewidth=0.8)
    ax.annotate("old", (old, 2.9), xytext=(4, -2), textcoords="offset points", color=INK)
    ax.set_ylim(0.0, 3.1)
    _label(ax, "new probability of the action", "divergence", loc="upper center")
    return _html(figure, "Alike near the old policy; at the edges only KL(old ‖ new) becomes infinite.")


def bound(penalties: Mapping[str, ArrayLike], errors: Mapping[str, ArrayLike]) -> str:
    """|J - L| of policies against what theorem 1 allows; the line is where both are equal."""
    figure, (ax,) = _figure(height=3.9)
    for (name, x), colour in zip(penalties.items(), (BLUE, ORANGE), strict=True):
        ax.plot(x, errors[name], ".", color=colour, markersize=3, alpha=0.6, label=name)
    ends = np.array([min(np.min(x) for x in penalties.values()), max(np.max(x) for x in penalties.values())])
    ax.plot(ends, ends, color=INK, linewidth=1.0, label="error = C · max KL")
    _logarithmic(ax, "xy")
    _label(ax, "C · max KL(old ‖ new)", "error |J - L|", loc="upper left")
    return _html(figure, "No policy's error reaches what the theorem allows; most stay far below.")


def solver_errors(errors: Mapping[str, ArrayLike]) -> str:
    """Relative error over the iterations of an iterative solver."""
    figure, (ax,) = _figure()
    for (name, values), colour in zip(errors.items(), (BLUE, ORANGE), strict=True):
        ax.plot(np.arange(len(np.asarray(values))), values, "o-", color=colour, markersize=4, label=name)
    _logarithmic(ax, "y")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _label(ax, "iterations of conjugate gradients", "relative error of the step")
    return _html(figure, "Each iteration costs one Fisher-vector product; a few are enough.")


def candidates(fractions: ArrayLike, kl: ArrayLike, curves: Mapping[str, ArrayLike], delta: float, taken: int) -> str:
    """KL, and promised and true gains, of the line search's candidates; `taken` is the accepted one."""
    figure, (left, right) = _figure(2)
    fractions = np.asarray(fractions)
    left.plot(fractions, kl, "o-", color=BLUE, label="KL(old ‖ new)")
    left.plot(fractions, delta * fractions**2, "--", color=GREY, label="quadratic model")
    left.axhline(delta, color=INK, linewidth=1.0, label="δ")
    _label(left, "fraction of the full step", "mean KL")
    for (name, curve), colour in zip(curves.items(), (ORANGE, BLUE), strict=True):
        right.plot(fractions, curve, "o-", color=colour, label=name)
    _label(right, "fraction of the full step", "gain over the old policy")
    for ax in (left, right):
        ax.axvline(fractions[taken], color=GREEN, linewidth=6.0, alpha=0.3)
    return _html(figure, "The search walks from the right and takes the first candidate inside (green).")


def gradient_cloud(clouds: Mapping[str, ArrayLike], exact: ArrayLike, labels: tuple[str, str]) -> str:
    """Estimates `[N, 2]` of two coordinates of the gradient, and the exact ones."""
    figure, (ax,) = _figure(height=4.2)
    for (name, points), colour in zip(clouds.items(), (GREY, BLUE), strict=True):
        points = np.asarray(points)
        ax.plot(points[:, 0], points[:, 1], ".", color=colour, markersize=4, alpha=0.7, label=name)
    x, y = np.asarray(exact)
    ax.plot([x], [y], "X", color=ORANGE, markersize=11, label="exact gradient")
    _label(ax, *labels)
    return _html(figure, "Each dot is one batch's estimate. Both clouds have the same centre; one is much smaller.")


def tradeoff(gae_lambda: ArrayLike, bias: ArrayLike, deviation: ArrayLike) -> str:
    """Bias and standard deviation of the gradient against lambda."""
    figure, (ax,) = _figure()
    ax.plot(gae_lambda, bias, "o-", color=ORANGE, label="bias")
    ax.plot(gae_lambda, deviation, "o-", color=BLUE, label="standard deviation")
    ax.plot(gae_lambda, np.hypot(bias, deviation), "o-", color=GREY, label="root mean squared error")
    ax.set_ylim(bottom=0.0)
    _label(ax, "λ", "size, relative to the exact gradient")
    return _html(figure, "With a wrong V, small λ trusts it and is biased; λ = 1 trusts returns alone and is noisy.")


def state_weights(weights: Mapping[str, ArrayLike]) -> str:
    """Weights of the states, side by side."""
    figure, (ax,) = _figure(height=3.2)
    width = 0.8 / len(weights)
    for i, ((name, values), colour) in enumerate(zip(weights.items(), (BLUE, ORANGE), strict=True)):
        values = np.asarray(values)
        ax.bar(np.arange(len(values)) + (i - 0.5) * width, values, width, color=colour, label=name)
    ax.set_xticks(range(len(values)))
    _label(ax, "stone", "weight in the gradient")
    return _html(figure, "Without the factor γᵗ, stones that are reached late weigh more.")


def reuse_errors(kl: ArrayLike, errors: Mapping[str, ArrayLike]) -> str:
    """Root mean square errors of gradient estimates against the KL of the oldest policy to the current one."""
    figure, (ax,) = _figure(height=3.9)
    for (name, error), colour in zip(errors.items(), (GREY, ORANGE, PURPLE, BLUE, GREEN), strict=True):
        ax.plot(kl, error, "o-", color=colour, markersize=4, label=name)
    _logarithmic(ax, "xy")
    _label(ax, "KL(oldest ‖ current)", "error of the gradient / |g|", loc="upper left")
    return _html(
        figure, "Near by, old batches help whatever their weights; farther away only ratios of single actions do."
    )
