"""TensorBoard: event files in the run directory's `tensorboard/`.

Its files cannot be changed, but one that begins with a step hides what earlier ones hold from that step on. So a
continued run hides the rows after its barrier and writes them again; what was written is noted, because reading the
files of a long run takes as long as some of its iterations.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning.loggers import TensorBoardLogger

from trpo_lightning.settings import RunSettings, from_record
from trpo_lightning.tracking.background_logger import RunFacts
from trpo_lightning.tracking.notes import Note
from trpo_lightning.tracking.parameters import config_text, parameters
from trpo_lightning.tracking.rows import Columns, Row, TrackedRun, columns_of

FOLDER = "tensorboard"
FENCE = "```"
SHOWN_IN_HPARAMS = ("episode/return_mean", "evaluation/return_mean")


class TensorBoardConnection:
    """Writes rows with `env_steps` as step, the settings as hyperparameters and as text.

    Args:
        settings: The run's settings.
        facts: The run directory, title and tags.
        keep_iterations: How many iterations, from the first, are to be kept of what is there; None keeps all.
    """

    def __init__(self, settings: RunSettings, facts: RunFacts, keep_iterations: int | None) -> None:
        self._settings, self._facts = settings, facts
        self._note = Note(facts.run_dir, FOLDER)
        self._folder = facts.run_dir / FOLDER
        self._logger: TensorBoardLogger | None = None
        if keep_iterations is not None and self._noted() > keep_iterations:
            self._note.write(iterations=keep_iterations)

    def _noted(self) -> int:
        return self._note.read().get("iterations", 0) if any(self._folder.glob("*tfevents*")) else 0

    def logged_iterations(self, recorded: list[Row]) -> set[int]:
        """The iterations that are noted."""
        return set(range(1, 1 + self._noted()))

    def log_rows(self, rows: list[Row]) -> None:
        """Write rows and hand them to the operating system."""
        if self._logger is None:
            self._logger = self._begin(first_step=int(rows[0]["env_steps"]))
        for row in rows:
            self._logger.log_metrics(row, step=int(row["env_steps"]))
        self._logger.experiment.flush()
        self._note.write(iterations=int(rows[-1]["iteration"]))

    def log_files(self, files: Mapping[str, Path], metadata: Mapping[str, Any]) -> None:
        """TensorBoard keeps no files; these are in the run directory, beside its own."""

    def close(self, state: str) -> None:
        """Close the event file."""
        if self._logger is not None:
            self._logger.finalize(state)

    def _begin(self, first_step: int) -> TensorBoardLogger:
        from torch.utils.tensorboard.summary import hparams

        again = any(self._folder.glob("*tfevents*"))
        hidden: dict[str, Any] = {"purge_step": first_step} if again else {}
        run_dir = str(self._facts.run_dir)
        logger = TensorBoardLogger(run_dir, name=FOLDER, version="", default_hp_metric=False, **hidden)
        writer = logger.experiment
        text = config_text(self._settings)
        writer.add_text("config", f"{FENCE}yaml\n{text}{FENCE}", 0)
        writer.add_text("run", f"{self._facts.title}\n\ntags: {', '.join(self._facts.tags(self._settings))}", 0)
        if not again:
            # the names of the columns beside them; `logger.log_hyperparams` would log a point of its own for each
            summaries = hparams(parameters(self._settings), dict.fromkeys(SHOWN_IN_HPARAMS, 0.0))
            for summary in summaries:
                writer._get_file_writer().add_summary(summary)  # pyright: ignore[reportOptionalMemberAccess]
        return logger


def tensorboard_run(run_dir: Path) -> TrackedRun | None:
    """The run in a run directory's event files; None if there are none."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not any((run_dir / FOLDER).glob("*tfevents*")):
        return None
    events = EventAccumulator(str(run_dir / FOLDER), size_guidance={"scalars": 0, "tensors": 0}).Reload()

    def read() -> Columns:
        rows: dict[int, dict[str, float]] = {}
        for tag in events.Tags()["scalars"]:
            for event in events.Scalars(tag):
                rows.setdefault(event.step, {})[tag] = event.value
        return columns_of([{**row, "env_steps": float(step)} for step, row in rows.items()])

    return TrackedRun(str(run_dir / FOLDER), _parameters(events), events.FirstEventTimestamp() or 0.0, read)


def _parameters(events: Any) -> dict[str, str]:
    """The settings of the latest process that wrote there."""
    if "config/text_summary" not in events.Tags()["tensors"]:
        return {}
    text = events.Tensors("config/text_summary")[-1].tensor_proto.string_val[0].decode()
    record: Any = yaml.safe_load(text.removeprefix(f"{FENCE}yaml").removesuffix(FENCE))
    return parameters(from_record(record))
