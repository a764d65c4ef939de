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
    """How the data of one update is collected, and how much of it."""

    scheme: str = option(
        "single_path",
        "how states and actions are sampled: single_path follows the policy; vine tries several actions in states on "
        "its way, each followed by a short branch with the same random numbers; population runs whole episodes of "
        "candidate parameters, each acting by its mode (rules cem and cma_es; rewards are raw, no value function); "
        "exact samples nothing: all states and actions of an environment that has a table (gymnasium's toy text) are "
        "weighted by their exact visitation, with exact advantages, without a time limit",
        source="TRPO 2015, section 5",
        choices=("single_path", "vine", "population", "exact"),
    )
    steps_per_iteration: int = option(
        4096,
        "slots of one batch, num_envs times the steps of each environment (slots that only reset are left out); "
        "vine: of the trunks, branches come on top; population: does not count, an iteration is rule.population * "
        "rule.episodes_per_candidate episodes; exact: does not count",
        source="Spinning Up uses 4000",
        minimum=1,
    )
    whole_episodes: bool = option(
        False,
        "single_path: each iteration begins new episodes and collects whole ones, steps_per_iteration steps or more "
        "(the batches of TRPO 2015); false: episodes go on from one iteration to the next",
    )
    rollout_set_size: int = option(
        125,
        "vine: states of an iteration that branches start from, drawn uniformly from the slots of the trunks (those "
        "that only reset are left out)",
        source="TRPO 2015, table 2: swimmer",
        minimum=1,
    )
    branches: int = option(
        4, "vine: actions tried in each of these states, if not all", source="TRPO 2015, table 2", minimum=1
    )
    branch_length: int = option(
        50, "vine: steps of a branch, the tried action included", source="TRPO 2015, table 2: swimmer", minimum=1
    )
    branch_actions: str = option(
        "policy",
        "vine: actions to try are drawn from the policy, or uniformly from discrete ones, and weighted by pi / q "
        "(eq. 16); or all actions of a discrete space are tried once and weighted by pi (eq. 15)",
        source="TRPO 2015, section 5.2",
        choices=("policy", "uniform", "all"),
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

    name: str = option(
        "trust_region",
        "update rule; cem and cma_es need rollout.scheme=population",
        choices=(
            "trust_region",
            "vanilla_policy_gradient",
            "reward_weighted_regression",
            "cem",
            "cma_es",
            "algorithm_1",
        ),
    )
    delta: float = option(
        0.02,
        "radius of the trust region: bound on the mean KL (TRPO 2015, table 2: 0.01)",
        source="measured: Hopper-v5, 3 seeds, 300k steps",
        above=0.0,
    )
    final_delta: float | None = option(
        None,
        "delta at the end of the run, approached linearly from rule.delta with the share of the budget that is done "
        "(Engstrom 2020, TRPO+); such a run cannot be extended; null keeps delta",
        above=0.0,
    )
    cg_iterations: int = option(10, "conjugate-gradient iterations at most", source="TRPO 2015, app. C", minimum=1)
    cg_tolerance: float = option(1e-10, "CG stops at this relative residual", minimum=0.0, maximum=1.0)
    damping: float = option(0.1, "CG solves with Fisher + damping * I", source="Henderson 2018", minimum=0.0)
    step_length: str = option(
        "damped",
        "length of the full step: to where the quadratic model of the KL is delta, its curvature that of Fisher + "
        "damping * I (what implementations do) or of the Fisher alone; fixed: rule.step_size (natural gradient)",
        choices=("damped", "undamped", "fixed"),
    )
    step_size: float = option(
        1.0,
        "rule.step_length=fixed: the full step is this times the solution of (Fisher + damping * I) s = gradient "
        "(1 / lambda of TRPO 2015, section 8.1); delta then counts in the line search only",
        source="measured: about what rule.delta gives on Hopper-v5",
        above=0.0,
    )
    curvature: str = option(
        "fisher",
        "matrix of the natural gradient: fisher (expectation over actions, analytic) or empirical_fisher (mean of "
        "grad log pi grad log pi' over the batch's actions, uncentred; TRPO 2015, section 8.1)",
        source="TRPO 2015, app. C",
        choices=("fisher", "empirical_fisher"),
    )
    solve_dtype: str = option(
        "float32", "precision of conjugate gradients and Fisher products", choices=("float32", "float64")
    )
    kl_direction: str = option(
        "old_new",
        "the bounded KL: KL(old || new) or KL(new || old)",
        source="TRPO 2015, eq. 12",
        choices=("old_new", "new_old"),
    )
    kl_over_states: str = option(
        "mean",
        "the bounded KL: mean over the batch's states, or the largest of them (max KL, section 8.1)",
        source="TRPO 2015, eq. 12",
        choices=("mean", "max"),
    )
    kl_over_dimensions: str = option(
        "sum",
        "the bounded KL of a state, and its curvature: sum over action dimensions (joint), or their mean, as in "
        "libraries whose delta so means delta times the number of dimensions",
        source="TRPO 2015, eq. 12",
        choices=("sum", "mean"),
    )
    entropy_bonus: float = option(
        0.0,
        "this times the mean entropy is added to the surrogate, in its gradient and in the line search",
        minimum=0.0,
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
    improvement_ratio: float | None = option(
        0.0,
        "the line search accepts a surrogate that rises by more than this share of its first-order prediction; null "
        "does not check it (modular_rl: 0.1)",
        source="TRPO 2015, app. C",
        minimum=0.0,
        maximum=0.99,
    )
    standardize_advantages: bool = option(True, "advantages of a batch get mean 0 and std 1")
    discounted_state_weights: bool = option(
        False,
        "single_path: advantages are multiplied by gamma^t, t the step within its episode (as in the definition of the "
        "surrogate; nearly all implementations leave it out)",
    )
    learning_rate: float = option(3e-3, "vanilla_policy_gradient: Adam's step size (Spinning Up: 3e-4)", above=0.0)
    population: int | None = option(
        None,
        "cem, cma_es: candidates an iteration; null: 100 for cem (Szita & Lorincz 2006), 4 + floor(3 ln n) for cma_es "
        "with n searched parameters (Hansen 2016)",
        minimum=2,
    )
    episodes_per_candidate: int = option(
        1, "cem, cma_es: a candidate's return is the mean over so many episodes", source="modular_rl", minimum=1
    )
    initial_std: float = option(
        1.0, "cem, cma_es: std of each parameter in the first population", source="modular_rl", above=0.0
    )
    elite_fraction: float = option(
        0.2, "cem: share of the candidates that are kept (at least two)", source="modular_rl", above=0.0, maximum=1.0
    )
    extra_std: float = option(
        0.3,
        "cem: the variance gets extra_std^2 more in the first generation, falling linearly to 0 (Szita & Lorincz 2006: "
        "sqrt(5); rllab: 1; modular_rl: 0)",
        source="measured: InvertedPendulum-v5, 3 seeds",
        minimum=0.0,
    )
    extra_std_generations: int = option(
        50, "cem: generations until the extra variance is 0", source="Szita & Lorincz 2006", minimum=1
    )
    covariance: str = option(
        "auto",
        "cma_es: a full matrix or a diagonal one (sep-CMA-ES, Ros & Hansen 2008); auto is full up to 1000 searched "
        "parameters",
        choices=("auto", "full", "diagonal"),
    )
    effective_sample_fraction: float = option(
        0.1,
        "reward_weighted_regression: the temperature is such that (sum w)^2 / sum w^2 is this share of the batch",
        above=0.0,
        maximum=0.99,
    )
    least_log_std: float = option(
        -2.0, "reward_weighted_regression: a Gaussian's log std is raised to this after the fit", minimum=-20.0
    )
    regression_iterations: int = option(
        20,
        "reward_weighted_regression: L-BFGS iterations of the fit, where it is not that of a linear Gaussian policy, "
        "which is solved for",
        minimum=1,
    )


@dataclass
class ValueSettings:
    """Value function and its fit."""

    name: str = option(
        "adam",
        "value function: a network fitted by adam on minibatches, by lbfgs on the whole batch, or by one step in a "
        "trust_region (GAE 2016); linear in observations and their squares (Duan 2016); none is V = 0",
        choices=("adam", "lbfgs", "trust_region", "linear", "none"),
    )
    hidden_sizes: list[int] = option(
        [64, 64], "units of each hidden layer; [] is linear", source="Henderson 2018", minimum=1
    )
    activation: str = option("tanh", "hidden non-linearity", choices=("tanh", "relu", "elu"))
    learning_rate: float = option(1e-3, "adam: step size", source="Henderson 2018", above=0.0)
    epochs: int = option(10, "adam: passes over the batch in each iteration", source="SB3-contrib", minimum=0)
    minibatch_size: int = option(256, "adam: transitions of one step", minimum=1)
    clip: float | None = option(
        None,
        "adam: the loss of a transition is the larger one of V's and of V moved by at most this from before the fit, "
        "as in PPO (Engstrom 2020: 0.2); null is off",
        above=0.0,
    )
    iterations: int = option(25, "lbfgs: iterations at most in each fit", source="modular_rl", minimum=1)
    l2: float = option(
        1e-3,
        "lbfgs, linear: this times the squared norm of the parameters (linear: without the constant) is added to the "
        "mean squared error",
        source="modular_rl",
        minimum=0.0,
    )
    epsilon: float = option(
        0.1,
        "trust_region: bound on the mean of (V - V_old)^2 / (2 sigma^2), sigma^2 the old mean squared error (GAE 2016 "
        "prints no value; rllab: 0.01)",
        source="measured: Hopper-v5, 1 seed, 100k steps",
        above=0.0,
    )
    cg_iterations: int = option(10, "trust_region: conjugate-gradient iterations at most", minimum=1)
    damping: float = option(
        0.1,
        "trust_region: CG solves with Gauss-Newton + damping * I (rllab: 1e-5)",
        source="as rule.damping",
        minimum=0.0,
    )
    rescale: str = option(
        "outside",
        "trust_region: the step is scaled to the boundary if it lies outside, and shrunken until the error falls; or "
        "always and as it is, the paper's (it may raise the error)",
        choices=("outside", "always"),
    )
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
    total_iterations: int | None = option(
        None, "the run ends after so many iterations, if it has not before; null: only env steps count", minimum=1
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
    population = settings.rollout.scheme == "population"
    if population != (settings.rule.name in ("cem", "cma_es")):
        raise UserError(
            f"rule.name={settings.rule.name} does not go with rollout.scheme={settings.rollout.scheme}: cem and cma_es "
            "need population, the others another scheme"
        )
    if settings.rule.name == "algorithm_1" and settings.rollout.scheme != "exact":
        raise UserError("rule.name=algorithm_1 computes with the exact model: set rollout.scheme=exact")
    if settings.rollout.scheme == "exact":
        _check_exact(settings)
    elif not population:
        _check_steps(settings)
    if settings.rollout.scheme == "vine":
        _check_vine(settings)
    return settings


def _check_steps(settings: RunSettings) -> None:
    steps, envs = settings.rollout.steps_per_iteration, settings.env.num_envs
    if steps < envs:
        raise UserError(f"rollout.steps_per_iteration={steps} is smaller than env.num_envs={envs}: each needs a step")
    if steps % envs:
        low = steps - steps % envs
        raise UserError(
            f"rollout.steps_per_iteration={steps} is not a multiple of env.num_envs={envs}: use {low} or {low + envs}"
        )


def _check_exact(settings: RunSettings) -> None:
    """What does not go with a known model."""
    rule, gamma = settings.rule, settings.gamma
    table = rule.name == "algorithm_1"
    refused = {
        f"rule.name={rule.name}": (
            rule.name not in ("trust_region", "algorithm_1"),
            "it needs samples: use trust_region or algorithm_1",
        ),
        f"value.name={settings.value.name}": (settings.value.name != "none", "values are exact: use none"),
        f"gamma={gamma}": (gamma == 1.0 or (table and gamma == 0.0), "use a value between 0 and 1"),
        f"rule.fisher_fraction={rule.fisher_fraction}": (
            not table and rule.fisher_fraction < 1.0,
            "all states count, by their visitation: use 1.0",
        ),
        "rule.discounted_state_weights=true": (
            rule.discounted_state_weights,
            "visitations are discounted already: use false",
        ),
        f"rule.curvature={rule.curvature}": (not table and rule.curvature != "fisher", "it needs samples: use fisher"),
        f"policy.hidden_sizes={settings.policy.hidden_sizes}": (
            table and bool(settings.policy.hidden_sizes),
            "algorithm_1 needs a table of logits: use []",
        ),
    }
    for key, (wrong, reason) in refused.items():
        if wrong:
            raise UserError(f"{key} does not go with rollout.scheme=exact: {reason}")


def _check_vine(settings: RunSettings) -> None:
    """What does not go with branches from states in the middle of episodes."""
    env, rollout, rule, value = settings.env, settings.rollout, settings.rule, settings.value
    steps, states = rollout.steps_per_iteration, rollout.rollout_set_size
    refused = [
        (env.backend == "envpool", "env.backend=envpool", "it cannot restore states: use gymnasium"),
        (env.asynchronous, "env.asynchronous=true", "processes cannot restore states: use false"),
        (rollout.whole_episodes, "rollout.whole_episodes=true", "trunks go on from iteration to iteration: use false"),
        (value.name != "none", f"value.name={value.name}", "vine has no value function: use none"),
        (rule.name == "reward_weighted_regression", f"rule.name={rule.name}", "it needs single_path"),
        (rule.curvature != "fisher", f"rule.curvature={rule.curvature}", "it needs single_path: use fisher"),
        (rule.discounted_state_weights, "rule.discounted_state_weights=true", "it needs single_path: use false"),
        (states > steps, f"rollout.rollout_set_size={states}", f"rollout.steps_per_iteration={steps} has fewer states"),
    ]
    for wrong, key, reason in refused:
        if wrong:
            raise UserError(f"{key} does not go with rollout.scheme=vine: {reason}")


BUDGET = ("total_env_steps", "total_iterations")
"""Keys that end a run: the first that is reached."""


def is_over(settings: RunSettings, iteration: int, env_steps: int) -> bool:
    """Whether a run that has done so much has reached its budget."""
    by_iterations = settings.total_iterations is not None and iteration >= settings.total_iterations
    return by_iterations or env_steps >= settings.total_env_steps


def covers(done: RunSettings, wanted: RunSettings) -> bool:
    """Whether a finished run of the budget `done` needs no more for the budget `wanted`."""
    iterations = done.total_iterations is None or (
        wanted.total_iterations is not None and wanted.total_iterations <= done.total_iterations
    )
    return iterations and wanted.total_env_steps <= done.total_env_steps


def progress(settings: RunSettings, iteration: int, env_steps: int) -> float:
    """The share of its budget that a run has done, in [0, 1]: what schedules follow."""
    by_iterations = iteration / settings.total_iterations if settings.total_iterations is not None else 0.0
    return min(1.0, max(by_iterations, env_steps / settings.total_env_steps))


def depends_on_budget(settings: RunSettings) -> bool:
    """Whether something changes along the run, so that an early part of a longer run is no shorter run."""
    return settings.rule.final_delta is not None


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
