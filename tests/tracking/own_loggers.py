"""Loggers of one's own, as `tracking.loggers` names them, and an environment that takes its time."""

import json
import time
from pathlib import Path

import gymnasium
from pytorch_lightning.loggers import Logger


class Table(Logger):
    """A line for each row, in the run directory."""

    accepts_text = True

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self.file, self.told = run_dir / "own_table.jsonl", run_dir / "own_told.txt"

    @property
    def name(self) -> str:
        return "table"

    @property
    def version(self) -> int:
        return 0

    def _tell(self, text: str) -> None:
        with open(self.told, "a") as file:
            file.write(f"{text}\n")

    def log_hyperparams(self, params, *args, **kwargs) -> None:
        self._tell(f"rule.delta={params['rule.delta']}")

    def log_metrics(self, metrics, step=None) -> None:
        with open(self.file, "a") as file:
            file.write(json.dumps([step, dict(metrics)]) + "\n")

    def save(self) -> None:
        self._tell("save")

    def finalize(self, status: str) -> None:
        self._tell(status)


class Faulty(Table):
    """Fails at the calls that a class attribute counts down, and takes as long as another says."""

    failures, seconds = 0, 0.0

    def log_metrics(self, metrics, step=None) -> None:
        time.sleep(self.seconds)
        if type(self).failures > 0:
            type(self).failures -= 1
            raise ConnectionError("no route to the table")
        super().log_metrics(metrics, step)


def table(settings, run_dir):
    assert settings.tracking.loggers and Path(run_dir).is_dir()
    return Table(run_dir)


def faulty(settings, run_dir):
    return Faulty(run_dir)


def away(settings, run_dir):
    raise TimeoutError("the table is away")


def nothing(settings, run_dir):
    return "a string"


class Slow(gymnasium.Wrapper):
    def step(self, action):
        time.sleep(0.002)
        return super().step(action)


def slow_cart_pole():
    return Slow(gymnasium.make("CartPole-v1"))
