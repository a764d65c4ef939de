"""Policies for use after training: small files with the policy, its normalizer and its settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trpo_lightning.environments.atari import whole_games
from trpo_lightning.environments.gymnasium_backend import make_one
from trpo_lightning.environments.observations import as_batch
from trpo_lightning.environments.recorded_spaces import rebuilt_pair, recorded_pair, spaces_of
from trpo_lightning.environments.spaces import one_action, to_env_action
from trpo_lightning.environments.user_code import names_code
from trpo_lightning.environments.vector_environment import EnvironmentSpec
from trpo_lightning.errors import UserError
from trpo_lightning.policies.observations import Layout, Shape
from trpo_lightning.policies.policy import Policy, build_policy
from trpo_lightning.policies.spaces import ActionSpec, BinaryActions, ContinuousActions, DiscreteActions
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.settings import RunSettings, from_record, to_dict
from trpo_lightning.storage.checksummed_file import read, save
from trpo_lightning.storage.files import plain

ACTION_KINDS = {"continuous": ContinuousActions, "discrete": DiscreteActions, "binary": BinaryActions}
IN_CHECKPOINT = "trpo_lightning"
"""Key of a Lightning checkpoint that holds a policy's whole `state`."""


class Session:
    """A policy that acts in one environment, or in a batch of them: call `reset` when an episode begins.

    For a policy without a memory, `reset` changes nothing.

    Args:
        policy: The policy, on any device.
        normalizer: Turns raw observations into what the policy sees.
        spec: The environment's spaces.
        scaled: Whether the policy's [-1, 1] is the range of continuous actions.
    """

    def __init__(self, policy: Policy, normalizer: Normalizer, spec: EnvironmentSpec, *, scaled: bool) -> None:
        self._policy, self._normalizer, self._scaled = policy, normalizer, scaled
        self._spec = spec
        self._states: Tensor | None = None

    def reset(self, begins: Any = None) -> None:
        """Forget the episode.

        Args:
            begins: For a batch, a mask `[B]` of environments whose next observation is the first of an episode; by
                default all.

        Raises:
            ValueError: The mask is of more or fewer environments than the session remembers.
        """
        if begins is None:
            self._states = None
        elif self._states is not None:
            mask = np.asarray(begins, dtype=bool).reshape(-1)
            if len(mask) != len(self._states):
                raise ValueError(f"the session remembers {len(self._states)} episodes, and the mask is of {len(mask)}")
            self._states[torch.from_numpy(mask).to(self._states.device)] = 0.0

    @torch.no_grad()
    def act(
        self, observations: Any, *, deterministic: bool = True, generator: np.random.Generator | None = None
    ) -> Any:
        """Return actions, as `TrainedPolicy.act`, and remember the observations if the policy has a memory.

        Raises:
            ValueError: The observations do not belong to the observation space, or are of more or fewer environments
                than since the last `reset`.
        """
        observation_space, action_space = spaces_of(self._spec)
        batch, batched = as_batch(observation_space, observations)
        device = next(self._policy.parameters()).device
        seen = np.ascontiguousarray(self._normalizer.normalize(batch))  # a flipped image has negative strides
        distribution = self._distribution(torch.from_numpy(seen).to(device))
        actions = distribution.mode()
        if not deterministic:
            generator = generator or np.random.default_rng()
            draw = generator.standard_normal if distribution.noise == "normal" else generator.random
            noise = torch.from_numpy(draw(tuple(actions.shape), dtype=np.float32))
            actions = distribution.sample(noise.to(device))
        stored = actions.cpu().numpy()
        if not batched:
            return one_action(action_space, stored[0], scaled=self._scaled)
        return to_env_action(action_space, scaled=self._scaled)(stored)

    def _distribution(self, seen: Tensor) -> Any:
        if not self._policy.state_size:
            return self._policy(seen)
        if self._states is None:
            self._states = torch.zeros(len(seen), self._policy.state_size, device=seen.device)
        if len(self._states) != len(seen):
            raise ValueError(
                f"the session remembers {len(self._states)} episodes, and gets {len(seen)} observations: call reset"
            )
        step: Any = self._policy.network.step
        outputs, self._states = step(seen, self._states)
        return self._policy.distribution(outputs)


@dataclass
class TrainedPolicy:
    """A policy with the normalizer it was trained with.

    Args:
        policy: The policy network, on any device.
        normalizer: The statistics that observations are normalized with.
        settings: The settings of the training run.
        spec: The environment's spaces and time limit.
        iteration: Iterations of training so far.
        env_steps: Environment steps of training so far.
    """

    policy: Policy
    normalizer: Normalizer
    settings: RunSettings
    spec: EnvironmentSpec
    iteration: int
    env_steps: int

    def act(
        self, observations: Any, *, deterministic: bool = True, generator: np.random.Generator | None = None
    ) -> Any:
        """Return actions, ready for `step`, for observations as `reset` and `step` return them.

        Args:
            observations: One observation from the environment's space, or a batch: what a vector environment returns,
                a list of observations, or vectors `[B, O]` flattened by `gymnasium.spaces.flatten`.
            deterministic: Whether to take the distribution's mode instead of a sample.
            generator: The generator that samples are drawn from; by default a fresh, unseeded one.

        Returns:
            For one observation, an action from the environment's space (an `int` if it is Discrete); for a batch, an
            array `[B, ...]` of actions. Continuous actions are clipped to the space's bounds.

        Raises:
            ValueError: The observations do not belong to the observation space.
            UserError: The policy has a memory of the episode, which a `session` keeps.
        """
        if self.policy.state_size:
            raise UserError(
                f"policy.name={self.settings.policy.name} remembers the episode: make `session = policy.session()`, "
                "act by `session.act(observation)`, and call `session.reset()` when an episode begins"
            )
        return self.session().act(observations, deterministic=deterministic, generator=generator)

    def session(self) -> Session:
        """Begin to act, with any policy: a session keeps what a policy with a memory remembers of the episode."""
        return Session(self.policy, self.normalizer, self.spec, scaled=self.settings.env.scale_actions)

    def make_env(self, *, own_code: bool = False, **arguments: Any) -> Any:
        """Make a `gymnasium.Env` as in training, with its wrappers, preprocessing and time limit; Atari's games whole.

        Args:
            own_code: Whether modules that `env.id` and `env.wrappers` name may be imported, and their functions called.
                A file from somebody else can name any: look at `policy.settings.env` first.
            **arguments: Of the environment besides those in the settings, such as `render_mode="human"`.

        Raises:
            UserError: It cannot be built here, or is one of the user's own without `own_code`.
        """
        env = self.settings.env
        if not own_code and (named := names_code(env)):
            raise UserError(f"{named} names code outside of gymnasium's registry: make_env(own_code=True) runs it")
        return make_one(whole_games(env), **arguments)

    def save(self, path: str | Path, **metadata: Any) -> None:
        """Write a file that `load` reads, atomically.

        Args:
            path: The file to write.
            **metadata: Plain values to store with the policy.

        Raises:
            DiskError: The file cannot be written.
        """
        save({**self.state(), "metadata": plain(metadata)}, Path(path))

    def state(self) -> dict[str, Any]:
        """The whole policy as a dict of tensors and plain values, as `save` writes it."""
        return plain(
            {
                "kind": "policy",
                "iteration": self.iteration,
                "env_steps": self.env_steps,
                **policy_state(self.settings, self.spec, self.policy),
                "spaces": recorded_pair(self.spec.spaces),
                "max_episode_steps": self.spec.max_episode_steps,
                "backend": self.spec.backend,
                "normalizer": self.normalizer.state_dict(),
            }
        )


def policy_state(settings: RunSettings, spec: EnvironmentSpec, policy: Policy) -> dict[str, Any]:
    """The tensors and plain values that `rebuilt_policy` needs."""
    kind = next(name for name, cls in ACTION_KINDS.items() if isinstance(spec.actions, cls))
    return {
        "settings": to_dict(settings),
        "observation_shape": spec.observation_shape,
        "actions": [kind, getattr(spec.actions, "choices", None) or getattr(spec.actions, "size", 0)],
        "policy": {name: tensor.cpu() for name, tensor in policy.state_dict().items()},
    }


def rebuilt_policy(state: dict[str, Any], settings: RunSettings) -> tuple[Policy, Shape, ActionSpec]:
    """Rebuild the policy of a `policy_state` on the CPU; also returns its observation shape and its action spec."""
    kind, size = state["actions"]
    actions: ActionSpec = ACTION_KINDS[kind](tuple(size) if kind == "discrete" else size)
    shape = Layout.of_record(state["observation_shape"]).shape
    policy = build_policy(
        shape,
        actions,
        settings.policy,
        torch.Generator(),
    )
    policy.load_state_dict(state["policy"])
    return policy, shape, actions


def load_file(path: Path) -> TrainedPolicy:
    """Read a policy from this package's files or a Lightning checkpoint; raises `UserError` if the file holds none."""
    return policy_of_state(_of_lightning(path) if is_of_lightning(path) else read(path), path)


def policy_of_state(state: dict[str, Any], path: Path) -> TrainedPolicy:
    """Rebuild a policy from what `TrainedPolicy.state` gave; raises `UserError` that names `path` if it is no such."""
    if state.get("kind") != "policy":
        raise UserError(f"{path}: is no policy: give a run directory, or its best.pt or last.pt")
    try:
        settings = from_record(state["settings"])
        policy, shape, actions = rebuilt_policy(state, settings)
        spaces = rebuilt_pair(state.get("spaces"))  # not in files from before they were recorded
        spec = EnvironmentSpec(shape, actions, state["max_episode_steps"], state["backend"], spaces)
        normalizer = Normalizer(shape, settings.normalize)
        normalizer.load_state_dict(state["normalizer"])
        return TrainedPolicy(policy, normalizer, settings, spec, state["iteration"], state["env_steps"])
    except UserError as error:
        raise UserError(f"{path}: was written by another version: {error}") from error
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: was written by another version: it lacks or has other parts ({error})") from error


def is_of_lightning(path: Path) -> bool:
    """Whether torch wrote the file without this package's header, as for Lightning checkpoints."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError:
        return False  # reading it reports why


def _of_lightning(path: Path) -> dict[str, Any]:
    """Read what `TRPO.on_save_checkpoint` put into a checkpoint. Raises `UserError` naming the file."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # such a file can contain anything: torch decides what may be loaded
        raise UserError(f"{path}: is refused: it is damaged, or holds more than tensors and plain values") from error
    state = checkpoint.get(IN_CHECKPOINT) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise UserError(f"{path}: is a file of torch's without a policy of this package (or from before 0.2)")
    return state
