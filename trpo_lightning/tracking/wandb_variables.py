"""W&B's own environment variables, which hold where the settings say nothing."""

import os
from dataclasses import replace
from pathlib import Path

from trpo_lightning.settings import RunSettings, TrackingSettings

RECORDED = ("MODE", "DISABLED", "PROJECT", "ENTITY", "RUN_GROUP", "TAGS", "NAME")
"""Variables that are taken and recorded, without WANDB_ before them: none of these is a secret."""


def variable(name: str) -> str | None:
    """The text of `WANDB_<name>`; None where it is not set, or empty."""
    return os.environ.get(f"WANDB_{name}", "").strip() or None


def with_variables(settings: RunSettings) -> RunSettings:
    """Settings whose `tracking.*` are W&B's variables where they were at their defaults, so that they are recorded."""
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
    """Whether `WANDB_DISABLED` says so."""
    return (variable("DISABLED") or "").lower() in ("1", "true", "yes", "on")


def recorded_variables() -> dict[str, str]:
    """Those of `RECORDED` that are set."""
    return {f"WANDB_{name}": text for name in RECORDED if (text := variable(name)) is not None}


def note_other_folder(run_dir: Path) -> None:
    """Say where the client's records are, where someone wants them elsewhere: a resumed run looks for them there."""
    wanted = variable("DIR")
    if wanted is not None and Path(wanted).resolve() != run_dir.resolve():
        print(f"note: WANDB_DIR is not used: W&B's records are in {run_dir / 'wandb'}, where resuming looks for them")
