"""Separate virtual environments for the libraries that the benchmark compares with, and their command lines."""

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from trpo_lightning.benchmark.processes import MeasurementError

SCRIPTS = Path(__file__).parent / "peer_scripts"
CONSTRAINTS = SCRIPTS / "constraints.txt"


@dataclass(frozen=True)
class Peer:
    """Another library: its name, the packages that pip installs for it, and the script that trains with it."""

    name: str
    packages: tuple[str, ...]
    script: str


SB3 = Peer("sb3-contrib TRPO", ("sb3-contrib", "stable-baselines3", "gymnasium[mujoco]", "torch"), "sb3_trpo.py")
TIANSHOU = Peer("Tianshou TRPO", ("tianshou", "envpool", "gymnasium[mujoco]", "torch"), "tianshou_trpo.py")


def install(peer: Peer, folder: Path) -> None:
    """Make `folder` a virtual environment with `peer`, unless it already is. Raises a one-line `MeasurementError`."""
    stamp = folder / f".{peer.script}.installed"
    wanted = hashlib.sha256(CONSTRAINTS.read_bytes() + " ".join(peer.packages).encode()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    python = folder / "bin" / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(folder)])
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "-c", str(CONSTRAINTS), *peer.packages])
    stamp.write_text(wanted, encoding="utf-8")


def command(peer: Peer, folder: Path, **options: object) -> list[str]:
    """The command line of a peer's script; Python's `-I` hides our packages from it."""
    arguments = [item for key, value in options.items() for item in (f"--{key.replace('_', '-')}", str(value))]
    return [str(folder.resolve() / "bin" / "python"), "-I", str(SCRIPTS / peer.script), *arguments]


def _run(arguments: list[str]) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.startswith("ERROR")] or [done.stderr[-200:]]
        raise MeasurementError(" ".join(lines[-1].split())[:300])
