"""The declaration of keys."""

from dataclasses import field
from typing import Any

SAMPLED_PATH = {"rollout.scheme": ("single_path",)}
"""A condition for `when`: advantages of single transitions are estimated, with a value function."""
REWARDS_SCALED = {"rollout.scheme": ("single_path", "vine")}
SAMPLED = {"rollout.scheme": ("single_path", "vine", "population")}
"""A condition for `when`: data is sampled, rather than computed from a known model."""


ATARI = "ALE/*"
"""In `when`, stands for any of ale-py's games."""
A_NUMBER = "a number"
"""In `when`, stands for any value but null."""


def is_atari(env_id: str) -> bool:
    """Whether an id is that of one of ale-py's games, whose frames are preprocessed."""
    return env_id.rpartition(":")[2].startswith("ALE/")


def is_among(value: Any, values: tuple[Any, ...]) -> bool:
    """Whether a value is one of those in `when`."""
    if value in values or (A_NUMBER in values and value is not None):
        return True
    return ATARI in values and isinstance(value, str) and is_atari(value)


def option(
    default: Any,
    meaning: str,
    *,
    source: str = "",
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    choices: tuple[Any, ...] | None = None,
    extensible: bool = False,
    when: dict[str, tuple[Any, ...]] | None = None,
) -> Any:
    """Declare one key.

    Args:
        default: The value if none is given.
        meaning: One sentence for people, without a full stop.
        source: Where the default comes from.
        minimum: The smallest value allowed, also for the items of a list.
        above: A number that the value must exceed.
        maximum: The largest value allowed.
        below: A number that the value must stay under.
        choices: The values allowed.
        extensible: Whether the key also takes a custom class, as `module:Class`.
        when: The key counts only if these dotted keys have one of these values (see `is_among`); otherwise, setting it
            is an error.
    """
    limits = {"minimum": minimum, "above": above, "maximum": maximum, "below": below}
    more = {"choices": choices, "extensible": extensible, "when": when or {}}
    metadata = {"meaning": meaning, "source": source, **limits, **more}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)
