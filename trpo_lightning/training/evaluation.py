"""Evaluation during training, with its own environments and random numbers, so that it does not affect the run."""

import copy
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from trpo_lightning.environments.backends import open_limit
from trpo_lightning.environments.vector_environment import EnvironmentFailure
from trpo_lightning.errors import UserError
from trpo_lightning.rollouts.episodes import MAX_STEPS_WITHOUT_LIMIT, Episodes, run_episodes
from trpo_lightning.settings import RunSettings, is_over


class EvaluationCallback(pl.Callback):
    """Runs episodes of the deterministic and the stochastic policy on the same seeds, as `evaluation.every` says.

    Of several ranks the first one does, and the others wait.

    Args:
        best_path: Where to export the policy with the best deterministic mean return so far; None exports nothing.
    """

    def __init__(self, best_path: Path | None = None) -> None:
        self.best_path = best_path
        self._told_of_cuts = False

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Evaluate if it is time, and add to the row of the iteration that just ended; `pl_module` is a `TRPO`."""
        del trainer, outputs, batch, batch_idx
        episodes = episodes_now(pl_module.settings, pl_module.iteration, pl_module.env_steps)
        if not episodes:
            return
        began = time.perf_counter()
        mean, stochastic, pl_module.restarts = pl_module.ranks.of_first(
            self._evaluated(pl_module, episodes) if pl_module.ranks.index == 0 else (0.0, 0.0, 0)
        )
        pl_module.log_dict(
            {
                "evaluation/return_mean": mean,
                "evaluation/return_mean_stochastic": stochastic,
                "time/evaluation": time.perf_counter() - began,
            }
        )
        best = pl_module.best_evaluation
        if best is None or mean > best or (math.isnan(best) and not math.isnan(mean)):
            pl_module.best_evaluation = mean
            if self.best_path is not None and pl_module.ranks.index == 0:
                pl_module.trained_policy().save(self.best_path, evaluation_return_mean=mean)

    def _evaluated(self, module: Any, episodes: int) -> tuple[float, float, int]:
        """Mean returns of the deterministic and the stochastic policy, and how often environments were restarted."""
        both = [evaluate(module, episodes, deterministic=deterministic) for deterministic in (True, False)]
        if not self._told_of_cuts and (text := what_was_cut(module, np.concatenate([one.lengths for one in both]))):
            self._told_of_cuts = True
            print(f"warning: {text}")
        mean, stochastic = (float(one.returns.mean()) for one in both)
        return mean, stochastic, module.restarts


def episodes_now(settings: RunSettings, iteration: int, env_steps: int) -> int:
    """Return how many episodes to evaluate after an iteration; 0 for no evaluation."""
    every, last = settings.evaluation.every, is_over(settings, iteration, env_steps)
    if last and settings.evaluation.final_episodes is not None:
        return settings.evaluation.final_episodes
    return settings.evaluation.episodes if every and iteration % every == 0 else 0


def what_was_cut(module: Any, lengths: np.ndarray) -> str:
    """A sentence on episodes that had to be cut, where an environment has no limit and did not end; else empty."""
    cut = 0 if module.spec.max_episode_steps else int(np.count_nonzero(lengths >= MAX_STEPS_WITHOUT_LIMIT))
    if not cut:
        return ""
    return (
        f"evaluation cut {cut} of {len(lengths)} episodes after {MAX_STEPS_WITHOUT_LIMIT:,} steps: "
        f"env.id={module.settings.env.id} has no time limit that is known here; env.max_episode_steps=N sets one"
    )


def evaluate(module: Any, episodes: int, *, deterministic: bool) -> Episodes:
    """Run episodes of a `TRPO`'s current policy; if environments fail, start over with the same seeds.

    If the training environments leave no room for others, they are closed first, and training continues with fresh
    ones, seeded from (seed, iteration), as at a barrier.
    """
    limit, alone = open_limit(module.settings.env), False
    if limit is not None and limit < module.settings.env.num_envs + episodes:
        module.scheme.close()
        alone = True
    policy = module.policy if module.device.type == "cpu" else copy.deepcopy(module.policy).cpu()
    while True:
        try:
            return run_episodes(
                policy,
                module.normalizer,
                module.settings.env,
                module.spec,
                episodes=episodes,
                deterministic=deterministic,
                seed=module.settings.seed,
                iteration=module.iteration,
                threads=module.scheme.threads,
            )
        except EnvironmentFailure as failure:
            module.count_restart(failure)
        except UserError as error:
            if alone or module.ranks.size > 1:
                raise
            module.scheme.close()
            alone = True
            print(
                f"warning: evaluation finds no room for environments of its own ({error}): it closes those of training "
                f"first, which cuts their episodes; env.instances={module.settings.env.num_envs} says so in advance"
            )
