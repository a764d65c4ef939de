"""Value functions: they predict expected returns and are fitted to batches."""

import torch

from trpo_lightning.policies.observations import Shape
from trpo_lightning.policies.policy import Policy
from trpo_lightning.settings import FeatureValueSettings, ValueSettings, load_class
from trpo_lightning.values.features import OnPolicyFeatures, hidden_part
from trpo_lightning.values.value_function import ValueFunction

__all__ = ["ValueFunction", "build_value_function"]


def build_value_function(
    observation_shape: Shape, settings: ValueSettings, generator: torch.Generator, policy: Policy | None = None
) -> ValueFunction:
    """The value function named by `value.name`.

    Args:
        observation_shape: What it sees.
        settings: Its keys.
        generator: Draws its initial parameters.
        policy: The one whose features it sees, with `value.features=policy`.

    Raises:
        UserError: The policy has no features, or the settings do not fit the observations.
    """
    cls = load_class("value.name", settings.name)
    assert issubclass(cls, ValueFunction)
    if isinstance(settings, FeatureValueSettings) and settings.features == "policy":
        assert policy is not None
        _, count = hidden_part(policy)
        return OnPolicyFeatures(policy, cls((count,), settings, generator))
    return cls(observation_shape, settings, generator)
