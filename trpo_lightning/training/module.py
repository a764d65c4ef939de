"""TRPO as a LightningModule: the data step collects a rollout, and `training_step` updates the policy."""

import copy
import math
from pathlib import Path
from typing import Any

import torch

from trpo_lightning.environments.backends import describe_environment
from trpo_lightning.environments.user_code import adopt, registered_id
from trpo_lightning.environments.vector_environment import EnvironmentFailure
from trpo_lightning.errors import StuckError, UserError
from trpo_lightning.policies.policy import Policy, build_policy
from trpo_lightning.randomness import Stream, global_generators, torch_generator
from trpo_lightning.ranks import ONE, Ranks
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.rollouts.rollout import AnyBatch, Rollout, SinglePathRollout
from trpo_lightning.rollouts.schemes import build_scheme
from trpo_lightning.rules import build_rule
from trpo_lightning.rules.rule import ParameterUpdate, RuleResult, apply_rule
from trpo_lightning.settings import RunSettings, check_ranks, from_keywords, is_over, progress
from trpo_lightning.threads import available_cores, default_threads
from trpo_lightning.training.batches import Estimate, ValueData, make_batch
from trpo_lightning.training.failed_update import FailedUpdate, capture, leave_failed_update
from trpo_lightning.training.iteration_log import IterationLog, Stopwatch
from trpo_lightning.training.lightning_habits import LightningHabits
from trpo_lightning.training.reuse.diagnostics import reuse_metrics
from trpo_lightning.training.reuse.memory import build_reuse
from trpo_lightning.training.rollout_loader import RolloutLoader
from trpo_lightning.training.theory import theory_metrics
from trpo_lightning.training.trained_policy import Session, TrainedPolicy
from trpo_lightning.training.trainer_checks import hyperparameters
from trpo_lightning.training.value_fit import ValueFit
from trpo_lightning.values import build_value_function

EPISODES_BETWEEN_BARRIERS = 5
ITERATIONS_BETWEEN_BARRIERS = 50
"""Barrier interval where the environment has no time limit to derive it from."""

OF_SETTINGS = object()
"""Default for `environment`: use the one that settings name. (`None` may be a variable someone forgot to set.)"""


class TRPO(LightningHabits):
    """Trust-region policy optimization (Schulman et al. 2015) with GAE (Schulman et al. 2016).

    For example `TRPO("Hopper-v5", delta=0.02)`. One Lightning epoch is one iteration, so `max_epochs` counts
    iterations; training also ends at `total_env_steps`.

    Args:
        environment: An id, a class, a function, an instance or a `gymnasium.spec`; `environments.user_code.adopt`
            describes how each is used.
        settings: A complete `RunSettings`, in place of an environment and keywords.
        **keywords: Settings by name, with the same defaults as on the command line; a group is a dict, such as
            `policy={"hidden_sizes": [32]}`.

    Raises:
        UserError: The settings or the environment cannot work.
        StuckError: Raised by `fit` after `rule.max_rejections` rejected updates in a row; a file for `replay` is in
            `default_root_dir`.
    """

    def __init__(self, environment: Any = OF_SETTINGS, *, settings: RunSettings | None = None, **keywords: Any) -> None:
        super().__init__()
        if settings is None:
            named = registered_id(environment)  # which keys there are depends on it
            settings = from_keywords(**{**keywords, **({"env.id": named} if named else {})})
            if environment is not OF_SETTINGS:
                adopt(environment, settings.env)
        elif environment is not OF_SETTINGS or keywords:
            raise UserError("give TRPO either settings, or an environment and keywords")
        self.settings = settings
        self.save_hyperparameters(hyperparameters(settings))
        self.automatic_optimization = False
        with global_generators(settings.seed, Stream.GLOBAL):
            self.spec = describe_environment(settings.env, restorable=settings.rollout.scheme == "vine")
        self.policy: Policy = build_policy(
            self.spec.observation_shape,
            self.spec.actions,
            settings.policy,
            torch_generator(settings.seed, Stream.POLICY_INIT),
        )
        self.value_function = build_value_function(
            self.spec.observation_shape, settings.value, torch_generator(settings.seed, Stream.VALUE_INIT), self.policy
        )
        self.normalizer = Normalizer(self.spec.observation_shape, settings.normalize)
        self.rule = build_rule(settings.rule)
        self.reuse = build_reuse(settings, self.normalizer.layout)
        self.ranks = ONE
        threads = settings.threads or default_threads()
        self.scheme = build_scheme(settings, self.spec, threads, self.rule.propose)
        self.iteration = 0
        self.env_steps = 0
        self.restarts = 0
        self.rejected = 0
        self.rejected_in_a_row = 0
        self.failed_update: FailedUpdate | None = None
        """The rejected update that ended training, if any."""
        self.best_evaluation: float | None = None
        self.rows_may_wait = False
        """Whether loggers may get a row, with all its numbers, an iteration late; third-party callbacks may not."""
        self.iteration_log = IterationLog()
        self._fit: ValueFit | None = None

    def join(self, ranks: Ranks) -> None:
        """Train together with other processes from the next `fit` on, each with its share of environments and cores.

        All begin where the first one is. Raises `UserError` if the settings do not allow it.
        """
        check_ranks(self.settings, ranks.size)
        if self.normalizer.layout.images:
            env = self.settings.env.id
            raise UserError(f"env.id={env} has images, which do not go with devices={ranks.size}: use devices=1")
        ranks.check_versions()
        self.ranks = self.normalizer.ranks = ranks
        cores = (self.settings.threads or available_cores()) // ranks.on_this_machine
        self.scheme.threads = max(1, min(cores, torch.get_num_threads()))
        torch.set_num_threads(self.scheme.threads)
        self.scheme.join(ranks)
        self.load_state_dict(ranks.of_first(self.state_dict()))  # layers are drawn by a thread-dependent algorithm

    # The loop. Lightning asks `train_dataloader` for a batch, which is `collect`, and gives it to `training_step`;
    # then it calls `on_train_batch_end` and `on_train_epoch_end`, each after the callbacks' own.

    def train_dataloader(self) -> RolloutLoader:
        """Return a loader that collects one rollout per epoch."""
        return RolloutLoader(self.collect)

    def collect(self) -> Rollout:
        """Collect a rollout with the current policy, in fresh environments at barriers and after failures.

        Global generators are seeded again in each iteration, so that what an environment draws from them depends only
        on the iteration, not on what a logger, a callback or a resumed process has drawn before.
        """
        policy = self.policy
        if self.device.type != "cpu":
            policy = copy.deepcopy(policy).cpu()
        attempt = 0
        while True:
            try:
                own = attempt * self.ranks.size + self.ranks.index
                with global_generators(self.settings.seed, Stream.GLOBAL, self.iteration, own):
                    if attempt or self.at_barrier():
                        with self.ranks.together(EnvironmentFailure):
                            self.scheme.restart(self.iteration, attempt)
                    return self.scheme.collect(policy, self.normalizer, self.iteration)
            except EnvironmentFailure as failure:
                self.complete()
                self.count_restart(failure)
                attempt += 1
            except BaseException:
                self.complete()
                raise

    def training_step(self, rollout: Rollout, batch_idx: int = 0) -> None:
        """Run one iteration on the rollout from `collect`: update the policy, fit the value function, log."""
        stopwatch = Stopwatch()
        with stopwatch.time("value_fit"):
            self.iteration_log.close()
            self.complete()

        # ---- 1. estimate: advantages and value targets, with the value function from before this iteration's fit
        with stopwatch.time("advantages"):
            estimated = self.estimate(rollout)

        # ---- 2. update: the rule's new parameters, written by the one optimizer step that Lightning counts
        result = self.update(estimated.batch)
        self.optimizers().step(theta=result.theta)  # type: ignore[union-attr]

        # ---- 3. fit: the value function, in the background where that is possible
        with stopwatch.time("value_fit"):
            self._fit = self.fit_values(estimated.value_data) if estimated.value_data else None

        # ---- 4. merge: normalizers use this rollout's statistics from the next one on; further updates its transitions
        if self.reuse:
            self.reuse.keep(estimated.mixture)
        self.normalizer.merge(*rollout.statistics())
        self.ranks.check_same(self.state_dict)
        self.iteration += 1
        self.env_steps += rollout.env_steps
        self._count_rejection(rollout, estimated.batch, result)

        # ---- 5. log, and if it is time, stop or get ready for a barrier
        if self.stuck or is_over(self.settings, self.iteration, self.env_steps):
            self.trainer.should_stop = True
        if self._fit and (self.trainer.should_stop or self.at_barrier()):
            with stopwatch.time("value_fit"):
                self._fit.finish()
        numbers = {
            **estimated.metrics,
            **result.metrics,
            **self.policy.measure(),
            **theory_metrics(self.policy, estimated.batch),
            **reuse_metrics(self.policy, estimated.mixture),
            **(self._fit.metrics if self._fit else {}),
            **rollout.measure(),
            "update/rejected": self.rejected,
            "update/rejection_reason": None if result.rejection_reason is None else str(result.rejection_reason),
            "iteration": self.iteration,
            "env_steps": self.env_steps,
        }
        self.iteration_log.begin(rollout, {**result.seconds, **stopwatch.seconds}, numbers)
        self.iteration_log.publish(self.trainer)

    def estimate(self, rollout: Rollout) -> Estimate:
        """Make the batch of this rollout, or with `rule.reuse` of this one and those of the last policies."""
        if self.reuse and isinstance(rollout, SinglePathRollout):
            return self.reuse.estimate(rollout, self.policy, self.value_function, self.normalizer, self.iteration)
        return make_batch(rollout, self.value_function, self.settings, self.device)

    def update(self, batch: AnyBatch) -> RuleResult:
        """Apply the rule to a batch; a rejected update leaves policy and rule as they were."""
        self.rule.progress = progress(self.settings, self.iteration, self.env_steps)
        self.rule.env_steps = self.env_steps
        return apply_rule(self.rule, self.policy, batch, self._update_generator(self.iteration))

    def fit_values(self, data: ValueData) -> ValueFit:
        """Start fitting the value function; unless `fits_beside`, the fit is complete when this returns."""
        generator = torch_generator(self.settings.seed, Stream.VALUE_FIT, self.iteration)
        return ValueFit(self.value_function, data, generator, beside=self.fits_beside)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Account for the iteration's seconds, including those of callbacks, which have run by now."""
        self.iteration_log.close_times({"env/restarts": self.restarts, **self.ranks.measure()})
        self.iteration_log.publish(self.trainer)

    def on_train_epoch_end(self) -> None:
        """Close the row, after callbacks have added to it, and log it unless it waits for the fit."""
        self.iteration_log.close()
        if not (self._fit and self._fit.goes_on):
            self.iteration_log.hand_out(self.trainer)

    # What surrounds the loop: barriers, the fit in the background, rejections, the end.

    @property
    def barrier_interval(self) -> int:
        """Iterations between barriers, where episodes are cut and a run can be resumed; 0 means no barriers."""
        if self.settings.checkpoint.every is not None:
            return self.settings.checkpoint.every
        if self.spec.max_episode_steps is None:
            return ITERATIONS_BETWEEN_BARRIERS
        return math.ceil(EPISODES_BETWEEN_BARRIERS * self.spec.max_episode_steps / self.scheme.steps)

    def at_barrier(self) -> bool:
        """Whether a run can be resumed from the current state, between two iterations."""
        return self.barrier_interval > 0 and self.iteration % self.barrier_interval == 0

    @property
    def stuck(self) -> bool:
        """Whether the run stops because `rule.max_rejections` updates in a row were rejected."""
        limit = self.settings.rule.max_rejections
        return limit is not None and self.rejected_in_a_row >= limit

    @property
    def fits_beside(self) -> bool:
        """Whether the value function is fitted in the background during the next rollout, which does not need it.

        This takes `rows_may_wait`, a spare core, and a fit that runs on one thread.
        """
        alone = self.ranks.size == 1  # else it talks to other ranks, and so would the rollout beside it
        return alone and self.rows_may_wait and self.scheme.threads > 1 and self.value_function.fits_on_one_thread

    def complete(self) -> None:
        """Finish the value function's fit, if one is running, and log the row that waits for it.

        This happens before barriers, further updates and the end. Call it before reading the value function elsewhere.
        """
        if self._fit and self._fit.goes_on:
            self._fit.finish()
            self.iteration_log.add_late(self._fit.metrics)
            self.iteration_log.publish(self.trainer)
        if self.iteration_log.is_ready:
            self.iteration_log.hand_out(self.trainer)

    def count_restart(self, failure: EnvironmentFailure) -> None:
        """Count one restart of failed environments; raises the failure if `env.restarts` are used up."""
        if self.restarts >= self.settings.env.restarts:
            raise failure
        self.restarts += 1
        if self.ranks.index == 0:
            print(f"warning: {failure}; restart {self.restarts} of {self.settings.env.restarts}")

    def _count_rejection(self, rollout: Rollout, batch: AnyBatch, result: RuleResult) -> None:
        """Count a rejected update; keep the one that stops the run, for `replay`.

        An update that finds nothing to gain is not a failure: the run is done, or waits for a signal to learn from.
        """
        self.rejected += result.rejection_reason is not None
        failed = result.rejection_reason is not None and not result.nothing_to_gain
        self.rejected_in_a_row = self.rejected_in_a_row + 1 if failed else 0
        if failed and self.stuck:  # a rejected update leaves policy and rule as they were
            seed = self._update_generator(self.iteration - 1).initial_seed()
            self.failed_update = capture(self, rollout, batch, result, generator_seed=seed)

    def _update_generator(self, iteration: int) -> torch.Generator:
        return torch_generator(self.settings.seed, Stream.FISHER_SUBSET, iteration)

    def trained_policy(self) -> TrainedPolicy:
        """The current policy with its normalizer, ready to act or to be saved."""
        return TrainedPolicy(self.policy, self.normalizer, self.settings, self.spec, self.iteration, self.env_steps)

    def act(self, observations: Any, **how: Any) -> Any:
        """Return the current policy's actions for raw observations; takes the same arguments as `TrainedPolicy.act`."""
        return self.trained_policy().act(observations, **how)

    def session(self) -> Session:
        """Begin to act with the current policy, as `TrainedPolicy.session`."""
        return self.trained_policy().session()

    def save(self, path: str | Path, **metadata: Any) -> None:
        """Write the current policy, with its normalizer, to a file that `trpo_lightning.load` reads.

        Args:
            path: The file to write, atomically.
            **metadata: Plain values to store with the policy.

        Raises:
            DiskError: The file cannot be written.
        """
        self.trained_policy().save(path, **metadata)

    def leave_failed_update(self, folder: Path) -> str:
        """Write the rejected update that ended training; return a line that says where it is and what to do."""
        failed = self.failed_update if self.ranks.index == 0 else None
        return leave_failed_update(folder, self.iteration, self.rejected_in_a_row, failed)

    def on_train_end(self) -> None:
        """Close the environments; if rejections ended training, write the last one and raise `StuckError`."""
        self.iteration_log.close()
        self.complete()
        self.iteration_log.publish_last_known(self.trainer)
        self.scheme.close()
        if self.stuck:
            raise StuckError(self.leave_failed_update(Path(self.trainer.default_root_dir)))

    # What Lightning asks of a module, besides what `LightningHabits` provides.

    def on_train_start(self) -> None:
        """Start the clock of the first row."""
        self.ranks.measure()  # what came before belongs to no row
        self.iteration_log.start_clock()

    def configure_optimizers(self) -> ParameterUpdate:
        """The policy update, the one step that Lightning counts; the value function has its own optimizer."""
        return ParameterUpdate(self.policy)

    def transfer_batch_to_device(self, batch: Rollout, device: torch.device, dataloader_idx: int) -> Rollout:
        """Keep rollouts as arrays on the CPU; `training_step` moves what the update needs to the device."""
        return batch

    def state_dict(self, *arguments: Any, **keywords: Any) -> Any:
        """The usual state dict, after any running fit of the value function has finished."""
        self.complete()
        return super().state_dict(*arguments, **keywords)
