"""W&B's own environment variables, which apply where the settings say nothing."""

import os
from dataclasses import replace
from pathlib import Path

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


def note_other_folder(run_dir: Path) -> None:
    """Print where the client's records are if WANDB_DIR names another folder: resuming looks in the run directory."""
    wanted = variable("DIR")
    if wanted is not None and Path(wanted).resolve() != run_dir.resolve():
        print(f"note: WANDB_DIR is not used: W&B's records are in {run_dir / 'wandb'}, where resuming looks for them")
