"""Settings as the text of trackers' parameters, and their differences."""

import json
from collections.abc import Mapping
from typing import Any

import yaml

from trpo_lightning.settings import RESUMABLE, RunSettings, counting_keys, get, to_dict

MOST_CHARACTERS = 250
"""Of a parameter in MLflow, as Lightning's logger cuts them."""


def parameters(settings: RunSettings) -> dict[str, str]:
    """Every setting that counts, by its dotted key, as one writes it in a file."""
    return {key: _text(get(settings, key)) for key in counting_keys(settings)}


def config_text(settings: RunSettings) -> str:
    """The settings as a YAML file."""
    return str(yaml.safe_dump(to_dict(settings), sort_keys=False, allow_unicode=True))


def different_parameters(recorded: Mapping[str, str], settings: RunSettings) -> list[str]:
    """Keys that count in both and that a continued run must not change, whose texts differ."""
    declared = parameters(settings)
    fixed = [key for key in declared if key in recorded and not key.startswith(RESUMABLE)]
    return [key for key in fixed if recorded[key][:MOST_CHARACTERS] != declared[key][:MOST_CHARACTERS]]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
