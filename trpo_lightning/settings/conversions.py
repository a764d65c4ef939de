"""Settings from and to keywords, dotted values and plain dicts."""

import copy
import dataclasses
from typing import Any

from trpo_lightning.errors import UserError, nearest
from trpo_lightning.settings.check import check
from trpo_lightning.settings.keys import assign, is_free_form, keys
from trpo_lightning.settings.run import RunSettings

OLD_TASKS, TASKS = "trpo_lightning.rollouts.tasks:", "trpo_lightning.environments.tasks:"


def updated(settings: RunSettings, values: dict[str, Any]) -> RunSettings:
    """A checked copy with other values of dotted keys. Raises `UserError` for an unknown key or a bad value."""
    changed = copy.deepcopy(settings)
    for key, value in values.items():
        if key not in keys() and not is_free_form(key):
            raise UserError(f"unknown key {key}{nearest(key, list(keys()))}")
        assign(changed, key, value)
    return check(changed)


def from_keywords(**keywords: Any) -> RunSettings:
    """Settings from Python keywords: a leaf's own name where it is unique, a group as a dict, `settings` defaults else.

    `from_keywords(delta=0.02, policy={"hidden_sizes": [32]})`. Raises `UserError` for an unknown or ambiguous name, a
    wrong type, or a value out of range.
    """
    settings = RunSettings()
    valid = keys()
    for name, value in keywords.items():
        matches = [key for key in valid if key.rsplit(".", 1)[-1] == name]
        if name in valid:
            assign(settings, name, value)
        elif isinstance(value, dict) and any(key.startswith(name + ".") for key in valid):
            for inner, item in value.items():
                if f"{name}.{inner}" not in valid:
                    raise UserError(f"unknown key {name}.{inner}{nearest(f'{name}.{inner}', list(valid))}")
                assign(settings, f"{name}.{inner}", item)
        elif len(matches) == 1:
            assign(settings, matches[0], value)
        elif matches:
            group = matches[0].split(".")[0]
            raise UserError(f"{name} is ambiguous ({', '.join(matches)}): write {group}={{'{name}': ...}}")
        else:
            raise UserError(f"unknown key {name}{nearest(name, list(valid))}")
    return check(settings)


def to_dict(settings: RunSettings) -> dict[str, Any]:
    """Nested plain dicts, lists and scalars."""
    return dataclasses.asdict(settings)


def from_dict(values: dict[str, Any]) -> RunSettings:
    """The inverse of `to_dict`; keys that are missing keep their defaults, unknown ones raise `UserError`."""
    return from_keywords(**values)


def completed(record: dict[str, Any]) -> dict[str, Any]:
    """A run's record of settings, nested, with keys that are younger than it at what was done before they existed."""
    record = _with_new_names(record)
    normalize, rollout = record.get("normalize"), record.get("rollout")
    if not isinstance(normalize, dict) or "first_rewards" in normalize or not normalize.get("rewards"):
        return record
    if isinstance(rollout, dict) and rollout.get("scheme") in ("population", "exact"):  # which scale no rewards
        return record
    return {**record, "normalize": {**normalize, "first_rewards": "raw"}}


def _with_new_names(record: dict[str, Any]) -> dict[str, Any]:
    """Environments of this package by the name that they have now."""
    env = record.get("env")
    if not isinstance(env, dict) or not str(env.get("id")).startswith(OLD_TASKS):
        return record
    return {**record, "env": {**env, "id": TASKS + env["id"].removeprefix(OLD_TASKS)}}


def from_record(values: dict[str, Any]) -> RunSettings:
    """The inverse of `to_dict` for what a run of this or of an older version left."""
    return from_dict(completed(values))
