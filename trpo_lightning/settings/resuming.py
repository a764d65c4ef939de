"""Which settings may change when a run continues."""

from typing import Any

from trpo_lightning.settings.budget import BUDGET, depends_on_budget
from trpo_lightning.settings.keys import counting_keys, get
from trpo_lightning.settings.run import RunSettings

SUPERVISION = ("env.timeout", "env.restarts", "rule.max_rejections")
"""Keys that decide when a run gives up."""
LAST_BITS = ("threads", "devices")
"""Keys that change results only as another machine would, in the last bits of sums."""
RESUMABLE = (*BUDGET, "tracking.", "evaluation.", *SUPERVISION, *LAST_BITS)
"""Keys that may change when a run continues: they do not affect what was computed so far (but see `changed_keys`)."""


def changed_keys(before: RunSettings, after: RunSettings) -> list[str]:
    """The keys that differ but must not when a run continues, including the budget if settings follow it."""
    free = tuple(key for key in RESUMABLE if key not in BUDGET or not depends_on_budget(before))
    return [key for key in different_keys(before, after) if not key.startswith(free)]


def different_keys(a: RunSettings, b: RunSettings) -> list[str]:
    """Keys that count in both and differ: a key counts in one only because another one differs."""
    both = [key for key in counting_keys(a) if key in counting_keys(b)]
    return [key for key in both if not _same(get(a, key), get(b, key))]


def what_may_change() -> str:
    """`RESUMABLE` as part of a sentence."""
    free = [f"{key}*" if key.endswith(".") else key for key in RESUMABLE if key not in BUDGET]
    return f"{', '.join(free)} can, and {' and '.join(BUDGET)} unless rule.annealing_steps=null"


def changed_bits(before: RunSettings, after: RunSettings) -> list[str]:
    """The keys of `LAST_BITS` that differ."""
    return [key for key in LAST_BITS if get(before, key) != get(after, key)]


def _same(a: Any, b: Any) -> bool:
    return a == b or repr(a) == repr(b)  # NaN in env.kwargs is not a change
