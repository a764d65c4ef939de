"""Policies: modules that map observations `[B, *O]` to a `Distribution` over actions."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from trpo_lightning.errors import UserError
from trpo_lightning.policies.distributions import Bernoulli, Categorical, Distribution, Gaussian
from trpo_lightning.policies.images import network_sizes
from trpo_lightning.policies.networks import build_network, named_views
from trpo_lightning.policies.observations import Layout, Shape
from trpo_lightning.policies.sequences import Observations
from trpo_lightning.policies.spaces import ActionSpec, BinaryActions, ContinuousActions, DiscreteActions
from trpo_lightning.settings import MLPPolicySettings, PolicySettings, load_class

OUTPUT_GAIN = 0.01
"""Initial scale of the last layer: actions start independent of the observation (Andrychowicz et al. 2021)."""


class Policy(nn.Module):
    """Base of all policies: a network, and distributions from its outputs. Every parameter belongs to theta.

    A custom policy is a subclass whose constructor takes (observation shape, actions, settings, a generator for its
    initial parameters); `Settings` is the dataclass of its keys.
    """

    Settings: ClassVar[type[PolicySettings]] = PolicySettings
    network: nn.Module
    metrics: ClassVar[dict[str, str]] = {}
    """Names and meanings of the metrics that `measure` returns."""

    @property
    def state_size(self) -> int:
        """How many numbers the policy remembers of an episode: its network's `state_size`, or 0 without a memory."""
        return getattr(self.network, "state_size", 0)

    def measure(self) -> dict[str, float]:
        """Metrics of the policy after an update, by name; none by default."""
        return {}

    @classmethod
    def for_spaces(
        cls,
        observation_shape: Shape,
        actions: ActionSpec,
        settings: PolicySettings,
        generator: torch.Generator,
    ) -> "Policy":
        """The policy for an environment's spaces; some classes choose a subclass by the actions.

        Args:
            observation_shape: The shape of one observation.
            actions: The environment's actions.
            settings: The values of the policy's keys.
            generator: Source of the initial parameters.
        """
        return cls(observation_shape, actions, settings, generator)  # type: ignore[call-arg]

    def distribution(self, outputs: Tensor) -> Distribution:
        """The action distributions for the network's outputs `[B, M]`."""
        raise NotImplementedError(f"{type(self).__name__} has no distribution")

    def sampler(self, noise: Tensor) -> Callable[[int, np.ndarray], np.ndarray]:
        """A function from (step t, the network's outputs `[N, M]`) to actions `[N, A]`, with `noise` `[T, N, A]`."""
        return lambda t, outputs: self.distribution(torch.from_numpy(outputs)).sample(noise[t]).numpy()

    def forward(self, observations: Observations) -> Any:
        """The action distributions for observations `[B, *O]`, or for `Sequences` if the policy has a memory."""
        return self.distribution(self.network(observations))

    def mode_parameters(self) -> list[nn.Parameter]:
        """The parameters on which the distributions' mode depends."""
        return list(self.parameters())

    def projected(self, theta: Tensor) -> Tensor:
        """The parameters `[P]` nearest to `theta` that the policy may have; here all may be."""
        return theta

    def at(self, theta: Tensor, observations: Observations) -> Any:
        """The distributions that `theta` `[P]` would give, differentiable in `theta`; the module is unchanged."""
        return torch.func.functional_call(self, named_views(self, theta), (observations,))


class NetworkPolicy(Policy):
    """Base of the built-in policies: a network that subclasses build, a distribution that follows from the actions."""

    @classmethod
    def for_spaces(
        cls,
        observation_shape: Shape,
        actions: ActionSpec,
        settings: PolicySettings,
        generator: torch.Generator,
    ) -> Policy:
        """A `GaussianPolicy`, `CategoricalPolicy` or `BernoulliPolicy` with the network of `build`."""
        assert isinstance(settings, MLPPolicySettings)

        def network(outputs: int) -> nn.Module:
            return cls.build(observation_shape, outputs, settings, generator)

        return policy_for_actions(network, actions, settings.initial_log_std, settings.least_log_std)

    @classmethod
    def build(
        cls, observation_shape: Shape, outputs: int, settings: MLPPolicySettings, generator: torch.Generator
    ) -> nn.Module:
        """The network at the start, from observations to `outputs` parameters of the distribution."""
        raise NotImplementedError(f"{cls.__name__} has no build")


class MLPPolicy(NetworkPolicy):
    """A multi-layer perceptron, after convolutions where there are images."""

    Settings = MLPPolicySettings

    @classmethod
    def build(
        cls, observation_shape: Shape, outputs: int, settings: MLPPolicySettings, generator: torch.Generator
    ) -> nn.Module:
        """As `NetworkPolicy.build`."""
        sizes = network_sizes(Layout.of(observation_shape), settings, "policy")
        return build_network(
            observation_shape,
            outputs,
            hidden_sizes=sizes.dense,
            activation=settings.activation,
            output_gain=OUTPUT_GAIN,
            generator=generator,
            convolutions=sizes.convolutions,
        )


class GaussianPolicy(MLPPolicy):
    """Mean from a network, log std a vector independent of the state (TRPO 2015, section 8.1), free above a floor."""

    def __init__(
        self, network: nn.Module, size: int, initial_log_std: float, least_log_std: float | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.log_std = nn.Parameter(torch.full((size,), initial_log_std))
        self.floor = -math.inf if least_log_std is None else min(least_log_std, initial_log_std)

    def projected(self, theta: Tensor) -> Tensor:
        least = self.log_std.detach().clamp(max=self.floor)  # below the floor, as after other settings, it only rises
        size = len(least)  # a module's own parameters come before those of its network
        return torch.cat([torch.maximum(theta[:size], least.to(theta.dtype)), theta[size:]])

    def mode_parameters(self) -> list[nn.Parameter]:
        return list(self.network.parameters())

    def distribution(self, outputs: Tensor) -> Gaussian:
        return Gaussian(outputs, self.log_std.expand_as(outputs))

    def sampler(self, noise: Tensor) -> Callable[[int, np.ndarray], np.ndarray]:
        scaled = (
            noise * self.log_std.detach().exp()
        ).numpy()  # all steps at once: the std does not depend on the state
        return lambda t, outputs: outputs + scaled[t]


class CategoricalPolicy(MLPPolicy):
    """Factored categorical: logits of all dimensions from one network (TRPO 2015, section 8.1)."""

    def __init__(self, network: nn.Module, choices: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.choices = network, choices

    def distribution(self, outputs: Tensor) -> Categorical:
        return Categorical(outputs, self.choices)


class BernoulliPolicy(MLPPolicy):
    """Independent bits, with their logits from one network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def distribution(self, outputs: Tensor) -> Bernoulli:
        return Bernoulli(outputs)


def policy_for_actions(
    network: Callable[[int], nn.Module], actions: ActionSpec, initial_log_std: float, least_log_std: float | None
) -> GaussianPolicy | CategoricalPolicy | BernoulliPolicy:
    """The built-in policy for the kind of actions; `network(M)` makes a network with M outputs."""
    match actions:
        case ContinuousActions(size):
            return GaussianPolicy(network(size), size, initial_log_std, least_log_std)
        case DiscreteActions(choices):
            return CategoricalPolicy(network(sum(choices)), choices)
        case BinaryActions(size):
            return BernoulliPolicy(network(size))


def build_policy(
    observation_shape: Shape, actions: ActionSpec, settings: PolicySettings, generator: torch.Generator
) -> Policy:
    """The policy named by `policy.name`, for an environment's spaces; `generator` draws its initial parameters."""
    cls = load_class("policy.name", settings.name)
    assert issubclass(cls, Policy)
    policy = cls.for_spaces(observation_shape, actions, settings, generator)
    if policy.state_size and not settings.has_memory:
        raise UserError(
            f"policy.name={settings.name}: its network has a state: its Settings must say has_memory = True"
        )
    return policy
