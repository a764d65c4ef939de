"""Runs on a Ray cluster, each by an actor that declares its CPUs; files are fetched while the run goes on."""

import logging
import os
import signal
import socket
import sys
import threading
import time
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trpo_lightning.errors import BusyError, UserError
from trpo_lightning.experiment.launchers.launcher import Ending, Job, PlannedRun
from trpo_lightning.experiment.launchers.mirror import Changes, apply, contents
from trpo_lightning.experiment.launchers.options import LauncherOptions
from trpo_lightning.experiment.launchers.ray_node import BEFORE, NodeRun, look_around
from trpo_lightning.experiment.launchers.versions import check_versions, versions
from trpo_lightning.runs.config import config_text
from trpo_lightning.runs.lock import locked
from trpo_lightning.settings import RunSettings, get, keys

PASSED_ON = ("WANDB_", "MLFLOW_", "TRACKIO_", "OPENBLAS_", "MKL_", "MUJOCO_", "PYOPENGL_")
"""Beginnings of the environment variables that runs get; folders of this machine are none of theirs."""
OF_THIS_MACHINE = ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")
FETCH_SECONDS = 1.0
"""Pause between two looks at a run."""
ANSWER_SECONDS = 60.0
"""How long a node may take to say what it has installed, which the first time means importing it."""
CONNECT_SECONDS = 5.0
NOT_SENT = [".venv*", ".git", "__pycache__", "*.ckpt", "*.pt", "wandb", "mlruns"]
"""What is not sent to the nodes of a working directory that has modules of the user's."""


class RayLauncher:
    """Hands runs to a Ray cluster that exists, all at once unless `jobs` limits them."""

    def __init__(self, options: LauncherOptions, settings: list[RunSettings], root: Path, jobs: int | None) -> None:
        self.options, self.root, self.capacity = options, root, jobs or sys.maxsize
        self.cpus = max(options.cpus_of(each) for each in settings)
        self.address = options.address or os.environ.get("RAY_ADDRESS") or "auto"
        self.sends_modules = not options.shared and any(map(_names_own_module, settings))
        self._jobs: list[_RayJob] = []
        self._connected_here = False

    def __enter__(self) -> Self:
        self._connect()
        try:
            self._check_nodes()
        except BaseException:
            self._disconnect()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for job in self._jobs:
            job.abandon()
        self._disconnect()

    def adopts(self, run_dir: Path) -> bool:
        """Never: runs end with the process that started them."""
        return False

    def start(self, runs: list[PlannedRun]) -> list[Job]:
        """Queue an actor for each run."""
        jobs = [_RayJob(run, self.options) for run in runs]
        self._jobs += jobs
        return [*jobs]

    def _connect(self) -> None:
        if ray.is_initialized():
            return
        _check_that_someone_listens(self.address)
        environment = {"working_dir": str(Path.cwd()), "excludes": [*NOT_SENT, str(self.root)]}
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                self.address,
                logging_level=logging.CRITICAL,
                log_to_driver=False,
                runtime_env=environment if self.sends_modules else None,
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise UserError(
                f"no Ray cluster can be used at {self.address}: {_text(error)}: start one with `ray start --head`, "
                "and give its --address"
            ) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # Ray installs a handler of its own
        self._connected_here = True

    def _disconnect(self) -> None:
        closing = [job.closing for job in self._jobs if job.closing is not None]
        if closing:
            with suppress(RayError):
                ray.wait(closing, num_returns=len(closing), timeout=CONNECT_SECONDS)
        if self._connected_here:
            ray.shutdown()

    def _check_nodes(self) -> None:
        """Raise a `UserError` if no node is large enough, or one has other versions, or another folder."""
        cpus = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]}
        largest = max(cpus.values(), default=0)
        nodes = {_name(node): node for node in ray.nodes() if 0 < cpus.get(node["NodeID"], 0)}
        if largest < self.cpus:
            raise UserError(
                f"each run asks for {self.cpus} CPUs, and the largest node of the Ray cluster at {self.address} has "
                f"{largest}: give fewer threads=N or --cpus N, or add a node"
            )
        probe = _Probe(self.root) if self.options.shared else None
        try:
            for name, (there, found) in self._answers(nodes, probe.file if probe else None).items():
                check_versions(versions(), there, name)
                if probe is not None and found != probe.text:
                    raise UserError(
                        f"--root {self.root} is not shared with {name}: give a folder that all nodes have, or leave "
                        "out --shared to have the results fetched"
                    )
        finally:
            if probe is not None:
                probe.file.unlink()

    def _answers(self, nodes: dict[str, Any], file: Path | None) -> dict[str, tuple[dict[str, str | None], str | None]]:
        """What `look_around` says on each node."""
        look = ray.remote(num_cpus=0, max_retries=0)(look_around)
        places = {name: NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for name, node in nodes.items()}
        asked = {name: look.options(scheduling_strategy=place).remote(file) for name, place in places.items()}
        answers = {}
        for name, answer in asked.items():
            try:
                answers[name] = ray.get(answer, timeout=ANSWER_SECONDS)
            except GetTimeoutError as error:
                raise UserError(f"{name} does not answer within {ANSWER_SECONDS:.0f} s: remove it") from error
            except RayError as error:
                raise UserError(f"{name} cannot do runs: {_text(error)}") from error
        return answers


class _RayJob:
    """An actor, and the question that it has not answered yet; the first is whether it has a node."""

    started = False

    def __init__(self, run: PlannedRun, options: LauncherOptions) -> None:
        self._run, self._shared, self.closing = run, options.shared, None
        folder, home = (run.run_dir.resolve(), Path.cwd()) if options.shared else (None, None)
        cpus = options.cpus_of(run.settings)
        self._actor: Any = ray.remote(NodeRun).options(num_cpus=cpus, scheduling_strategy="SPREAD").remote(folder, home)
        self._answer: Any = self._actor.is_there.remote()
        self._ask_at, self._received = 0.0, BEFORE
        self._lock = ExitStack()
        self._ending: Ending | None = None

    def poll(self) -> Ending | None:
        """Take the actor's answer, if there is one, and write what it has sent."""
        if self._ending is not None or not self._has_answer():
            return self._ending
        ending = None
        try:
            answer, self._answer = ray.get(self._answer), None
            if not self.started:
                self._begin()
                return None
            ending, changes = answer
            apply(self._run.run_dir, changes)
            self._received = changes.number
        except ActorUnavailableError:
            self._answer = None
        except RayActorError as error:
            ending = Ending(1, _what_was_lost(error), again=True, lost=True)
        except RayTaskError as error:
            ending = Ending(1, _text(error))
        except BusyError as error:
            ending = Ending(error.exit_code)
        self._ask_at = time.monotonic() + FETCH_SECONDS
        if ending is not None:
            self._end(ending)
        return ending

    def _begin(self) -> None:
        """The actor has a node: from now on the run is this process's, and the files of earlier ones go there."""
        before = Changes()
        if not self._shared:
            self._lock.enter_context(locked(self._run.run_dir))
            before = contents(self._run.run_dir)
        config, variables = config_text(self._run.settings), _variables(self._shared)
        self._answer = self._actor.begin.remote(config, before, variables, versions())
        self.started = True

    def stop(self, number: int) -> None:
        """Have SIGTERM sent: Ray's workers ignore SIGINT, and so do their children."""
        if self.started:
            self._actor.stop.remote(signal.SIGTERM)
        else:
            self._give_up(number)

    def kill(self) -> None:
        """Kill the run's process."""
        if self.started and self._ending is None:
            self._actor.kill.remote()
        else:
            self._give_up(signal.SIGKILL)

    def abandon(self) -> None:
        """Kill the run, if it has not ended, and clear its node up."""
        if self._ending is None:
            self._end(Ending(-signal.SIGKILL)) if self.started else self._give_up(signal.SIGKILL)

    def _has_answer(self) -> bool:
        """Whether the actor has answered; asks it anew after a pause."""
        if self._answer is None and time.monotonic() >= self._ask_at:
            self._answer = self._actor.poll.remote(self._received)
        return self._answer is not None and bool(ray.wait([self._answer], timeout=0)[0])

    def _give_up(self, number: int) -> None:
        """Take the actor back, which waits for a node."""
        if self._ending is None:
            ray.kill(self._actor)
            self._end(Ending(-number))

    def _end(self, ending: Ending) -> None:
        self._ending = ending
        if self.started and not ending.lost:
            self.closing = self._actor.close.remote()
        self._actor = None  # Ray ends an actor that nobody can call any more, after what it was told
        self._lock.close()


class _Probe:
    """A file with an unlikely text, in the folder of all runs or where that will be."""

    def __init__(self, root: Path) -> None:
        folder = next(path for path in (root.resolve(), *root.resolve().parents) if path.is_dir())
        self.text, self.file = uuid.uuid4().hex, folder / f".shared_{os.getpid()}"
        self.file.write_text(self.text, encoding="utf-8")


def _check_that_someone_listens(address: str) -> None:
    """Raise a `UserError` at once where Ray would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise UserError(f"--address {address} is not HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(
            f"there is no Ray cluster at {address} ({error.strerror or error}): start one with `ray start --head`, or "
            "correct --address"
        ) from error


def _names_own_module(settings: RunSettings) -> bool:
    """Whether a setting names something in a module that lies in the working directory."""
    values = [get(settings, key) for key in keys(settings)]
    texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
    modules = [text.partition(":")[0].partition(".")[0] for text in texts if isinstance(text, str) and ":" in text]
    return any(Path(f"{module}.py").is_file() or Path(module, "__init__.py").is_file() for module in modules if module)


def _variables(shared: bool) -> dict[str, str]:
    """Environment variables for runs; `PYTHONPATH` means the same where all have the same files."""
    chosen = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    if shared:
        return {**chosen, **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}}
    return {name: value for name, value in chosen.items() if name not in OF_THIS_MACHINE}


def _name(node: dict[str, Any]) -> str:
    return f"node {node['NodeManagerHostname']} ({node['NodeID'][:8]})"


def _what_was_lost(error: Exception) -> str:
    text = " ".join(str(error).lower().split())
    if "out of memory" in text or "oom" in text:
        return "its node ran out of memory"
    return "its node was lost" if "node" in text else "its worker was lost"


def _text(error: Exception) -> str:
    """The part of an exception that Ray has wrapped which says what is wrong."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, UserError):
        return str(cause)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return (lines or [type(cause).__name__])[-1]
