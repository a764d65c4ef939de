"""Choosing an environment's backend, and making environments with it."""

from trpo_lightning.environments import envpool_backend, gymnasium_backend
from trpo_lightning.environments.supervised import process_backend
from trpo_lightning.environments.supervised.deadline import Deadline
from trpo_lightning.environments.user_code import is_lone_instance
from trpo_lightning.environments.vector_environment import EnvironmentSpec, Spaces, VectorEnvironment
from trpo_lightning.settings import EnvSettings


def describe_environment(settings: EnvSettings, *, restorable: bool = False) -> EnvironmentSpec:
    """Resolve the backend, and look up spaces and time limit.

    Args:
        settings: The environment's settings.
        restorable: Whether states must be restorable; `auto` then means gymnasium.

    Raises:
        UserError: The environment cannot be built or trained on.
    """
    backend = settings.backend
    with _time_to_build(settings):
        if backend == "auto" and not restorable and (spec := envpool_backend.describe_suitable(settings)):
            return spec
        if backend == "envpool":
            return envpool_backend.describe(settings)
        return gymnasium_backend.describe(settings)


def make_environments(
    settings: EnvSettings,
    backend: str,
    seeds: list[int],
    threads: int,
    spaces: Spaces | None = None,
    first_limits: list[int] | None = None,
) -> VectorEnvironment:
    """Make one environment per seed.

    Args:
        settings: The environment's settings.
        backend: `gymnasium` or `envpool`.
        seeds: The environments' seeds, in order.
        threads: Threads that may step them.
        spaces: The spaces that all must have; None accepts any.
        first_limits: The steps at which each environment's first episode is cut; None cuts none.

    Raises:
        UserError: An environment cannot be built, or has other spaces.
    """
    with _time_to_build(settings):
        if backend == "envpool":
            return envpool_backend.EnvPoolEnvironments(settings, seeds, threads, first_limits)
        if settings.asynchronous:
            return process_backend.ProcessEnvironments(settings, seeds, spaces, first_limits)
        return gymnasium_backend.GymnasiumEnvironments(settings, seeds, spaces, first_limits)


def open_limit(settings: EnvSettings) -> int | None:
    """How many environments can be open at once: `env.instances`, or 1 if the user's only instance is used."""
    return 1 if is_lone_instance(settings) else settings.instances


def _time_to_build(settings: EnvSettings) -> Deadline:
    return Deadline(settings.timeout, lambda: f"env.id={settings.id} while it is built")
