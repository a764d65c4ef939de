"""Log-probabilities as the sampling saw them: from the outputs of inference, which need not be torch's."""

import numpy as np
import torch

from trpo_lightning.policies.inference import fast_forward
from trpo_lightning.policies.policy import Policy
from trpo_lightning.rollouts.rollout import SinglePathRollout


@torch.no_grad()
def collected_log_probs(policy: Policy, rollout: SinglePathRollout) -> np.ndarray:
    """Of the actions of all slots `[T, N]`, under `policy` as it was when it chose them."""
    forward = fast_forward(policy.network)
    steps = zip(rollout.observations[:-1], rollout.actions, strict=True)
    pairs = [(torch.from_numpy(np.array(forward(seen))), torch.from_numpy(actions)) for seen, actions in steps]
    return np.stack([policy.distribution(outputs).log_prob(actions).numpy() for outputs, actions in pairs])
