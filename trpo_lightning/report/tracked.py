"""Runs of an experiment as a tracker has them, instead of their directories: `report --from`."""

from pathlib import Path
from typing import Any

from trpo_lightning.errors import UserError, first_line
from trpo_lightning.experiment.declaration import Experiment
from trpo_lightning.experiment.runner import CellResult
from trpo_lightning.extras import check_extra
from trpo_lightning.report.records import FINISHED, Record, score_of
from trpo_lightning.settings import RunSettings, is_over
from trpo_lightning.tracking.parameters import different_parameters, parameters
from trpo_lightning.tracking.rows import TrackedRun, columns_of
from trpo_lightning.tracking.wandb_logger import read_back

WHICH = ("env.id", "name", "seed")
"""Settings that tell the runs of an experiment apart."""


def tracked_records(tracker: str, experiment: Experiment, results: list[CellResult]) -> list[Record]:
    """The records of declared runs, read from a tracker.

    A run is found by its project and group, environment, variant and seed. Where a tracker has several, the one with
    the declared settings and budget counts, of these the latest. It is finished if it has all that is declared.

    Args:
        tracker: A name of `LOGGERS`.
        experiment: What the runs belong to.
        results: The declared runs. Only TensorBoard looks into their directories, for its own files.

    Raises:
        UserError: The tracker's package is missing, it does not answer, or it has none of the runs.
    """
    check_extra(tracker, f"--from {tracker}")
    try:
        found = _runs(tracker, results)
        records = [_record(experiment, result, found.get(result.cell.directory, [])) for result in results]
    except UserError:
        raise
    except Exception as error:  # whatever its client, its files and the network raise
        raise UserError(f"--from {tracker}: it cannot be read: {first_line(error)}") from error
    if not any(record.columns for record in records):
        tracking = results[0].cell.settings.tracking
        raise UserError(
            f"--from {tracker}: it has no run of project {tracking.project} and group {tracking.group}: runs get there "
            f"with tracking.loggers={tracker}, finished ones with train --resume RUN_DIR tracking.loggers={tracker}"
        )
    return records


def _runs(tracker: str, results: list[CellResult]) -> dict[Path, list[TrackedRun]]:
    """What the tracker has, by the declared run's directory."""
    if tracker == "tensorboard":
        from trpo_lightning.tracking.tensorboard_logger import tensorboard_run

        pairs = [(result.cell.directory, tensorboard_run(result.run_dir)) for result in results]
        return {directory: [run] for directory, run in pairs if run is not None}
    groups: dict[tuple[Any, ...], list[TrackedRun]] = {}
    found: dict[Path, list[TrackedRun]] = {}
    for result in results:
        settings = result.cell.settings
        tracking = settings.tracking
        place = (tracking.project, tracking.group, tracking.entity, tracking.mlflow)
        if place not in groups:
            groups[place] = _runs_of_group(tracker, settings)
        wanted = _which(parameters(settings))
        found[result.cell.directory] = [run for run in groups[place] if _which(run.parameters) == wanted]
    return found


def _runs_of_group(tracker: str, settings: RunSettings) -> list[TrackedRun]:
    if tracker == "mlflow":
        from trpo_lightning.tracking.mlflow_logger import mlflow_runs

        return mlflow_runs(settings)
    if tracker == "trackio":
        from trpo_lightning.tracking.trackio_logger import trackio_runs

        return trackio_runs(settings)
    return _wandb_runs(settings)


def _which(found: Any) -> list[str]:
    return [found.get(key, "") for key in WHICH]


def _record(experiment: Experiment, result: CellResult, runs: list[TrackedRun]) -> Record:
    settings = result.cell.settings
    columns, state, notes = {}, "missing", ()
    if runs:
        run = max(runs, key=lambda run: (*_fits(run, settings), run.began))
        columns = run.read()
        changed = different_parameters(run.parameters, settings)
        notes = (f"ran with other settings than declared now: {', '.join(changed)}",) if changed else ()
        state = FINISHED if columns and _is_over(columns, settings) else "interrupted"
    return Record(
        env_id=settings.env.id,
        variant=settings.name,
        seed=settings.seed,
        state=state,
        run_dir=None,
        levels=result.cell.levels,
        columns=columns,
        score=score_of(columns, experiment.score, experiment.metric),
        notes=notes,
    )


def _fits(run: TrackedRun, settings: RunSettings) -> tuple[bool, bool]:
    """Whether a run has the declared settings, and the declared budget."""
    declared = parameters(settings)
    budget = all(run.parameters.get(key) == declared[key] for key in ("total_env_steps", "total_iterations"))
    return not different_parameters(run.parameters, settings), budget


def _is_over(columns: Any, settings: RunSettings) -> bool:
    return is_over(settings, int(columns["iteration"][-1]), int(columns["env_steps"][-1]))


def _wandb_runs(settings: RunSettings) -> list[TrackedRun]:
    """The runs of the settings' project and group on W&B's server."""
    import wandb

    from trpo_lightning.tracking.wandb_client import check_server

    check_server()
    api, tracking = wandb.Api(), settings.tracking
    path = f"{tracking.entity or api.default_entity}/{tracking.project}"
    found = api.runs(path, filters={"group": tracking.group, "jobType": "train"}, order="+created_at")
    return [_wandb_run(run, began) for began, run in enumerate(found)]


def _wandb_run(run: Any, began: int) -> TrackedRun:
    def read():
        rows = [{name: value for name, value in row.items() if _is_metric(name, value)} for row in run.scan_history()]
        return columns_of([row for row in rows if "env_steps" in row])

    return TrackedRun(f"run {run.id} in W&B", parameters(read_back(run.config)), began, read)


def _is_metric(name: str, value: Any) -> bool:
    return not name.startswith("_") and isinstance(value, int | float)
