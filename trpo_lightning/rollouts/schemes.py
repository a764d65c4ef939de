"""Choosing the sampling scheme of a run."""

from trpo_lightning.environments.vector_environment import EnvironmentSpec
from trpo_lightning.rollouts.memory import check_memory
from trpo_lightning.rollouts.scheme import Propose, SamplingScheme
from trpo_lightning.settings import RunSettings, load_class


def build_scheme(settings: RunSettings, spec: EnvironmentSpec, threads: int, propose: Propose) -> SamplingScheme:
    """The scheme named by `rollout.scheme`. Raises `UserError` if its data would not fit into memory."""
    if line := check_memory(settings, spec):
        print(f"warning: {line}")
    cls = load_class("rollout.scheme", settings.rollout.scheme)
    assert issubclass(cls, SamplingScheme)
    return cls(settings, spec, threads, propose)
