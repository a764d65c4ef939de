"""An experiment as a W&B sweep, and the runs that the sweep's agents do.

The sweep is a grid if the file has axes, variants, environments and seeds, and a random or Bayesian search, with
Hyperband if the file asks for it, if the file has ranges. An agent's run of a cell has the settings, name, group and
run directory that a local run would have.
"""

import itertools
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from trpo_lightning.errors import UserError
from trpo_lightning.experiment.declaration import Cell, Experiment
from trpo_lightning.experiment.experiment_file import FULL, dotted
from trpo_lightning.experiment.states import is_finished, run_state
from trpo_lightning.runs.config import parse_overrides
from trpo_lightning.settings import SWEEP_CELL, RunSettings, changed_keys, get
from trpo_lightning.stopping import StopRequest
from trpo_lightning.storage.files import write_atomically

NULLS = ("null", "None")
"""Strings that mean null in a sweep: ours, and the one that an agent makes of Python's None."""
COMMAND = ["${env}", "${interpreter}", "-m", "trpo_lightning", "sweep-run"]


def sweep_config(experiment: Experiment, arguments: list[str], root: Path) -> dict[str, Any]:
    """The sweep's configuration, as `wandb sweep` expects it."""
    config: dict[str, Any] = {
        "name": f"{experiment.name} {experiment.scale}",
        "description": experiment.hypothesis,
        "method": experiment.search.get("method", "grid"),
        "metric": {"name": experiment.metric, "goal": "maximize"},
        "command": [
            *COMMAND,
            experiment.name,
            f"--scale={experiment.scale}",
            f"--root={root}",
            *arguments,
            "${args_no_hyphens}",
        ],
    }
    cells = experiment.cells(arguments)
    if experiment.search:
        chosen = _dotted(arguments)
        config["parameters"] = {
            **experiment.search["ranges"],
            "env.id": {"values": [chosen["env.id"]] if "env.id" in chosen else experiment.environments},
            "seed": {"values": [chosen["seed"]] if "seed" in chosen else experiment.seeds},
        }
    else:
        config["parameters"] = _grid(experiment, cells)
    config["run_cap"] = len(cells)
    if experiment.search.get("early_terminate"):
        config["early_terminate"] = experiment.search["early_terminate"]
    return config


def _grid(experiment: Experiment, cells: list[Cell]) -> dict[str, Any]:
    """A parameter for each axis, environment and seed if the cells are their product, else one for all cells.

    W&B has no null: the agent would pass it on as the string `None`. It is written as `null`, and read back as null by
    `cell_of` and `read_back`.
    """
    axes: dict[str, list[Any]] = {"seed": [], "env.id": []}
    for cell in cells:
        levels = {"seed": cell.settings.seed, "env.id": cell.settings.env.id, **cell.levels}
        for key, level in levels.items():
            if level not in axes.setdefault(key, []):
                axes[key].append(level)
    product = len(list(itertools.product(*axes.values()))) == len(cells)
    unclear = any(isinstance(level, dict) or level in NULLS for levels in axes.values() for level in levels)
    if experiment.variants or not product or unclear:
        return {SWEEP_CELL: {"values": [str(cell.directory) for cell in cells]}}
    return {key: {"values": ["null" if level is None else level for level in levels]} for key, levels in axes.items()}


def register(experiment: Experiment, arguments: list[str], root: Path, project: str, entity: str | None) -> str:
    """Write `sweep.yaml` and create the sweep; return the agent's command. Raises `UserError` if W&B refuses."""
    import wandb

    from trpo_lightning.tracking.wandb_client import check_server

    config = sweep_config(experiment, arguments, root)
    _check_loggers(experiment.cells(arguments)[0].settings)
    file = root / experiment.directory / "sweep.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, yaml.safe_dump(config, sort_keys=False).encode())
    try:
        check_server()
        sweep_id = wandb.sweep(config, project=project, entity=entity)
        path = f"{entity or wandb.Api().default_entity}/{project}/{sweep_id}"
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"W&B did not take the sweep ({reason}); it is in {file}, and the same runs work locally: "
            f"make experiment NAME={experiment.name}{'' if experiment.scale == FULL else f' SCALE={experiment.scale}'}"
        ) from error
    return f"wandb agent --forward-signals {path}"


def _check_loggers(settings: RunSettings) -> None:
    """A sweep is W&B's: it learns nothing of runs that do not report to it."""
    if "wandb" not in settings.tracking.loggers:
        raise UserError(f"tracking.loggers={settings.tracking.loggers} lacks wandb, which a sweep needs")


def cell_of(experiment: Experiment, arguments: list[str]) -> Cell:
    """Find the run that an agent's arguments name. Raises `UserError` if the experiment has no such run."""
    texts = dict(item.split("=", 1) for item in arguments if "=" in item)
    values = _dotted(arguments)
    if SWEEP_CELL in texts:
        wanted = texts[SWEEP_CELL]
        cells = experiment.cells([item for item in arguments if not item.startswith(f"{SWEEP_CELL}=")])
        found = [cell for cell in cells if str(cell.directory) == wanted]
        if not found:
            raise UserError(f"{experiment.file}: there is no run {wanted}")
        return found[0]
    axes = [*experiment.axes, *experiment.search.get("ranges", {})]
    missing = [key for key in ("seed", "env.id", *axes) if key not in values]
    if missing:
        raise UserError(f"sweep-run needs {', '.join(missing)}: it is called by a W&B agent")
    point = {key: _level(experiment.axes.get(key, []), texts[key], values[key]) for key in axes}
    rest = {key: value for key, value in values.items() if key not in point}
    return experiment.cell(point, "", str(values["env.id"]), int(values["seed"]), rest)


def _dotted(arguments: list[str]) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(parse_overrides(arguments))
    return dotted(values)


def _level(levels: list[Any], text: str, value: Any) -> Any:
    """The level that an agent wrote as `text`, restored as declared: strings such as `on`, and null."""
    declared = [level for level in levels if isinstance(level, str) and level == text]
    return None if None in levels and text in NULLS else declared[0] if declared else value


def run_of_sweep(experiment: Experiment, arguments: list[str], root: Path, stop: StopRequest | None = None) -> int:
    """Start or continue one run under a W&B agent; returns the exit code."""
    cell = cell_of(experiment, arguments)
    _check_loggers(cell.settings)
    run_dir = root / cell.directory
    if is_finished(cell.settings, run_dir):
        print(f"{run_dir} finished before; `wandb sync {run_dir / 'wandb'}` sends what W&B lacks of it")
        return 0
    from trpo_lightning.runs.run import train_run

    def same(settings: RunSettings) -> None:
        changed = changed_keys(cell.settings, settings)
        budget = ("total_env_steps", "total_iterations")
        budget = [key for key in budget if get(settings, key) != get(cell.settings, key)]
        if changed or budget:
            raise UserError(f"W&B's config differs from the run's arguments: {', '.join(changed or budget)}")

    resume = run_state(run_dir) is not None
    outcome = train_run(cell.settings, run_dir, resume=resume, quiet=True, check_settings=same, stop=stop)
    print(f"{outcome.state}: {outcome.env_steps:,} env steps in {outcome.iteration} iterations, all in {run_dir}")
    if outcome.state == "interrupted" and not outcome.stopped_by_sweep:
        return 128 + outcome.signal_number
    return 0  # even if the sweep stopped the run: an agent gives up after several failed runs
