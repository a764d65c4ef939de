"""A real Slurm of one node on this machine, for a test: munged, slurmctld and slurmd in a folder of their own."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo")
CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
KillWait=30
MinJobAge=300
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=120 State=UP PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes={host} MaxTime=120 State=UP PriorityTier=9
"""


def slurm_command(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@contextmanager
def slurm_cluster(folder: Path, *prefix: str) -> Iterator[Path]:
    """A cluster whose commands this process and its children find; `prefix` is put before the node's daemon."""
    missing = [program for program in PROGRAMS if _find(program) is None]
    if missing or os.getuid() != 0:
        pytest.skip(f"no Slurm can be started here: {', '.join(missing) or 'only root may'}")
    before = dict(os.environ)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    config = folder / "slurm.conf"
    os.environ.update(SLURM_CONF=str(config), PYTHONPATH=paths, OMP_NUM_THREADS="1")
    daemons: list[subprocess.Popen] = []
    try:
        _start(folder, config, daemons, prefix)
        yield folder
    finally:
        for command in (("scancel", "--signal=KILL", "--me"), ("scancel", "--me")):
            with suppress(OSError, subprocess.SubprocessError):
                slurm_command(*command)
        _wait_for(lambda: not _queue(), 30)
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in reversed(daemons):
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(20)
            daemon.kill()
        os.environ.clear()
        os.environ.update(before)


def _start(folder: Path, config: Path, daemons: list[subprocess.Popen], prefix: tuple[str, ...]) -> None:
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    config.write_text(CONFIG.format(folder=folder, host=host, controller=free_port(), daemon=free_port()))
    files = {"key-file": "key", "socket": "sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munge = [f"--{option}={folder}/munge.{end}" for option, end in files.items()]
    with open(folder / "daemons.log", "a") as log:
        for command in (["munged", "-F", "--force", *munge], ["slurmctld", "-D"], [*prefix, "slurmd", "-D"]):
            path = command[:-2] if prefix and "slurmd" in command else []
            program = [_find(name) or name for name in command[len(path) : len(path) + 1]]
            full = [*path, *program, *command[len(path) + 1 :]]
            daemons.append(subprocess.Popen(full, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
            time.sleep(0.5)
    if not _wait_for(_is_idle, 60):
        log_text = (folder / "daemons.log").read_text()[-500:]
        pytest.skip(f"Slurm does not start here: {log_text or 'it says nothing'}")


def _is_idle() -> bool:
    with suppress(OSError, subprocess.SubprocessError):
        return "idle" in slurm_command("sinfo", "-h", "-o", "%T")
    return False


def _queue() -> str:
    with suppress(OSError, subprocess.SubprocessError):
        return slurm_command("squeue", "-h", "-a")
    return ""


def _find(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
