"""When a run is over, and what follows from it."""

from trpo_lightning.settings.run import RunSettings

BUDGET = ("total_env_steps", "total_iterations")
"""Keys that end a run: the first that is reached."""


def is_over(settings: RunSettings, iteration: int, env_steps: int) -> bool:
    """Whether a run that has done so much has reached its budget."""
    by_iterations = settings.total_iterations is not None and iteration >= settings.total_iterations
    return by_iterations or env_steps >= settings.total_env_steps


def covers(done: RunSettings, wanted: RunSettings) -> bool:
    """Whether a finished run of the budget `done` needs no more for the budget `wanted`."""
    iterations = done.total_iterations is None or (
        wanted.total_iterations is not None and wanted.total_iterations <= done.total_iterations
    )
    return iterations and wanted.total_env_steps <= done.total_env_steps


def progress(settings: RunSettings, iteration: int, env_steps: int) -> float:
    """The share of its budget that a run has done, in [0, 1]: what schedules follow."""
    by_iterations = iteration / settings.total_iterations if settings.total_iterations is not None else 0.0
    return min(1.0, max(by_iterations, env_steps / settings.total_env_steps))


def depends_on_budget(settings: RunSettings) -> bool:
    """Whether something changes along the run, so that an early part of a longer run is no shorter run."""
    return getattr(settings.rule, "final_delta", None) is not None
