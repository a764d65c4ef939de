"""Curves from elsewhere, beside those of an experiment: CSV files, TensorBoard, W&B, another root of this project."""

import csv
import glob
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trpo_lightning.errors import UserError, nearest
from trpo_lightning.experiment.declaration import Experiment
from trpo_lightning.experiment.states import run_state
from trpo_lightning.report.records import FINISHED, Columns, Record, read_provenance, score_of

OPTIONS = ("steps", "return", "evaluation", "episodes", "env")
FORM = "LABEL=FILE.csv:steps=COLUMN,return=COLUMN,env=ID, LABEL=wandb:ENTITY/PROJECT/GROUP:... or LABEL=DIR"
METRIC_OF = {
    "return": "episode/return_mean",
    "evaluation": "evaluation/return_mean",
    "episodes": "episode/count",
}
TENSORBOARD_STEP = "step"


@dataclass(frozen=True)
class _Spec:
    """The parts of a `--with` specification."""

    text: str
    label: str
    target: str
    options: dict[str, str]

    def column(self, option: str) -> str:
        """The column that a required option names. Raises `UserError` if the option is missing."""
        if option not in self.options:
            raise UserError(f"--with {self.text}: {option}=COLUMN is missing")
        return self.options[option]


def external_records(spec: str, experiment: Experiment, wanted: set[Path] | None = None) -> list[Record]:
    """The runs of a `--with` specification, as an additional variant named by its label.

    `LABEL=FILE:steps=COLUMN,return=COLUMN,env=ID`: FILE may be a glob whose files are the seeds; `sum(COLUMN)` is a
    running total, for files with a row for each episode. `evaluation=COLUMN` is a deterministic evaluation,
    `episodes=COLUMN` the number of episodes in a row (default: one), `env` the panel to draw in. FILE may be a
    TensorBoard event file.
    `LABEL=wandb:ENTITY/PROJECT/GROUP:...`: the same options; the runs of the group are the seeds.
    `LABEL=DIR`: a root of this project with the same experiment, perhaps of another commit; `wanted` restricts its
    runs to these directories.

    Raises:
        UserError: The specification is invalid, or a source cannot be read.
    """
    records = _records(_parse(spec), experiment, wanted)
    declared = {cell.settings.name for cell in experiment.cells()}
    for record in records:
        if record.variant in declared:
            raise UserError(f"--with {spec}: {record.variant} is a variant of the experiment: choose another label")
    return records


def _records(parsed: _Spec, experiment: Experiment, wanted: set[Path] | None) -> list[Record]:
    if parsed.target.startswith("wandb:"):
        return _from_columns(parsed, experiment, _wandb_runs(parsed))
    if Path(parsed.target).is_dir():
        return _from_root(parsed, experiment, wanted)
    files = [Path(name) for name in sorted(glob.glob(parsed.target, recursive=True))]
    if not files:
        raise UserError(f"--with {parsed.text}: there is no file {parsed.target}")
    return _from_columns(parsed, experiment, [(str(file), _read_file(file, parsed)) for file in files])


def _parse(text: str) -> _Spec:
    label, equals, rest = text.partition("=")
    if not equals or not label.strip() or not rest:
        raise UserError(f"--with {text}: is not of the form {FORM}")
    names = "|".join(OPTIONS)
    found = re.search(r":(\w+)=", rest)
    target, listed = (rest[: found.start()], rest[found.start() + 1 :]) if found else (rest, "")
    options = {}
    for part in re.split(rf",(?=(?:{names})=)", listed) if listed else []:
        name, equals, value = part.partition("=")
        if name not in OPTIONS or not value:
            raise UserError(f"--with {text}: unknown option {name}{nearest(name, list(OPTIONS))}: {', '.join(OPTIONS)}")
        options[name] = value
    return _Spec(text, label.strip(), target, options)


def _from_columns(spec: _Spec, experiment: Experiment, sources: list[tuple[str, Columns]]) -> list[Record]:
    """A record for each source, whose columns have the names that the source gave them."""
    env_id = _environment(spec, experiment)
    records = []
    for seed, (name, columns) in enumerate(sources):
        own = {"env_steps": _column(columns, spec.column("steps"), name)}
        own |= {METRIC_OF[o]: _column(columns, c, name) for o, c in spec.options.items() if o in METRIC_OF}
        if METRIC_OF["return"] not in own:
            spec.column("return")
        own.setdefault("episode/count", np.ones(len(own["env_steps"])))
        order = np.argsort(own["env_steps"], kind="stable")
        own = {metric: values[order] for metric, values in own.items()}
        score = score_of(own, experiment.score, experiment.metric)
        note = "came from elsewhere: its returns and its score are as that source defines them"
        records.append(
            Record(env_id, spec.label, seed, FINISHED, None, {"variant": spec.label}, own, score, notes=(note,))
        )
    return records


def _environment(spec: _Spec, experiment: Experiment) -> str:
    env_ids = list(dict.fromkeys(cell.settings.env.id for cell in experiment.cells()))
    chosen = spec.options.get("env")
    if chosen is None and len(env_ids) == 1:
        return env_ids[0]
    if chosen not in env_ids:
        problem = f"env={chosen} is not of this experiment{nearest(chosen, env_ids)}" if chosen else "env=ID is missing"
        raise UserError(f"--with {spec.text}: {problem}: it has {', '.join(env_ids)}")
    return chosen


def _column(columns: Columns, name: str, source: str) -> np.ndarray:
    """A column, or its running sum as `sum(name)`."""
    added = re.fullmatch(r"sum\((.+)\)", name)
    key = added.group(1) if added else name
    if key not in columns:
        raise UserError(f"{source}: has no column {key}{nearest(key, list(columns))}: it has {', '.join(columns)}")
    values = columns[key]
    return np.cumsum(np.nan_to_num(values)) if added else values


def _read_file(file: Path, spec: _Spec) -> Columns:
    return _tensorboard(file, spec) if "tfevents" in file.name else read_csv(file)


def read_csv(file: Path) -> Columns:
    """The numeric columns of a CSV file with a header; lines that begin with `#` and a torn last line are skipped."""
    try:
        with open(file, encoding="utf-8", errors="replace", newline="") as lines:
            reader = csv.DictReader(line for line in lines if not line.startswith("#"))
            rows = [row for row in reader if None not in row and None not in row.values()]
            names = reader.fieldnames or []
    except (OSError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read: {error}") from error
    if not rows:
        raise UserError(f"{file}: holds no row under a header of column names")
    return {name: np.array([_number(row[name]) for row in rows]) for name in names}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _tensorboard(file: Path, spec: _Spec) -> Columns:
    """The tags of an event file that the options name, as columns by step."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import (  # pyright: ignore[reportMissingImports]
            EventAccumulator,
        )
    except ImportError as error:
        raise UserError(f"{file}: reading TensorBoard files needs a package: pip install tensorboard") from error
    events = EventAccumulator(str(file), size_guidance={"scalars": 0}).Reload()
    tags = [spec.options[option] for option in METRIC_OF if option in spec.options]
    known = events.Tags()["scalars"]
    for tag in tags:
        if tag not in known:
            raise UserError(f"{file}: has no tag {tag}{nearest(tag, known)}: it has {', '.join(known)}")
    values = {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in tags}
    steps = sorted({step for found in values.values() for step in found})
    columns = {tag: np.array([found.get(step, np.nan) for step in steps]) for tag, found in values.items()}
    return {TENSORBOARD_STEP: np.array(steps, dtype=np.float64), **columns}


def _wandb_runs(spec: _Spec) -> list[tuple[str, Columns]]:
    """The complete, unsampled histories of a group's runs."""
    path = spec.target.removeprefix("wandb:").split("/")
    if len(path) != 3 or not all(path):
        raise UserError(f"--with {spec.text}: W&B runs are wandb:ENTITY/PROJECT/GROUP")
    import wandb

    names = [spec.options[name] for name in ("steps", *METRIC_OF) if name in spec.options]
    try:
        runs: list[Any] = list(wandb.Api().runs("/".join(path[:2]), filters={"group": path[2]}))
        found = []
        for run in runs:
            rows = list(run.scan_history())
            columns = {
                n: np.array([_number(str(row.get(n))) for row in rows]) for n in names if any(n in r for r in rows)
            }
            found.append((f"{spec.target} run {run.id}", columns))
    except Exception as error:  # the network and its client may raise anything
        raise UserError(f"--with {spec.text}: W&B does not answer: {type(error).__name__}: {error}") from error
    if not found:
        raise UserError(f"--with {spec.text}: there is no run in group {path[2]} of {'/'.join(path[:2])}")
    return found


def _from_root(spec: _Spec, experiment: Experiment, wanted: set[Path] | None) -> list[Record]:
    """The same runs below another root. Unknown columns are read too, because another version may have written them."""
    root = Path(spec.target)
    if not (root / experiment.directory).is_dir():
        raise UserError(f"--with {spec.text}: {root} has no {experiment.directory}: give the root of all runs")
    cells = [cell for cell in experiment.cells() if wanted is None or cell.directory in wanted]
    several = len({cell.settings.name for cell in cells}) > 1
    records = []
    for cell in cells:
        run_dir, settings = root / cell.directory, cell.settings
        file = run_dir / "metrics.csv"
        columns = read_csv(file) if _has_rows(file) else {}
        records.append(
            Record(
                env_id=settings.env.id,
                variant=f"{spec.label} {settings.name}" if several else spec.label,
                seed=settings.seed,
                state=run_state(run_dir) or "missing",
                run_dir=run_dir,
                levels={**cell.levels, "root": spec.label},
                columns=columns,
                score=score_of(columns, experiment.score, experiment.metric),
                provenance=read_provenance(run_dir / "provenance.json"),
            )
        )
    return records


def _has_rows(file: Path) -> bool:
    """Whether the file exists and has a line below its header."""
    return file.is_file() and len(file.read_bytes().splitlines()) > 1
