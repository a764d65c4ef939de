"""Measured numbers: repeats with their median and spread, ratios, and whether they meet a target."""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Target:
    """A lower or upper limit for the median."""

    limit: float
    at_least: bool = True

    def met(self, value: float) -> bool:
        """Whether a number meets the target; NaN never does."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"


@dataclass(frozen=True)
class Result:
    """One quantity: `values` are its repeats as measured, in the order of the repeats."""

    subject: str
    quantity: str
    unit: str
    values: tuple[float, ...] = field(default_factory=tuple)
    target: Target | None = None

    @property
    def median(self) -> float:
        """Median of the repeats; NaN if there are none."""
        return statistics.median(self.values) if self.values else math.nan

    @property
    def low(self) -> float:
        """The smallest repeat."""
        return min(self.values, default=math.nan)

    @property
    def high(self) -> float:
        """The largest repeat."""
        return max(self.values, default=math.nan)

    @property
    def verdict(self) -> str:
        """`met`, `missed` or `not measured`; empty without a target."""
        if self.target is None:
            return ""
        if not self.values:
            return "not measured"
        return "met" if self.target.met(self.median) else "missed"


def ratio(subject: str, quantity: str, over: Sequence[float], under: Sequence[float], target: Target | None) -> Result:
    """The quotients of repeats measured next to each other, for the repeats that both have."""
    pairs = zip(over, under, strict=False)
    return Result(subject, quantity, "x", tuple(a / b for a, b in pairs), target)


def linear_deviation(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The largest |t - fit| / fit of the line t = a + b size (a >= 0) that fits best in relative terms.

    Weighted least squares with weights 1/t^2; 0 for a constant cost plus one that grows linearly.
    """
    weights = [1.0 / t**2 for t in seconds]
    total = sum(weights)
    x, y = (sum(w * v for w, v in zip(weights, values, strict=True)) / total for values in (sizes, seconds))
    spread = sum(w * (s - x) ** 2 for w, s in zip(weights, sizes, strict=True))
    slope = sum(w * (s - x) * (t - y) for w, s, t in zip(weights, sizes, seconds, strict=True)) / spread
    constant = y - slope * x
    if constant < 0:  # a negative cost is impossible: take the best line through the origin
        slope = sum(w * s * t for w, s, t in zip(weights, sizes, seconds, strict=True))
        slope /= sum(w * s * s for w, s in zip(weights, sizes, strict=True))
        constant = 0.0
    return max(abs(t - (constant + slope * s)) / (constant + slope * s) for s, t in zip(sizes, seconds, strict=True))


def to_dict(result: Result) -> dict[str, Any]:
    """The repeats and the numbers derived from them, for JSON."""
    derived = {"median": result.median, "low": result.low, "high": result.high, "verdict": result.verdict}
    plain = {**dataclasses.asdict(result), **derived}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in plain.items()}


def from_dict(values: dict[str, Any]) -> Result:
    """Rebuild a result from the output of `to_dict`."""
    target = Target(**values["target"]) if values["target"] else None
    return Result(values["subject"], values["quantity"], values["unit"], tuple(values["values"]), target)
