"""W&B's own environment variables, which apply where the settings say nothing."""

import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from trpo_lightning.settings import RunSettings, TrackingSettings

RECORDED = ("MODE", "DISABLED", "PROJECT", "ENTITY", "RUN_GROUP", "TAGS", "NAME")
"""Variables that are used and recorded, without their prefix WANDB_; none of them is a secret."""


def variable(name: str) -> str | None:
    """The text of `WANDB_<name>`, or None if it is unset or empty."""
    return os.environ.get(f"WANDB_{name}", "").strip() or None


def with_variables(settings: RunSettings) -> RunSettings:
    """Fill `tracking.*` settings left at their defaults from W&B's variables, so that the values are recorded."""
    tracking, default = settings.tracking, TrackingSettings()
    found = {
        "project": variable("PROJECT"),
        "entity": variable("ENTITY"),
        "group": variable("RUN_GROUP"),
        "tags": [tag.strip() for tag in (variable("TAGS") or "").split(",") if tag.strip()],
    }
    left = [name for name in found if getattr(tracking, name) == getattr(default, name)]
    taken = {name: found[name] for name in left if found[name]}
    return replace(settings, tracking=replace(tracking, **taken)) if taken else settings


def disabled() -> bool:
    """Whether `WANDB_DISABLED` turns W&B off."""
    return (variable("DISABLED") or "").lower() in ("1", "true", "yes", "on")


def recorded_variables() -> dict[str, str]:
    """The variables of `RECORDED` that are set, with their text."""
    return {f"WANDB_{name}": text for name in RECORDED if (text := variable(name)) is not None}


def records_folder(run_dir: Path) -> Path:
    """The folder below which the client records: WANDB_DIR, or else the run directory.

    WANDB_DIR is made if it is not there. Where it cannot be used, a line says so and the run directory is: resuming
    looks for records there, and finds those elsewhere by links (see `link_records`).
    """
    wanted = variable("DIR")
    if wanted is None or Path(wanted).resolve() == run_dir.resolve():
        return run_dir
    try:
        folder = Path(wanted).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as there, TemporaryDirectory(dir=run_dir) as here:
            Path(here, "link").symlink_to(there, target_is_directory=True)
    except OSError as error:
        print(f"note: WANDB_DIR={wanted} is not used ({error}): W&B's records are in {run_dir / 'wandb'}")
        return run_dir
    return folder


def link_records(recording: Path, run_dir: Path) -> None:
    """Have the run directory list a recording that lies elsewhere, under its name."""
    link = run_dir / "wandb" / recording.name
    if recording.is_dir() and not link.exists():
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(recording.resolve(), target_is_directory=True)
