"""Keys of the policy and the value function."""

from __future__ import annotations

from dataclasses import dataclass

from trpo_lightning.settings.option import option


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
