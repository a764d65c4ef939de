"""One run in one directory: files, W&B, signals, barriers and the way back from them."""

import fcntl
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.loggers import Logger

from trpo_lightning.errors import BusyError, StuckError, UserError
from trpo_lightning.settings import BUDGET, RunSettings, depends_on_budget, get, is_over
from trpo_lightning.training.capsule import capsule_path, write_capsule
from trpo_lightning.training.checkpoint import BarrierCallback, barrier_files, read, restore
from trpo_lightning.training.console import ConsoleCallback
from trpo_lightning.training.evaluation import EvaluationCallback
from trpo_lightning.training.export import export
from trpo_lightning.training.files import write_atomically
from trpo_lightning.training.metrics_file import MetricsFile, read_rows
from trpo_lightning.training.module import TRPO
from trpo_lightning.training.noise import quiet_lightning
from trpo_lightning.training.provenance import provenance
from trpo_lightning.training.tracking import RunTracker, start_tracking


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended: `finished` or `interrupted` (by the signal `signal_number`, perhaps because W&B wanted it)."""

    run_dir: Path
    state: str
    iteration: int
    env_steps: int
    signal_number: int = 0
    stopped_by_sweep: bool = False


def train_run(
    settings: RunSettings,
    run_dir: Path,
    *,
    write_config: Callable[[RunSettings, Path], None],
    resume: bool = False,
    quiet: bool = False,
    check_settings: Callable[[RunSettings], None] | None = None,
) -> RunOutcome:
    """Train until `total_env_steps` or `total_iterations`, SIGTERM or Ctrl-C, and leave everything in `run_dir`.

    `resume` continues from the newest good barrier, or from the beginning if there is none yet. Raises `UserError` if
    the directory holds a run already (without `resume`), or if another process is at it; `StuckError` after
    `rule.max_rejections` rejected updates in a row, with a capsule of the last left in `run_dir`. `check_settings` may
    raise on the settings that W&B's config gives back.
    """
    quiet_lightning()
    with _locked(run_dir):
        if not resume and (run_dir / "metrics.csv").exists():
            raise UserError(
                f"{run_dir} holds a run already: continue it with --resume {run_dir}, or choose another name="
            )
        if resume and _reached(run_dir, settings):
            status = _status(run_dir)
            return RunOutcome(run_dir, "finished", status["iteration"], status["env_steps"])
        state = _newest_barrier(run_dir) if resume else None
        _check_budget(settings, state)
        rows = read_rows(run_dir / "metrics.csv")
        tracker, settings = start_tracking(
            settings,
            run_dir,
            run_id=state["wandb_run_id"] if state else _recorded_run_id(run_dir),
            name=f"{settings.env.id} {settings.name} seed {settings.seed}",
            job_type="train",
            tags=[_git_tag()],
            rows=rows,
            keep_iterations=state["iteration"] if state else 0,
            resume=resume,
        )
        outcome: RunOutcome | None = None
        try:
            if check_settings is not None:
                check_settings(settings)
            outcome = _fit(settings, run_dir, state, tracker, write_config, quiet)
            if outcome.state == "interrupted" and tracker is not None and tracker.is_stopped():
                outcome = replace(outcome, stopped_by_sweep=True)
            return outcome
        except KeyboardInterrupt:
            _write_status(run_dir, "interrupted")
            raise
        except BaseException:
            _write_status(run_dir, "failed")
            raise
        finally:
            if tracker is not None:
                interrupted = outcome is not None and outcome.state == "interrupted"
                code = 128 + outcome.signal_number if interrupted and outcome else (0 if outcome else 1)
                unwanted = outcome is not None and outcome.stopped_by_sweep
                tracker.finish(code, preempting=code == 128 + signal.SIGTERM and not unwanted)


def _fit(
    settings: RunSettings,
    run_dir: Path,
    state: dict[str, Any] | None,
    tracker: RunTracker | None,
    write_config: Callable[[RunSettings, Path], None],
    quiet: bool,
) -> RunOutcome:
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    module = TRPO(settings=settings)
    if state is not None:
        restore(module, state)
    run_id = tracker.run.id if tracker else None
    write_config(settings, run_dir / "config.yaml")
    _append_provenance(run_dir, module, run_id, state)
    _write_status(run_dir, "running", module, wandb_run_id=run_id)
    checkpoints = run_dir / "checkpoints"
    stopper = _StopOnSignal()
    callbacks = [
        EvaluationCallback(checkpoints / "best.pt"),
        BarrierCallback(checkpoints, wandb_run_id=run_id),
        stopper,
    ]
    if not quiet:
        callbacks.append(ConsoleCallback(f"{settings.env.id} {settings.name} seed {settings.seed}"))
    with closing(MetricsFile(run_dir / "metrics.csv", keep_iterations=module.iteration)) as metrics:
        trainer = _trainer(settings, run_dir, [metrics, *([tracker] if tracker else [])], callbacks)
        if not (module.stuck or is_over(settings, module.iteration, module.env_steps)):
            trainer.fit(module)
    interrupted = stopper.signal_number != 0 and not is_over(settings, module.iteration, module.env_steps)
    export(module, checkpoints / "last.pt")
    if module.stuck:
        _write_status(run_dir, "failed", module, wandb_run_id=run_id)
        raise StuckError(_leave_capsule(module, run_dir))
    if tracker and not interrupted:
        files = {"best": checkpoints / "best.pt", "last": checkpoints / "last.pt"}
        tracker.log_policies(files, {"env_steps": module.env_steps, "evaluation/return_mean": module.best_evaluation})
    outcome = RunOutcome(
        run_dir,
        "interrupted" if interrupted else "finished",
        module.iteration,
        module.env_steps,
        stopper.signal_number if interrupted else 0,
    )
    _write_status(run_dir, outcome.state, module, wandb_run_id=run_id)
    return outcome


def _leave_capsule(module: TRPO, run_dir: Path) -> str:
    """Write the capsule of the rejection that stopped the run, unless an earlier process has; says what to do."""
    path = capsule_path(run_dir, module.iteration)
    said = f"{run_dir}: the last {module.rejected_in_a_row} updates were rejected"
    if module.last_rejection is not None:
        said += f" ({module.last_rejection.result.rejection_reason})"
        try:
            write_capsule(module, path)
        except OSError as error:
            return f"{said}, and {path} cannot be written: {error.strerror}"
    return (
        f"{said}: see why with python -m trpo_lightning replay {path}, or go on from the last barrier with "
        f"train --resume {run_dir} rule.max_rejections=N"
    )


def _trainer(settings: RunSettings, run_dir: Path, loggers: list[Logger], callbacks: list[pl.Callback]) -> pl.Trainer:
    try:
        return pl.Trainer(
            max_epochs=-1,
            accelerator=settings.device,
            devices=1,
            logger=loggers,
            callbacks=callbacks,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=str(run_dir),
        )
    except MisconfigurationException as error:
        raise UserError(f"device={settings.device} is not to be had here: {error}") from error


class _StopOnSignal(pl.Callback):
    """SIGTERM and Ctrl-C end the run after the iteration they arrive in; a second Ctrl-C ends it at once."""

    signal_number = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the place of Lightning's handlers, which would leave in the middle of an iteration."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        self.signal_number = self.signal_number or number

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop between two iterations."""
        if self.signal_number:
            trainer.should_stop = True


@contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    """Hold the run directory for this process; the lock goes with the process, however it ends."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        file = open(run_dir / ".lock", "a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{run_dir}: cannot be written: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"{run_dir}: another process is at this run") from error
        yield


def _newest_barrier(run_dir: Path) -> dict[str, Any] | None:
    """The newest barrier that can be read; says which ones cannot. None if there is none to read at all."""
    files = barrier_files(run_dir / "checkpoints")
    for path in files:
        try:
            return read(path)
        except UserError as error:
            print(f"warning: {error}; trying the one before")
    if files:
        raise UserError(f"{run_dir}: none of its {len(files)} barrier files can be read")
    print(f"{run_dir} has no barrier yet: starting from the beginning")
    return None


def _check_budget(settings: RunSettings, state: dict[str, Any] | None) -> None:
    """Refuse another budget for what was computed under one that it depends on."""
    if state is None or not depends_on_budget(settings):
        return
    for key in BUDGET:
        before, after = state["settings"][key], get(settings, key)
        if before != after:
            raise UserError(
                f"{key}={after}: rule.final_delta is approached over the {before} that the run began with: "
                "start a new one with another name="
            )


def _append_provenance(run_dir: Path, module: TRPO, run_id: str | None, state: dict[str, Any] | None) -> None:
    path = run_dir / "provenance.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    record = provenance(
        backend=module.spec.backend,
        threads=module.scheme.threads,
        barrier_interval=module.barrier_interval,
        resumed_from_iteration=state["iteration"] if state else None,
        wandb_run_id=run_id,
    )
    write_atomically(path, json.dumps([*earlier, record], indent=2).encode() + b"\n")


def _write_status(run_dir: Path, state: str, module: TRPO | None = None, **facts: Any) -> None:
    before = _status(run_dir)
    now = {"iteration": module.iteration, "env_steps": module.env_steps} if module else {}
    record = {**before, "state": state, "pid": os.getpid(), **now, **facts}
    write_atomically(run_dir / "status.json", json.dumps(record, indent=2).encode() + b"\n")


def _status(run_dir: Path) -> dict[str, Any]:
    path = run_dir / "status.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _reached(run_dir: Path, settings: RunSettings) -> bool:
    status = _status(run_dir)
    done = is_over(settings, status.get("iteration", 0), status.get("env_steps", 0))
    return status.get("state") == "finished" and done


def _recorded_run_id(run_dir: Path) -> str | None:
    return _status(run_dir).get("wandb_run_id") or os.environ.get("WANDB_RUN_ID")


def _git_tag() -> str:
    from trpo_lightning.training.provenance import git_state

    return git_state().get("describe") or ""
