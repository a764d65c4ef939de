"""Barrier files: everything a run needs to continue, bit for bit."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from trpo_lightning.errors import UserError
from trpo_lightning.runs.files import checkpoint_files
from trpo_lightning.settings import BUDGET, RunSettings, changed_keys, from_record, reuses, to_dict
from trpo_lightning.storage.checksummed_file import read, save
from trpo_lightning.storage.files import plain, writing
from trpo_lightning.storage.migrations import FORMAT
from trpo_lightning.training.module import TRPO

REQUIRED = {
    *("iteration", "env_steps", "rejected", "best_evaluation", "settings", "policy", "value_function"),
    *("value_optimizer", "rule", "normalizer", "random", "wandb_run_id"),
}
KEPT = 2
"""How many barrier files a run directory keeps."""


def state_of(module: TRPO, **extra: Any) -> dict[str, Any]:
    """The complete state of a run between two iterations, with `extra` entries added."""
    return plain(
        {
            "format": FORMAT,
            "iteration": module.iteration,
            "env_steps": module.env_steps,
            "rejected": module.rejected,
            "restarts": module.restarts,
            "rejected_in_a_row": module.rejected_in_a_row,
            "best_evaluation": module.best_evaluation,
            "settings": to_dict(module.settings),
            "policy": module.policy.state_dict(),
            "value_function": module.value_function.state_dict(),
            "value_optimizer": module.value_function.optimizer_state(),
            "rule": module.rule.state_dict(),
            "normalizer": module.normalizer.state_dict(),
            **({"past_rollouts": module.reuse.state_dict()} if module.reuse else {}),
            "random": _global_random_state(),
            **extra,
        }
    )


def restore(module: TRPO, state: dict[str, Any]) -> None:
    """Load a state that `state_of` returned into a module made from the same settings."""
    module.policy.load_state_dict(state["policy"])
    module.value_function.load_state_dict(state["value_function"])
    module.value_function.load_optimizer_state(state["value_optimizer"])
    module.rule.load_state_dict(state["rule"])
    module.normalizer.load_state_dict(state["normalizer"])
    if module.reuse:
        module.reuse.load_state_dict(state["past_rollouts"])
    module.iteration, module.env_steps = state["iteration"], state["env_steps"]
    module.restarts = state.get("restarts", 0)  # missing in files older than this counter
    module.rejected_in_a_row = state.get("rejected_in_a_row", 0)  # missing in files older than this counter
    module.rejected, module.best_evaluation = state["rejected"], state["best_evaluation"]
    _restore_global_random_state(state["random"])


def _global_random_state() -> dict[str, Any]:
    """States of the global generators, which third-party code may use; this project draws no numbers from them."""
    version, numbers, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }


def _restore_global_random_state(state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])


def read_checkpoint(path: Path, settings: RunSettings, rows: int) -> dict[str, Any]:
    """Read a barrier file.

    Args:
        path: The file.
        settings: The settings that the run continues with.
        rows: The number of complete rows in `metrics.csv`.

    Returns:
        The run's state.

    Raises:
        UserError: The file is damaged, or belongs to another run: resuming from it would mix two runs.
    """
    state = read(path)
    lacking = REQUIRED - state.keys()
    if lacking:
        raise UserError(f"{path}: is not a barrier file: it lacks {', '.join(sorted(lacking))}")
    try:
        before, after = from_record(state["settings"]), from_record(plain(to_dict(settings)))
        changed = [key for key in changed_keys(before, after) if key not in BUDGET]
        ahead = state["iteration"] > rows
    except (UserError, TypeError) as error:
        raise UserError(f"{path}: was written by another version: {error}") from error
    if changed:
        raise UserError(f"{path}: is a barrier of a run with other settings ({', '.join(changed)})")
    if reuses(settings.rule) and not isinstance(state.get("past_rollouts"), list):
        raise UserError(f"{path}: lacks past_rollouts, the batches that rule.reuse={settings.rule.reuse} needs")
    if ahead:
        raise UserError(f"{path}: is from iteration {state['iteration']}, but metrics.csv has only {rows} whole rows")
    return state


class CheckpointCallback(Checkpoint):
    """Writes a file at each barrier, keeps the last two, and exports the policy as `last.pt` beside them.

    `extra` entries are stored in the file unchanged.
    """

    def __init__(self, folder: Path, **extra: Any) -> None:
        self.folder, self.extra = folder, extra
        self._episodes = 0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Runs after the iteration's row is written, so that the file is never ahead of the records."""
        assert isinstance(pl_module, TRPO)
        self._episodes += pl_module.row["episode/count"]
        if not pl_module.at_barrier():
            return
        for logger in trainer.loggers:
            logger.save()
        save(state_of(pl_module, **self.extra), self.folder / f"barrier_{pl_module.iteration:08d}.ckpt")
        for old in checkpoint_files(self.folder)[KEPT:]:
            with writing(old):
                old.unlink(missing_ok=True)
        pl_module.trained_policy().save(self.folder / "last.pt")
        if not self._episodes and pl_module.spec.max_episode_steps is None:
            print(
                f"warning: env.id={pl_module.settings.env.id} has no time limit, and no episode ended within "
                f"{pl_module.barrier_interval} iterations: set env.max_episode_steps, or each barrier cuts them all"
            )
        self._episodes = 0
