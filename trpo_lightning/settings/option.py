"""How a key is declared."""

from dataclasses import field
from typing import Any


def option(
    default: Any,
    meaning: str,
    *,
    source: str = "",
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """Declare one key: `minimum` and `maximum` are inclusive, `above` is exclusive; they also hold for list items."""
    limits = {"minimum": minimum, "above": above, "maximum": maximum, "choices": choices}
    metadata = {"meaning": meaning, "source": source, **limits}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)
