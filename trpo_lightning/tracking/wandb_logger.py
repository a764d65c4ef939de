"""Weights & Biases on top of the local files: it never stops or slows a run, and its absence loses nothing.

`metrics.csv` is the record; W&B gets each of its rows once. A process that continues a run first finds out which
iterations W&B has, sends those of the file that it lacks, and skips those that are computed again: online the server
knows, offline the recordings in the run directory tell. An offline recording that was not sent yet is superseded by the
next one, which repeats its rows, because a killed process may have lost some of them.
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

from trpo_lightning.errors import UserError
from trpo_lightning.settings import SWEEP_CELL, RunSettings, all_keys, flat, is_free_form, to_dict, updated
from trpo_lightning.tracking.wandb_client import (
    FINISH_TIMEOUT,
    check_key,
    check_server,
    first_line,
    forget_client,
    kill_client,
    open_run,
    resolve_mode,
)
from trpo_lightning.tracking.wandb_recordings import Recording, recordings_of, sent_offline


class RunTracker(WandbLogger):
    """Lightning's W&B logger over a run of ours: whole rows, `env_steps` as x axis, each iteration once.

    W&B has the iterations up to `sent_iterations` already. A thread of its own calls the client, whose process may take
    its time, or never answer.
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
        """The whole config went to `wandb.init`."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Hand over one row, without its empty values; it is sent in the background."""
        if metrics.get("iteration", 0) > self._sent:
            row = {name: value for name, value in metrics.items() if value is not None and value == value}
            self._tasks.put(partial(self.send, row))

    def send(self, row: dict[str, Any]) -> None:
        """Have the client take one row now."""
        try:
            self.run.log(row)
        except Exception as error:  # whatever is wrong with W&B must not end training; the row is in metrics.csv
            if not self._warned:
                print(f"warning: W&B does not take metrics any more ({first_line(error)}); metrics.csv has them all")
                self._warned = True

    def _work(self) -> None:
        for task in iter(self._tasks.get, None):
            task()

    def log_policies(self, files: dict[str, Path], metadata: dict[str, Any]) -> None:
        """Have exported policies uploaded as versions of one artifact, with an alias for each file that is there."""
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
        """Whether W&B itself asks for the end of a sweep's run (Hyperband, the stop button); else it was preempted."""
        try:
            if self.run.offline or not self.run.sweep_id:
                return False
            check_server()
            from wandb.sdk.launch.api import LaunchApi

            return LaunchApi().check_stop_requested(self.run.project, self.run.entity, self.run.id)
        except Exception:  # not known: a run that is queued once too often is better than one that is lost
            return False

    def finish(self, exit_code: int, *, preempting: bool = False) -> None:
        """End the run in W&B, within `2 * FINISH_TIMEOUT`; `preempting` asks a sweep to queue it again."""
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
    """Start (or continue) the W&B run; returns the settings that W&B's config says, the run's only truth.

    `rows` are those of `metrics.csv`, of which a continued run keeps the first `keep_iterations`. A server that does
    not answer, or refuses the key, makes the run an offline one, with a line that says how to send it later.
    """
    mode = resolve_mode(settings.tracking.wandb)
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
    except OSError as error:  # its folder cannot be written: what it would record is lost anyway
        print(f"warning: no W&B records of this run ({first_line(error)}); {run_dir} has its own")
        with suppress(Exception):
            run.finish(exit_code=1)
        return None, settings


def _track(run: Any, run_dir: Path, before: set[Path], rows: list[Mapping[str, str]], keep: int) -> RunTracker:
    """Send what W&B lacks of the rows that are kept; `before` are the recordings of earlier processes."""
    earlier = recordings_of(run.id, before)
    sent = run.starting_step
    if run.offline:
        sent = sent_offline(earlier, max((int(row["iteration"]) for row in rows), default=0))
        Recording(Path(run.dir).parent).begin(sent)
    tracker = RunTracker(run, run_dir, sent)
    for row in rows:
        if sent < int(row["iteration"]) <= keep:
            tracker.send({name: _value(text) for name, text in row.items() if text})
    for recording in [*earlier, *(other for other in map(Recording, before) if other.is_empty)]:
        recording.supersede()
    return tracker


def _value(text: str) -> int | float | str:
    """A cell of `metrics.csv`."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def read_back(config: Mapping[str, Any]) -> RunSettings:
    """Settings from W&B's config: nested groups, with a sweep's dotted keys (`rule.delta`) folded over them.

    Keys that begin with an underscore are W&B's own; a sweep's text `null` is null. Raises `UserError` for any other
    unknown key.
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
    """The value of a sweep's dotted key: W&B has no null, and makes the text `None` of Python's."""
    if not isinstance(value, str) or value not in ("null", "None"):
        return value
    kind = "Any | None" if is_free_form(name) else str(all_keys()[name].type) if name in all_keys() else ""
    stands_for_null = value == "null" or kind.startswith(("int", "float", "list", "bool"))
    return None if "None" in kind and stands_for_null else value
