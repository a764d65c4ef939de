"""Keys of environments, of data collection, and of normalization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from trpo_lightning.settings.option import ATARI, REWARDS_SCALED, SAMPLED, option

GAMES = {"env.id": (ATARI,)}


@dataclass
class EnvSettings:
    """The environments that the policy is trained in."""

    id: str = option("Hopper-v5", "a registered gymnasium or EnvPool id, or `module:function` that returns an Env")
    num_envs: int = option(
        16, "environments stepped together", source="experiments/defaults_search", minimum=1, when=SAMPLED
    )
    backend: str = option(
        "auto",
        "auto takes EnvPool where it is installed and has the id with the same spaces and time limit as gymnasium",
        choices=("auto", "gymnasium", "envpool"),
    )
    instances: int | None = option(
        None,
        "how many environments can be open at once, for simulators that hold a port or a licence: evaluation then "
        "closes those of training first, which cuts their episodes as a barrier does; null: no limit",
        minimum=1,
    )
    scale_actions: bool = option(
        True,
        "map the policy's [-1, 1] to the range of each bounded continuous action, so that the initial std means the "
        "same everywhere; false: actions are in the environment's units; either way they are clipped to the range",
    )
    asynchronous: bool = option(False, "gymnasium backend: one process per environment instead of a loop")
    max_episode_steps: int | None = option(None, "time limit in steps; null keeps the id's own", minimum=1)
    kwargs: dict[str, Any] = option({}, "keyword arguments of the environment")
    wrappers: list[str] = option(
        [],
        "wrappers around each environment, outside of its time limit and the first innermost, as `module:Class`, such "
        "as `[gymnasium.wrappers:FlattenObservation]`; each is given the environment alone",
    )
    frame_skip: int = option(
        4,
        "frames of the emulator for each action, whose last two are shown as their maximum; env steps count actions",
        source="Mnih 2013",
        minimum=1,
        when=GAMES,
    )
    frame_stack: int = option(
        4, "frames that the policy sees, the newest last", source="Mnih 2013", minimum=1, when=GAMES
    )
    frame_size: list[int] = option(
        [84, 84],
        "height and width of a frame, which the emulator's 210 x 160 are shrunken to; with [52, 40] the network "
        "trpo_2015 has the 33,500 parameters that the paper prints",
        source="Mnih 2013",
        minimum=1,
        when=GAMES,
    )
    noop_max: int = option(
        30,
        "an episode begins with 1 to this many frames without an action, at random",
        source="Mnih 2015",
        minimum=1,
        when=GAMES,
    )
    sticky_actions: float = option(
        0.0,
        "probability that the emulator repeats its last action instead, frame by frame (Machado 2018: 0.25)",
        source="Mnih 2013",
        minimum=0.0,
        below=1.0,
        when=GAMES,
    )
    episodic_life: bool = option(
        False,
        "in training an episode ends with each life, and the game goes on in the next; returns are those of whole "
        "games all the same",
        when={**GAMES, "rollout.scheme": ("single_path",)},
    )
    timeout: float | None = option(
        300.0,
        "seconds that building, resetting or stepping all environments may take before the run ends with an error; "
        "null: no limit",
        above=0.0,
    )
    restarts: int = option(
        0,
        "times per run that failed or hanging environments are rebuilt, with new seeds; episodes are cut, and the "
        "iteration is collected again",
        minimum=0,
    )


@dataclass
class RolloutSettings:
    """How the data of one update is collected: the keys of every scheme.

    A custom scheme adds its own in `MyScheme.Settings`, derived from the settings of the scheme it resembles: rules and
    other keys treat it as the scheme that `kind` names. `over_ranks` says that each rank steps its `environments`, and
    that rollouts tell their `share`.
    """

    kind: ClassVar[str] = "single_path"
    over_ranks: ClassVar[bool] = False

    scheme: str = option(
        "single_path",
        "how states and actions are sampled: single_path follows the policy; vine tries several actions in states on "
        "its way, each followed by a short branch with the same random numbers; population runs whole episodes of "
        "candidate parameters, each acting by its mode (rules cem and cma_es: an iteration is rule.population * "
        "rule.episodes_per_candidate episodes; rewards are raw, no value function); exact samples nothing: all states "
        "and actions of an environment that has a table (gymnasium's toy text) are weighted by their exact visitation, "
        "with exact advantages, without a time limit; or a subclass of SamplingScheme as `module:Class`",
        source="TRPO 2015, section 5",
        choices=("single_path", "vine", "population", "exact"),
        extensible=True,
    )


@dataclass
class PathSettings(RolloutSettings):
    """Keys of schemes that follow the policy for a number of steps."""

    steps_per_iteration: int = option(
        2048,
        "steps of all environments together in one batch (steps that only reset are left out); vine: steps of the "
        "trunks, branches come on top",
        source="experiments/defaults_search",
        minimum=1,
    )


@dataclass
class SinglePathSettings(PathSettings):
    """Follow the policy."""

    over_ranks: ClassVar[bool] = True

    whole_episodes: bool = option(
        False,
        "each iteration starts new episodes and collects only whole ones, at least steps_per_iteration steps (the "
        "batches of TRPO 2015); false: episodes continue from one iteration to the next",
    )
    spread_episodes: bool = option(
        False,
        "at the start and after each barrier, cut the first episode of the i-th environment at i / env.num_envs of "
        "the time limit, without reporting it, so that batches hold all phases of long episodes; false: no cut",
        when={"rollout.whole_episodes": (False,)},
    )


@dataclass
class VineSettings(PathSettings):
    """Branch from states on the policy's way."""

    kind: ClassVar[str] = "vine"

    rollout_set_size: int = option(
        125,
        "states of an iteration that branches start from, drawn uniformly from the slots of the trunks (those "
        "that only reset are left out)",
        source="TRPO 2015, table 2: swimmer",
        minimum=1,
    )
    branches: int = option(
        4,
        "actions tried in each of these states, if not all",
        source="TRPO 2015, table 2",
        minimum=1,
    )
    branch_length: int = option(
        50, "steps of a branch, the tried action included", source="TRPO 2015, table 2: swimmer", minimum=1
    )
    branch_actions: str = option(
        "policy",
        "actions to try are drawn from the policy, or uniformly from discrete ones, and weighted by pi / q "
        "(eq. 16); or all actions of a discrete space are tried once and weighted by pi (eq. 15)",
        source="TRPO 2015, section 5.2",
        choices=("policy", "uniform", "all"),
    )


@dataclass
class PopulationSettings(RolloutSettings):
    """Whole episodes of candidates: nothing to set; the rule decides how many."""

    kind: ClassVar[str] = "population"


@dataclass
class ExactSettings(RolloutSettings):
    """A known model: nothing to set."""

    kind: ClassVar[str] = "exact"


@dataclass
class NormalizeSettings:
    """Running statistics, frozen while an iteration collects and updates; the first iteration sees raw observations."""

    observations: bool = option(
        True, "standardize observations with running mean and variance", source="Henderson 2018", when=SAMPLED
    )
    rewards: bool = option(
        True, "divide rewards by the running std of discounted returns", source="Engstrom 2020", when=REWARDS_SCALED
    )
    reward_signs: bool = option(
        False,
        "the update sees the signs of rewards, 1, 0 or -1, before they are divided (Mnih 2013, for Atari); returns are "
        "of the rewards as they are",
        when=REWARDS_SCALED,
    )
    first_rewards: str = option(
        "own_scale",
        "rewards of the first iteration, before there are statistics: divided by the std of its own discounted "
        "returns, or raw; the value function is then first fitted to targets many times larger than later ones",
        source="as in SB3, whose statistics move with each step",
        choices=("own_scale", "raw"),
        when={**REWARDS_SCALED, "normalize.rewards": (True,)},
    )
    observation_clip: float = option(
        10.0,
        "standardized observations are clipped to +- this",
        above=0.0,
        when={**SAMPLED, "normalize.observations": (True,)},
    )
    reward_clip: float = option(
        10.0, "scaled rewards are clipped to +- this", above=0.0, when={**REWARDS_SCALED, "normalize.rewards": (True,)}
    )
