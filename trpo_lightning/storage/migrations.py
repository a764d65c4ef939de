"""Formats of checksummed files and the step from each to the next: changing a file's content means adding a step."""

from collections.abc import Callable
from typing import Any

import torch

State = dict[str, Any]


def _to_2(state: State) -> State:
    """The value function's Adam now works on one flat vector; vanilla_policy_gradient keeps only Adam's moments."""
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
"""For each format, the step to the next one."""
FORMAT = 2
"""The format of the files that this version writes."""


def migrated(state: State, written: int) -> State:
    """Bring a state of format `written` to the current format; a step raises if the state lacks parts of its format."""
    for version in range(written, FORMAT):
        state = MIGRATIONS[version](state)
    return state
