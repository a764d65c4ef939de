"""Loads the trained policy of a run directory."""

from pathlib import Path

from trpo_lightning.errors import UserError
from trpo_lightning.runs.config import find_named_methods
from trpo_lightning.storage.portable import is_portable, read_portable
from trpo_lightning.training.trained_policy import TrainedPolicy, is_of_lightning, load_file, policy_of_state


def load(run_dir: str | Path, which: str = "last") -> TrainedPolicy:
    """Load a trained policy for acting. No environment is built, and no code runs that only the file names.

    Args:
        run_dir: A run directory, a folder that `export` wrote, an exported `.pt` file, a checkpoint that a `Trainer` or
            its `ModelCheckpoint` wrote, or a folder with such checkpoints (in it, or in its `checkpoints`), the newest
            of which is taken.
        which: For a run directory, `last` or `best`. `last` is the policy at the run's end, or at its latest barrier
            while it continues. Custom classes are imported only if the directory's config.yaml names them.

    Returns:
        The policy with its normalizers and settings.

    Raises:
        UserError: There is no such policy.
    """
    path = Path(run_dir)
    if path.is_file():
        return load_file(path)
    if not path.is_dir():
        raise UserError(f"{run_dir}: there is no such file or directory")
    if is_portable(path):
        return policy_of_state(read_portable(path), path)
    file = path / "checkpoints" / f"{which}.pt"
    if file.is_file():
        find_named_methods(path)
        return load_file(file)
    of_lightning = [
        file for folder in (path / "checkpoints", path) for file in folder.glob("*.ckpt") if is_of_lightning(file)
    ]
    if of_lightning and which == "last":
        return load_file(max(of_lightning, key=lambda file: file.stat().st_mtime_ns))
    found = sorted(p.stem for p in (path / "checkpoints").glob("*.pt"))
    if not found and not (path / "config.yaml").exists():
        inside = next((file.parent for depth in (1, 2, 3) for file in path.glob("*/" * depth + "config.yaml")), None)
        hint = f": {inside} is one" if inside else ""
        raise UserError(f"{run_dir}: is not a run directory{hint}")
    hint = f"it has {', '.join(found)}" if found else "the run has not got that far"
    if which == "best" and found:
        hint += ", and best comes from evaluations (evaluation.every)"
    raise UserError(f"{run_dir}: has no {which} policy: {hint}")
