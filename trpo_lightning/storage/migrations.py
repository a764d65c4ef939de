"""Formats of checksummed files, and the way from each to the next: whoever changes a file's content adds a step."""

from collections.abc import Callable
from typing import Any

import torch

State = dict[str, Any]


def _to_2(state: State) -> State:
    """The value function's Adam works on one flat vector, and vanilla_policy_gradient keeps Adam's moments only."""
    adam, rule = state["value_optimizer"], state["rule"]
    if "param_groups" in rule:
        rule = rule["state"].get(0, {})
    moments = [adam["state"][index] for index in sorted(adam["state"])]
    flat = {}
    if moments:
        flat[0] = {name: torch.cat([m[name].reshape(-1) for m in moments]) for name in ("exp_avg", "exp_avg_sq")}
        flat[0]["step"] = moments[0]["step"]
    (group,) = adam["param_groups"]
    return {
        **state,
        "format": 2,
        "rule": rule,
        "value_optimizer": {"state": flat, "param_groups": [{**group, "params": [0]}]},
    }


MIGRATIONS: dict[int, Callable[[State], State]] = {1: _to_2}
"""From a format to the next."""
FORMAT = 2
"""The format that is written."""


def migrated(state: State, written: int) -> State:
    """A state of format `written` in today's. A state that lacks parts of its format makes a step raise."""
    for version in range(written, FORMAT):
        state = MIGRATIONS[version](state)
    return state
