"""Value functions: predict expected returns, and fit them to a batch."""

import torch

from trpo_lightning.settings import ValueSettings
from trpo_lightning.values.full_batch import LBFGSValueFunction, TrustRegionValueFunction
from trpo_lightning.values.linear import LinearValueFunction
from trpo_lightning.values.network import NetworkValueFunction
from trpo_lightning.values.value_function import NoValueFunction, ValueFunction

VALUE_FUNCTIONS: dict[str, type[ValueFunction]] = {
    "adam": NetworkValueFunction,
    "lbfgs": LBFGSValueFunction,
    "trust_region": TrustRegionValueFunction,
    "linear": LinearValueFunction,
    "none": NoValueFunction,
}

__all__ = ["VALUE_FUNCTIONS", "ValueFunction", "build_value_function"]


def build_value_function(
    observation_shape: tuple[int, ...], settings: ValueSettings, generator: torch.Generator
) -> ValueFunction:
    """The value function that `value.name` names; `generator` makes its initial parameters."""
    return VALUE_FUNCTIONS[settings.name](observation_shape, settings, generator)
