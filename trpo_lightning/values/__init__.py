"""Value functions: they predict expected returns and are fitted to batches."""

import torch

from trpo_lightning.policies.observations import Shape
from trpo_lightning.settings import ValueSettings, load_class
from trpo_lightning.values.value_function import ValueFunction

__all__ = ["ValueFunction", "build_value_function"]


def build_value_function(
    observation_shape: Shape, settings: ValueSettings, generator: torch.Generator
) -> ValueFunction:
    """The value function named by `value.name`; `generator` draws its initial parameters."""
    cls = load_class("value.name", settings.name)
    assert issubclass(cls, ValueFunction)
    return cls(observation_shape, settings, generator)
