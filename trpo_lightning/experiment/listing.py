"""Lists the experiments, a line each: scales, how many runs of each are done, and the latest activity."""

import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from omegaconf import OmegaConf

from trpo_lightning.errors import UserError
from trpo_lightning.experiment.declaration import Experiment
from trpo_lightning.experiment.experiment_file import FULL, experiment_files, foreign_files, values_at
from trpo_lightning.experiment.states import standing
from trpo_lightning.runs.config import read_yaml

SIGNS_OF_LIFE = ("status.json", "metrics.csv")
"""Files in a run directory whose modification time tells when the run was last active."""


@dataclass(frozen=True)
class ScaleState:
    """How many of a scale's runs are in each state, including `missing`; when one was last active, 0.0 for never."""

    name: str
    states: Counter[str]
    last: float
    last_run: Path | None

    @property
    def text(self) -> str:
        """Finished and declared runs, such as `quick 3/10`."""
        return f"{self.name} {self.states['finished']}/{self.states.total()}"


def print_list(root: Path) -> int:
    """Print all experiments, most recently active first, then the others by name; at most 100 columns wide.

    Invalid files and those of other programs are named below. Returns the exit code, 2 if a file is invalid.
    """
    found: dict[str, list[ScaleState]] = {}
    wrong: list[str] = []
    for name, file in experiment_files().items():
        try:
            found[name] = scale_states(name, file, root)
        except UserError as error:
            wrong.append(str(error))
    for line in table(found):
        print(line)
    for text in wrong:
        print(f"error: {text}", file=sys.stderr)
    for file in foreign_files():
        print(f"note: {file} is skipped: it has no title and hypothesis, which every experiment has", file=sys.stderr)
    return UserError.exit_code if wrong else 0


def scale_states(name: str, file: Path, root: Path) -> list[ScaleState]:
    """The state of an experiment's scales. The file is read once; resolving the settings would take seconds."""
    read = OmegaConf.to_container(read_yaml(file))
    _, scales = values_at(file, read, FULL)
    return [_state(Experiment(name, scale, file, **values_at(file, read, scale)[0]), root) for scale in (FULL, *scales)]


def table(found: dict[str, list[ScaleState]]) -> list[str]:
    """The table's lines: a heading, the experiments, then states other than finished and missing, and the last run."""
    rows = {name: [state.text for state in states] for name, states in found.items()}
    columns = list(zip_longest(*rows.values(), fillvalue=""))
    widths = [max(map(len, column)) for column in columns]
    wide = max(map(len, ["experiment", *found]))
    newest = {name: max(states, key=lambda state: state.last) for name, states in found.items()}
    lines = []
    for name in sorted(found, key=lambda name: (-newest[name].last, name)):
        texts = rows[name] + [""] * (len(widths) - len(rows[name]))
        texts = [text.ljust(width) for text, width in zip(texts, widths, strict=True)]
        row = [name.ljust(wide), *texts]
        lines.append("  ".join([*row, _when(newest[name])]).rstrip())
    heading = "  ".join(
        ["experiment".ljust(wide), "finished/declared".ljust(sum(widths) + 2 * len(widths) - 2), "last"]
    )
    return [heading, *lines, *_footer(found)]


def _footer(found: dict[str, list[ScaleState]]) -> list[str]:
    lines = []
    for name, states in found.items():
        for state in states:
            others = {kind: n for kind, n in state.states.items() if kind not in ("finished", "missing")}
            if others:
                lines.append(f"{name} {state.name}: {', '.join(f'{n} {kind}' for kind, n in others.items())}")
    last = max((state for states in found.values() for state in states), key=lambda state: state.last, default=None)
    if last is not None and last.last_run is not None:
        lines.append(f"last: {last.last_run} ({standing(last.last_run)})")
    return lines


def _state(experiment: Experiment, root: Path) -> ScaleState:
    runs = [root / directory for directory in experiment.directories()]
    if not (root / experiment.directory).is_dir():
        return ScaleState(experiment.scale, Counter(missing=len(runs)), 0.0, None)
    last, last_run = max(((_last_seen(run), run) for run in runs), key=lambda pair: pair[0], default=(0.0, None))
    return ScaleState(experiment.scale, Counter(map(standing, runs)), last, last_run if last else None)


def _last_seen(run_dir: Path) -> float:
    """When a run was last active, in seconds since 1970; 0.0 if it has not begun."""
    files = [run_dir / name for name in SIGNS_OF_LIFE]
    return max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)


def _when(state: ScaleState) -> str:
    return f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(state.last))} {state.name}" if state.last else ""
