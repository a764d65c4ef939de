"""Trackio: a run in its local store, or wherever Trackio's own variables say."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trpo_lightning.settings import RunSettings, from_record, to_dict
from trpo_lightning.tracking.background_logger import RunFacts
from trpo_lightning.tracking.notes import Note
from trpo_lightning.tracking.parameters import parameters
from trpo_lightning.tracking.rows import Columns, Row, TrackedRun, columns_of

ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
"""Variables that have Trackio send runs to a Space or a server."""


class TrackioConnection:
    """Logs rows with `env_steps` as step, the settings as config, policies as versions of an artifact."""

    def __init__(self, settings: RunSettings, facts: RunFacts) -> None:
        trackio = _quiet_trackio()
        self._note = Note(facts.run_dir, "trackio")
        self._is_local = not any(os.environ.get(name) for name in ELSEWHERE)
        self._run = trackio.init(
            settings.tracking.project,
            name=facts.title,
            group=settings.tracking.group,
            config={**to_dict(settings), "tags": facts.tags(settings)},
            resume="allow" if self._is_noted(settings.tracking.project, facts.title) else "never",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        if self._note.read().get("run_id") != self._run.id:
            self._note.write(run_id=self._run.id, iterations=0)

    def _is_noted(self, project: str, title: str) -> bool:
        """Whether the run that Trackio would continue, the latest of this name, is this one."""
        from trackio.sqlite_storage import SQLiteStorage

        run_id = self._note.read().get("run_id")
        if run_id is None or not self._is_local:
            return run_id is not None
        latest = SQLiteStorage.get_latest_run_record_by_name(project, title)
        return latest is not None and latest["id"] == run_id

    def logged_iterations(self, recorded: list[Row]) -> set[int]:
        """The iterations in the local store; of one elsewhere, what was handed to Trackio."""
        from trackio.sqlite_storage import SQLiteStorage

        if not self._is_local:
            return set(range(1, 1 + self._note.read().get("iterations", 0)))
        logs = SQLiteStorage.get_logs(self._run.project, run_id=self._run.id)
        return {int(row["iteration"]) for row in logs if "iteration" in row}

    def log_rows(self, rows: list[Row]) -> None:
        """Hand rows to Trackio, which writes them half a second later."""
        for row in rows:
            self._run.log(row, step=int(row["env_steps"]))
        if not self._is_local:
            self._note.write(iterations=int(rows[-1]["iteration"]))

    def log_files(self, files: Mapping[str, Path], metadata: Mapping[str, Any]) -> None:
        """Keep each file as a version of one artifact, under its name as alias."""
        import trackio

        for name, path in files.items():
            artifact = trackio.Artifact(f"policy-{self._run.id}", type="policy", metadata=dict(metadata))
            artifact.add_file(str(path), name="policy.pt")
            self._run.log_artifact(artifact, aliases=[name.partition(".")[0]])

    def close(self, state: str) -> None:
        """Have Trackio write what it has."""
        self._run.finish()


def _quiet_trackio() -> Any:
    """Trackio, whose announcements would stand between a run's lines: its modules get a `print` that prints nothing."""
    import trackio
    import trackio.run
    import trackio.utils

    for module in (trackio, trackio.run, trackio.utils):
        module.print = _print_nothing  # pyright: ignore[reportAttributeAccessIssue]
    return trackio


def _print_nothing(*texts: Any, **how: Any) -> None:
    pass


def trackio_runs(settings: RunSettings) -> list[TrackedRun]:
    """The runs of the settings' project and group in the local store."""
    from trackio.sqlite_storage import SQLiteStorage

    project, found = settings.tracking.project, []
    for began, record in enumerate(sorted(SQLiteStorage.get_run_records(project), key=_created)):
        run_id = record["id"]
        config = SQLiteStorage.get_run_config(project, run_id=run_id) or {}
        if config.get("_Group") == settings.tracking.group:
            own = {name: value for name, value in config.items() if not name.startswith("_") and name != "tags"}
            read = _reader(project, str(run_id))
            found.append(TrackedRun(f"run {run_id} in Trackio", parameters(from_record(own)), began, read))
    return found


def _created(record: Mapping[str, Any]) -> str:
    return str(record.get("created_at") or "")


def _reader(project: str, run_id: str):
    def read() -> Columns:
        from trackio.sqlite_storage import SQLiteStorage

        rows = SQLiteStorage.get_logs(project, run_id=run_id)
        return columns_of(
            [{name: value for name, value in row.items() if isinstance(value, int | float)} for row in rows]
        )

    return read
