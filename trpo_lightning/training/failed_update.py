"""Failed updates: everything a rejected update was computed from, in one file that `replay` reads."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trpo_lightning.environments.vector_environment import EnvironmentSpec
from trpo_lightning.errors import DiskError, UserError
from trpo_lightning.numerics.tabular import PolicyValues, TabularMDP
from trpo_lightning.policies.observations import FrameRows
from trpo_lightning.policies.policy import Policy
from trpo_lightning.policies.sequences import Sequences
from trpo_lightning.ranks import ONE, Ranks
from trpo_lightning.rollouts.rollout import AnyBatch, Batch, PopulationBatch, Rollout, TabularBatch, VineBatch
from trpo_lightning.rules import build_rule
from trpo_lightning.rules.rejections import recorded
from trpo_lightning.rules.rule import RuleResult, UpdateRule, apply_rule
from trpo_lightning.settings import RunSettings, from_record
from trpo_lightning.storage.checksummed_file import read, save
from trpo_lightning.storage.files import plain
from trpo_lightning.training.trained_policy import policy_state, rebuilt_policy

PARTS = (FrameRows, Sequences, TabularMDP, PolicyValues)
CLASSES = {cls.__name__: cls for cls in (Batch, VineBatch, PopulationBatch, TabularBatch, *PARTS)}
"""The classes of batches and of their parts, by name."""
KINDS = ("failed_update", "capsule")
"""The `kind` that such files state: `capsule` in those of version 0.1."""


@dataclasses.dataclass(frozen=True)
class FailedUpdate:
    """A rejected update: `policy`, `batch`, the rule's state and random numbers, and the result.

    `iteration` counts from 1, as in `metrics.csv`. `collected` holds floating-point arrays of the rollout behind the
    batch: those with one number per slot, and all that hold a non-finite number in a valid slot.
    """

    settings: RunSettings
    iteration: int
    spec: EnvironmentSpec
    policy: Policy
    batch: AnyBatch
    rule_state: dict[str, Any]
    progress: float
    env_steps: int
    generator_seed: int
    threads: int
    reason: str
    metrics: dict[str, float]
    collected: dict[str, Tensor]

    def rule(self, settings: RunSettings) -> UpdateRule:
        """The rule in its state before the update, with these settings; a different rule starts without a state."""
        rule = build_rule(settings.rule)
        rule.progress, rule.env_steps = self.progress, self.env_steps
        if settings.rule.name == self.settings.rule.name:
            rule.load_state_dict(self.rule_state)
        return rule

    def generator(self) -> torch.Generator:
        """A generator that repeats the update's random numbers from the start."""
        return torch.Generator().manual_seed(self.generator_seed)

    def update(self, settings: RunSettings) -> RuleResult:
        """Repeat the update, or try it with other settings of the rule."""
        return apply_rule(self.rule(settings), self.policy, self.batch, self.generator())

    def write(self, path: Path) -> None:
        """Write a file that `read_failed_update` reads. Raises `DiskError`."""
        state = {
            "kind": "failed_update",
            "iteration": self.iteration,
            **policy_state(self.settings, self.spec, self.policy),
            "batch": _packed(self.batch),
            "rule": _packed(self.rule_state),
            "progress": self.progress,
            "env_steps": self.env_steps,
            "generator_seed": self.generator_seed,
            "threads": self.threads,
            "reason": str(self.reason),
            "metrics": self.metrics,
            "collected": self.collected,
        }
        save(plain(state), path)


def capture(module: Any, rollout: Rollout, batch: AnyBatch, result: RuleResult, generator_seed: int) -> FailedUpdate:
    """Capture the update that a `TRPO` has just rejected; each rank calls this, and gets what all of them had."""
    assert result.rejection_reason is not None
    return FailedUpdate(
        settings=module.settings,
        iteration=module.iteration,
        spec=module.spec,
        policy=module.policy,
        batch=whole_batch(batch),
        rule_state=module.rule.state_dict(),
        progress=module.rule.progress,
        env_steps=module.rule.env_steps,
        generator_seed=generator_seed,
        threads=torch.get_num_threads(),
        reason=result.rejection_reason,
        metrics=result.metrics,
        collected=collected_arrays(rollout, module.ranks),
    )


def failed_update_path(run_dir: Path, iteration: int) -> Path:
    """The path that an iteration's failed update is written to."""
    return run_dir / f"failed_update_{iteration:08d}.pt"


def leave_failed_update(folder: Path, iteration: int, in_a_row: int, failed: FailedUpdate | None) -> str:
    """Write the rejected update that stopped the run, unless an earlier process has; returns what to do next."""
    path = failed_update_path(folder, iteration)
    said = f"the last {in_a_row} updates were rejected"
    if failed is not None:
        said += f" ({failed.reason})"
        try:
            failed.write(path)
        except DiskError as error:
            return f"{said}, and the file for replay is lost: {error}"
    return f"{said}: see why with python -m trpo_lightning replay {path}"


def read_failed_update(path: Path) -> FailedUpdate:
    """Read a failed update. Raises `UserError`, naming the file, if it is missing, damaged or something else."""
    state = {"env_steps": 0, **read(path)}  # no radius depended on it when files were without
    if state.get("kind") not in KINDS:
        raise UserError(f"{path}: is not a failed update: give a failed_update_<iteration>.pt of a run directory")
    try:
        settings = from_record(state["settings"])
        policy, shape, actions = rebuilt_policy(state, settings)
        spec = EnvironmentSpec(shape, actions, None, settings.env.backend)
        apart = {"settings", "spec", "policy", "batch", "rule_state", "reason"}
        kept = {item.name: state[item.name] for item in dataclasses.fields(FailedUpdate) if item.name not in apart}
        return FailedUpdate(
            settings=settings,
            spec=spec,
            policy=policy,
            batch=_unpacked(state["batch"]),
            rule_state=state["rule"],
            reason=recorded(state["reason"]),
            **kept,
        )
    except UserError as error:
        raise UserError(f"{path}: was written by another version: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: was written by another version: it lacks or has other parts ({error})") from error


def _packed(value: Any) -> Any:
    """Convert data classes to dicts that name their class, and move tensors to the CPU."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        given = {item.name: getattr(value, item.name) for item in dataclasses.fields(value) if item.init}
        assert type(value).__name__ in CLASSES, f"{type(value).__name__} is not in CLASSES"
        return {"class": type(value).__name__, "fields": {name: _packed(part) for name, part in given.items()}}
    if isinstance(value, dict):
        return {key: _packed(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_packed(part) for part in value]
    return value.detach().cpu() if isinstance(value, Tensor) else value


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict) and "class" in value:
        return CLASSES[value["class"]](**{name: _unpacked(part) for name, part in value["fields"].items()})
    return value


def whole_batch(batch: AnyBatch) -> AnyBatch:
    """The batch of all ranks, with its rows in the order in which one rank would have them."""
    if not isinstance(batch, Batch) or batch.share.places is None:
        return batch
    assert not isinstance(batch.observations, Sequences)  # a policy with a memory trains on one rank
    columns = batch.share.whole(batch.observations[slice(None)], batch.actions, batch.advantages)
    return Batch(*(column.to(batch.advantages.device) for column in columns), advantage_std=batch.advantage_std)


def collected_arrays(rollout: Rollout, ranks: Ranks = ONE) -> dict[str, Tensor]:
    """Arrays of a rollout for `FailedUpdate.collected`; numbers in invalid slots become 0."""
    valid = getattr(rollout, "valid", None)
    arrays = {name: value for name, value in vars(rollout).items() if isinstance(value, np.ndarray)}
    floats = {}
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            continue
        if valid is not None and array.shape[:2] == valid.shape:
            array = np.where(valid.reshape(*valid.shape, *[1] * (array.ndim - 2)), array, 0.0)
        floats[name] = array
    if ranks.size > 1:
        floats = _side_by_side(ranks.objects(floats))
    kept = {name: array for name, array in floats.items() if array.ndim <= 2 or not np.isfinite(array).all()}
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in kept.items()}


def _side_by_side(found: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays `[T, N, ...]` of all ranks by name, `[T, all N, ...]`; zeros where a rank's T is shorter."""
    together = {}
    for name in found[0]:
        parts = [part[name] for part in found]
        longest = max(map(len, parts))
        padded = [np.pad(part, [(0, longest - len(part)), *[(0, 0)] * (part.ndim - 1)]) for part in parts]
        together[name] = np.concatenate(padded, axis=1)
    return together
