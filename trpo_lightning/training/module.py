"""TRPO as a LightningModule: collecting a rollout is the data step, the policy update is `training_step`."""

import copy
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from trpo_lightning.environments.backends import describe_environment
from trpo_lightning.environments.cautions import cautions
from trpo_lightning.environments.supervised.deadline import EnvironmentFailure
from trpo_lightning.environments.user_code import adopt
from trpo_lightning.errors import StuckError, UserError
from trpo_lightning.numerics.returns import explained_variance
from trpo_lightning.policies.policy import Policy, build_policy
from trpo_lightning.randomness import Stream, torch_generator
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.rollouts.rollout import AnyBatch, Rollout
from trpo_lightning.rollouts.schemes import build_scheme
from trpo_lightning.rules import build_rule
from trpo_lightning.rules.rule import ParameterUpdate, RuleResult, apply_rule
from trpo_lightning.settings import RunSettings, from_keywords, is_over, progress
from trpo_lightning.training.background_task import BackgroundTask
from trpo_lightning.training.batches import ValueData, make_batch
from trpo_lightning.training.failed_update import FailedUpdate, collected_arrays, leave_failed_update
from trpo_lightning.training.metrics import METRICS
from trpo_lightning.training.rollout_loader import RolloutLoader
from trpo_lightning.training.row import episode_metrics, log_row
from trpo_lightning.training.theory import theory_metrics
from trpo_lightning.training.third_party_messages import quiet_warnings
from trpo_lightning.training.trained_policy import IN_CHECKPOINT, TrainedPolicy
from trpo_lightning.values import build_value_function

EPISODES_BETWEEN_BARRIERS = 5
ITERATIONS_BETWEEN_BARRIERS = 50
"""Barrier interval where the environment has no time limit to derive it from."""

OF_SETTINGS = object()
"""In place of an environment: the one that settings name. (`None` is what a forgotten variable holds.)"""


class TRPO(pl.LightningModule):
    """Trust-region policy optimization (Schulman et al. 2015) with GAE (Schulman et al. 2016).

    `TRPO("Hopper-v5", delta=0.02)`: an environment as an id, a class, a function, an instance or a `gymnasium.spec`
    (`environments.user_code.adopt` says what becomes of each), and settings by keyword, with the defaults of the
    command line; a group as a dict, `policy={"hidden_sizes": [32]}`. One Lightning epoch is one iteration, so
    `max_epochs` counts iterations; training also ends at `total_env_steps`. Raises `UserError` for settings or
    environments that cannot work; `fit` raises `StuckError` after `rule.max_rejections` rejected updates in a row, with
    a file for `replay` in `default_root_dir`.
    """

    def __init__(self, environment: Any = OF_SETTINGS, *, settings: RunSettings | None = None, **keywords: Any) -> None:
        super().__init__()
        if settings is None:
            settings = from_keywords(**keywords)
            if environment is not OF_SETTINGS:
                adopt(environment, settings.env)
        elif environment is not OF_SETTINGS or keywords:
            raise UserError("give TRPO either settings, or an environment and keywords")
        self.settings = settings
        self.automatic_optimization = False
        self.spec = describe_environment(settings.env, restorable=settings.rollout.scheme == "vine")
        self.policy: Policy = build_policy(
            self.spec.observation_shape,
            self.spec.actions,
            settings.policy,
            torch_generator(settings.seed, Stream.POLICY_INIT),
        )
        self.value_function = build_value_function(
            self.spec.observation_shape, settings.value, torch_generator(settings.seed, Stream.VALUE_INIT)
        )
        self.normalizer = Normalizer(self.spec.observation_shape, settings.normalize)
        self.rule = build_rule(settings.rule)
        threads = settings.threads or torch.get_num_threads()
        self.scheme = build_scheme(settings, self.spec, threads, self.rule.propose)
        self.iteration = 0
        self.env_steps = 0
        self.restarts = 0
        self.rejected = 0
        self.rejected_in_a_row = 0
        self.failed_update: FailedUpdate | None = None
        """The rejected update that ended training, if one has."""
        self.best_evaluation: float | None = None
        self.rows_may_wait = False
        """Whether loggers may get a row an iteration late, with all its numbers; callbacks of others could not."""
        self.row: dict[str, Any] = {}
        self._fit: BackgroundTask[float] | None = None
        self._row_began = time.perf_counter()

    @property
    def barrier_interval(self) -> int:
        """Iterations between barriers, at which episodes are cut and a run can be resumed; 0 is never."""
        if self.settings.checkpoint.every is not None:
            return self.settings.checkpoint.every
        if self.spec.max_episode_steps is None:
            return ITERATIONS_BETWEEN_BARRIERS
        return math.ceil(EPISODES_BETWEEN_BARRIERS * self.spec.max_episode_steps / self.scheme.steps)

    def at_barrier(self) -> bool:
        """Whether the state between two iterations, now, is one that a run can be resumed from."""
        return self.barrier_interval > 0 and self.iteration % self.barrier_interval == 0

    @property
    def stuck(self) -> bool:
        """Whether so many updates in a row were rejected that the run stops."""
        limit = self.settings.rule.max_rejections
        return limit is not None and self.rejected_in_a_row >= limit

    def setup(self, stage: str) -> None:
        """Refuse trainers that would change the algorithm in silence."""
        quiet_warnings()
        for line in cautions(self.settings, self.spec):
            print(f"warning: {line}")
        if self.trainer.world_size > 1:
            raise UserError(
                f"one device a run, not {self.trainer.world_size}: use Trainer(devices=1) and more environments"
            )
        if self.trainer.precision != "32-true":
            raise UserError(f"Trainer(precision={self.trainer.precision!r}): the update needs 32-true")

    def configure_optimizers(self) -> ParameterUpdate:
        """The policy's update, Lightning's one counted step; the value function keeps its own optimizer."""
        return ParameterUpdate(self.policy)

    def train_dataloader(self) -> RolloutLoader:
        """One rollout an epoch."""
        return RolloutLoader(self.collect)

    def collect(self) -> Rollout:
        """A rollout with the policy as it is now, in fresh environments at barriers and after failures."""
        policy = self.policy
        if self.device.type != "cpu":
            policy = copy.deepcopy(policy).cpu()
        attempt = 0
        while True:
            try:
                if attempt or self.at_barrier():
                    self.scheme.restart(self.iteration, attempt)
                return self.scheme.collect(policy, self.normalizer, self.iteration)
            except EnvironmentFailure as failure:
                self.complete()
                self.count_restart(failure)
                attempt += 1
            except BaseException:
                self.complete()
                raise

    def count_restart(self, failure: EnvironmentFailure) -> None:
        """Count one restart of environments that failed; raises the failure where `env.restarts` are used up."""
        if self.restarts >= self.settings.env.restarts:
            raise failure
        self.restarts += 1
        print(f"warning: {failure}; restart {self.restarts} of {self.settings.env.restarts}")

    def transfer_batch_to_device(self, batch: Rollout, device: torch.device, dataloader_idx: int) -> Rollout:
        """Rollouts stay arrays on the CPU; what the update needs of them goes to the device in `training_step`."""
        return batch

    def on_train_start(self) -> None:
        """Start the clock of the first row."""
        self._row_began = time.perf_counter()

    def training_step(self, rollout: Rollout, batch_idx: int = 0) -> None:
        """One update from one rollout."""
        # ---- 1. advantages, with the value function from before this iteration's fit
        waited = self.complete()
        began = time.perf_counter()
        estimated = make_batch(rollout, self.value_function, self.settings, self.device)
        batch, data = estimated.batch, estimated.value_data
        seconds = {**rollout.seconds, "advantages": time.perf_counter() - began}

        # ---- 2. policy: the rule's new parameters, written by the one step that Lightning counts
        generator = self._update_generator(self.iteration)
        self.rule.progress = progress(self.settings, self.iteration, self.env_steps)
        result = apply_rule(self.rule, self.policy, batch, generator)
        self.optimizers().step(lambda: result.theta)  # type: ignore[union-attr]
        seconds |= result.seconds

        # ---- 3. value function, where it can be beside what follows
        began = time.perf_counter()
        value_metrics = self._fit_values(data) if data is not None else {}
        seconds["value_fit"] = waited + time.perf_counter() - began

        # ---- 4. normalizers and records
        self.normalizer.merge(*rollout.statistics())
        self.iteration += 1
        self.env_steps += rollout.env_steps
        self._count_rejection(rollout, batch, result)
        self.row = {
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            **episode_metrics(rollout),
            **result.metrics,
            **theory_metrics(self.policy, batch),
            "update/rejected": self.rejected,
            "update/rejection_reason": result.rejection_reason,
            **value_metrics,
            **{f"time/{name}": value for name, value in seconds.items() if f"time/{name}" in METRICS},
            "time/steps_per_second": rollout.env_steps,  # divided by the row's seconds when these are known
        }
        if self.stuck or is_over(self.settings, self.iteration, self.env_steps):
            self.trainer.should_stop = True
        if self.trainer.should_stop or self.at_barrier():
            self.row["time/value_fit"] += self._finish_fit()

    @property
    def fits_beside(self) -> bool:
        """Whether the value function is fitted beside the next rollout, which does not need it.

        Where `rows_may_wait`, with a core to spare, for a fit that takes but one.
        """
        return self.rows_may_wait and self.scheme.threads > 1 and self.value_function.fits_on_one_thread

    def _fit_values(self, data: ValueData) -> dict[str, Any]:
        generator = torch_generator(self.settings.seed, Stream.VALUE_FIT, self.iteration)
        task = partial(self.value_function.fit, data.observations, data.targets, generator)
        explained = {"value/explained_variance": explained_variance(data.values, data.targets)}
        if not self.fits_beside:
            return {"value/loss": task(), **explained}
        self._fit = BackgroundTask(task)
        return {"value/loss": None, **explained}

    def _finish_fit(self) -> float:
        """Seconds that the fit was waited for, 0 where none goes on."""
        began = time.perf_counter()
        if self._fit is not None:
            fit, self._fit = self._fit, None
            self.row["value/loss"] = fit.wait()
        return time.perf_counter() - began

    def complete(self) -> float:
        """Finish the value function's fit, if one goes on, and hand out its row; returns the seconds of waiting.

        Done before barriers, further updates and the end; who reads the value function elsewhere calls it first.
        """
        if self._fit is None:
            return 0.0
        seconds = self._finish_fit()
        self._log_row()
        return seconds

    def _count_rejection(self, rollout: Rollout, batch: AnyBatch, result: RuleResult) -> None:
        """Count the iteration's rejection, if it is one; keep the one that stops the run, for `replay`."""
        if result.rejection_reason is None:
            self.rejected_in_a_row = 0
            return
        self.rejected += 1
        self.rejected_in_a_row += 1
        if self.stuck:  # a rejected update has left policy and rule as they were before it
            self.failed_update = FailedUpdate(
                settings=self.settings,
                iteration=self.iteration,
                spec=self.spec,
                policy=self.policy,
                batch=batch,
                rule_state=self.rule.state_dict(),
                progress=self.rule.progress,
                generator_seed=self._update_generator(self.iteration - 1).initial_seed(),
                threads=torch.get_num_threads(),
                reason=result.rejection_reason,
                metrics=result.metrics,
                collected=collected_arrays(rollout),
            )

    def _update_generator(self, iteration: int) -> torch.Generator:
        return torch_generator(self.settings.seed, Stream.FISHER_SUBSET, iteration)

    def trained_policy(self) -> TrainedPolicy:
        """The policy as it is now, with its normalizer: what acts, and what is saved."""
        return TrainedPolicy(self.policy, self.normalizer, self.settings, self.spec, self.iteration, self.env_steps)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Close the row, after callbacks have added theirs."""
        self.row["env/restarts"] = self.restarts
        now = time.perf_counter()
        total, self._row_began = now - self._row_began, now
        known = ("collect", "advantages", "gradient", "cg", "line_search", "value_fit", "evaluation")
        self.row["time/overhead"] = total - sum(self.row.get(f"time/{name}", 0.0) for name in known)
        self.row["time/steps_per_second"] /= total
        if self._fit is None:
            self._log_row()

    def _log_row(self) -> None:
        log_row(self.trainer, self.row, self.iteration)

    def on_train_end(self) -> None:
        """Close the environments. Raises `StuckError` where rejections ended training, with a file of the last."""
        self.complete()
        self.scheme.close()
        if self.stuck:
            raise StuckError(self.leave_failed_update(Path(self.trainer.default_root_dir)))

    def leave_failed_update(self, folder: Path) -> str:
        """Write the rejected update that ended training; says where it is and what to do."""
        return leave_failed_update(folder, self.iteration, self.rejected_in_a_row, self.failed_update)

    def state_dict(self, *arguments: Any, **keywords: Any) -> Any:
        """As of any module, after a value fit that goes on."""
        self.complete()
        return super().state_dict(*arguments, **keywords)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put in what `trpo_lightning.load` needs to act from a checkpoint of Lightning's."""
        checkpoint[IN_CHECKPOINT] = self.trained_policy().state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse Lightning's own checkpoints: they lack normalizers' timing, environments and random streams."""
        raise UserError(
            "a Lightning checkpoint is an export and cannot be resumed exactly: act with trpo_lightning.load(path), "
            "resume from a run directory (python -m trpo_lightning train --resume RUN_DIR)"
        )
