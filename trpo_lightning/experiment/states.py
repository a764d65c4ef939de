"""In which state a run directory is, told from its files and its lock."""

import json
from pathlib import Path
from typing import Any

from trpo_lightning.errors import UserError
from trpo_lightning.runs.config import recorded_settings
from trpo_lightning.settings import RunSettings, changed_keys, covers
from trpo_lightning.storage.file_lock import try_lock


def run_state(run_dir: Path) -> str | None:
    """The state in a run directory's `status.json`, or None if no run began there."""
    status = read_state(run_dir)
    return None if status is None else status["state"]


def read_state(run_dir: Path) -> dict[str, Any] | None:
    """All of `status.json`, or None if no run began there."""
    try:
        status = json.loads((run_dir / "status.json").read_text(encoding="utf-8"))
        return {**status, "state": str(status["state"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run_dir / 'status.json'}: cannot be read: delete the run directory to start over") from error


def standing(run_dir: Path) -> str:
    """The state of a run, as in `CellResult`: only the lock distinguishes a running run from a killed one."""
    state = run_state(run_dir) or "missing"
    if state != "running":
        return state
    return "elsewhere" if is_locked(run_dir) else "interrupted"


def is_locked(run_dir: Path) -> bool:
    """Whether a process holds the run's lock."""
    try:
        with open(run_dir / ".lock", encoding="utf-8") as file:
            return not try_lock(file, shared=True)
    except OSError:
        return False


def has_begun(run_dir: Path) -> bool:
    """Whether the run recorded its settings; one that failed before that starts from scratch."""
    return run_state(run_dir) is not None and (run_dir / "config.yaml").is_file()


def outlook(settings: RunSettings, run_dir: Path) -> str:
    """The state of a run, and what an experiment with these settings would do where it is not to leave or begin it."""
    state = standing(run_dir)
    if not has_begun(run_dir):
        return state
    if changed := changed_keys(recorded_settings(run_dir), settings):
        return f"{state} with other settings ({', '.join(changed)}): --force starts over"
    if state == "finished" and not is_finished(settings, run_dir):
        return f"finished {(read_state(run_dir) or {}).get('env_steps', 0):,} env steps, goes on"
    return state


def is_finished(settings: RunSettings, run_dir: Path) -> bool:
    """Whether the run has done all the steps or iterations that the settings ask for."""
    return run_state(run_dir) == "finished" and covers(recorded_settings(run_dir), settings)
