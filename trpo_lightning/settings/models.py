"""Keys of the policy and the value function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trpo_lightning.settings.option import SAMPLED_PATH, option

IMAGE_NETWORKS = ("trpo_2015", "mnih_2015", "sizes")
_HIDDEN_SIZES = "units of each hidden layer; [] is linear; where observations have images, of image_network=sizes only"
_IMAGE_NETWORK = (
    "layers where observations have images: trpo_2015 has two of 16 filters 4x4 with stride 2 and a dense one of 20 "
    "units, mnih_2015 32 filters 8x8 with stride 4, 64 4x4 with 2, 64 3x3 with 1 and 512 units (with activation=relu); "
    "sizes has those of convolutions and hidden_sizes; a vector beside images joins at the first dense layer"
)
_CONVOLUTIONS = "layers that see images, FILTERSxKERNEL/STRIDE each: 16x4/2 is 16 filters of 4 x 4 with stride 2"


@dataclass
class PolicySettings:
    """Keys of every policy; a custom policy adds its own in a subclass, `MyPolicy.Settings`."""

    has_memory: ClassVar[bool] = False
    """Whether actions depend on earlier observations of the episode, too; then one device trains it."""

    name: str = option(
        "mlp",
        "policy: mlp is a multi-layer perceptron whose distribution follows from the action space (Gaussian with a std "
        "that does not depend on the state, categorical, Bernoulli); gru and lstm have a memory of the episode: their "
        "last hidden layer is recurrent; or a subclass of Policy as `module:Class`",
        choices=("mlp", "gru", "lstm"),
        extensible=True,
    )


@dataclass
class MLPPolicySettings(PolicySettings):
    """Network and distribution of the built-in policies."""

    hidden_sizes: list[int] = option([64, 64], _HIDDEN_SIZES, source="Henderson 2018", minimum=1)
    activation: str = option(
        "tanh", "hidden non-linearity", source="TRPO 2015, table 2", choices=("tanh", "relu", "elu")
    )
    image_network: str = option("trpo_2015", _IMAGE_NETWORK, source="TRPO 2015, section 8.2", choices=IMAGE_NETWORKS)
    convolutions: list[str] = option(
        ["16x4/2", "16x4/2"], _CONVOLUTIONS, source="TRPO 2015", when={"policy.image_network": ("sizes",)}
    )
    initial_log_std: float = option(
        -0.5,
        "log std of a Gaussian policy at the start",
        source="experiments/defaults_search",
        minimum=-20.0,
        maximum=2.0,
    )
    least_log_std: float | None = option(
        -1.5,
        "a Gaussian's log std falls no further than this (or than policy.initial_log_std, if that is lower): a solved "
        "task drives it down for ever, and with too little noise nothing tells how rare states are to be mended; null: "
        "no floor",
        source="measured: experiments/results/stability",
        minimum=-20.0,
        maximum=2.0,
    )


@dataclass
class RecurrentPolicySettings(MLPPolicySettings):
    """Network and distribution of the built-in policies with a memory."""

    has_memory: ClassVar[bool] = True

    hidden_sizes: list[int] = option(
        [64, 64],
        "units of each hidden layer, of which the last is recurrent: it needs at least one",
        source="as policy.name=mlp",
        minimum=1,
    )


@dataclass
class ValueSettings:
    """Keys of every value function; a custom one adds its own in a subclass, `MyValueFunction.Settings`.

    `over_ranks` says that its `fit` heeds its `share`, and so works with several `devices`.
    """

    over_ranks: ClassVar[bool] = False

    name: str = option(
        "adam",
        "value function: a network fitted by adam on minibatches, by lbfgs on the whole batch, or by one step in a "
        "trust_region (GAE 2016); linear in observations and their squares (Duan 2016); gru and lstm are networks with "
        "a memory of the episode, fitted by Adam on whole sequences; none is V = 0; or a subclass of ValueFunction as "
        "`module:Class`",
        choices=("adam", "lbfgs", "trust_region", "linear", "gru", "lstm", "none"),
        extensible=True,
    )


@dataclass
class FittedValueSettings(ValueSettings):
    """Keys of value functions that are fitted."""

    targets: str = option(
        "lambda_returns",
        "regression targets: lambda-returns (advantage + old value) or discounted returns",
        choices=("lambda_returns", "returns"),
        when=SAMPLED_PATH,
    )
    bootstrap_time_limits: bool = option(
        True,
        "a time limit bootstraps from the value of its last observation; false treats it as a death",
        when=SAMPLED_PATH,
    )


@dataclass
class NetworkValueSettings(FittedValueSettings):
    """Keys of value functions that are networks."""

    over_ranks: ClassVar[bool] = True

    hidden_sizes: list[int] = option([64, 64], _HIDDEN_SIZES, source="Henderson 2018", minimum=1)
    activation: str = option("tanh", "hidden non-linearity", choices=("tanh", "relu", "elu"))
    image_network: str = option("trpo_2015", _IMAGE_NETWORK, source="as the policy's", choices=IMAGE_NETWORKS)
    convolutions: list[str] = option(
        ["16x4/2", "16x4/2"], _CONVOLUTIONS, source="TRPO 2015", when={"value.image_network": ("sizes",)}
    )


@dataclass
class FeatureValueSettings(NetworkValueSettings):
    """Keys of networks that may stand on the policy's."""

    features: str = option(
        "own",
        "what its layers see: own sees the observations; policy sees the outputs of the policy's last hidden layer, "
        "which fits leave as they are (it has hidden_sizes on top, and no convolutions of its own)",
        choices=("own", "policy"),
        when=SAMPLED_PATH,
    )


@dataclass
class DescentValueSettings(NetworkValueSettings):
    """Keys of networks fitted by Adam."""

    learning_rate: float = option(1e-3, "step size", source="Henderson 2018", above=0.0, when=SAMPLED_PATH)
    epochs: int = option(
        10, "passes over the batch in each iteration", source="SB3-contrib", minimum=0, when=SAMPLED_PATH
    )
    clip: float | None = option(
        None,
        "the loss of a transition is the larger one of V's and of V moved by at most this from before the fit, "
        "as in PPO (Engstrom 2020: 0.2); null is off",
        above=0.0,
        when=SAMPLED_PATH,
    )


@dataclass
class AdamValueSettings(FeatureValueSettings, DescentValueSettings):
    """A network fitted by Adam on minibatches of transitions."""

    minibatch_size: int = option(256, "transitions of one step", minimum=1, when=SAMPLED_PATH)


@dataclass
class RecurrentValueSettings(DescentValueSettings):
    """A network with a memory, fitted by Adam on minibatches of whole sequences."""

    over_ranks: ClassVar[bool] = False

    hidden_sizes: list[int] = option(
        [64, 64],
        "units of each hidden layer, of which the last is recurrent: it needs at least one",
        source="as value.name=adam",
        minimum=1,
    )
    minibatches: int = option(
        4,
        "steps in each pass, each on a share of the sequences (an episode's part in this iteration is one): fewer "
        "where there are fewer sequences",
        source="CleanRL's ppo_atari_lstm.py",
        minimum=1,
        when=SAMPLED_PATH,
    )


@dataclass
class LBFGSValueSettings(FeatureValueSettings):
    """A network fitted by L-BFGS on the whole batch."""

    iterations: int = option(25, "iterations at most in each fit", source="modular_rl", minimum=1, when=SAMPLED_PATH)
    l2: float = option(
        1e-3,
        "this times the squared norm of the parameters (of linear ones without the constant) is added to the "
        "mean squared error",
        source="modular_rl",
        minimum=0.0,
        when=SAMPLED_PATH,
    )


@dataclass
class TrustRegionValueSettings(FeatureValueSettings):
    """A network fitted by one step in a trust region (GAE 2016, section 5)."""

    epsilon: float = option(
        0.1,
        "bound on the mean of (V - V_old)^2 / (2 sigma^2), sigma^2 the old mean squared error (GAE 2016 "
        "prints no value; rllab: 0.01)",
        source="measured: Hopper-v5, 1 seed, 100k steps",
        above=0.0,
        when=SAMPLED_PATH,
    )
    cg_iterations: int = option(10, "conjugate-gradient iterations at most", minimum=1, when=SAMPLED_PATH)
    damping: float = option(
        0.1,
        "CG solves with Gauss-Newton + damping * I (rllab: 1e-5)",
        source="as rule.damping",
        minimum=0.0,
        when=SAMPLED_PATH,
    )
    rescale: str = option(
        "outside",
        "the step is scaled to the boundary if it lies outside, and shrunken until the error falls; or "
        "always and as it is, the paper's (it may raise the error)",
        choices=("outside", "always"),
        when=SAMPLED_PATH,
    )


@dataclass
class LinearValueSettings(FittedValueSettings):
    """Ridge regression on observations and their squares."""

    over_ranks: ClassVar[bool] = True

    l2: float = option(
        1e-3,
        "this times the squared norm of the parameters (of linear ones without the constant) is added to the "
        "mean squared error",
        source="modular_rl",
        minimum=0.0,
        when=SAMPLED_PATH,
    )
