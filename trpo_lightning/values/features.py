"""Value functions on the policy's features: the outputs of its last hidden layer."""

from typing import Any

import torch
from torch import Tensor, nn

from trpo_lightning.errors import UserError
from trpo_lightning.policies.images import ImageNetwork, rows_at_once
from trpo_lightning.policies.policy import Policy
from trpo_lightning.ranks import Share
from trpo_lightning.values.value_function import ValueFunction


class OnPolicyFeatures(ValueFunction):
    """V(s) = head(phi(s)), with phi the policy's layers before its last one.

    Only the head is fitted; phi changes with the policy, by its trust-region steps alone. A fit comes after the update,
    so that the next rollout is valued with the features that the head was fitted to. It holds on to the policy object
    that it was made with.
    """

    def __init__(self, policy: Policy, head: ValueFunction) -> None:
        nn.Module.__init__(self)
        self.settings, self.head = head.settings, head
        self._policy = [policy]  # in a list, because its parameters are not this module's

    @property
    def fits_on_one_thread(self) -> bool:
        """As the head."""
        return self.head.fits_on_one_thread

    def measure(self) -> dict[str, float]:
        """The head's."""
        return self.head.measure()

    @torch.no_grad()
    def features(self, observations: Any, chunk: int = 65536) -> Tensor:
        """Outputs `[B, F]` of the policy's last hidden layer for observations `[B, *O]`."""
        phi, _ = hidden_part(self._policy[0])
        return torch.cat([phi(part) for part in observations.split(rows_at_once(phi, chunk))])

    def predict(self, observations: Any, chunk: int = 65536) -> Tensor:
        """As `ValueFunction.predict`."""
        return self.head.predict(self.features(observations, chunk))

    def fit(self, observations: Any, targets: Tensor, generator: torch.Generator, share: Share | None = None) -> float:
        """As `ValueFunction.fit`; the features are computed once."""
        several = {} if share is None else {"share": share}
        return self.head.fit(self.features(observations), targets, generator, **several)

    def optimizer_state(self) -> dict[str, Any]:
        """The head's."""
        return self.head.optimizer_state()

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """As `ValueFunction.load_optimizer_state`."""
        self.head.load_optimizer_state(state)


def hidden_part(policy: Policy) -> tuple[nn.Module, int]:
    """The policy's layers before its last one, sharing their parameters, and how many numbers they give.

    Raises:
        UserError: The policy's network is none of the built-in ones without a memory.
    """
    network = policy.network
    dense = network.dense if type(network) is ImageNetwork else network
    layers = list(dense.children()) if type(dense) is nn.Sequential else []  # others may do more in their forward
    last = layers.pop() if layers else None
    if not isinstance(last, nn.Linear):
        raise UserError(
            f"value.features=policy: the network of {type(policy).__name__} does not end in a linear layer after "
            "hidden ones: use value.features=own"
        )
    hidden, count = nn.Sequential(*layers), last.in_features
    if type(network) is ImageNetwork:
        convolutions = [part for part in network.convolutions if isinstance(part, nn.Sequential)]
        return ImageNetwork(network.layout, convolutions, hidden), count
    return hidden, count
