"""Settings and policies of methods by name, in one line."""

import torch

from trpo_lightning.policies.policy import Policy, build_policy
from trpo_lightning.policies.spaces import ActionSpec
from trpo_lightning.runs.config import Source, merge, parse_overrides
from trpo_lightning.settings import (
    CHOICES,
    MLPPolicySettings,
    RuleSettings,
    RunSettings,
    ValueSettings,
    does_not_count,
)


def on_top_of(base: list[str], overrides: list[str]) -> RunSettings:
    """Settings with small sizes of `base`, of which those that the chosen methods do not read are left out."""
    return merge(
        [Source("base", parse_overrides(base), lenient=True), Source("command line", parse_overrides(overrides))]
    )


def what_counts(base: list[str], overrides: list[str]) -> list[str]:
    """The items of `base` that the methods in `overrides` read, and `overrides`: for a command line."""
    settings = on_top_of(base, overrides)
    return [*(item for item in base if not does_not_count(settings, item.partition("=")[0])), *overrides]


AS_IN_THE_PAPER = {
    "delta": 0.02,
    "kl_over_dimensions": "sum",
    "max_step_size": None,
    "kl_state_slack": None,
    "final_delta": None,
    "annealing_steps": None,
    "fisher_fraction": 0.2,
}
"""The joint KL, and steps to the boundary: what oracles and hand-written numbers are for, whatever the defaults."""


def rule_settings(name: str = "trust_region", **values: object) -> RuleSettings:
    if name == "trust_region":
        values = {**AS_IN_THE_PAPER, **values}
    return CHOICES["rule.name"].methods[name].settings(name=name, **values)


def value_settings(name: str = "adam", **values: object) -> ValueSettings:
    """Of any value function; values that it has no key for are left out."""
    kind = CHOICES["value.name"].methods[name].settings
    return kind(name=name, **{key: value for key, value in values.items() if key in kind.__dataclass_fields__})


def mlp_policy(
    observation_shape: tuple[int, ...], actions: ActionSpec, *, generator: torch.Generator, **settings: object
) -> Policy:
    return build_policy(observation_shape, actions, MLPPolicySettings(**settings), generator)  # type: ignore[arg-type]
