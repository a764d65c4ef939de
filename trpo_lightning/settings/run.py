"""All keys of a run, by group."""

from __future__ import annotations

from dataclasses import dataclass, field

from trpo_lightning.settings.models import AdamValueSettings, MLPPolicySettings, PolicySettings, ValueSettings
from trpo_lightning.settings.option import SAMPLED_PATH, option
from trpo_lightning.settings.rule import RuleSettings, TrustRegionSettings
from trpo_lightning.settings.sampling import EnvSettings, NormalizeSettings, RolloutSettings, SinglePathSettings

LOGGERS = ("wandb", "tensorboard", "mlflow", "trackio")
"""The trackers that come with the package."""


@dataclass
class EvaluationSettings:
    """Episodes of the current policy in separate environments."""

    every: int = option(25, "iterations between evaluations; 0 is never", minimum=0)
    episodes: int = option(10, "episodes for the deterministic policy, and as many for the stochastic one", minimum=1)
    final_episodes: int | None = option(
        None,
        "evaluate over this many episodes after the last iteration, whatever evaluation.every says; null: the end is "
        "nothing special",
        minimum=1,
    )


@dataclass
class CheckpointSettings:
    """Barriers: iterations at which a run can be resumed, bit for bit."""

    every: int | None = option(
        None,
        "iterations between barriers; null: enough for 5 full episodes in each environment; 0 is never",
        minimum=0,
    )


@dataclass
class TrackingSettings:
    """Trackers, on top of the local files."""

    loggers: list[str] = option(
        ["wandb"],
        "trackers that get every row, besides metrics.csv; one of your own is `module:function`",
        choices=LOGGERS,
        extensible=True,
    )
    wandb: str = option(
        "auto",
        "W&B's mode: auto is online if an API key is configured, otherwise offline",
        choices=("auto", "online", "offline", "disabled"),
    )
    mlflow: str | None = option(
        None, "MLflow's store, such as http://localhost:5000 or sqlite:///mlflow.db; null is what MLflow itself takes"
    )
    project: str = option("trpo_lightning", "project in W&B and Trackio, experiment in MLflow")
    entity: str | None = option(None, "W&B user or team; null is the account's default")
    group: str | None = option(None, "group of runs; null is the experiment's name")
    tags: list[str] = option([], "tags, besides the git describe of the code")


@dataclass
class RunSettings:
    """One training run."""

    env: EnvSettings = field(default_factory=EnvSettings)
    rollout: RolloutSettings = field(default_factory=SinglePathSettings)
    normalize: NormalizeSettings = field(default_factory=NormalizeSettings)
    policy: PolicySettings = field(default_factory=MLPPolicySettings)
    rule: RuleSettings = field(default_factory=TrustRegionSettings)
    value: ValueSettings = field(default_factory=AdamValueSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    gamma: float = option(
        0.99,
        "discount",
        source="TRPO 2015, table 2",
        minimum=0.0,
        maximum=1.0,
        when={"rollout.scheme": ("single_path", "vine", "exact")},
    )
    gae_lambda: float = option(
        0.95,
        "lambda of generalized advantage estimation",
        source="GAE 2016",
        minimum=0.0,
        maximum=1.0,
        when=SAMPLED_PATH,
    )
    total_env_steps: int = option(
        1_000_000, "the run ends with the first iteration that reaches this many env steps", minimum=1
    )
    total_iterations: int | None = option(
        None, "the run ends after this many iterations, unless it ends before; null: only env steps count", minimum=1
    )
    seed: int = option(0, "seed of all random numbers", minimum=0, maximum=2**63 - 1)
    name: str = option("default", "name of the variant, part of the run directory's path")
    threads: int | None = option(None, "cores that this run may use on a machine; null: all cores", minimum=1)
    devices: int = option(
        1,
        "processes (ranks) that train this run together, each with its share of the environments and of the cores, or "
        "its own GPU; `train` starts them, unless torchrun has started as many, on one or several machines",
        minimum=1,
    )
    device: str = option("cpu", "device of the policy and the value function", choices=("cpu", "gpu"))
