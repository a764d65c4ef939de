"""Snapshots of an environment in mid-episode, from which any number of futures can start."""

import copy
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from trpo_lightning.environments.vector_environment import EnvironmentFailure, with_line
from trpo_lightning.errors import UserError

MUJOCO = "gymnasium.envs.mujoco."
ATARI = "ale_py."
FAMILIES = (MUJOCO, ATARI, "gymnasium.envs.classic_control.", "gymnasium.envs.toy_text.")
"""Modules whose environments keep all their state in attributes (and in MuJoCo's data, or in Atari's emulator)."""
KEPT = {"env", "spec", "_cached_spec", "model", "data", "mujoco_renderer", "P", "ale"}
"""Attributes left out of snapshots: what is wrapped, what never changes, and the simulators, copied in place."""


class _Anchor:
    """Stands in a snapshot for an object of which each instance has its own."""


@dataclass(frozen=True)
class Snapshot:
    """A state, independent of the environment it was taken from; `states` has one entry per layer."""

    states: list[Any]
    anchors: list[_Anchor]
    data: Any
    """A full copy of the simulator's `mujoco.MjData`, or the emulator's state with its random generator, or None."""


class Restorable:
    """Takes and restores snapshots of an environment with its wrappers; the future is then the same, bit for bit.

    This works for gymnasium's MuJoCo, classic control and toy text environments and ale-py's Atari games, for their
    subclasses that keep their state in attributes and leave their `MjModel` alone, for wrappers, and for anything with
    methods `snapshot()` and `restore(snapshot)`, which cover its own state, but not that of what it wraps, and not
    `np_random`. A snapshot may be restored into another instance made in the same way.

    Raises:
        UserError: The environment is none of these.
    """

    def __init__(self, env: gym.Env, env_id: str) -> None:
        self.env, self.env_id = env, env_id
        self._layers = [env]
        while isinstance(env, gym.Wrapper):
            env = env.env
            self._layers.append(env)
        modules = tuple(f"{base.__module__}." for base in type(env).__mro__)
        if not _offers(env) and not any(module.startswith(FAMILIES) for module in modules):
            raise UserError(
                f"env.id={env_id} cannot be restored to a state, which rollout.scheme=vine needs: give "
                f"{type(env).__name__} methods snapshot() and restore(snapshot), or use rollout.scheme=single_path"
            )
        self._simulates = any(module.startswith(MUJOCO) for module in modules) and not _offers(env)
        self._emulates = any(module.startswith(ATARI) for module in modules) and not _offers(env)
        self._own = [*self._layers]
        if self._simulates:
            self._own += [getattr(env, name) for name in ("model", "data", "mujoco_renderer")]

    def snapshot(self) -> Snapshot:
        """Take a snapshot. Raises `UserError`, which names `env.id`, if an attribute cannot be copied."""
        anchors = [_Anchor() for _ in self._own]
        memo = {id(own): anchor for own, anchor in zip(self._own, anchors, strict=True)}
        try:
            states = [self._take(layer, memo) for layer in self._layers]
        except Exception as error:
            raise UserError(f"env.id={self.env_id} cannot be copied mid-episode: {with_line(error)}") from error
        return Snapshot(states, anchors, self._simulator())

    def _simulator(self) -> Any:
        core: Any = self._layers[-1]
        if self._emulates:
            return core.ale.cloneState(include_rng=True)
        return copy.copy(core.data) if self._simulates else None

    def restore(self, snapshot: Snapshot) -> None:
        """Return to the state of a snapshot, which is left unchanged.

        Raises:
            EnvironmentFailure: The environment's own `restore` fails.
        """
        memo = {id(anchor): own for anchor, own in zip(snapshot.anchors, self._own, strict=True)}
        for layer, (offered, attributes) in zip(self._layers, snapshot.states, strict=True):
            if _offers(layer):
                self._give_back(layer, offered)
            else:
                for name in vars(layer).keys() - KEPT:
                    del vars(layer)[name]
            vars(layer).update(copy.deepcopy(attributes, memo))
        core: Any = self._layers[-1]
        if self._emulates:
            core.ale.restoreState(snapshot.data)
        if self._simulates:
            import mujoco

            mujoco.mj_copyData(core.data, core.model, snapshot.data)  # type: ignore[attr-defined]

    def _give_back(self, layer: Any, offered: Any) -> None:
        try:
            layer.restore(offered)
        except Exception as error:
            raise EnvironmentFailure(
                f"env.id={self.env_id}: restore of {type(layer).__name__} failed: {with_line(error)}"
            ) from error

    @staticmethod
    def _take(layer: Any, memo: dict[int, Any]) -> tuple[Any, dict[str, Any]]:
        """A layer's own snapshot, or else copies of its attributes; and in both cases its random generator."""
        if _offers(layer):
            generator = {name: value for name, value in vars(layer).items() if name == "_np_random"}
            return layer.snapshot(), copy.deepcopy(generator, memo)
        return None, copy.deepcopy({name: value for name, value in vars(layer).items() if name not in KEPT}, memo)


def _offers(layer: Any) -> bool:
    return all(callable(getattr(type(layer), name, None)) for name in ("snapshot", "restore"))
