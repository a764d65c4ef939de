"""How a key is declared."""

from dataclasses import field
from typing import Any

SAMPLED_PATH = {"rollout.scheme": ("single_path",)}
"""Where advantages of single transitions are estimated, with a value function."""
REWARDS_SCALED = {"rollout.scheme": ("single_path", "vine")}
SAMPLED = {"rollout.scheme": ("single_path", "vine", "population")}
"""Conditions of keys, as `when` takes them."""


def option(
    default: Any,
    meaning: str,
    *,
    source: str = "",
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    choices: tuple[Any, ...] | None = None,
    extensible: bool = False,
    when: dict[str, tuple[Any, ...]] | None = None,
) -> Any:
    """Declare one key.

    Args:
        default: its value where nobody gives another.
        meaning: for people, one sentence without a full stop.
        source: where the default comes from.
        minimum: the least number, also of a list's items.
        above: what a number must be greater than.
        maximum: the largest number.
        choices: the words that the key takes.
        extensible: whether it takes a class of one's own, `module:Class`, besides its choices.
        when: the key counts only where these dotted keys have one of these values; elsewhere, setting it is an error.
    """
    limits = {"minimum": minimum, "above": above, "maximum": maximum, "choices": choices, "extensible": extensible}
    limits["when"] = when or {}
    metadata = {"meaning": meaning, "source": source, **limits}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)
