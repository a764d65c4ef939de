"""Dotted keys: which exist for the methods that settings choose, which of them count, and their values."""

import dataclasses
import functools
import typing
from typing import Any

from trpo_lightning.settings.choices import CHOICES
from trpo_lightning.settings.option import is_among
from trpo_lightning.settings.run import RunSettings

FREE_FORM = ("env.kwargs",)
"""Keys that take any name below them."""


def is_free_form(key: str) -> bool:
    """Whether a dotted key lies below one that takes any name, as `env.kwargs.gravity` does."""
    return key.startswith(tuple(f"{free}." for free in FREE_FORM))


Fields = dict[str, dataclasses.Field]


@functools.cache
def _fields(group: type, prefix: str = "") -> Fields:
    """The fields of a dataclass by dotted key, in order of declaration."""
    found: Fields = {}
    hints = typing.get_type_hints(group)
    for item in dataclasses.fields(group):
        if dataclasses.is_dataclass(hints[item.name]):
            found |= _fields(hints[item.name], f"{prefix}{item.name}.")
        else:
            found[prefix + item.name] = item
    return found


def group_of(key: str) -> str:
    """The group that a choosing key such as `rule.name` belongs to."""
    return key.partition(".")[0]


@functools.cache
def _keys(classes: tuple[tuple[str, type], ...]) -> Fields:
    chosen, found = dict(classes), {}
    for item in dataclasses.fields(RunSettings):
        hint = typing.get_type_hints(RunSettings)[item.name]
        if dataclasses.is_dataclass(hint):
            found |= _fields(chosen.get(item.name, hint), f"{item.name}.")  # type: ignore[arg-type]
        else:
            found[item.name] = item
    return found


def keys(settings: RunSettings | None = None) -> Fields:
    """All keys of the methods that `settings` (by default the default ones) choose: `{"env.id": Field, ...}`."""
    settings = settings or RunSettings()
    return _keys(tuple((group_of(key), type(getattr(settings, group_of(key)))) for key in CHOICES))


def all_keys() -> Fields:
    """The keys of all built-in methods."""
    found = dict(keys())
    for key, choice in CHOICES.items():
        for method in choice.methods.values():
            for name, item in _fields(method.settings, f"{group_of(key)}.").items():
                found.setdefault(name, item)
    return found


def get(settings: RunSettings, key: str) -> Any:
    """The value of a dotted key; None for an argument that `env.kwargs` lacks."""
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part)
    return value


def assign(settings: RunSettings, key: str, value: Any) -> None:
    """Set the value of a dotted key, without checking it."""
    *groups, leaf = key.split(".")
    owner = get(settings, ".".join(groups)) if groups else settings
    if isinstance(owner, dict):
        owner[leaf] = value
    else:
        setattr(owner, leaf, value)


def hint(settings: RunSettings, key: str) -> Any:
    """The declared type of a dotted key."""
    owner: Any = settings
    *groups, leaf = key.split(".")
    for part in groups:
        owner = getattr(owner, part)
    return _hints(type(owner))[leaf]


@functools.cache
def _hints(group: type) -> dict[str, Any]:
    return typing.get_type_hints(group)


def counting_keys(settings: RunSettings) -> Fields:
    """The keys that the chosen methods read: those whose `when` holds."""
    return {key: item for key, item in keys(settings).items() if unmet_condition(settings, key) is None}


def unmet_condition(settings: RunSettings, key: str) -> tuple[str, tuple[Any, ...]] | None:
    """The first condition of a key that does not hold: another key, and the values with which this one counts."""
    for other, values in keys(settings)[key].metadata.get("when", {}).items():
        # a custom scheme counts as the built-in one that its `kind` names
        value = settings.rollout.kind if other == "rollout.scheme" else get(settings, other)
        if not is_among(value, values):
            return other, values
    return None


def does_not_count(settings: RunSettings, key: str) -> str | None:
    """Why a key has no effect, as the rest of a sentence that begins with it; None if it has one, or is unknown."""
    if key in keys(settings):
        unmet = unmet_condition(settings, key)
        if unmet is None:
            return None
        other, values = unmet
        owners = [f"{other}={text_of(value)}" for value in values]
    else:
        other = next((other for other in CHOICES if group_of(other) == group_of(key)), "")
        if not other:
            return None
        prefix = f"{group_of(other)}."
        methods = CHOICES[other].methods.items()
        owners = [f"{other}={name}" for name, method in methods if key in _fields(method.settings, prefix)]
        if not owners:
            return None
    return f"does not count with {other}={text_of(get(settings, other))}: it belongs to {' or '.join(owners)}"


def text_of(value: Any) -> str:
    """A value as one would type it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
