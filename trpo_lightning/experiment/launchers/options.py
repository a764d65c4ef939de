"""Which launcher, and what it is told: from the command line, or from a small YAML file."""

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trpo_lightning.errors import UserError, nearest
from trpo_lightning.settings import RunSettings

LAUNCHERS = ("local", "ray", "slurm")


def _of(*launchers: str, meaning: str) -> dict[str, Any]:
    """Metadata of an option that counts with these launchers only."""
    return {"launchers": launchers, "meaning": meaning}


ADDRESS = "HOST:PORT of the cluster; default: RAY_ADDRESS, or the one that this machine is part of"
SHARED = "all nodes have the folder of --root: nothing is fetched"
NOTICE = "seconds before the limit at which a run is stopped and queued again; default: 90"


@dataclass(frozen=True)
class LauncherOptions:
    """The launcher and its options; each is a key of a launcher's file, and most are flags, too."""

    launcher: str = "local"
    address: str | None = field(default=None, metadata=_of("ray", meaning=ADDRESS))
    shared: bool = field(default=False, metadata=_of("ray", meaning=SHARED))
    cpus: int | None = field(
        default=None, metadata=_of("ray", "slurm", meaning="CPUs declared for each run; default: its threads")
    )
    partition: str | None = field(default=None, metadata=_of("slurm", meaning="default: the cluster's"))
    time: str | int = field(
        default=60, metadata=_of("slurm", meaning="limit of a job: minutes, H:MM:SS or D-HH:MM; default: 60")
    )
    array_size: int = field(default=500, metadata=_of("slurm", meaning="most runs in one job array; default: 500"))
    notice: int = field(default=90, metadata=_of("slurm", meaning=NOTICE))
    setup: list[str] = field(
        default_factory=list, metadata=_of("slurm", meaning="shell commands before each run, such as module load")
    )
    sbatch: dict[str, Any] = field(
        default_factory=dict, metadata=_of("slurm", meaning="more options of sbatch, such as account")
    )

    def __post_init__(self) -> None:
        if self.launcher not in LAUNCHERS:
            raise UserError(
                f"launcher {self.launcher} is not one of {', '.join(LAUNCHERS)}{nearest(self.launcher, [*LAUNCHERS])}, "
                "and there is no such file"
            )
        for name in ("cpus", "array_size", "notice"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise UserError(f"{name}={value!r} is not a positive integer")
        minutes(self.time)
        for item in dataclasses.fields(self)[1:]:
            default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
            if getattr(self, item.name) != default and self.launcher not in item.metadata["launchers"]:
                owners = " or ".join(item.metadata["launchers"])
                raise UserError(f"{_flag(item.name)} counts with --launcher {owners} only, not with {self.launcher}")

    def cpus_of(self, settings: RunSettings) -> int:
        """CPUs that a run declares. Raises `UserError` if it has no number of threads, or more threads than CPUs."""
        if settings.threads is None:
            raise UserError(f"threads=null: a run on a cluster declares its CPUs: give it threads=N ({settings.name})")
        if self.cpus is not None and self.cpus < settings.threads:
            raise UserError(f"--cpus {self.cpus} is too small: {settings.name} has threads={settings.threads}")
        return self.cpus or settings.threads


_KINDS = {"address": str, "shared": bool, "cpus": int, "partition": str, "time": str, "array_size": int, "notice": int}
FLAGS: dict[str, tuple[type, str, str]] = {
    name: (kind, "/".join(item.metadata["launchers"]), item.metadata["meaning"])
    for name, kind in _KINDS.items()
    for item in dataclasses.fields(LauncherOptions)
    if item.name == name
}
"""Options that are flags of the command line, too: their types, launchers and meanings."""


def read_options(launcher: str, flags: dict[str, Any]) -> LauncherOptions:
    """The options of a launcher.

    Args:
        launcher: A launcher's name, or the path of a YAML file with the key `launcher` and others.
        flags: What the command line says, which outweighs the file; None is nothing.

    Raises:
        UserError: An option is unknown, of the wrong type, or of another launcher.
    """
    values: dict[str, Any] = {"launcher": launcher}
    if launcher not in LAUNCHERS and Path(launcher).is_file():
        values = _file(Path(launcher))
    return LauncherOptions(**{**values, **{name: value for name, value in flags.items() if value is not None}})


def minutes(time: str | int) -> int:
    """A time limit in minutes, rounded up: a number of them, or `MM:SS`, `H:MM:SS`, `D-HH`, `D-HH:MM`, `D-HH:MM:SS`."""
    text = str(time).strip()
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if not match or text == "0":
        raise UserError(f"time={time!r} is not a time limit: minutes, H:MM:SS or D-HH:MM")
    days, *parts = match.groups()
    first, second, third = (int(part or 0) for part in parts)
    if days is not None:
        seconds = int(days) * 86400 + first * 3600 + second * 60 + third
    elif parts[2] is not None:
        seconds = first * 3600 + second * 60 + third
    else:
        seconds = first * 60 + second
    return -(-seconds // 60)


def _file(file: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf

    from trpo_lightning.runs.config import read_yaml

    values = OmegaConf.to_container(read_yaml(file))
    hints = {item.name: item.type for item in dataclasses.fields(LauncherOptions)}
    if not isinstance(values, dict) or "launcher" not in values:
        raise UserError(f"{file}: the key launcher is missing: launcher: slurm")
    for key, value in values.items():
        if key not in hints:
            raise UserError(f"{file}: unknown key {key}{nearest(str(key), list(hints))}")
        if not isinstance(value, _types(str(hints[str(key)]))):
            raise UserError(f"{file}: {key}={value!r} is not of type {hints[str(key)]}")
    return {str(key): value for key, value in values.items()}


def _types(hint: str) -> tuple[type, ...]:
    known = {"str": str, "int": int, "bool": bool, "None": type(None), "list": list, "dict": dict}
    return tuple(known[part.partition("[")[0]] for part in hint.replace("<class '", "").replace("'>", "").split(" | "))


def _flag(name: str) -> str:
    return name if name in ("setup", "sbatch") else f"--{name.replace('_', '-')}"
