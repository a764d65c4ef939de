"""Small files in a run directory: the run's status, and the processes that worked on it."""

import json
import os
from pathlib import Path
from typing import Any

from trpo_lightning.runs.provenance import provenance
from trpo_lightning.settings import RunSettings, is_over
from trpo_lightning.storage.files import read_json, write_atomically
from trpo_lightning.tracking.wandb_variables import recorded_variables
from trpo_lightning.training.module import TRPO


def append_provenance(run_dir: Path, module: TRPO, run_id: str | None, state: dict[str, Any] | None) -> None:
    """Add a record of this process to `provenance.json`."""
    path = run_dir / "provenance.json"
    earlier = read_json(path, missing=[])
    record = provenance(
        backend=module.spec.backend,
        threads=module.scheme.threads,
        barrier_interval=module.barrier_interval,
        resumed_from_iteration=state["iteration"] if state else None,
        wandb_run_id=run_id,
        wandb_variables=recorded_variables(),
    )
    write_atomically(path, json.dumps([*earlier, record], indent=2).encode() + b"\n")


def write_status(run_dir: Path, state: str, module: TRPO | None = None, **facts: Any) -> None:
    """Write the state, this process and the progress of `module` to `status.json`; its other entries stay."""
    before = read_status(run_dir)
    now = {"iteration": module.iteration, "env_steps": module.env_steps} if module else {}
    record = {**before, "state": state, "pid": os.getpid(), **now, **facts}
    write_atomically(run_dir / "status.json", json.dumps(record, indent=2).encode() + b"\n")


def read_status(run_dir: Path) -> dict[str, Any]:
    """The contents of `status.json`; empty before the run has begun."""
    return read_json(run_dir / "status.json", missing={})


def reached(run_dir: Path, settings: RunSettings) -> bool:
    """Whether the run has finished the whole budget of `settings`."""
    status = read_status(run_dir)
    done = is_over(settings, status.get("iteration", 0), status.get("env_steps", 0))
    return status.get("state") == "finished" and done


def recorded_run_id(run_dir: Path) -> str | None:
    """The run's recorded W&B id, else that of `WANDB_RUN_ID`, if any."""
    return read_status(run_dir).get("wandb_run_id") or os.environ.get("WANDB_RUN_ID")
