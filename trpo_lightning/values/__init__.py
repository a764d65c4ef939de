"""Value functions: predict expected returns, and fit them to a batch."""

import torch

from trpo_lightning.settings import ValueSettings, load_class
from trpo_lightning.values.value_function import ValueFunction

__all__ = ["ValueFunction", "build_value_function"]


def build_value_function(
    observation_shape: tuple[int, ...], settings: ValueSettings, generator: torch.Generator
) -> ValueFunction:
    """The value function that `value.name` names; `generator` makes its initial parameters."""
    cls = load_class("value.name", settings.name)
    assert issubclass(cls, ValueFunction)
    return cls(observation_shape, settings, generator)
