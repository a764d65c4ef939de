"""When a run is over, and what follows from it."""

from trpo_lightning.settings.run import RunSettings

BUDGET = ("total_env_steps", "total_iterations")
"""Keys that end a run, whichever is reached first."""


def is_over(settings: RunSettings, iteration: int, env_steps: int) -> bool:
    """Whether a run has reached its budget."""
    by_iterations = settings.total_iterations is not None and iteration >= settings.total_iterations
    return by_iterations or env_steps >= settings.total_env_steps


def covers(done: RunSettings, wanted: RunSettings) -> bool:
    """Whether a run that finished the budget `done` has also reached the budget `wanted`."""
    iterations = done.total_iterations is None or (
        wanted.total_iterations is not None and wanted.total_iterations <= done.total_iterations
    )
    return iterations and wanted.total_env_steps <= done.total_env_steps


def progress(settings: RunSettings, iteration: int, env_steps: int) -> float:
    """The share of its budget that a run has used, in [0, 1], which schedules follow."""
    by_iterations = iteration / settings.total_iterations if settings.total_iterations is not None else 0.0
    return min(1.0, max(by_iterations, env_steps / settings.total_env_steps))


def depends_on_budget(settings: RunSettings) -> bool:
    """Whether settings change along the run, so that a shorter run is not the beginning of a longer one."""
    rule = settings.rule
    return getattr(rule, "final_delta", None) is not None and getattr(rule, "annealing_steps", None) is None
