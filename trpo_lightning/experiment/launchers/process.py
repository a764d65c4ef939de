"""The process that does a run, on the machine that it is done on; all launchers start runs in this way."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trpo_lightning.experiment.launchers.launcher import Ending, PlannedRun
from trpo_lightning.experiment.states import has_begun, read_state
from trpo_lightning.runs.config import recorded_settings, write_config
from trpo_lightning.settings import RESUMABLE, different_keys, get
from trpo_lightning.stopping import OWN_GROUP
from trpo_lightning.threads import available_cores, thread_environment

PRIVATE_VARIABLES = ("WANDB_SERVICE", "WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_NAME")
"""W&B variables not passed to children, which would otherwise write to the parent's W&B run or all share one name."""
SET_PARENT_DEATH_SIGNAL = 1
"""Linux's `PR_SET_PDEATHSIG`; the library is loaded early, because little is safe between fork and exec:"""
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class RunProcess:
    """`python -m trpo_lightning train` in a process of its own, which begins the run or goes on with it.

    Args:
        run: The run.
        variables: Environment variables on top of this process's.
        before_exec: Called in the new process before Python starts there.

    Raises:
        OSError, DiskError: The process cannot be started.
    """

    started = True

    def __init__(
        self, run: PlannedRun, variables: Mapping[str, str] | None = None, before_exec: Callable[[], Any] | None = None
    ) -> None:
        self.run_dir, self._fresh = run.run_dir, not has_begun(run.run_dir)
        self._folder = tempfile.TemporaryDirectory()
        config = Path(self._folder.name) / "config.yaml"
        write_config(run.settings, config)
        command = train_command(run, config)
        threads = run.settings.threads or available_cores()
        environment = {**os.environ, **(variables or {}), **thread_environment(threads)}
        for name in PRIVATE_VARIABLES:
            environment.pop(name, None)
        run.run_dir.mkdir(parents=True, exist_ok=True)
        with open(run.run_dir / "log.txt", "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                preexec_fn=before_exec,
                **OWN_GROUP,
            )

    def poll(self) -> Ending | None:
        """How the process ended; None while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        self._folder.cleanup()
        return Ending(code, again=code > 0 and self._fresh and self._begun_by_another())

    def stop(self, number: int) -> None:
        """Send a signal; Windows offers only Ctrl-Break: anything else would end the run at once."""
        self.process.send_signal(getattr(signal, "CTRL_BREAK_EVENT", number))

    def kill(self) -> None:
        """Kill the process."""
        self.process.kill()

    def _begun_by_another(self) -> bool:
        """Whether another process began and left the run while this one was starting."""
        return has_begun(self.run_dir) and (read_state(self.run_dir) or {}).get("pid") != self.process.pid


def train_command(run: PlannedRun, config: Path) -> list[str]:
    """The command that begins the run with the settings in the file `config`, or goes on with keys that changed."""
    train = [sys.executable, "-m", "trpo_lightning", "train"]
    if not has_begun(run.run_dir):
        return [*train, "--config", str(config), "--run-dir", str(run.run_dir), "--quiet"]
    before, after = recorded_settings(run.run_dir), run.settings
    changed = [key for key in different_keys(before, after) if key.startswith(RESUMABLE)]
    values = [f"{key}={json.dumps(get(after, key))}" for key in changed]
    return [*train, "--resume", str(run.run_dir), *values, "--quiet"]


def die_with_parent() -> None:
    """In a new process: have the kernel kill it with its parent; nobody would watch it then."""
    if _LIBC is not None:
        _LIBC.prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
