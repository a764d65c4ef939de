"""Weights & Biases on top of the local files: it never stops or slows a run, and without it nothing is lost.

`metrics.csv` is the record; W&B gets each of its rows once. A process that continues a run first finds out which
iterations W&B has (online from the server, offline from the recordings in the run directory), sends the rows of the
file that W&B lacks, and skips those that are computed again. An offline recording that has not been sent yet is
superseded by the next one, which repeats its rows, because a killed process may have lost some of them.
"""

import copy
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from pytorch_lightning.loggers import WandbLogger

from trpo_lightning.errors import UserError, first_line
from trpo_lightning.settings import SWEEP_CELL, RunSettings, all_keys, flat, is_free_form, to_dict, updated
from trpo_lightning.tracking.rows import parsed
from trpo_lightning.tracking.wandb_client import (
    FINISH_TIMEOUT,
    check_key,
    check_server,
    forget_client,
    kill_client,
    mode_of,
    open_run,
)
from trpo_lightning.tracking.wandb_recordings import Recording, recordings_of, sent_offline


class RunTracker(WandbLogger):
    """Lightning's W&B logger over a run that is already open: whole rows, `env_steps` as x axis, each iteration once.

    W&B already has the iterations up to `sent_iterations`. The client is called from a background thread, because its
    process may be slow to answer, or never answer.
    """

    accepts_text = True

    def __init__(self, run: Any, run_dir: Path, sent_iterations: int = 0) -> None:
        super().__init__(experiment=run)
        self.run, self.run_dir = run, run_dir
        self._sent, self._warned = sent_iterations, False
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._worker = threading.Thread(target=self._work, name="W&B", daemon=True)
        self._worker.start()
        run.define_metric("env_steps")
        run.define_metric("*", step_metric="env_steps")

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: `wandb.init` got the whole config."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Queue one row, without its empty values, to be sent in the background."""
        if metrics.get("iteration", 0) > self._sent:
            row = {name: value for name, value in metrics.items() if value is not None and value == value}
            self._tasks.put(partial(self.send, row))

    def send(self, row: dict[str, Any]) -> None:
        """Send one row through the client now; a failure is reported once and otherwise ignored."""
        try:
            self.run.log(row)
        except Exception as error:  # no W&B failure may end training; the row is in metrics.csv
            if not self._warned:
                print(f"warning: W&B does not take metrics any more ({first_line(error)}); metrics.csv has them all")
                self._warned = True

    def _work(self) -> None:
        for task in iter(self._tasks.get, None):
            task()

    def log_policies(self, files: dict[str, Path], metadata: dict[str, Any]) -> None:
        """Queue the upload of exported policies as versions of one artifact, with an alias for each existing file."""
        self._tasks.put(partial(self._log_policies, files, metadata))

    def _log_policies(self, files: dict[str, Path], metadata: dict[str, Any]) -> None:
        import wandb

        try:
            for alias, path in files.items():
                if path.is_file():
                    artifact = wandb.Artifact(f"policy-{self.run.id}", type="policy", metadata=metadata)
                    artifact.add_file(str(path), name="policy.pt")
                    self.run.log_artifact(artifact, aliases=[alias])
        except Exception as error:
            folder = self.run_dir / "checkpoints"
            print(f"warning: W&B did not take the policies ({first_line(error)}); they are in {folder}")

    def is_stopped(self) -> bool:
        """Whether W&B itself asked a sweep's run to end (Hyperband, the stop button); if not, it was preempted."""
        try:
            if self.run.offline or not self.run.sweep_id:
                return False
            check_server()
            from wandb.sdk.launch.api import LaunchApi

            return LaunchApi().check_stop_requested(self.run.project, self.run.entity, self.run.id)
        except Exception:  # unknown: queueing a run once too often is better than losing it
            return False

    def finish(self, exit_code: int, *, preempting: bool = False) -> None:
        """End the run in W&B; after `2 * FINISH_TIMEOUT` kill the client. `preempting` has a sweep queue it again."""
        self._tasks.put(partial(self._finish, exit_code, preempting))
        self._tasks.put(None)
        self._worker.join(2 * FINISH_TIMEOUT)
        if self._worker.is_alive():
            kill_client()
            self._worker.join(FINISH_TIMEOUT)
            forget_client()

    def _finish(self, exit_code: int, preempting: bool) -> None:
        try:
            if preempting:
                self.run.mark_preempting()
            self.run.finish(exit_code=exit_code)
            if not self.run.offline:
                check_key()
        except Exception as error:
            print(
                f"warning: W&B does not have all of this run ({first_line(error)}); "
                f"later: python -m trpo_lightning train --resume {self.run_dir}"
            )


def start_tracking(
    settings: RunSettings,
    run_dir: Path,
    *,
    run_id: str | None = None,
    name: str,
    job_type: str,
    tags: list[str],
    rows: Iterable[Mapping[str, str]] = (),
    keep_iterations: int = 0,
    resume: bool = False,
) -> tuple[RunTracker | None, RunSettings]:
    """Start (or continue) the W&B run.

    If the server does not answer or rejects the key, the run is recorded offline, and a line says how to send it later.

    Args:
        settings: The run's settings, which become W&B's config.
        run_dir: The run directory, where the client writes its records.
        run_id: W&B's id of the run; None lets W&B choose one.
        name: The run's name in W&B.
        job_type: W&B's job type.
        tags: Tags in addition to `tracking.tags`, each cut to 64 characters.
        rows: The rows of `metrics.csv`.
        keep_iterations: How many iterations, from the first, a continued run keeps of these rows.
        resume: Whether the run may exist in W&B already.

    Returns:
        The logger, or None without W&B; and the settings as W&B's config has them, which are the ones that count.

    Raises:
        UserError: W&B's config has unknown keys or invalid values.
    """
    mode = mode_of(settings)
    if mode == "disabled":
        return None, settings
    before = set((run_dir / "wandb").glob("*run-*"))
    run = open_run(
        mode,
        settings,
        run_dir,
        job_type=job_type,
        name=name,
        tags=[tag[:64] for tag in [*tags, *settings.tracking.tags] if tag],
        id=run_id,
        resume="allow" if resume else None,
        config=to_dict(settings),
    )
    if run is None:
        return None, settings
    try:
        settings = read_back(run.config)
    except UserError:
        run.finish(exit_code=2)
        raise
    try:
        return _track(run, run_dir, before, list(rows), keep_iterations), settings
    except OSError as error:  # its folder is not writable, so it could record nothing
        print(f"warning: no W&B records of this run ({first_line(error)}); {run_dir} has its own")
        with suppress(Exception):
            run.finish(exit_code=1)
        return None, settings


def _track(run: Any, run_dir: Path, before: set[Path], rows: list[Mapping[str, str]], keep: int) -> RunTracker:
    """Send the kept rows that W&B lacks; `before` are the recordings of earlier processes."""
    earlier = recordings_of(run.id, before)
    sent = run.starting_step
    if run.offline:
        sent = sent_offline(earlier, max((int(row["iteration"]) for row in rows), default=0))
        Recording(Path(run.dir).parent).begin(sent)
    tracker = RunTracker(run, run_dir, sent)
    for row in rows:
        if sent < int(row["iteration"]) <= keep:
            tracker.send(parsed(row))
    for recording in [*earlier, *(other for other in map(Recording, before) if other.is_empty)]:
        recording.supersede()
    return tracker


def read_back(config: Mapping[str, Any]) -> RunSettings:
    """Read settings from W&B's config: nested groups, overridden by a sweep's dotted keys (`rule.delta`).

    Keys with a leading underscore are W&B's own and ignored; a sweep's text `null` means null. Raises `UserError` for
    any other unknown key.
    """
    own = {name: value for name, value in dict(config).items() if not name.startswith("_") and name != SWEEP_CELL}
    own = {name: _null_of_sweep(name, value) for name, value in own.items()}
    values = flat({name: copy.deepcopy(value) for name, value in own.items() if "." not in name})
    for name, value in own.items():
        if name.startswith("env.kwargs."):
            node = values.setdefault("env.kwargs", {})
            *groups, leaf = name.removeprefix("env.kwargs.").split(".")
            for group in groups:
                node = node.setdefault(group, {})
            node[leaf] = copy.deepcopy(value)
        elif "." in name:
            values[name] = copy.deepcopy(value)
    try:
        return updated(RunSettings(), values)
    except UserError as error:
        raise UserError(f"W&B's config: {error}") from error


def _null_of_sweep(name: str, value: Any) -> Any:
    """The value of a sweep's dotted key: W&B has no null, and turns Python's `None` into text."""
    if not isinstance(value, str) or value not in ("null", "None"):
        return value
    kind = "Any | None" if is_free_form(name) else str(all_keys()[name].type) if name in all_keys() else ""
    stands_for_null = value == "null" or kind.startswith(("int", "float", "list", "bool"))
    return None if "None" in kind and stands_for_null else value
