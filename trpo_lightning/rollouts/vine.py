"""Vine sampling (TRPO 2015, section 5.2): trunks, a rollout set on them, and branches from each state of the set."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trpo_lightning.environments.gymnasium_backend import GymnasiumEnvironments
from trpo_lightning.environments.snapshots import Restorable, Snapshot
from trpo_lightning.environments.supervised.workers import check_restorable
from trpo_lightning.environments.user_code import is_lone_instance
from trpo_lightning.environments.vector_environment import EnvironmentSpec, VectorEnvironment
from trpo_lightning.errors import UserError
from trpo_lightning.policies.inference import remembering_forward
from trpo_lightning.policies.policy import Policy
from trpo_lightning.policies.spaces import ActionSpec, BinaryActions, ContinuousActions, DiscreteActions
from trpo_lightning.randomness import Stream, numpy_generator
from trpo_lightning.rollouts.branches import Branches
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.rollouts.rollout import Rollout, SinglePathRollout
from trpo_lightning.rollouts.scheme import Propose, SamplingScheme
from trpo_lightning.rollouts.single_path import SinglePathScheme
from trpo_lightning.settings import RunSettings, VineSettings
from trpo_lightning.threads import torch_threads


@dataclass(kw_only=True)
class VineRollout(Rollout):
    """S states of the trunks as the policy saw them, K actions in each, and the returns of their branches.

    `observations` `[S, *O]`, `actions` `[S, K, A]`, `q_values` `[S, K]`; `log_q` is the log-probability of each choice,
    or None if the policy chose.
    """

    trunks: SinglePathRollout
    slots: np.ndarray
    """`[S, 2]`: step and environment of each state in the trunks."""
    observations: np.ndarray
    actions: np.ndarray
    q_values: np.ndarray
    log_q: float | None
    all_actions: bool

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Those of the trunks, whose states are the ones that the policy visits."""
        return self.trunks.statistics()


class VineScheme(SamplingScheme):
    """Collects `steps_per_iteration` slots of trunks, then branches; trunks continue from one iteration to the next.

    The rollout set is `rollout_set_size` of the trunks' slots, drawn uniformly without replacement; slots that only
    reset are left out. Q-values are discounted returns of branches, without a bootstrap at their end, as in the paper.
    The paper does not say whether trunks start anew in each iteration. Continuing them, as here, reaches late states
    and reports whole episodes even if an iteration is shorter than an episode.

    Raises:
        UserError: The environment cannot be restored, or `rollout.branch_actions` does not fit its action space.
    """

    Settings = VineSettings
    rollout_settings: VineSettings

    def __init__(self, settings: RunSettings, spec: EnvironmentSpec, threads: int, propose: Propose) -> None:
        super().__init__(settings, spec, threads, propose)
        _check_actions(settings, spec.actions)
        if is_lone_instance(settings.env):
            raise UserError(f"rollout.scheme=vine makes many environments: give a function, not {settings.env.id}")
        check_restorable(settings.env)  # fail now, not in the first iteration
        self._trunks = _Trunks(settings, spec, threads, propose)
        self._branches = Branches(settings)

    def restart(self, iteration: int, attempt: int = 0) -> None:
        """Cut the trunks' episodes; branches do not outlive an iteration anyway."""
        if attempt:
            self._branches.close()
        self._trunks.restart(iteration, attempt)

    def close(self) -> None:
        """Close the environments of trunks and branches."""
        self._trunks.close()
        self._branches.close()

    @torch.inference_mode()
    @torch_threads(1)
    def collect(self, policy: Policy, normalizer: Normalizer, iteration: int) -> VineRollout:
        """Collect the trunks first, then all branches, from snapshots of the trunks' states."""
        began = time.perf_counter()
        self._trunks.wanted = self._rollout_set(iteration)
        trunks = self._trunks.collect(policy, normalizer, iteration)
        snapshots, self._trunks.snapshots = self._trunks.snapshots, {}
        memories, self._trunks.memories = self._trunks.memories, []
        slots = np.array(list(snapshots), dtype=np.int64).reshape(-1, 2)
        observations = trunks.observations[slots[:, 0], slots[:, 1]]
        distribution, memory = _seen(policy, observations, memories)
        actions, log_q, noise = self._choose(distribution, iteration)
        starts = list(snapshots.values())
        q_values, done = self._branches.run(policy, normalizer, iteration, starts, actions, noise, memory)
        return VineRollout(
            trunks=trunks,
            slots=slots,
            observations=observations,
            actions=actions,
            q_values=q_values,
            log_q=log_q,
            all_actions=self.rollout_settings.branch_actions == "all",
            env_steps=trunks.env_steps + done.env_steps,
            episode_returns=trunks.episode_returns,
            episode_lengths=trunks.episode_lengths,
            seconds={
                "collect": time.perf_counter() - began,
                "simulator": trunks.seconds["simulator"] + done.simulator,
                "inference": trunks.seconds["inference"] + done.inference,
            },
        )

    def _rollout_set(self, iteration: int) -> set[tuple[int, int]]:
        """Slots (t, n) of the trunks to branch from."""
        generator = numpy_generator(self.settings.seed, Stream.ROLLOUT_SET, iteration)
        slots = generator.choice(self.steps * self.num_envs, self.rollout_settings.rollout_set_size, replace=False)
        return {divmod(int(slot), self.num_envs) for slot in slots}

    def _choose(self, distribution: Any, iteration: int) -> tuple[np.ndarray, float | None, Tensor]:
        """First actions `[S, K, A]`, their log q unless the policy chose, and the branches' noise `[S, L - 1, A]`."""
        s, spec = self.settings, self.spec.actions
        states, size = distribution.mode().shape
        branches = self.rollout_settings.branches
        noise = np.empty((states, branches + self.rollout_settings.branch_length - 1, size), dtype=np.float32)
        for i in range(states):
            generator = numpy_generator(s.seed, Stream.BRANCH_NOISE, iteration, i)
            draw = generator.standard_normal if distribution.noise == "normal" else generator.random
            noise[i] = draw(noise.shape[1:], dtype=np.float32)
        first, later = noise[:, :branches], torch.from_numpy(noise[:, branches:])
        if self.rollout_settings.branch_actions == "policy":
            columns = [distribution.sample(torch.from_numpy(first[:, k])) for k in range(branches)]
            return torch.stack(columns, dim=1).numpy(), None, later
        choices = np.array(_choices(spec))
        if self.rollout_settings.branch_actions == "uniform":
            return (first * choices.astype(np.float64)).astype(np.int64), -float(np.log(choices).sum()), later
        every = np.arange(choices[0])[None, :, None]
        return np.repeat(every, states, axis=0), None, later


def _seen(policy: Policy, observations: np.ndarray, memories: list[np.ndarray]) -> tuple[Any, np.ndarray]:
    """The distributions in states `[S, *O]`, and what the policy remembers `[S, M]` after it saw them."""
    memory = np.array(memories, dtype=np.float32).reshape(len(observations), policy.state_size)
    if not policy.state_size:
        return policy(torch.from_numpy(observations)), memory
    outputs = remembering_forward(policy.network)(observations, memory)
    return policy.distribution(torch.from_numpy(outputs)), memory


class _Trunks(SinglePathScheme):
    """Single path that takes snapshots, in order of the slots (t, n), at those in `wanted` that are not just resets."""

    wanted: set[tuple[int, int]]
    snapshots: dict[tuple[int, int], Snapshot]
    memories: list[np.ndarray]
    """What the policy remembered `[M]` before it saw each of these states."""

    @property
    def _records_at_once(self) -> bool:
        return True  # `_visit` asks which environments reset

    def _begin(self, envs: VectorEnvironment) -> None:
        super()._begin(envs)
        assert isinstance(envs, GymnasiumEnvironments)
        self._restorables = [Restorable(env, self.settings.env.id) for env in envs.members]
        self.snapshots, self.memories = {}, []

    def _visit(self, t: int) -> None:
        for n, restorable in enumerate(self._restorables):
            if (t, n) in self.wanted and not self._resetting[n]:
                self.snapshots[t, n] = restorable.snapshot()
                assert self._states is not None
                self.memories.append(self._states[n].copy())


def _check_actions(settings: RunSettings, actions: ActionSpec) -> None:
    assert isinstance(settings.rollout, VineSettings)
    kind, env_id = settings.rollout.branch_actions, settings.env.id
    if kind == "uniform" and isinstance(actions, ContinuousActions):
        raise UserError(f"rollout.branch_actions=uniform: env.id={env_id} has continuous actions: use policy")
    if kind == "all" and not (isinstance(actions, DiscreteActions) and len(actions.choices) == 1):
        raise UserError(
            f"rollout.branch_actions=all needs a single choice among actions: for env.id={env_id} use policy"
        )


def _choices(actions: ActionSpec) -> tuple[int, ...]:
    """How many values each action dimension has."""
    if isinstance(actions, BinaryActions):
        return (2,) * actions.size
    assert isinstance(actions, DiscreteActions)
    return actions.choices
