"""Which backend an environment comes from, and making as many of it as there are seeds."""

from trpo_lightning.environments import envpool_backend, gymnasium_backend
from trpo_lightning.environments.supervised import process_backend
from trpo_lightning.environments.supervised.deadline import Deadline
from trpo_lightning.environments.vector_environment import EnvironmentSpec, VectorEnvironment
from trpo_lightning.settings import EnvSettings


def describe_environment(settings: EnvSettings, *, restorable: bool = False) -> EnvironmentSpec:
    """Resolve the backend and look up spaces and time limit. Raises `UserError` for what cannot be trained on.

    Where states have to be `restorable`, `auto` is gymnasium.
    """
    backend = settings.backend
    with _time_to_build(settings):
        if backend == "auto":
            backend = "envpool" if not restorable and envpool_backend.suits(settings) else "gymnasium"
        if backend == "envpool":
            return envpool_backend.describe(settings)
        return gymnasium_backend.describe(settings)


def make_environments(settings: EnvSettings, backend: str, seeds: list[int], threads: int) -> VectorEnvironment:
    """As many environments as seeds, the i-th seeded with `seeds[i]`."""
    with _time_to_build(settings):
        if backend == "envpool":
            return envpool_backend.EnvPoolEnvironments(settings, seeds, threads)
        if settings.asynchronous:
            return process_backend.ProcessEnvironments(settings, seeds)
        return gymnasium_backend.GymnasiumEnvironments(settings, seeds)


def _time_to_build(settings: EnvSettings) -> Deadline:
    return Deadline(settings.timeout, lambda: f"env.id={settings.id} while it is built")
