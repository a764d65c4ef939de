"""What may change when a run is continued."""

from typing import Any

from trpo_lightning.settings.budget import BUDGET, depends_on_budget
from trpo_lightning.settings.keys import counting_keys, get
from trpo_lightning.settings.run import RunSettings

SUPERVISION = ("env.timeout", "env.restarts", "rule.max_rejections")
"""When a run gives up."""
LAST_BITS = ("threads",)
"""Keys that change results only as another machine would: in the last bits of sums."""
RESUMABLE = (*BUDGET, "tracking.", "evaluation.", *SUPERVISION, *LAST_BITS)
"""Keys that may change when a run is continued: they do not change what has been computed (but see `changed_keys`)."""


def changed_keys(before: RunSettings, after: RunSettings) -> list[str]:
    """Keys whose values differ and that a continued run must not change: the budget, too, where settings follow it."""
    free = tuple(key for key in RESUMABLE if key not in BUDGET or not depends_on_budget(before))
    return [key for key in different_keys(before, after) if not key.startswith(free)]


def different_keys(a: RunSettings, b: RunSettings) -> list[str]:
    """Keys that count in both and differ: one that counts in one only follows from another that differs."""
    both = [key for key in counting_keys(a) if key in counting_keys(b)]
    return [key for key in both if not _same(get(a, key), get(b, key))]


def what_may_change() -> str:
    """`RESUMABLE` as a part of a sentence."""
    free = [f"{key}*" if key.endswith(".") else key for key in RESUMABLE if key not in BUDGET]
    return f"{', '.join(free)} can, and {' and '.join(BUDGET)} unless rule.final_delta is set"


def changed_bits(before: RunSettings, after: RunSettings) -> list[str]:
    """Those of `LAST_BITS` that differ."""
    return [key for key in LAST_BITS if get(before, key) != get(after, key)]


def _same(a: Any, b: Any) -> bool:
    return a == b or repr(a) == repr(b)  # a NaN among env.kwargs is no change
