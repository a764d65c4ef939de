"""Every key of a run: its default, its range, its meaning, and where the default comes from.

Plain dataclasses from the standard library, so that every package can import them and none has to know how a
configuration is read. `experiment/config.py` reads YAML and the command line into them; `check` is the one place that
judges values.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any

from trpo_lightning.errors import UserError, nearest

SWEEP_CELL = "cell"
"""A sweep's parameter that names a run as a whole, where the runs are no full product of axes; it is no setting."""


def option(
    default: Any,
    meaning: str,
    *,
    source: str = "",
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """Declare one key: `minimum` and `maximum` are inclusive, `above` is exclusive; they also hold for list items."""
    limits = {"minimum": minimum, "above": above, "maximum": maximum, "choices": choices}
    metadata = {"meaning": meaning, "source": source, **limits}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class EnvSettings:
    """Environments that the policy is trained on."""

    id: str = option("Hopper-v5", "a registered gymnasium or EnvPool id, or `module:function` that returns an Env")
    num_envs: int = option(32, "environments stepped together", source="measured: best steps/s on 2 cores", minimum=1)
    backend: str = option(
        "auto",
        "auto takes EnvPool where it is installed and has the id with the same spaces and time limit as gymnasium",
        choices=("auto", "gymnasium", "envpool"),
    )
    asynchronous: bool = option(False, "gymnasium backend: one process per environment instead of a loop")
    max_episode_steps: int | None = option(None, "time limit in steps; null keeps the id's own", minimum=1)
    kwargs: dict[str, Any] = option({}, "keyword arguments of the environment")


@dataclass
class RolloutSettings:
    """How much is collected for one update."""

    steps_per_iteration: int = option(
        4096,
        "slots of one batch, num_envs times the steps of each environment (slots that only reset are left out)",
        source="Spinning Up uses 4000",
        minimum=1,
    )


@dataclass
class NormalizeSettings:
    """Running statistics, frozen while an iteration collects and updates."""

    observations: bool = option(
        True, "standardize observations with running mean and variance", source="Henderson 2018"
    )
    rewards: bool = option(True, "divide rewards by the running std of discounted returns", source="Engstrom 2020")
    observation_clip: float = option(10.0, "standardized observations are clipped to +- this", above=0.0)
    reward_clip: float = option(10.0, "scaled rewards are clipped to +- this", above=0.0)


@dataclass
class PolicySettings:
    """Network and distribution of the policy."""

    hidden_sizes: list[int] = option(
        [64, 64], "units of each hidden layer; [] is linear", source="Henderson 2018", minimum=1
    )
    activation: str = option(
        "tanh", "hidden non-linearity", source="TRPO 2015, table 2", choices=("tanh", "relu", "elu")
    )
    initial_log_std: float = option(0.0, "log std of a Gaussian policy at the start", minimum=-20.0, maximum=2.0)


@dataclass
class RuleSettings:
    """How a batch becomes new policy parameters."""

    name: str = option("trust_region", "update rule", choices=("trust_region", "vanilla_policy_gradient"))
    delta: float = option(
        0.02,
        "radius of the trust region: bound on the mean KL (TRPO 2015, table 2: 0.01)",
        source="measured: Hopper-v5, 3 seeds, 300k steps",
        above=0.0,
    )
    cg_iterations: int = option(10, "conjugate-gradient iterations at most", source="TRPO 2015, app. C", minimum=1)
    cg_tolerance: float = option(1e-10, "CG stops at this relative residual", minimum=0.0, maximum=1.0)
    damping: float = option(0.1, "CG solves with Fisher + damping * I", source="Henderson 2018", minimum=0.0)
    step_length: str = option(
        "damped",
        "curvature of the full step's length: of Fisher + damping * I (what implementations do) or of the Fisher alone",
        choices=("damped", "undamped"),
    )
    kl_direction: str = option(
        "old_new",
        "the bounded KL: KL(old || new) or KL(new || old)",
        source="TRPO 2015, eq. 12",
        choices=("old_new", "new_old"),
    )
    fisher_fraction: float = option(
        0.2, "share of the batch in Fisher-vector products (TRPO 2015, app. C: 0.1)", above=0.0, maximum=1.0
    )
    backtrack_ratio: float = option(
        0.8, "the line search shrinks the step by this", source="Spinning Up", above=0.0, maximum=0.99
    )
    max_backtracks: int = option(10, "shrinkings before the update is rejected", source="Spinning Up", minimum=0)
    kl_slack: float | None = option(
        1.0,
        "the line search accepts a KL up to kl_slack * delta; null does not check it (OpenAI Baselines: 1.5)",
        source="TRPO 2015, app. C",
        above=0.0,
    )
    improvement_ratio: float = option(
        0.0,
        "the line search accepts a surrogate that rises by more than this share of its first-order prediction "
        "(modular_rl: 0.1)",
        source="TRPO 2015, app. C",
        minimum=0.0,
        maximum=0.99,
    )
    standardize_advantages: bool = option(True, "advantages of a batch get mean 0 and std 1")
    learning_rate: float = option(3e-3, "vanilla_policy_gradient: Adam's step size (Spinning Up: 3e-4)", above=0.0)


@dataclass
class ValueSettings:
    """Network and fit of the value function."""

    hidden_sizes: list[int] = option(
        [64, 64], "units of each hidden layer; [] is linear", source="Henderson 2018", minimum=1
    )
    activation: str = option("tanh", "hidden non-linearity", choices=("tanh", "relu", "elu"))
    learning_rate: float = option(1e-3, "Adam's step size", source="Henderson 2018", above=0.0)
    epochs: int = option(10, "passes over the batch in each iteration", source="SB3-contrib", minimum=0)
    minibatch_size: int = option(256, "transitions of one Adam step", minimum=1)
    targets: str = option(
        "lambda_returns",
        "regression targets: lambda-returns (advantage + old value) or discounted returns",
        choices=("lambda_returns", "returns"),
    )
    bootstrap_time_limits: bool = option(
        True, "a time limit bootstraps from the value of its last observation; false treats it as a death"
    )


@dataclass
class EvaluationSettings:
    """Episodes of the current policy in environments of their own."""

    every: int = option(25, "evaluate after every so many iterations; 0 is never", minimum=0)
    episodes: int = option(10, "episodes, each for the deterministic and the stochastic policy", minimum=1)


@dataclass
class CheckpointSettings:
    """Barriers: iterations at which a run can be resumed, bit for bit."""

    every: int | None = option(
        None,
        "iterations between barriers; null: as many as hold 5 full episodes of each environment; 0 is never",
        minimum=0,
    )


@dataclass
class TrackingSettings:
    """Weights & Biases, on top of the local files."""

    wandb: str = option(
        "auto",
        "auto is online where an API key is configured, else offline",
        choices=("auto", "online", "offline", "disabled"),
    )
    project: str = option("trpo_lightning", "W&B project")
    entity: str | None = option(None, "W&B user or team; null is the account's default")
    group: str | None = option(None, "W&B group; null is the experiment's name")
    tags: list[str] = option([], "W&B tags, besides the git describe of the code")


@dataclass
class RunSettings:
    """One training run."""

    env: EnvSettings = field(default_factory=EnvSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    normalize: NormalizeSettings = field(default_factory=NormalizeSettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    rule: RuleSettings = field(default_factory=RuleSettings)
    value: ValueSettings = field(default_factory=ValueSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    gamma: float = option(0.99, "discount", source="TRPO 2015, table 2", minimum=0.0, maximum=1.0)
    gae_lambda: float = option(
        0.95, "lambda of generalized advantage estimation", source="GAE 2016", minimum=0.0, maximum=1.0
    )
    total_env_steps: int = option(
        1_000_000, "the run ends with the first iteration that reaches so many env steps", minimum=1
    )
    seed: int = option(0, "the one source of randomness", minimum=0, maximum=2**63 - 1)
    name: str = option("default", "variant: names the run directory")
    threads: int | None = option(None, "cores that this run may use; null is all of the machine", minimum=1)
    device: str = option("cpu", "where policy and value function live", choices=("cpu", "gpu"))


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


def updated(settings: RunSettings, values: dict[str, Any]) -> RunSettings:
    """A checked copy with other values of dotted keys. Raises `UserError` for an unknown key or a bad value."""
    changed = copy.deepcopy(settings)
    for key, value in values.items():
        if key not in keys():
            raise UserError(f"unknown key {key}{nearest(key, list(keys()))}")
        _assign(changed, key, value)
    return check(changed)


def get(settings: RunSettings, key: str) -> Any:
    """The value of a dotted key."""
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


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
            _assign(settings, name, value)
        elif isinstance(value, dict) and any(key.startswith(name + ".") for key in valid):
            for inner, item in value.items():
                if f"{name}.{inner}" not in valid:
                    raise UserError(f"unknown key {name}.{inner}{nearest(f'{name}.{inner}', list(valid))}")
                _assign(settings, f"{name}.{inner}", item)
        elif len(matches) == 1:
            _assign(settings, matches[0], value)
        elif matches:
            group = matches[0].split(".")[0]
            raise UserError(f"{name} is ambiguous ({', '.join(matches)}): write {group}={{'{name}': ...}}")
        else:
            raise UserError(f"unknown key {name}{nearest(name, list(valid))}")
    return check(settings)


def _assign(settings: RunSettings, key: str, value: Any) -> None:
    *groups, leaf = key.split(".")
    setattr(get(settings, ".".join(groups)) if groups else settings, leaf, value)


def check(settings: RunSettings) -> RunSettings:
    """The settings, if every value has its type and lies in its range; else raises a `UserError` naming the key."""
    for key, item in keys().items():
        value = get(settings, key)
        _assign(settings, key, _checked(key, value, _hint(key), item.metadata))
    steps, envs = settings.rollout.steps_per_iteration, settings.env.num_envs
    if steps < envs:
        raise UserError(f"rollout.steps_per_iteration={steps} is smaller than env.num_envs={envs}: each needs a step")
    if steps % envs:
        low = steps - steps % envs
        raise UserError(
            f"rollout.steps_per_iteration={steps} is not a multiple of env.num_envs={envs}: use {low} or {low + envs}"
        )
    return settings


@functools.cache
def _hint(key: str) -> Any:
    owner: Any = RunSettings
    for part in key.split("."):
        owner = typing.get_type_hints(owner)[part]
    return owner


def _checked(key: str, value: Any, hint: Any, limits: Any) -> Any:
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
        raise UserError(f"{key}={value!r} is not one of {', '.join(limits['choices'])}")
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


def to_dict(settings: RunSettings) -> dict[str, Any]:
    """Nested plain dicts, lists and scalars."""
    return dataclasses.asdict(settings)


def from_dict(values: dict[str, Any]) -> RunSettings:
    """The inverse of `to_dict`; keys that are missing keep their defaults, unknown ones raise `UserError`."""
    return from_keywords(**values)
