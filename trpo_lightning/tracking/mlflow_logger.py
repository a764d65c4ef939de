"""MLflow: a run of an experiment, in a database or on a server."""

import logging
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import MLFlowLogger

from trpo_lightning.settings import RunSettings
from trpo_lightning.tracking.background_logger import RunFacts
from trpo_lightning.tracking.notes import Note
from trpo_lightning.tracking.parameters import config_text, parameters
from trpo_lightning.tracking.rows import Columns, Row, TrackedRun, columns_of

MOST_METRICS = 1000
"""In one request."""
MOST_RUNS = 1000
STATES = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
VARIABLES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # with the password in it, if there is one
    # it is tried again here, for longer, and a run does not wait for it at its end
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""What MLflow is told where the user's environment says nothing else."""


class MLflowConnection:
    """Logs rows with `env_steps` as step, settings as parameters, `config.yaml` and the policies as artifacts."""

    def __init__(self, settings: RunSettings, facts: RunFacts) -> None:
        prepare()
        uri = _uri(settings)
        note = Note(facts.run_dir, "mlflow")
        run_id = _existing(uri, note.read().get("run_id"))
        if run_id is None:
            experiment_id(uri, settings.tracking.project)
        self._logger = MLFlowLogger(
            experiment_name=settings.tracking.project,
            run_name=facts.title,
            tracking_uri=uri,
            tags=_tags(settings, facts),
            run_id=run_id,
        )
        self._client, self._run_id = self._logger.experiment, str(self._logger.run_id)
        if run_id is None:
            note.write(run_id=self._run_id)
        self._describe(settings)

    def _describe(self, settings: RunSettings) -> None:
        """Record the settings; a parameter cannot change any more, so a continued run adds those that are new."""
        there = self._client.get_run(self._run_id).data.params
        self._logger.log_hyperparams({key: text for key, text in parameters(settings).items() if key not in there})
        self._client.update_run(self._run_id, status="RUNNING")
        try:
            self._client.log_text(self._run_id, config_text(settings), "config.yaml")
        except Exception as error:  # a store of files can fail where that of numbers does not
            print(f"warning: MLflow did not take config.yaml ({type(error).__name__}); its parameters say the same")

    def logged_iterations(self, recorded: list[Row]) -> set[int]:
        """The iterations that the store has: it can add points, and cannot take any back."""
        return {int(metric.value) for metric in self._client.get_metric_history(self._run_id, "iteration")}

    def log_rows(self, rows: list[Row]) -> None:
        """Log rows, as many whole ones in a request as it may hold."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for some in _batches(rows):
            metrics = [
                Metric(_name(name), float(row[name]), now, int(row["env_steps"]))
                for row in some
                for name in [*(name for name in row if name != "iteration"), "iteration"]  # last: the row is whole then
            ]
            for start in range(0, len(metrics), MOST_METRICS):
                self._client.log_batch(self._run_id, metrics=metrics[start : start + MOST_METRICS])

    def log_files(self, files: Mapping[str, Path], metadata: Mapping[str, Any]) -> None:
        """Keep the policies below the artifacts' `policies`."""
        for path in files.values():
            self._client.log_artifact(self._run_id, str(path), "policies")

    def close(self, state: str) -> None:
        """Set the run's status."""
        self._client.set_terminated(self._run_id, STATES[state])


def prepare() -> None:
    """Keep MLflow from talking: to the console, and to its makers."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", module=r"mlflow|sqlalchemy|alembic")
    for name in ("mlflow", "alembic", "pytorch_lightning.loggers.mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)


def experiment_id(uri: str, name: str) -> str:
    """The experiment's id; it is created if need be, also where several runs start at once."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name(name)
    try:
        return found.experiment_id if found else client.create_experiment(name)
    except MlflowException:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return found.experiment_id


def _uri(settings: RunSettings) -> str:
    import mlflow

    return settings.tracking.mlflow or mlflow.get_tracking_uri()


def _existing(uri: str, run_id: str | None) -> str | None:
    """The id of a run that is in this store and not deleted."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    if run_id is None:
        return None
    try:
        run = MlflowClient(uri).get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run_id if run.info.lifecycle_stage == "active" else None


def _tags(settings: RunSettings, facts: RunFacts) -> dict[str, str]:
    tags = {"tags": ", ".join(facts.tags(settings)), "group": settings.tracking.group or ""}
    return {name: text for name, text in tags.items() if text}


def _name(metric: str) -> str:
    """The metric's name in the characters that every store takes."""
    return re.sub(r"[^\w/. -]", "_", metric, flags=re.ASCII)[:250]


def _batches(rows: list[Row]) -> Iterator[list[Row]]:
    """Rows, in lists with at most `MOST_METRICS` numbers, or of one row."""
    some: list[Row] = []
    for row in rows:
        if some and sum(map(len, some)) + len(row) > MOST_METRICS:
            yield some
            some = []
        some.append(row)
    if some:
        yield some


def mlflow_runs(settings: RunSettings) -> list[TrackedRun]:
    """The runs of the settings' experiment and group."""
    prepare()
    from mlflow.tracking import MlflowClient

    client = MlflowClient(_uri(settings))
    experiment = client.get_experiment_by_name(settings.tracking.project)
    if experiment is None:
        return []
    group = (settings.tracking.group or "").replace("'", "\\'")
    found, token = [], None
    while True:
        page = client.search_runs(
            [experiment.experiment_id], f"tags.`group` = '{group}'", max_results=MOST_RUNS, page_token=token
        )
        found += page
        token = page.token
        if not token:
            break
    return [_tracked(client, run) for run in found]


def _tracked(client: Any, run: Any) -> TrackedRun:
    def read() -> Columns:
        rows: dict[int, dict[str, float]] = {}
        for name in run.data.metrics:
            for metric in client.get_metric_history(run.info.run_id, name):
                rows.setdefault(metric.step, {})[name] = metric.value
        return columns_of([{**row, "env_steps": float(step)} for step, row in rows.items()])

    return TrackedRun(f"run {run.info.run_id} in MLflow", run.data.params, run.info.start_time, read)
