"""What produced a result: code, versions, machine and command."""

import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "pytorch-lightning", "gymnasium", "mujoco", "envpool", "wandb", "omegaconf", "numpy")


@functools.cache
def git_state() -> dict[str, Any]:
    """Commit, `git describe` and hash of uncommitted changes of the checkout that this code runs from, if there is one.

    The first answer is kept: the code that a process has imported does not change.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return {"commit": None}
    diff = _git(root, "diff", "HEAD") or ""
    return {
        "commit": _git(root, "rev-parse", "HEAD"),
        "describe": _git(root, "describe", "--always", "--dirty", "--tags"),
        "diff_sha256": hashlib.sha256(diff.encode()).hexdigest() if diff else None,
    }


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def started_as(argv: list[str]) -> list[str]:
    """The command as the user would type it: with `-m`, Python puts this machine's absolute path into `argv`."""
    if Path(argv[0]).parts[-2:] == ("trpo_lightning", "__main__.py"):
        return ["python", "-m", "trpo_lightning", *argv[1:]]
    return argv


def provenance(command: list[str] | None = None, **facts: Any) -> dict[str, Any]:
    """A record of this process, for `provenance.json`, a list with an entry for each start of the run."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": command or started_as(sys.argv),
        "git": git_state(),
        "trpo_lightning": importlib.metadata.version("trpo_lightning"),
        "python": platform.python_version(),
        "packages": package_versions(),
        "machine": {
            "platform": platform.platform(),
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "host": platform.node(),
            "told": blas_environment(),
        },
        **facts,
    }


def package_versions() -> dict[str, str | None]:
    """The versions of the packages that decide a run's numbers; None for one that is not installed."""
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def blas_environment() -> dict[str, str]:
    """Variables that tell OpenBLAS and MKL which CPU to assume, which changes bits and speed. Threads are settings."""
    names = [name for name in sorted(os.environ) if name.startswith(("OPENBLAS_", "MKL_")) and "THREADS" not in name]
    return {name: os.environ[name] for name in names}


def cpu_name() -> str:
    """The processor's name, as the operating system reports it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
