"""A neural value function fitted by Adam on minibatches of squared error."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trpo_lightning.policies.networks import build_network
from trpo_lightning.settings import ValueSettings


class NetworkValueFunction(nn.Module):
    """V_phi(s): a network with one output, with its optimizer.

    Minibatch regression with Adam, as in most implementations; the GAE paper fits by a trust region instead (GAE 2016,
    section 5).
    """

    def __init__(self, observation_shape: tuple[int, ...], settings: ValueSettings, generator: torch.Generator) -> None:
        super().__init__()
        self.settings = settings
        self.network = build_network(
            observation_shape,
            1,
            hidden_sizes=settings.hidden_sizes,
            activation=settings.activation,
            output_gain=1.0,
            generator=generator,
        )
        self._optimizer: torch.optim.Adam | None = None
        self._loaded: dict[str, Any] | None = None

    @property
    def optimizer(self) -> torch.optim.Adam:
        """Adam on the network's parameters, made on first use: by then they are on their device."""
        if self._optimizer is None:
            self._optimizer = torch.optim.Adam(self.parameters(), lr=self.settings.learning_rate, fused=True)
            if self._loaded is not None:
                self._optimizer.load_state_dict(self._loaded)
        return self._optimizer

    @torch.no_grad()
    def predict(self, observations: Tensor, chunk: int = 65536) -> Tensor:
        """V of observations `[B, *O]`, `[B]`."""
        return torch.cat([self.network(part).squeeze(-1) for part in observations.split(chunk)])

    def fit(self, observations: Tensor, targets: Tensor, generator: torch.Generator) -> float:
        """Regress V on targets `[B]`; `generator` shuffles. Returns the mean squared error during the last epoch.

        A non-finite target or prediction leaves the network and the optimizer as they were and returns NaN.
        """
        if not (len(targets) and torch.isfinite(targets).all() and torch.isfinite(self.predict(observations)).all()):
            return float("nan")
        total = torch.zeros((), device=targets.device)
        for _ in range(self.settings.epochs):
            order = torch.randperm(len(targets), generator=generator).to(targets.device)
            shuffled, shuffled_targets = observations[order], targets[order]
            total.zero_()
            pairs = zip(
                shuffled.split(self.settings.minibatch_size),
                shuffled_targets.split(self.settings.minibatch_size),
                strict=True,
            )
            for x, y in pairs:
                loss = F.mse_loss(self.network(x).squeeze(-1), y)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.optimizer.step()
                total += loss.detach() * len(y)
        return float(total) / len(targets) if self.settings.epochs else float("nan")

    def optimizer_state(self) -> dict[str, Any]:
        """State of the optimizer, for a checkpoint."""
        return self.optimizer.state_dict()

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Continue from a state of `optimizer_state`: taken over on first use, with the parameters on their device."""
        self._optimizer, self._loaded = None, state
