"""The page of all settings of all methods: each key with its default, values and meaning, and where it counts."""

import dataclasses
import re
import typing
from dataclasses import dataclass
from typing import Any

from generate.markdown import NOTICE, sections, table
from trpo_lightning.settings import CHOICES, RunSettings, keys
from trpo_lightning.settings.check import conform
from trpo_lightning.settings.keys import assign, group_of, hint, text_of


@dataclass(frozen=True)
class Key:
    """A setting as declared; `allowed` is its type with its range, or its choices.

    `counts_with` names the methods and other values with which it is read; it is empty if it always is.
    """

    name: str
    default: str
    allowed: str
    meaning: str
    source: str
    counts_with: str


def page() -> str:
    """A table for each group of keys."""
    groups: dict[str, list[Key]] = {}
    for key in declared_keys():
        groups.setdefault(key.name.rpartition(".")[0], []).append(key)
    parts, named = [], set()
    for name, found in groups.items():
        rows = []
        for key in found:
            shown = _anchor(key.name) if key.name not in named else f"`{key.name}`"
            named.add(key.name)
            rows.append((shown, f"`{key.default}`", key.allowed, _meaning(key)))
        parts += [f"## `{name}`" if name else "## The run", table(("key", "default", "values", "meaning"), rows)]
    return sections("# Settings", INTRODUCTION, NOTICE, *parts)


INTRODUCTION = """
All keys of a run. On the command line, `key=value` sets one; in a file, a key stands in its group. In Python its last
part is enough if that is unambiguous: `TRPO(delta=0.01)`. `null` in a file or on the command line is `None` in Python.
A value that is not allowed, or a key that the chosen methods never read, ends the command with one line that names it.
"""


def declared_keys() -> list[Key]:
    """All settings in the order of their groups; a key that methods declare differently appears once for each."""
    methods = {group_of(key): [(key, name) for name in choice.methods] for key, choice in CHOICES.items()}
    found: list[Key] = []
    for group in dict.fromkeys(group_of(name) for name in keys()):
        if group in methods:
            found += _of_methods(group, methods[group])
        else:
            defaults = RunSettings()
            found += [_key(defaults, name, item) for name, item in keys().items() if group_of(name) == group]
    return found


def _of_methods(group: str, methods: list[tuple[str, str]]) -> list[Key]:
    """The keys of a group, each with the methods that have it."""
    having: dict[Key, list[str]] = {}
    for key, method in methods:
        settings = RunSettings()
        assign(settings, key, method)
        conform(settings)
        for name, item in keys(settings).items():
            if group_of(name) == group:
                having.setdefault(_key(settings, name, item), []).append(f"`{key}={method}`")
    return [
        dataclasses.replace(key, counts_with="; ".join(filter(None, [_either(names, len(methods)), key.counts_with])))
        for key, names in having.items()
    ]


def _either(names: list[str], all_of_them: int) -> str:
    return "" if len(names) == all_of_them else " or ".join(names)


def _key(settings: RunSettings, name: str, item: dataclasses.Field) -> Key:
    limits = item.metadata
    default = item.default if item.default is not dataclasses.MISSING else item.default_factory()  # type: ignore[misc]
    conditions = [
        " or ".join(f"`{other}={text_of(value)}`" for value in values) for other, values in limits["when"].items()
    ]
    allowed = _allowed(hint(settings, name), limits)
    return Key(name, _shown(default), allowed, limits["meaning"], limits["source"], "; ".join(conditions))


def _anchor(name: str) -> str:
    """A key that can be linked to, and that breaks between its words if the page is narrow."""
    breakable = re.sub(r"([._])", r"\1<wbr>", name)
    return f'<code id="{name}">{breakable}</code>'


def _meaning(key: Key) -> str:
    source = f" *[{key.source}]*" if key.source else ""
    return f"{key.meaning}{source}" + (f"<br>Counts with {key.counts_with}." if key.counts_with else "")


def _shown(value: Any) -> str:
    """A value as the command line takes it."""
    return text_of(value) or "''"


def _allowed(hint: Any, limits: Any) -> str:
    """`number, > 0, ≤ 1`, or the choices."""
    if limits["choices"]:
        own = ["`module:Class`"] if limits["extensible"] else []
        return ", ".join([*(f"`{_shown(choice)}`" for choice in limits["choices"]), *own])
    signs = {"minimum": "≥", "above": ">", "maximum": "≤", "below": "<"}
    bounds = [f"{sign} {limits[name]:g}" for name, sign in signs.items() if limits[name] is not None]
    return ", ".join([_kind(hint), *bounds])


NAMES = {int: "integer", float: "number", str: "text", bool: "`true`, `false`", type(None): "`null`"}


def _kind(hint: Any) -> str:
    """A type in words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        return f"list of {_kind(inner[0])}s"
    if origin is dict or hint is dict:
        return "mapping"
    if inner:
        return " or ".join(_kind(part) for part in inner)
    return NAMES.get(hint, getattr(hint, "__name__", str(hint)))
