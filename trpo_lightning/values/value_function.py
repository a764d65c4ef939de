"""What every value function can do."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trpo_lightning.policies.networks import build_network
from trpo_lightning.settings import FittedValueSettings, NetworkValueSettings, ValueSettings


class ValueFunction(nn.Module):
    """V(s): an estimate of the discounted return from s on, fitted anew to each batch.

    Made from (observation shape, settings, a generator for its initial parameters). Parameters and buffers are in the
    module's state, what else a fit remembers is in `optimizer_state`. `Settings` is the dataclass of its keys.
    """

    Settings: ClassVar[type[ValueSettings]] = FittedValueSettings

    def __init__(self, observation_shape: tuple[int, ...], settings: ValueSettings, generator: torch.Generator) -> None:
        del observation_shape, generator
        super().__init__()
        self.settings = settings

    @property
    def fits_on_one_thread(self) -> bool:
        """Whether a fit is too small for a second core, and long enough to be beside something else."""
        return False

    def predict(self, observations: Tensor, chunk: int = 65536) -> Tensor:
        """V of observations `[B, *O]`, `[B]`, at most `chunk` rows at once; without a gradient."""
        raise NotImplementedError(f"{type(self).__name__} has no predict")

    def fit(self, observations: Tensor, targets: Tensor, generator: torch.Generator) -> float:
        """Regress V on targets `[B]`; all random numbers come from `generator`. Returns the mean squared error.

        An empty batch, or a number that is not finite in the data or the outcome, leaves everything as it was and
        returns NaN.
        """
        raise NotImplementedError(f"{type(self).__name__} has no fit")

    def optimizer_state(self) -> dict[str, Any]:
        """State of the optimizer between fits, for a checkpoint: empty for one that starts afresh at each."""
        return {}

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Continue from a state of `optimizer_state`."""
        del state


class NeuralValueFunction(ValueFunction):
    """V_phi(s): a network with one output; its fit is a subclass's."""

    Settings = NetworkValueSettings

    def __init__(
        self, observation_shape: tuple[int, ...], settings: NetworkValueSettings, generator: torch.Generator
    ) -> None:
        super().__init__(observation_shape, settings, generator)
        self.network = build_network(
            observation_shape,
            1,
            hidden_sizes=settings.hidden_sizes,
            activation=settings.activation,
            output_gain=1.0,
            generator=generator,
        )

    @torch.no_grad()
    def predict(self, observations: Tensor, chunk: int = 65536) -> Tensor:
        """V of observations `[B, *O]`, `[B]`."""
        return torch.cat([self.network(part).squeeze(-1) for part in observations.split(chunk)])


class NoValueFunction(ValueFunction):
    """V = 0 everywhere and no fit: Monte-Carlo estimates without a baseline (TRPO 2015, section 5.1)."""

    Settings = ValueSettings

    def predict(self, observations: Tensor, chunk: int = 65536) -> Tensor:
        """Zeros `[B]`."""
        del chunk
        return observations.new_zeros(len(observations))

    def fit(self, observations: Tensor, targets: Tensor, generator: torch.Generator) -> float:
        """NaN: there is no fit."""
        del observations, targets, generator
        return float("nan")
