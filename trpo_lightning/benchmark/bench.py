"""The options, notes and helpers that all benchmark sections share."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from trpo_lightning.benchmark.configurations import BENCHMARK, WARMUP
from trpo_lightning.benchmark.processes import interleaved

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
RATE = "env steps/s"


@dataclass
class Bench:
    """What to measure and where, with the notes that collect on the way."""

    environments: list[str]
    peer_environments: list[str]
    threads: list[int]
    num_envs: int = 32
    steps: int = 100_000
    repeats: int = 3
    max_batch: int = 2**20
    return_steps: int = 300_000
    return_seeds: int = 5
    folder: Path = Path()
    """Folder for run directories, which are removed after use."""
    peers: Path = Path(".venv-benchmark")
    say: Callable[[str], None] = print
    notes: list[str] = field(default_factory=list)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Print and keep something that a reader of the results must know."""
        self.notes.append(text)
        self.say(f"note: {text}")

    def settings(self, environment: str, more: dict[str, Any] | None = None) -> dict[str, Any]:
        """The named configuration on an environment, with `more` keys, for `steps` steps after the warm-up."""
        keys = {**BENCHMARK, "env.num_envs": self.num_envs, "env.id": environment, **(more or {})}
        per_iteration = keys["rollout.steps_per_iteration"]
        keys["rollout.steps_per_iteration"] = max(per_iteration // keys["env.num_envs"], 1) * keys["env.num_envs"]
        return {**keys, "total_env_steps": self.steps + WARMUP * per_iteration}

    def interleaved(self, cells: dict[K, Callable[[], V]], shown: Callable[[V], str]) -> dict[K, list[V]]:
        """Measure the cells in turns and print a line for each repeat; a failing cell is noted and left out."""

        def name(key: K) -> str:
            return ", ".join(map(str, key)) if isinstance(key, tuple) else str(key)

        return interleaved(
            cells,
            self.repeats,
            lambda key, value: self.say(f"  {name(key)}: {shown(value)}"),
            lambda key, error: self.note(f"{name(key)} was not measured: {error}"),
        )

    def rates(self, cells: dict[K, Callable[[], float]]) -> dict[K, tuple[float, ...]]:
        """Measure env steps per second of the cells in turns."""
        return {key: tuple(values) for key, values in self.interleaved(cells, lambda v: f"{v:,.0f} {RATE}").items()}


def threads_text(threads: int) -> str:
    """The number with its noun: `1 thread`, `2 threads`."""
    return f"{threads} thread" + ("s" if threads != 1 else "")
