"""Optional extras of the package, and the line to type for one that is missing."""

from importlib.util import find_spec

from trpo_lightning.errors import UserError

MODULES: dict[str, tuple[str, ...]] = {
    "envpool": ("envpool",),
    "wandb": ("wandb",),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "trackio": ("trackio",),
    "export": ("safetensors", "onnx", "onnxscript"),
    "hub": ("huggingface_hub",),
    "memory": ("popgym", "minigrid"),
    "ray": ("ray",),
    "slurm": ("submitit",),
}
"""Modules without which what an extra is for does not work."""


def has_extra(extra: str) -> bool:
    """Whether all modules of an extra are installed; none is imported."""
    return all(find_spec(module) is not None for module in MODULES[extra])


def check_extra(extra: str, what: str) -> None:
    """Raise a `UserError` that begins with `what` and says what to install, if an extra is missing."""
    if not has_extra(extra):
        raise UserError(f"{what} needs the extra: pip install 'trpo_lightning[{extra}]'")
