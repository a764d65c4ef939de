"""The compared settings, as keys of `train`."""

from typing import Any

ENVIRONMENTS: tuple[str, ...] = ("Hopper-v5", "HalfCheetah-v5", "Humanoid-v5")
PEER_ENVIRONMENTS: tuple[str, ...] = ("Hopper-v5", "HalfCheetah-v5")
WARMUP = 2
"""Iterations at the start that rates leave out."""

NETWORKS: dict[str, Any] = {"policy.hidden_sizes": [64, 64], "value.hidden_sizes": [64, 64]}
QUIET: dict[str, Any] = {"evaluation.every": 0, "tracking.wandb": "offline"}

BENCHMARK: dict[str, Any] = {
    **NETWORKS,
    **QUIET,
    "policy.initial_log_std": 0.0,
    "policy.least_log_std": None,
    "rule.delta": 0.02,
    "rule.damping": 0.1,
    "rule.kl_over_dimensions": "sum",
    "rule.max_step_size": None,
    "rule.kl_state_slack": None,
    "rule.final_delta": None,
    "env.num_envs": 32,
    "rollout.steps_per_iteration": 4096,
    "rule.cg_iterations": 10,
    "rule.fisher_fraction": 0.1,
    "value.epochs": 10,
    "value.minibatch_size": 256,
    "checkpoint.every": 20,  # so that even a short run includes the cost of barriers
}
"""The whole loop: Lightning, value fit, metrics, barriers, W&B offline."""

LIKE_SB3: dict[str, Any] = {
    **NETWORKS,
    **QUIET,
    "checkpoint.every": None,
    "env.num_envs": 8,
    "env.scale_actions": False,
    "rollout.steps_per_iteration": 2048,
    "policy.initial_log_std": 0.0,
    "policy.least_log_std": None,
    "rule.max_step_size": None,
    "rule.kl_state_slack": None,
    "rule.final_delta": None,
    "rule.cg_iterations": 10,
    "rule.fisher_fraction": 1.0,
    "rule.delta": 0.01,
    "rule.kl_over_dimensions": "mean",  # its KL, and so its delta and damping
    "rule.kl_direction": "new_old",
    "rule.damping": 0.1,
    "rule.max_backtracks": 9,  # after the full step: ten candidates
    "value.epochs": 10,
    "value.minibatch_size": 128,
    "value.learning_rate": 1e-3,
    "normalize.observations": True,
    "normalize.rewards": True,
    "gamma": 0.99,
    "gae_lambda": 0.95,
}
"""The settings of `peer_scripts/sb3_trpo.py`."""

LIKE_TIANSHOU: dict[str, Any] = {
    **LIKE_SB3,
    "env.num_envs": 16,
    "env.scale_actions": True,
    "rollout.steps_per_iteration": 1024,
    "rule.kl_over_dimensions": "sum",
    "rule.kl_direction": "old_new",
    "normalize.first_rewards": "raw",
    "policy.initial_log_std": -0.5,
    "policy.least_log_std": None,
    "value.epochs": 20,
    "value.minibatch_size": 1024,
}
"""The settings of `peer_scripts/tianshou_trpo.py`: its MuJoCo example's."""


ZOO: dict[str, Any] = {
    "num_envs": 2,
    "steps_per_iteration": 2048,
    "minibatch": 128,
    "cg_iterations": 25,
    "critic_updates": 20,
}
"""What RL Zoo recommends for sb3-contrib's TRPO on MuJoCo, as options of `peer_scripts/sb3_trpo.py`."""
ZOO_BY_TASK: dict[str, dict[str, Any]] = {"HalfCheetah-v5": {"delta": 0.04}}


def overrides(settings: dict[str, Any]) -> list[str]:
    """Settings as `key=value` arguments of `train`."""
    return [f"{key}={_yaml(value)}" for key, value in settings.items()]


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
