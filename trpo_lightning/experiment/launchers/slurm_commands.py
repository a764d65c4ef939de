"""What Slurm is asked and told, with its own commands."""

import math
import subprocess
import time

from trpo_lightning.errors import UserError
from trpo_lightning.experiment.launchers.options import LauncherOptions, minutes

JOB_NAME = "trpo_lightning"
LOOK_SECONDS = 5.0
"""Pause between two looks at the queue, which all jobs share."""
OVER = {
    "COMPLETED",
    "FAILED",
    "OUT_OF_MEMORY",
    "DEADLINE",
    "CANCELLED",
    "TIMEOUT",
    "PREEMPTED",
    "NODE_FAIL",
    "BOOT_FAIL",
}
SECONDS_BEFORE_NOTICE = 80
"""Least time of a job before its notice, which Slurm may send up to 60 s early: Python needs some to listen."""


class Queue:
    """The states of this user's jobs, looked up for all of them at once, and not too often."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._looked = -math.inf

    def state(self, name: str) -> str | None:
        """A job's state, such as PENDING; None for a job that Slurm has forgotten."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            try:
                self.look()
            except UserError:
                self._looked = time.monotonic()  # it may be restarted: what was known holds until it answers
        return self._states.get(name)

    def look(self) -> None:
        """Ask Slurm. Raises `UserError` if it does not answer."""
        lines = ask("squeue", "--me", "-a", "-r", "-h", "--states=all", "-o", "%i|%T|%j").splitlines()
        rows = [line.strip().split("|", 2) for line in lines]
        self._states = {name: state for name, state, title in rows if title == JOB_NAME}
        self._looked = time.monotonic()

    def expect(self, names: list[str]) -> None:
        """Take new jobs for waiting until the next look."""
        self._states |= {name: "PENDING" for name in names if name not in self._states}


def check_partition(options: LauncherOptions, cpus: int) -> None:
    """Raise a `UserError` if no node of the partition is large enough, or its limit is below the jobs'."""
    lines = ask("sinfo", "-N", "-h", "-o", "%P|%c|%l").splitlines()
    rows = [line.strip().split("|") for line in lines]
    if options.partition is None:
        rows = [row for row in rows if row[0].endswith("*")] or rows
        name = "the default partition"
    else:
        name, known = f"partition {options.partition}", sorted({row[0].rstrip("*") for row in rows})
        rows = [row for row in rows if row[0].rstrip("*") == options.partition]
        if not rows:
            raise UserError(f"there is no {name}: Slurm has {', '.join(known) or 'none with nodes'}")
    largest = max(int(number.rstrip("+")) for _, number, _ in rows)
    if cpus > largest:
        raise UserError(
            f"each run asks for {cpus} CPUs, and the largest node of {name} has {largest}: give fewer "
            "threads=N or --cpus N"
        )
    limit = max(math.inf if text == "infinite" else minutes(text) for *_, text in rows)
    if minutes(options.time) > limit:
        raise UserError(f"--time {options.time} is more than the {limit:.0f} minutes of {name}: runs go on anyway")
    if 60 * minutes(options.time) - options.notice < SECONDS_BEFORE_NOTICE:
        raise UserError(
            f"--time {options.time} is too short for --notice {options.notice}, which Slurm may send a minute early: "
            f"make it {SECONDS_BEFORE_NOTICE} s longer"
        )


def largest_array() -> int:
    """Slurm's `MaxArraySize`, the number of jobs in an array; an array of one is no array."""
    lines = ask("scontrol", "show", "config").splitlines()
    found = [line.partition("=")[2].strip() for line in lines if line.startswith("MaxArraySize")]
    return max(1, int(found[0])) if found and found[0].isdigit() else 1


def ask(*command: str) -> str:
    """What a command of Slurm's prints. Raises `UserError` if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except subprocess.CalledProcessError as error:
        raise UserError(f"Slurm does not answer: {last_line(error.stderr)}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"Slurm does not answer: {error}") from error


def tell(*command: str) -> None:
    """Give an order; a job that is over by now needs none."""
    subprocess.run(command, capture_output=True, timeout=60, check=False)


def last_line(text: str) -> str:
    """The last line of a message that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines or ["it says nothing"])[-1]
