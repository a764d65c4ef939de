"""Dotted keys, and their values in settings."""

import dataclasses
import functools
import typing
from typing import Any

from trpo_lightning.settings.run import RunSettings

FREE_FORM = ("env.kwargs",)
"""Keys below which any name is valid."""


def is_free_form(key: str) -> bool:
    """Whether a dotted key names something below one whose names are free: `env.kwargs.gravity`."""
    return key.startswith(tuple(f"{free}." for free in FREE_FORM))


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
    """The value of a dotted key; None for an argument in `env.kwargs` that is not given."""
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part)
    return value


def assign(settings: RunSettings, key: str, value: Any) -> None:
    """Set the value of a dotted key, unchecked."""
    *groups, leaf = key.split(".")
    owner = get(settings, ".".join(groups)) if groups else settings
    if isinstance(owner, dict):
        owner[leaf] = value
    else:
        setattr(owner, leaf, value)


@functools.cache
def hint(key: str) -> Any:
    """The declared type of a dotted key."""
    owner: Any = RunSettings
    for part in key.split("."):
        owner = typing.get_type_hints(owner)[part]
    return owner
