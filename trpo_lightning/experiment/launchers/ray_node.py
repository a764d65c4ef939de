"""What happens on a node of a Ray cluster: looking around before the first run, and doing a run."""

import os
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from trpo_lightning.experiment.launchers.launcher import Ending, PlannedRun
from trpo_lightning.experiment.launchers.mirror import Changes, Watched, apply
from trpo_lightning.experiment.launchers.process import RunProcess, die_with_parent
from trpo_lightning.experiment.launchers.versions import check_versions, versions
from trpo_lightning.runs.config import load_settings
from trpo_lightning.storage.file_lock import try_lock

SCRATCH = "trpo_lightning_"
BEFORE = 1
"""The number of the changes that the files of earlier processes are: the other side has sent them."""


def look_around(shared: Path | None) -> tuple[dict[str, str | None], str | None]:
    """A task: the node's versions, and what it reads in a file of the folder that all nodes should have."""
    found = None
    if shared is not None:
        try:
            found = shared.read_text(encoding="utf-8")
        except OSError:
            pass
    return versions(), found


class NodeRun:
    """An actor that owns a run's CPUs and the process that does it.

    Args:
        folder: The run's directory if all nodes have it; otherwise a folder of this node is used, and copied.
        home: The working directory, with the user's modules; None for the one that Ray has prepared.
    """

    def __init__(self, folder: Path | None, home: Path | None) -> None:
        self._folder, self._home = folder, home
        self._scratch: _Scratch | None = None
        self._watched: Watched | None = None
        self._process: RunProcess | None = None

    def is_there(self) -> None:
        """Answer: the actor has a node, with the CPUs that it declares."""

    def begin(
        self, config: str, before: Changes, variables: dict[str, str], expected: dict[str, str | None]
    ) -> tuple[Ending | None, Changes]:
        """Start the run's process, on top of the files of earlier ones; the node may be newer than the first look."""
        check_versions(expected, versions(), f"node {os.uname().nodename}")
        if self._home is not None:
            os.chdir(self._home)
            sys.path.insert(0, str(self._home))
        run_dir = self._folder
        if run_dir is None:
            self._scratch = _Scratch()
            run_dir = self._scratch.folder / "run"
            run_dir.mkdir()
            apply(run_dir, before)
            self._watched = Watched(run_dir)
            self._watched.changes(0)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "config.yaml"
            file.write_text(config, encoding="utf-8")
            run = PlannedRun(load_settings([], file), run_dir)
        self._process = RunProcess(run, variables, die_with_parent)
        return self.poll(BEFORE)

    def poll(self, received: int) -> tuple[Ending | None, Changes]:
        """How the run ended, if it did, and what has changed in its folder."""
        assert self._process is not None
        ending = self._process.poll()  # first: the last changes come with the ending
        return ending, self._watched.changes(received) if self._watched is not None else Changes()

    def stop(self, number: int) -> None:
        """Send a signal to the run."""
        if self._process is not None:
            self._process.stop(number)

    def kill(self) -> None:
        """End the run at once."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the run if it goes on, and remove this node's copy."""
        self.kill()
        if self._process is not None:
            self._process.process.wait()
        if self._scratch is not None:
            self._scratch.remove()


class _Scratch:
    """A folder of this node, locked as long as this process lives; those of processes that were killed are removed."""

    def __init__(self) -> None:
        new = Path(tempfile.mkdtemp(prefix=f".{SCRATCH}"))
        self._lock = open(new / "lock", "w")
        try_lock(self._lock)
        self.folder = new.rename(new.with_name(new.name.removeprefix(".")))
        for lock in self.folder.parent.glob(f"{SCRATCH}*/lock"):
            with suppress(OSError), open(lock) as file:
                if try_lock(file):
                    shutil.rmtree(lock.parent, ignore_errors=True)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()
