"""Interleaved measurements in fresh processes with explicit thread counts, one process at a time."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

from trpo_lightning.threads import thread_environment

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class MeasurementError(Exception):
    """A measurement gave no number; the benchmark says why in one line and continues."""


def start(command: list[str], threads: int, folder: Path) -> "subprocess.Popen[str]":
    """Start a process in `folder` with at most `threads` torch and BLAS threads."""
    environment = {**os.environ, **thread_environment(threads), "WANDB_SILENT": "true"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: "subprocess.Popen[str]") -> str:
    """Wait for the output of a process, never leaving it running. Raises `MeasurementError` with its last line."""
    try:
        output, errors = process.communicate()
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.returncode:
        lines = (errors or output).strip().splitlines()
        raise MeasurementError(f"exit code {process.returncode}: {lines[-1][:300] if lines else 'no output'}")
    return output


def measure(program: list[str], threads: int, folder: Path) -> dict[str, Any]:
    """Run a program and return the JSON object that it prints as its last line."""
    output = finish(start(program, threads, folder))
    try:
        return json.loads(output.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise MeasurementError(f"no number in the output of {Path(program[-1]).name}") from error


def own(module: str, *arguments: Any) -> list[str]:
    """The command line of a module of this package, run as a program."""
    return [sys.executable, "-m", f"trpo_lightning.benchmark.{module}", *map(str, arguments)]


def interleaved(
    cells: dict[K, Callable[[], V]], repeats: int, told: Callable[[K, V], None], failed: Callable[[K, str], None]
) -> dict[K, list[V]]:
    """Measure each cell's repeats in turns (A B C A B C ...); a cell that fails is left out from then on."""
    found: dict[K, list[V]] = {key: [] for key in cells}
    broken: set[K] = set()
    for _ in range(repeats):
        for key, cell in cells.items():
            if key in broken:
                continue
            try:
                value = cell()
            except MeasurementError as error:
                broken.add(key)
                failed(key, str(error))
                continue
            found[key].append(value)
            told(key, value)
    return found
