"""Custom metrics: from a rule for runs of the command line, from a callback for your own Trainer.

In this folder:

$ python -m trpo_lightning train rule.name=own_metric:MeasuredTrustRegion env.id=CartPole-v1 name=own_metric
$ python own_metric.py
"""

from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor

from trpo_lightning import TRPO
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.policy import Policy
from trpo_lightning.rules.rule import RuleResult
from trpo_lightning.rules.trust_region import TrustRegionRule


class MeasuredTrustRegion(TrustRegionRule):
    """TRPO that also tells whether it continues in the direction of its last step, or turns around."""

    metrics: ClassVar[dict[str, str]] = {
        **TrustRegionRule.metrics,
        "step/cosine": "cosine of the angle between this update's step and the one before",
    }
    _last: Tensor | None = None

    def update(self, policy: Policy, batch: Any, generator: torch.Generator) -> RuleResult:
        """Update as the rule does, and add a metric."""
        result = super().update(policy, batch, generator)
        step = result.theta - parameter_vector(policy)
        if self._last is not None:
            result.metrics["step/cosine"] = float(torch.cosine_similarity(step, self._last.to(step.device), dim=0))
        self._last = step
        return result

    def state_dict(self) -> dict[str, Any]:
        """The last step, so that the first row of a resumed run has the same numbers."""
        return {} if self._last is None else {"last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self._last = state.get("last")


class WeightNorm(pl.Callback):
    """Logs the norm of the policy's parameters: `log` of the module adds to the iteration's row."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: TRPO, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After each iteration, which has set `module.row`."""
        pl_module.log("policy/weight_norm", float(parameter_vector(pl_module.policy).norm()))


if __name__ == "__main__":
    module = TRPO("CartPole-v1", num_envs=8, steps_per_iteration=1024)
    heavy = EarlyStopping("policy/weight_norm", mode="min", patience=5)  # other callbacks can monitor it
    pl.Trainer(max_epochs=6, callbacks=[WeightNorm(), heavy], logger=False, enable_checkpointing=False).fit(module)
    print(f"norm of the policy's parameters: {module.row['policy/weight_norm']:.3f}")
