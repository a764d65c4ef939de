"""Policies for use after training: small files with the policy, its normalizer and how it was made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trpo_lightning.environments.vector_environment import EnvironmentSpec
from trpo_lightning.errors import UserError
from trpo_lightning.policies.policy import Policy, build_policy
from trpo_lightning.policies.spaces import ActionSpec, BinaryActions, ContinuousActions, DiscreteActions
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.settings import RunSettings, from_record, to_dict
from trpo_lightning.storage.checksummed_file import read, save
from trpo_lightning.storage.files import plain

ACTION_KINDS = {"continuous": ContinuousActions, "discrete": DiscreteActions, "binary": BinaryActions}


@dataclass
class TrainedPolicy:
    """A policy with the normalizer it was trained with."""

    policy: Policy
    normalizer: Normalizer
    settings: RunSettings
    spec: EnvironmentSpec
    iteration: int
    env_steps: int

    @torch.inference_mode()
    def act(
        self, observations: Any, *, deterministic: bool = True, generator: np.random.Generator | None = None
    ) -> np.ndarray:
        """Actions for raw observations: one `[*O]` gives `[A]`, a batch `[B, *O]` gives `[B, A]`.

        Continuous actions are not clipped to the environment's bounds; discrete ones count from 0. A stochastic action
        draws from `generator` (by default a fresh, unseeded one). Raises `ValueError` for another shape.
        """
        x = np.asarray(observations)
        shape = self.spec.observation_shape
        if x.shape[-len(shape) :] != shape or x.ndim > len(shape) + 1:
            raise ValueError(f"observations must be {list(shape)} or a batch of them, not {list(x.shape)}")
        batch = x.reshape(-1, *shape)
        distribution = self.policy(torch.from_numpy(self.normalizer.normalize(batch)))
        actions = distribution.mode()
        if not deterministic:
            generator = generator or np.random.default_rng()
            draw = generator.standard_normal if distribution.noise == "normal" else generator.random
            actions = distribution.sample(torch.from_numpy(draw(tuple(actions.shape), dtype=np.float32)))
        return actions.numpy() if x.ndim > len(shape) else actions.numpy()[0]

    def save(self, path: str | Path, **metadata: Any) -> None:
        """Write it to a file that `load` reads, atomically. Raises `DiskError`."""
        state = {
            "kind": "policy",
            "iteration": self.iteration,
            "env_steps": self.env_steps,
            **policy_state(self.settings, self.spec, self.policy),
            "max_episode_steps": self.spec.max_episode_steps,
            "backend": self.spec.backend,
            "normalizer": self.normalizer.state_dict(),
            "metadata": metadata,
        }
        save(plain(state), Path(path))


def policy_state(settings: RunSettings, spec: EnvironmentSpec, policy: Policy) -> dict[str, Any]:
    """What `rebuilt_policy` needs."""
    kind = next(name for name, cls in ACTION_KINDS.items() if isinstance(spec.actions, cls))
    return {
        "settings": to_dict(settings),
        "observation_shape": spec.observation_shape,
        "actions": [kind, getattr(spec.actions, "choices", None) or getattr(spec.actions, "size", 0)],
        "policy": {name: tensor.cpu() for name, tensor in policy.state_dict().items()},
    }


def rebuilt_policy(state: dict[str, Any], settings: RunSettings) -> tuple[Policy, tuple[int, ...], ActionSpec]:
    """The policy of a `policy_state`, on the CPU, with the shape of its observations and its actions."""
    kind, size = state["actions"]
    actions: ActionSpec = ACTION_KINDS[kind](tuple(size) if kind == "discrete" else size)
    shape = tuple(state["observation_shape"])
    policy = build_policy(
        shape,
        actions,
        settings.policy,
        torch.Generator(),
    )
    policy.load_state_dict(state["policy"])
    return policy, shape, actions


def load_file(path: Path) -> TrainedPolicy:
    """A policy from an exported file. Raises `UserError` naming the file if it is damaged or something else."""
    state = read(path)
    if state.get("kind") != "policy":
        raise UserError(f"{path}: is no policy: give a run directory, or its best.pt or last.pt")
    try:
        settings = from_record(state["settings"])
        policy, shape, actions = rebuilt_policy(state, settings)
        spec = EnvironmentSpec(shape, actions, state["max_episode_steps"], state["backend"])
        normalizer = Normalizer(shape, settings.normalize)
        normalizer.load_state_dict(state["normalizer"])
        return TrainedPolicy(policy, normalizer, settings, spec, state["iteration"], state["env_steps"])
    except UserError as error:
        raise UserError(f"{path}: was written by another version: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: was written by another version: it lacks or has other parts ({error})") from error
