"""What W&B costs: `python tests/faults/wandb_speed.py` trains with and without it at the same time, a core each.

Side by side, both runs meet the same noise of a shared machine; their cores are swapped from pair to pair. Needs two
idle cores, Linux, EnvPool, and the W&B server that the tests' variables name.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wandb_proxy import FaultyProxy

TRAIN = """train --quiet env.id=Hopper-v5 env.num_envs=32 rollout.steps_per_iteration=4096 evaluation.every=0 threads=1
    total_env_steps=1000000000""".split()
WARM, MEASURED = 8, 60
"""Iterations before the fault, and from then on until a pair ends."""
STATES = ("up", "slow", "cut")


class Run:
    """A training process on one core, whose way to W&B is a proxy of its own."""

    def __init__(self, run_dir: Path, core: int, mode: str) -> None:
        self.run_dir, self.proxy = run_dir, FaultyProxy(os.environ["TRPO_LIGHTNING_TEST_WANDB_URL"])
        to = {"WANDB_BASE_URL": self.proxy.url, "WANDB_API_KEY": os.environ["TRPO_LIGHTNING_TEST_WANDB_KEY"]}
        self.process = subprocess.Popen(
            ["taskset", "-c", str(core), sys.executable, "-m", "trpo_lightning", *TRAIN, f"tracking.wandb={mode}"]
            + ["--run-dir", str(run_dir)],
            env=os.environ | to | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def rows(self) -> list[dict[str, str]]:
        file = self.run_dir / "metrics.csv"
        if self.process.poll() is not None:
            raise SystemExit(f"error: the run in {self.run_dir} ended with {self.process.returncode}")
        return list(csv.DictReader(file.open(newline=""))) if file.exists() else []

    def end(self) -> None:
        os.killpg(self.process.pid, 9)
        self.process.wait()
        self.proxy.cut()


def wait_for_rows(runs: dict[str, Run], rows: dict[str, int]) -> None:
    while any(len(run.rows()) < rows[name] for name, run in runs.items()):
        time.sleep(0.2)


def pair(state: str, turn: int, folder: Path) -> dict[str, float]:
    """Steps/s of a run without W&B and of one with a server that is `up`, `slow` (2 s an answer) or `cut` off."""
    runs = {
        "without": Run(folder / f"without_{state}_{turn}", turn % 2, "disabled"),
        "with": Run(folder / f"with_{state}_{turn}", 1 - turn % 2, "online"),
    }
    try:
        wait_for_rows(runs, dict.fromkeys(runs, WARM))
        if state == "slow":
            runs["with"].proxy.delay = 2.0
        if state == "cut":
            runs["with"].proxy.cut()
        first = {name: len(run.rows()) for name, run in runs.items()}
        wait_for_rows(runs, {name: number + MEASURED for name, number in first.items()})
        speeds = {name: [float(row["time/steps_per_second"]) for row in run.rows()] for name, run in runs.items()}
        return {name: statistics.fmean(values[first[name] :][:MEASURED]) for name, values in speeds.items()}
    finally:
        for run in runs.values():
            run.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--states", nargs="+", choices=STATES, default=STATES)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for state in options.states:
            ratios = []
            for turn in range(options.pairs):
                speed = pair(state, turn, Path(folder))
                ratios.append(speed["with"] / speed["without"])
                print(
                    f"{state:5} {speed['with']:7,.0f} / {speed['without']:7,.0f} steps/s = {ratios[-1]:.3f}", flush=True
                )
            print(f"{state:5} median of {options.pairs}: {statistics.median(ratios):.3f}", flush=True)


if __name__ == "__main__":
    main()
