"""The sampling schemes by name."""

from trpo_lightning.environments.vector_environment import EnvironmentSpec
from trpo_lightning.rollouts.exact import ExactScheme
from trpo_lightning.rollouts.population import PopulationScheme
from trpo_lightning.rollouts.scheme import Propose, SamplingScheme
from trpo_lightning.rollouts.single_path import SinglePathScheme
from trpo_lightning.rollouts.vine import VineScheme
from trpo_lightning.settings import RunSettings

SCHEMES: dict[str, type[SamplingScheme]] = {
    "single_path": SinglePathScheme,
    "vine": VineScheme,
    "population": PopulationScheme,
    "exact": ExactScheme,
}


def build_scheme(settings: RunSettings, spec: EnvironmentSpec, threads: int, propose: Propose) -> SamplingScheme:
    """The scheme that `rollout.scheme` names."""
    return SCHEMES[settings.rollout.scheme](settings, spec, threads, propose)
