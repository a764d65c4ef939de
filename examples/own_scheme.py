"""A custom sampling scheme: single path, but every few iterations all episodes begin afresh.

In this folder:

$ python -m trpo_lightning train rollout.scheme=own_scheme:FreshStarts rollout.fresh_every=2 env.id=Pendulum-v1 \
    name=own_scheme

With long episodes and small batches, the environments drift away from where the policy starts. Here every second batch
shows the first steps again, and no episode mixes the actions of more than two policies.
"""

from dataclasses import dataclass

from trpo_lightning.policies.policy import Policy
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.rollouts.rollout import SinglePathRollout
from trpo_lightning.rollouts.single_path import SinglePathScheme
from trpo_lightning.settings import SinglePathSettings, option


@dataclass
class FreshStartsSettings(SinglePathSettings):
    """The keys of single_path and one more; `kind` is inherited, too, so that rules take the data as single_path's."""

    fresh_every: int = option(1, "iterations after which all environments begin new episodes", minimum=1)


class FreshStarts(SinglePathScheme):
    """Cuts running episodes: values bootstrap from the last observation, as at a time limit."""

    Settings = FreshStartsSettings
    _restarted: int | None = None

    def restart(self, iteration: int, attempt: int = 0) -> None:
        """Restart; also called from outside, at barriers and after environments have failed."""
        self._restarted = iteration
        super().restart(iteration, attempt)

    def collect(self, policy: Policy, normalizer: Normalizer, iteration: int) -> SinglePathRollout:
        """Collect; the iteration alone decides when to restart, so a resumed run does so in the same iterations."""
        assert isinstance(self.rollout_settings, FreshStartsSettings)
        if iteration % self.rollout_settings.fresh_every == 0 and iteration != self._restarted:
            self.restart(iteration)
        return super().collect(policy, normalizer, iteration)
