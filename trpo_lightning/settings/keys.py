"""Dotted keys, and their values in settings."""

import dataclasses
import functools
import typing
from typing import Any

from trpo_lightning.settings.run import RunSettings


@functools.cache
def keys(group: type = RunSettings, prefix: str = "") -> dict[str, dataclasses.Field]:
    """All dotted keys in order of declaration: `{"env.id": Field, ..., "seed": Field}`."""
    found: dict[str, dataclasses.Field] = {}
    hints = typing.get_type_hints(group)
    for item in dataclasses.fields(group):
        if dataclasses.is_dataclass(hints[item.name]):
            found |= keys(hints[item.name], f"{prefix}{item.name}.")
        else:
            found[prefix + item.name] = item
    return found


def get(settings: RunSettings, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


def assign(settings: RunSettings, key: str, value: Any) -> None:
    """Set the value of a dotted key, unchecked."""
    *groups, leaf = key.split(".")
    setattr(get(settings, ".".join(groups)) if groups else settings, leaf, value)


@functools.cache
def hint(key: str) -> Any:
    """The declared type of a dotted key."""
    owner: Any = RunSettings
    for part in key.split("."):
        owner = typing.get_type_hints(owner)[part]
    return owner
