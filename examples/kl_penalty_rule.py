"""A custom update rule: PPO's penalty on the KL, adapted towards a target (Schulman et al. 2017, section 4).

In this folder:

$ python -m trpo_lightning train rule.name=kl_penalty_rule:KLPenalty rule.kl_target=0.02 env.id=CartPole-v1 \
    name=own_rule

The trust region becomes a price instead of a bound: Adam climbs L(theta) - beta KL(old || new), and beta rises after
updates that went too far and falls after updates that did not go far enough.
"""

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.rollouts.rollout import Batch
from trpo_lightning.rules.rule import RuleResult, UpdateRule
from trpo_lightning.settings import AdvantageRuleSettings, option


@dataclass
class KLPenaltySettings(AdvantageRuleSettings):
    """Keys of the rule, besides those that all rules with advantages have."""

    schemes: ClassVar[tuple[str, ...]] = ("single_path",)  # rollout.scheme=vine is refused: its batches differ

    kl_target: float = option(0.01, "the mean KL that beta is adapted towards", source="PPO 2017, table 1", above=0.0)
    initial_beta: float = option(1.0, "beta of the first iteration", source="PPO 2017, section 6.1", above=0.0)
    learning_rate: float = option(3e-4, "Adam's step size", source="PPO 2017, table 3", above=0.0)
    epochs: int = option(10, "passes over the batch in each iteration", source="PPO 2017, table 3", minimum=1)
    minibatch_size: int = option(64, "transitions of one step", source="PPO 2017, table 3", minimum=1)


class KLPenalty(UpdateRule):
    """Several epochs of Adam on the mean of ratio times advantage, minus beta times the mean KL."""

    Settings = KLPenaltySettings
    settings: KLPenaltySettings
    metrics: ClassVar[dict[str, str]] = {
        "trust_region/kl": "mean KL of old and new policy over the batch",  # TRPO's name, so that figures compare them
        "kl_penalty/beta": "price of the KL in this iteration's update",
        "kl_penalty/surrogate": "rise of the surrogate, without the penalty",
    }

    def __init__(self, settings: KLPenaltySettings) -> None:
        super().__init__(settings)
        self._beta = settings.initial_beta
        self._adam: dict[str, Any] = {}

    def update(self, policy: Policy, batch: Batch, generator: torch.Generator) -> RuleResult:
        """Return new parameters, or a rejection that leaves no trace if they are not finite."""
        old = parameter_vector(policy)  # a copy, because the policy itself must only be read
        theta = nn.Parameter(old.clone())
        adam = torch.optim.Adam([theta], lr=self.settings.learning_rate, maximize=True)
        if self._adam:
            adam.load_state_dict(copy.deepcopy(self._adam))
        for _ in range(self.settings.epochs):
            order = torch.randperm(len(batch), generator=generator).to(old.device)
            for rows in order.split(self.settings.minibatch_size):
                surrogate, kl = self._objective(policy, theta, batch, rows)
                (theta.grad,) = torch.autograd.grad(surrogate - self._beta * kl, theta)
                adam.step()
        with torch.no_grad():
            surrogate, kl = (float(x) for x in self._objective(policy, theta, batch, slice(None)))
        metrics = {"trust_region/kl": kl, "kl_penalty/beta": self._beta, "kl_penalty/surrogate": surrogate}
        if not (torch.isfinite(theta).all() and kl < float("inf")):
            return RuleResult(old, "the penalized objective ran away", metrics)
        self._adam = adam.state_dict()
        self._beta *= 2.0 if kl > 1.5 * self.settings.kl_target else 0.5 if kl < self.settings.kl_target / 1.5 else 1.0
        return RuleResult(theta.detach(), None, metrics)

    @staticmethod
    def _objective(policy: Policy, theta: Tensor, batch: Batch, rows: Any) -> tuple[Tensor, Tensor]:
        """Means over rows of (ratio - 1) times advantage and of KL(old || theta)."""
        observations, actions = batch.observations[rows], batch.actions[rows]
        with torch.no_grad():
            old = policy(observations)
        new = policy.at(theta, observations)
        ratio = torch.exp(new.log_prob(actions) - old.log_prob(actions))
        return ((ratio - 1.0) * batch.advantages[rows]).mean(), old.kl(new).mean()

    def state_dict(self) -> dict[str, Any]:
        """Beta and Adam's moments, with which a resumed run continues as if nothing had happened."""
        return {"beta": self._beta, "adam": self._adam}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self._beta, self._adam = state["beta"], state["adam"]
