"""A custom value function: the mean of several networks, each fitted to its own bootstrap sample.

In this folder:

$ python -m trpo_lightning train value.name=ensemble_value:Ensemble value.members=3 env.id=InvertedPendulum-v5 \
    name=ensemble
"""

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trpo_lightning.policies.networks import build_network
from trpo_lightning.settings import NetworkValueSettings, option
from trpo_lightning.values.value_function import ValueFunction


@dataclass
class EnsembleSettings(NetworkValueSettings):
    """Keys of the ensemble, besides `hidden_sizes`, `activation`, `targets` and `bootstrap_time_limits`."""

    members: int = option(5, "networks whose mean is the estimate", source="Lakshminarayanan 2017", minimum=1)
    learning_rate: float = option(1e-3, "Adam's step size", above=0.0)
    epochs: int = option(10, "passes over each member's bootstrap sample", minimum=1)
    minibatch_size: int = option(256, "transitions of one step", minimum=1)


class Ensemble(ValueFunction):
    """V(s) is the mean of K networks, which differ in their initial parameters and in the data they have seen."""

    Settings = EnsembleSettings
    settings: EnsembleSettings
    metrics: ClassVar[dict[str, str]] = {
        **ValueFunction.metrics,
        "value/disagreement": "std of the members' estimates, root mean square over the batch, after the fit",
    }

    def __init__(
        self, observation_shape: tuple[int, ...], settings: EnsembleSettings, generator: torch.Generator
    ) -> None:
        super().__init__(observation_shape, settings, generator)
        sizes = {"hidden_sizes": settings.hidden_sizes, "activation": settings.activation}
        networks = [
            build_network(observation_shape, 1, **sizes, output_gain=1.0, generator=generator)
            for _ in range(settings.members)
        ]
        self.members = nn.ModuleList(networks)
        self._adams: list[dict[str, Any]] = [{} for _ in networks]
        self._disagreement = float("nan")

    @torch.no_grad()
    def predict(self, observations: Tensor, chunk: int = 65536) -> Tensor:
        """The members' mean `[B]` for observations `[B, O]`."""
        return torch.cat([self._estimates(part).mean(0) for part in observations.split(chunk)])

    def _estimates(self, observations: Tensor) -> Tensor:
        return torch.stack([network(observations).squeeze(-1) for network in self.members])

    def fit(self, observations: Tensor, targets: Tensor, generator: torch.Generator) -> float:
        """Fit each member; return the ensemble's mean squared error. If it is not finite, nothing changes."""
        if not len(targets):
            return float("nan")
        before = copy.deepcopy(self.members.state_dict())
        adams = [self._fit(network, adam, observations, targets, generator) for network, adam in self._pairs()]
        error = float((self.predict(observations) - targets).square().mean())
        if not error < float("inf"):
            self.members.load_state_dict(before)
            return float("nan")
        self._adams = adams
        with torch.no_grad():
            self._disagreement = float(self._estimates(observations).var(0, correction=0).mean().sqrt())
        return error

    def _pairs(self) -> zip:
        return zip(self.members, self._adams, strict=True)

    def _fit(
        self,
        network: nn.Module,
        state: dict[str, Any],
        observations: Tensor,
        targets: Tensor,
        generator: torch.Generator,
    ) -> dict[str, Any]:
        """Take Adam's steps on one member; return Adam's state after them."""
        adam = torch.optim.Adam(network.parameters(), lr=self.settings.learning_rate)
        if state:
            adam.load_state_dict(copy.deepcopy(state))
        size = (len(targets),)
        sample = torch.randint(len(targets), size, generator=generator).to(targets.device)  # with replacement
        for _ in range(self.settings.epochs):
            order = sample[torch.randperm(len(targets), generator=generator).to(targets.device)]
            for rows in order.split(self.settings.minibatch_size):
                loss = (network(observations[rows]).squeeze(-1) - targets[rows]).square().mean()
                adam.zero_grad()
                loss.backward()
                adam.step()
        return adam.state_dict()

    def measure(self) -> dict[str, float]:
        """Return this value function's own metric after each fit."""
        return {"value/disagreement": self._disagreement}

    def optimizer_state(self) -> dict[str, Any]:
        """Adam's state for each member; the networks themselves are saved as parameters of this module."""
        return {"adams": self._adams}

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Continue from an `optimizer_state`."""
        self._adams = state["adams"]
