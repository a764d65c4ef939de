"""Conversions between settings and keywords, dotted keys, and plain dicts."""

import copy
from collections.abc import Collection
from typing import Any

from trpo_lightning.errors import UserError, nearest
from trpo_lightning.settings.check import check, conform
from trpo_lightning.settings.choices import CHOICES, find_known_method
from trpo_lightning.settings.keys import all_keys, assign, counting_keys, does_not_count, get, is_free_form, keys
from trpo_lightning.settings.run import RunSettings

BEFORE_DEFAULTS_WERE_MEASURED: dict[str, Any] = {
    "max_step_size": None,
    "kl_over_dimensions": "sum",
    "kl_state_slack": None,
    "final_delta": None,
    "annealing_steps": None,
}
"""Newer keys of `rule`, with the values that reproduce older runs."""
OLD_TASKS, TASKS = "trpo_lightning.rollouts.tasks:", "trpo_lightning.environments.tasks:"


def updated(settings: RunSettings, values: dict[str, Any], lenient: Collection[str] = ()) -> RunSettings:
    """A checked copy of settings with other values.

    Args:
        settings: The settings to start from; keys that the methods chosen by `values` do not read lose their values.
        values: The new values by dotted key.
        lenient: Keys of `values` to leave out if they do not count.

    Raises:
        UserError: A key is unknown or does not count with the chosen methods, or a value is wrong.
    """
    changed = copy.deepcopy(settings)
    for key in CHOICES:
        if key in values:
            assign(changed, key, values[key])
    conform(changed)
    for key, value in values.items():
        if key in keys(changed) or is_free_form(key):
            assign(changed, key, value)
        elif key not in lenient or key not in all_keys():
            raise UserError(why_refused(changed, key))
    check(changed)
    for key in values:
        if key not in lenient and (reason := does_not_count(changed, key)):
            raise UserError(f"{key} {reason}")
    return changed


def why_refused(settings: RunSettings, key: str) -> str:
    """Why the chosen methods do not take a key, as an error message."""
    reason = does_not_count(settings, key)
    return f"{key} {reason}" if reason else f"unknown key {key}{nearest(key, list(keys(settings)))}"


def from_keywords(**keywords: Any) -> RunSettings:
    """Settings from Python keywords; anything not given has its default.

    For example `from_keywords(delta=0.02, policy={"hidden_sizes": [32]})`. The keys are those of the chosen methods.

    Args:
        **keywords: Leaf keys by their bare name if that is unique, groups as dicts.

    Raises:
        UserError: A name is unknown, ambiguous or does not count, a type is wrong, or a value is out of range.
    """
    return updated(RunSettings(), _dotted(keywords))


def _dotted(keywords: dict[str, Any]) -> dict[str, Any]:
    """Turn groups and bare names into dotted keys."""
    groups = {key.partition(".")[0] for key in keys() if "." in key}
    values: dict[str, Any] = {name: value for name, value in keywords.items() if name in CHOICES}
    for name, value in keywords.items():
        if name in groups and isinstance(value, dict):
            values |= {f"{name}.{inner}": item for inner, item in value.items()}
    chosen = RunSettings()
    for key in CHOICES:
        if key in values:
            assign(chosen, key, values[key])
    conform(chosen)
    valid = keys(chosen)
    for name, value in keywords.items():
        matches = [key for key in valid if key.rsplit(".", 1)[-1] == name]
        if name in valid:
            values[name] = value
        elif name in groups and isinstance(value, dict):
            continue
        elif len(matches) == 1:
            values[matches[0]] = value
        elif matches:
            group = matches[0].split(".")[0]
            raise UserError(f"{name} is ambiguous ({', '.join(matches)}): write {group}={{'{name}': ...}}")
        else:
            elsewhere = [key for key in all_keys() if key.rsplit(".", 1)[-1] == name]
            raise UserError(why_refused(chosen, elsewhere[0] if len(elsewhere) == 1 else name))
    return values


def to_dict(settings: RunSettings) -> dict[str, Any]:
    """The keys that count, as nested plain dicts, lists and scalars."""
    nested: dict[str, Any] = {}
    for key in counting_keys(settings):
        *groups, leaf = key.split(".")
        node = nested
        for group in groups:
            node = node.setdefault(group, {})
        node[leaf] = copy.deepcopy(get(settings, key))
    return nested


def flat(values: dict[str, Any]) -> dict[str, Any]:
    """Nested values by dotted key; a dict below a key, as in `env.kwargs`, is that key's value."""
    groups = {key.partition(".")[0] for key in keys() if "." in key}
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name in groups and isinstance(value, dict):
            found |= {f"{name}.{inner}": item for inner, item in value.items()}
        else:
            found[name] = value
    return found


def from_dict(values: dict[str, Any]) -> RunSettings:
    """The inverse of `to_dict`: missing keys get their defaults, unknown ones raise `UserError`."""
    return updated(RunSettings(), flat(values))


def completed(record: dict[str, Any]) -> dict[str, Any]:
    """A run's record of settings, nested, with newer keys added at the values that reproduce its behaviour."""
    record = _with_new_names(record)
    rewards = _group(record, "normalize").get("rewards")
    if rewards and _group(record, "rollout").get("scheme") not in ("population", "exact"):  # which scale no rewards
        record = _with_missing(record, "normalize", first_rewards="raw")
    record = _with_missing(record, "rule", **BEFORE_DEFAULTS_WERE_MEASURED)
    record = _with_missing(record, "policy", least_log_std=None)
    return _with_missing(record, "env", scale_actions=False)


def _group(record: dict[str, Any], name: str) -> dict[str, Any]:
    group = record.get(name)
    return group if isinstance(group, dict) else {}


def _with_missing(record: dict[str, Any], name: str, **values: Any) -> dict[str, Any]:
    """The record with these values in a group, if it has the group and lacks the keys."""
    group = _group(record, name)
    return {**record, name: {**values, **group}} if group else record


def _with_new_names(record: dict[str, Any]) -> dict[str, Any]:
    """The record with this package's environments under their current names."""
    env = record.get("env")
    if not isinstance(env, dict) or not str(env.get("id")).startswith(OLD_TASKS):
        return record
    return {**record, "env": {**env, "id": TASKS + env["id"].removeprefix(OLD_TASKS)}}


def from_record(values: dict[str, Any]) -> RunSettings:
    """The inverse of `to_dict` for the record of a run by this version or an older one.

    Keys that do not count are left out: before 0.2, records held those of all methods. A record alone is no reason to
    import a custom class (`find_known_method`).
    """
    dotted = flat(completed(values))
    for key in CHOICES:
        if key in dotted:
            find_known_method(key, dotted[key])
    return updated(RunSettings(), dotted, lenient=dotted.keys())
