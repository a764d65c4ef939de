"""The interface of value functions, and the trivial one."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trpo_lightning.policies.images import network_sizes, rows_at_once
from trpo_lightning.policies.networks import build_network
from trpo_lightning.policies.observations import Layout, ObservationRows, Shape
from trpo_lightning.ranks import Share
from trpo_lightning.settings import FittedValueSettings, NetworkValueSettings, ValueSettings


class ValueFunction(nn.Module):
    """V(s): an estimate of the discounted return from s on, fitted to each batch.

    The constructor takes (observation shape, settings, a generator for the initial parameters). Parameters and buffers
    are part of the module's state; anything else that fits remember belongs in `optimizer_state`. `Settings` is the
    dataclass of its keys.
    """

    Settings: ClassVar[type[ValueSettings]] = FittedValueSettings
    state_size: int = 0
    """How many numbers it remembers of an episode; see `RecurrentValueFunction` for those that do."""
    metrics: ClassVar[dict[str, str]] = {
        "value/loss": "mean squared error of the value fit: during adam's last epoch, after the fit for other kinds",
        "value/explained_variance": "1 - Var(target - V) / Var(target), with V from before the fit",
    }
    """Names and meanings of a fit's metrics; a subclass adds those of its `measure` to `ValueFunction.metrics`."""

    def measure(self) -> dict[str, float]:
        """Further metrics after a fit, by name; none by default."""
        return {}

    def __init__(self, observation_shape: Shape, settings: ValueSettings, generator: torch.Generator) -> None:
        del observation_shape, generator
        super().__init__()
        self.settings = settings

    @property
    def fits_on_one_thread(self) -> bool:
        """Whether a fit cannot use a second core, but is long enough to be worth running in the background."""
        return False

    def predict(self, observations: Any, chunk: int = 65536) -> Tensor:
        """V `[B]` for observations `[B, *O]`, evaluating at most `chunk` rows at once; without a gradient."""
        raise NotImplementedError(f"{type(self).__name__} has no predict")

    def fit(self, observations: Any, targets: Tensor, generator: torch.Generator, share: Share | None = None) -> float:
        """Regress V on the targets.

        Args:
            observations: `[B, *O]`, or `Sequences` if V has a memory.
            targets: `[B]`.
            generator: Source of all random numbers of the fit.
            share: Which of all ranks' rows these are; given only if there are several ranks, to a class
                whose settings say `over_ranks`; the outcome is then the same on all of them.

        Returns:
            The mean squared error. NaN if the batch is empty, or if a number in the data or the outcome is not finite;
            the value function and its optimizer are then left as they were.
        """
        raise NotImplementedError(f"{type(self).__name__} has no fit")

    def optimizer_state(self) -> dict[str, Any]:
        """The optimizer's state, for a checkpoint; empty for fits that start afresh."""
        return {}

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Continue from an `optimizer_state`."""
        del state


class NeuralValueFunction(ValueFunction):
    """V_phi(s): a network with one output; subclasses define how it is fitted."""

    Settings = NetworkValueSettings

    def __init__(self, observation_shape: Shape, settings: NetworkValueSettings, generator: torch.Generator) -> None:
        super().__init__(observation_shape, settings, generator)
        self.network = self.build(observation_shape, settings, generator)

    def build(self, observation_shape: Shape, settings: NetworkValueSettings, generator: torch.Generator) -> nn.Module:
        """The network at the start."""
        sizes = network_sizes(Layout.of(observation_shape), settings, "value")
        return build_network(
            observation_shape,
            1,
            hidden_sizes=sizes.dense,
            activation=settings.activation,
            output_gain=1.0,
            generator=generator,
            convolutions=sizes.convolutions,
        )

    @torch.no_grad()
    def predict(self, observations: Any, chunk: int = 65536) -> Tensor:
        """V `[B]` for observations `[B, *O]`."""
        chunk = rows_at_once(self.network, chunk)
        return torch.cat([self.network(part).squeeze(-1) for part in observations.split(chunk)])


class NoValueFunction(ValueFunction):
    """V = 0 everywhere, never fitted: Monte-Carlo estimates without a baseline (TRPO 2015, section 5.1)."""

    Settings = ValueSettings

    def predict(self, observations: ObservationRows, chunk: int = 65536) -> Tensor:
        """Zeros `[B]`."""
        del chunk
        return torch.zeros(len(observations), device=observations.device)

    def fit(
        self, observations: Tensor, targets: Tensor, generator: torch.Generator, share: Share | None = None
    ) -> float:
        """NaN: there is no fit."""
        del observations, targets, generator, share
        return float("nan")
