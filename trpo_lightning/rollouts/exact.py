"""No sampling: the environment's model is known, and every quantity in the theory is computed from it."""

import time
from dataclasses import dataclass

import numpy as np
import torch

from trpo_lightning.environments.toy_text import tabular_mdp
from trpo_lightning.environments.vector_environment import EnvironmentSpec
from trpo_lightning.numerics.tabular import PolicyValues, TabularMDP, evaluate_policy
from trpo_lightning.policies.policy import Policy
from trpo_lightning.policies.table import policy_table
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.rollouts.rollout import Rollout
from trpo_lightning.rollouts.scheme import Propose, SamplingScheme
from trpo_lightning.settings import ExactSettings, RunSettings


@dataclass(kw_only=True)
class TabularRollout(Rollout):
    """An MDP, `observations` `[S, O]` of its states as the policy sees them, and the exact values of the policy."""

    mdp: TabularMDP
    observations: np.ndarray
    values: PolicyValues

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Empty arrays: normalizers stay the identity, and rewards are the environment's exact ones."""
        return self.observations[:0], np.zeros(0)


class ExactScheme(SamplingScheme):
    """Computes eta, rho, Q and advantages of the policy by linear solves, from the table of a toy-text environment.

    An iteration counts as S * A env steps: one query of the model for each state and action. Time limits are ignored:
    episodes end where the environment terminates, and the discount keeps returns finite. Raises `UserError` for an
    environment without a table.
    """

    Settings = ExactSettings

    def __init__(self, settings: RunSettings, spec: EnvironmentSpec, threads: int, propose: Propose) -> None:
        super().__init__(settings, spec, threads, propose)
        self.mdp = tabular_mdp(settings.env, settings.gamma)
        self.steps = spec.max_episode_steps or 1

    def restart(self, iteration: int, attempt: int = 0) -> None:
        """Do nothing: no state is carried from one iteration to the next."""

    @torch.no_grad()
    def collect(self, policy: Policy, normalizer: Normalizer, iteration: int) -> TabularRollout:
        """Compute the exact values of `policy` (on the CPU); draws no random numbers."""
        del iteration
        began = time.perf_counter()
        states, actions = self.mdp.rewards.shape
        observations = normalizer.normalize(np.eye(states))
        values = evaluate_policy(self.mdp, policy_table(policy, torch.from_numpy(observations)))
        return TabularRollout(
            env_steps=states * actions,
            seconds={"collect": time.perf_counter() - began},
            mdp=self.mdp,
            observations=observations,
            values=values,
        )
