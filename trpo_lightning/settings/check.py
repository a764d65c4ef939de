"""The one place that checks values, key by key, and gives each group the class of its method."""

import dataclasses
import math
import types
import typing
from typing import Any

from trpo_lightning.errors import UserError
from trpo_lightning.settings.choices import CHOICES, find_method
from trpo_lightning.settings.combinations import check_combination
from trpo_lightning.settings.keys import assign, get, group_of, hint, keys, unmet_condition
from trpo_lightning.settings.run import RunSettings


def check(settings: RunSettings) -> RunSettings:
    """Check that every value has its type and lies in its range.

    Returns:
        The settings, with defaults for the keys that do not count.

    Raises:
        UserError: A value is wrong; the message names the key.
    """
    conform(settings)
    for key, item in keys(settings).items():
        assign(settings, key, _checked(key, get(settings, key), hint(settings, key), item.metadata))
    for key, item in keys(settings).items():
        if unmet_condition(settings, key) is not None:
            assign(settings, key, default_of(item))
    check_combination(settings)
    return settings


def _plain(value: Any) -> Any:
    """Convert NumPy scalars and 0-d arrays to Python numbers, also inside lists and mappings."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def conform(settings: RunSettings) -> None:
    """Give each group the dataclass of the method it names.

    Of keys that both dataclasses have with the same type, values other than the default are kept: a method's own
    defaults count.
    """
    for key in CHOICES:
        name, group = get(settings, key), getattr(settings, group_of(key))
        if not isinstance(name, str):
            raise UserError(f"{key}={name!r} is not of type str")
        if not name.strip():
            raise UserError(f"{key} is empty")
        wanted = find_method(key, name).settings
        if type(group) is not wanted:
            setattr(settings, group_of(key), wanted(**{**_kept(group, wanted), key.rpartition(".")[2]: name}))


def _kept(group: Any, wanted: type) -> dict[str, Any]:
    """The values of a group that one of another class takes over."""
    before, after = typing.get_type_hints(type(group)), typing.get_type_hints(wanted)
    items = {item.name: (getattr(group, item.name), default_of(item)) for item in dataclasses.fields(group)}
    values = {name: value for name, (value, default) in items.items() if value != default}
    return {name: value for name, value in values.items() if before[name] == after.get(name)}


def default_of(item: dataclasses.Field) -> Any:
    """The default of a key."""
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


def _checked(key: str, value: Any, hint: Any, limits: Any) -> Any:
    value = _plain(value)
    if isinstance(hint, types.UnionType):  # T | None
        if value is None:
            return None
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is list:
        if not isinstance(value, list | tuple):
            raise UserError(f"{key}={value!r} is not a list")
        item_type = typing.get_args(hint)[0]
        return [_checked(f"{key}[{i}]", item, item_type, limits) for i, item in enumerate(value)]
    if typing.get_origin(hint) is dict:
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise UserError(f"{key}={value!r} is not a mapping from names to values")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError as error:
            raise UserError(f"{key} is too large for a float") from error
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UserError(f"{key}={value!r} is not of type {hint.__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}={value} is not finite")
    if isinstance(value, str) and not value.strip():
        raise UserError(f"{key} is empty")
    if limits["choices"] is not None and value not in limits["choices"]:
        if not limits["extensible"]:
            raise UserError(f"{key}={value!r} is not one of {', '.join(limits['choices'])}")
        if ":" not in str(value):
            raise UserError(f"{key}={value!r} is not one of {', '.join(limits['choices'])}, and no module:function")
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_range(key, value, limits)
    return value


def _check_range(key: str, value: float, limits: Any) -> None:
    if limits["minimum"] is not None and value < limits["minimum"]:
        raise UserError(f"{key}={value} is too small: it must be at least {limits['minimum']}")
    if limits["above"] is not None and value <= limits["above"]:
        raise UserError(f"{key}={value} is too small: it must be greater than {limits['above']}")
    if limits["maximum"] is not None and value > limits["maximum"]:
        raise UserError(f"{key}={value} is too large: it must be at most {limits['maximum']}")
    if limits["below"] is not None and value >= limits["below"]:
        raise UserError(f"{key}={value} is too large: it must be less than {limits['below']}")
