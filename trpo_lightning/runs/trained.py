"""A run directory's trained policy."""

from pathlib import Path

from trpo_lightning.errors import UserError
from trpo_lightning.runs.config import find_named_methods
from trpo_lightning.training.trained_policy import TrainedPolicy, load_file


def load(run_dir: str | Path, which: str = "last") -> TrainedPolicy:
    """The policy of a run directory (`which` is `last` or `best`) or of an exported `.pt` file.

    `last` is the policy at the run's end, or at its latest barrier while it goes on. A class from outside is imported
    where the directory's config.yaml names it. Raises `UserError` where there is no such policy.
    """
    path = Path(run_dir)
    if path.is_file():
        return load_file(path)
    if not path.is_dir():
        raise UserError(f"{run_dir}: is not a run directory")
    file = path / "checkpoints" / f"{which}.pt"
    if file.is_file():
        find_named_methods(path)
        return load_file(file)
    found = sorted(p.stem for p in (path / "checkpoints").glob("*.pt"))
    hint = f"it has {', '.join(found)}" if found else "the run has not got that far"
    raise UserError(f"{run_dir}: has no {which} policy: {hint}")
