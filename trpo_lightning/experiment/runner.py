"""Runs what an experiment lacks, one run after the other, each in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from trpo_lightning.errors import UserError
from trpo_lightning.experiment.config import changed_keys, recorded_settings, write_config
from trpo_lightning.experiment.declaration import Cell, Experiment
from trpo_lightning.threads import available_cores, thread_environment

INTERRUPTED = (130, 143)
"""Exit codes of a run stopped by Ctrl-C or SIGTERM."""


@dataclass(frozen=True)
class CellResult:
    """How a run of an experiment stands: `finished`, `interrupted` or `failed`."""

    cell: Cell
    run_dir: Path
    state: str


def run_experiment(experiment: Experiment, root: Path, arguments: list[str] | None = None) -> list[CellResult]:
    """Do the runs that are missing; finished ones are left, interrupted ones resumed. A failed run does not stop the rest."""
    cells = experiment.cells(arguments)
    results = []
    for number, cell in enumerate(cells, 1):
        run_dir = root / cell.directory
        print(f"\n[{number}/{len(cells)}] {run_dir}", flush=True)
        state = _run(cell, run_dir)
        results.append(CellResult(cell, run_dir, state))
        if state == "interrupted":
            break
    return results


def run_state(run_dir: Path) -> str | None:
    """The state in a run directory's `status.json`, or None if no run began there."""
    try:
        return json.loads((run_dir / "status.json").read_text(encoding="utf-8"))["state"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{run_dir / 'status.json'}: cannot be read: delete the run directory to start over") from error


def _run(cell: Cell, run_dir: Path) -> str:
    state = run_state(run_dir)
    if state is not None:
        changed = changed_keys(recorded_settings(run_dir), cell.settings)
        if changed:
            raise UserError(
                f"{run_dir} was run with other settings ({', '.join(changed)}): move it away, or give the variant a new name"
            )
    with tempfile.TemporaryDirectory() as folder:
        if state is None:
            config = Path(folder) / "config.yaml"
            write_config(cell.settings, config)
            arguments = ["--config", str(config), "--run-dir", str(run_dir)]
        elif state == "finished" and cell.settings.total_env_steps <= recorded_settings(run_dir).total_env_steps:
            print("finished before", flush=True)
            return state
        else:
            arguments = ["--resume", str(run_dir), f"total_env_steps={cell.settings.total_env_steps}"]
        threads = cell.settings.threads or available_cores()
        code = _call([sys.executable, "-m", "trpo_lightning", "train", *arguments], threads)
    if code in INTERRUPTED:
        return "interrupted"
    return "failed" if code else "finished"


def _call(command: list[str], threads: int) -> int:
    """The exit code of a child process that gets our SIGTERM; Ctrl-C reaches it by itself, and is waited for."""
    with subprocess.Popen(command, env={**os.environ, **thread_environment(threads)}) as child:
        before = signal.signal(signal.SIGTERM, lambda number, _: child.send_signal(number))
        try:
            while True:
                try:
                    return child.wait()
                except KeyboardInterrupt:
                    continue
        finally:
            signal.signal(signal.SIGTERM, before)
