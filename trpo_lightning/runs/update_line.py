"""One update as a line of readable text."""

from collections.abc import Mapping
from typing import Any

HEADER = f"{'iteration':>9}  {'env steps':>10}  {'return':>9}  {'KL':>7}  {'steps/s':>8}"


def update_line(row: Mapping[str, Any]) -> str:
    """Iteration, env steps, return (none before the first episode ended), KL, steps/s; evaluation and rejection if any.

    Values are numbers, or strings from `metrics.csv`.
    """
    mean, kl = (_number(row.get(name)) for name in ("episode/return_mean", "trust_region/kl"))
    text = (
        f"{row['iteration']:>9}  {int(row['env_steps']):>10,}  {'-' if mean is None else f'{mean:.1f}':>9}  "
        f"{'-' if kl is None else f'{kl:.4f}':>7}  {float(row['time/steps_per_second']):>8,.0f}"
    )
    evaluation = _number(row.get("evaluation/return_mean"))
    if evaluation is not None:
        text += f"  [green]evaluation {evaluation:.1f}[/green]"
    if row.get("update/rejection_reason"):
        text += f"  [yellow]rejected: {row['update/rejection_reason']}[/yellow]"
    return text


def _number(value: Any) -> float | None:
    return None if value in (None, "") else float(value)
