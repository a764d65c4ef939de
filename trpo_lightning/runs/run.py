"""One run in one directory: files, W&B, signals, barriers, and resuming from them."""

import signal
import traceback
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from trpo_lightning.environments.supervised.deadline import before_hard_exit
from trpo_lightning.errors import StuckError, UserError
from trpo_lightning.output import print_what_there_is_no_letter_for
from trpo_lightning.ranks import Ranks
from trpo_lightning.runs.checkpoint import CheckpointCallback, checkpoint_files, read_checkpoint
from trpo_lightning.runs.config import write_config
from trpo_lightning.runs.console import ConsoleCallback
from trpo_lightning.runs.files import TRACEBACK
from trpo_lightning.runs.lock import locked
from trpo_lightning.runs.metrics_file import MetricsFile, read_rows
from trpo_lightning.runs.provenance import git_state
from trpo_lightning.runs.ranks.launch import all_ranks
from trpo_lightning.runs.ranks.member import StopBetweenIterations, iterate, prepared, trainer_of
from trpo_lightning.runs.records import append_provenance, reached, read_status, recorded_run_id, write_status
from trpo_lightning.settings import BUDGET, RunSettings, depends_on_budget, get, is_over
from trpo_lightning.stopping import StopRequest
from trpo_lightning.storage.files import write_atomically, writing
from trpo_lightning.tracking.background_logger import RunFacts
from trpo_lightning.tracking.packages import check_loggers
from trpo_lightning.tracking.trackers import Trackers, send_the_rest, start_trackers, title_of
from trpo_lightning.tracking.wandb_variables import with_variables
from trpo_lightning.training.evaluation import EvaluationCallback
from trpo_lightning.training.third_party_messages import quiet_lightning


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended: `finished`, or `interrupted` by the signal `signal_number`, which W&B may have sent."""

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
    resume: bool = False,
    quiet: bool = False,
    check_settings: Callable[[RunSettings], None] | None = None,
    stop: StopRequest | None = None,
) -> RunOutcome:
    """Train until `total_env_steps` or `total_iterations`, SIGTERM or Ctrl-C, and write everything to `run_dir`.

    Args:
        settings: The run's settings.
        run_dir: The run's directory.
        resume: Whether to continue from the newest good barrier, or from the beginning if there is none yet.
        quiet: Whether to print nothing for each update.
        check_settings: May reject, by raising, the settings that W&B's config returns.
        stop: A request to stop, which may have been made already.

    Raises:
        UserError: The directory already holds a run (without `resume`), or another process is using it.
        StuckError: `rule.max_rejections` updates in a row were rejected; the last one is saved in `run_dir`.
    """
    settings = with_variables(settings)
    check_loggers(settings)
    quiet_lightning()
    print_what_there_is_no_letter_for()
    with nullcontext(stop) if stop else StopRequest() as stop, locked(run_dir):
        if not resume and (run_dir / "metrics.csv").exists():
            raise UserError(
                f"{run_dir} already holds a run: continue it with --resume {run_dir}, or choose another name="
            )
        if resume and reached(run_dir, settings):
            status = read_status(run_dir)
            _send_the_rest(settings, run_dir, status)
            return RunOutcome(run_dir, "finished", status["iteration"], status["env_steps"])
        rows = read_rows(run_dir / "metrics.csv")
        state = _newest_checkpoint(run_dir, settings, rows) if resume else None
        _check_budget(settings, state)
        trackers, settings = start_trackers(
            settings,
            _facts(settings, run_dir),
            partial(read_rows, run_dir / "metrics.csv"),
            run_id=state["wandb_run_id"] if state else recorded_run_id(run_dir),
            keep_iterations=state["iteration"] if state else 0,
            resume=resume,
        )
        outcome: RunOutcome | None = None
        try:
            if check_settings is not None:
                check_settings(settings)
            with before_hard_exit(partial(write_status, run_dir, "failed")), all_ranks(settings) as ranks:
                outcome = _fit(settings, run_dir, state, trackers, quiet, stop, ranks)
            if outcome.state == "interrupted" and trackers.is_stopped():
                outcome = replace(outcome, stopped_by_sweep=True)
            return outcome
        except BaseException as error:
            with suppress(UserError):  # if the disk is full, `error` already says so
                _keep_traceback(error, run_dir / TRACEBACK)
                if read_status(run_dir).get("state") != "finished":  # else it could not even go on: it stays finished
                    write_status(run_dir, "interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
            raise
        finally:
            interrupted = outcome is not None and outcome.state == "interrupted"
            code = 128 + outcome.signal_number if interrupted and outcome else (0 if outcome else 1)
            unwanted = outcome is not None and outcome.stopped_by_sweep
            ended = outcome.state if outcome else "failed"
            trackers.finish(ended, code, preempting=code == 128 + signal.SIGTERM and not unwanted)


def _keep_traceback(error: BaseException, file: Path) -> None:
    """Write what an unexpected exception says to the run directory, whoever shows a part of it only."""
    if isinstance(error, Exception) and not isinstance(error, UserError):
        write_atomically(file, "".join(traceback.format_exception(error)).encode())
        error.add_note(f"the traceback is in {file}")


def _send_the_rest(settings: RunSettings, run_dir: Path, status: dict[str, Any]) -> None:
    """Of a finished run, what trackers lack."""
    send_the_rest(
        settings,
        _facts(settings, run_dir),
        partial(read_rows, run_dir / "metrics.csv"),
        {which: run_dir / "checkpoints" / f"{which}.pt" for which in ("best", "last")},
        run_id=status.get("wandb_run_id"),
        done=status["iteration"],
    )


def _facts(settings: RunSettings, run_dir: Path) -> RunFacts:
    """What trackers are told of a run."""
    return RunFacts(run_dir, title_of(settings), git_state().get("describe") or "")


def _fit(
    settings: RunSettings,
    run_dir: Path,
    state: dict[str, Any] | None,
    trackers: Trackers,
    quiet: bool,
    stop: StopRequest,
    ranks: Ranks,
) -> RunOutcome:
    ranks.of_first((settings, state, run_dir))
    module = prepared(settings, run_dir, state, ranks)
    module.rows_may_wait = True
    run_id = trackers.run_id
    (run_dir / TRACEBACK).unlink(missing_ok=True)
    write_status(run_dir, "running", module, wandb_run_id=run_id)  # first: `finished` is wrong for a larger budget
    write_config(settings, run_dir / "config.yaml")
    append_provenance(run_dir, module, run_id, state)
    checkpoints = run_dir / "checkpoints"
    with writing(checkpoints):
        checkpoints.mkdir(exist_ok=True)
    callbacks = [
        EvaluationCallback(checkpoints / "best.pt"),
        CheckpointCallback(checkpoints, wandb_run_id=run_id),
        StopBetweenIterations(stop, ranks),
    ]
    if not quiet:
        callbacks.append(ConsoleCallback(f"{settings.env.id} {settings.name} seed {settings.seed}"))
    with closing(MetricsFile(run_dir / "metrics.csv", keep_iterations=module.iteration)) as metrics:
        trainer = trainer_of(settings, run_dir, [metrics, *trackers.loggers], callbacks)
        stuck = StuckError(module.leave_failed_update(run_dir)) if module.stuck else None
        ready = not (stop.signal_number or stuck or is_over(settings, module.iteration, module.env_steps))
        if ranks.of_first(ready):
            stuck = iterate(trainer, module, stop)
    interrupted = stop.signal_number != 0 and not is_over(settings, module.iteration, module.env_steps)
    module.trained_policy().save(checkpoints / "last.pt")
    if stuck:
        write_status(run_dir, "failed", module, wandb_run_id=run_id)
        raise StuckError(
            f"{run_dir}: {stuck}, or continue from the last barrier with train --resume {run_dir} rule.max_rejections=N"
        ) from stuck
    if not interrupted:
        files = {"best": checkpoints / "best.pt", "last": checkpoints / "last.pt"}
        trackers.log_policies(files, {"env_steps": module.env_steps, "evaluation/return_mean": module.best_evaluation})
    outcome = RunOutcome(
        run_dir,
        "interrupted" if interrupted else "finished",
        module.iteration,
        module.env_steps,
        stop.signal_number if interrupted else 0,
    )
    write_status(run_dir, outcome.state, module, wandb_run_id=run_id)
    return outcome


def _newest_checkpoint(run_dir: Path, settings: RunSettings, rows: list[dict[str, str]]) -> dict[str, Any] | None:
    """The newest usable barrier, with a warning for each unusable one; None if there are no files at all."""
    files, last = checkpoint_files(run_dir / "checkpoints"), None
    for path in files:
        try:
            return read_checkpoint(path, settings, len(rows))
        except UserError as error:
            print(f"warning: {error}; trying the one before")
            last = error
    if files:
        raise UserError(
            f"{run_dir}: none of its {len(files)} barrier files can be read: start over in another directory ({last})"
        )
    print(f"{run_dir} has no barrier yet: starting from the beginning")
    return None


def _check_budget(settings: RunSettings, state: dict[str, Any] | None) -> None:
    """Refuse to change the budget if the state was computed with settings that depend on it."""
    if state is None or not depends_on_budget(settings):
        return
    for key in BUDGET:
        before, after = state["settings"][key], get(settings, key)
        if before != after:
            raise UserError(
                f"{key}={after}: rule.final_delta is approached over the {before} that the run began with: "
                "start a new one with another name="
            )
