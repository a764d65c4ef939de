"""Capsules: everything that a rejected update was computed from, in one file that `replay` reads."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trpo_lightning.errors import DiskError, UserError
from trpo_lightning.numerics.tabular import PolicyValues, TabularMDP
from trpo_lightning.policies.policy import Policy
from trpo_lightning.randomness import Stream, torch_generator
from trpo_lightning.rollouts.rollout import AnyBatch, Batch, PopulationBatch, Rollout, TabularBatch, VineBatch
from trpo_lightning.rules import build_rule
from trpo_lightning.rules.rule import RuleResult, UpdateRule, apply_rule
from trpo_lightning.settings import RunSettings, from_record
from trpo_lightning.training.export import policy_state, rebuilt_policy
from trpo_lightning.training.files import plain
from trpo_lightning.training.module import TRPO
from trpo_lightning.training.sealed import read, save

CLASSES = {cls.__name__: cls for cls in (Batch, VineBatch, PopulationBatch, TabularBatch, TabularMDP, PolicyValues)}
"""The batches, and what they are made of."""


@dataclasses.dataclass(frozen=True)
class Capsule:
    """A rejected update: `policy`, `batch`, the rule's state and random numbers, and the result it had.

    `iteration` counts from 1, as in `metrics.csv`. `collected` are arrays of the rollout that the batch was made of:
    those with one number a slot, and all that hold a number that is not finite, in slots that are data.
    """

    settings: RunSettings
    iteration: int
    policy: Policy
    batch: AnyBatch
    rule_state: dict[str, Any]
    progress: float
    generator_seed: int
    threads: int
    reason: str
    metrics: dict[str, float]
    collected: dict[str, Tensor]

    def rule(self, settings: RunSettings) -> UpdateRule:
        """The rule as it was, with settings of `settings`; another rule begins without a state."""
        rule = build_rule(settings.rule)
        rule.progress = self.progress
        if settings.rule.name == self.settings.rule.name:
            rule.load_state_dict(self.rule_state)
        return rule

    def generator(self) -> torch.Generator:
        """The update's own random numbers, from the beginning."""
        return torch.Generator().manual_seed(self.generator_seed)

    def update(self, settings: RunSettings) -> RuleResult:
        """The update again, or as it would have been with other settings of the rule."""
        return apply_rule(self.rule(settings), self.policy, self.batch, self.generator())


def capsule_path(run_dir: Path, iteration: int) -> Path:
    """Where the capsule of an iteration lies."""
    return run_dir / f"capsule_{iteration:08d}.pt"


def write_capsule(module: TRPO, path: Path) -> None:
    """Write the rejection that stopped the run: a rejected update has left policy and rule as they were before it.

    Raises `DiskError`.
    """
    rejection = module.last_rejection
    assert rejection is not None
    generator = torch_generator(module.settings.seed, Stream.FISHER_SUBSET, module.iteration - 1)
    state = {
        "kind": "capsule",
        "iteration": module.iteration,
        **policy_state(module),
        "batch": _packed(rejection.batch),
        "rule": _packed(module.rule.state_dict()),
        "progress": module.rule.progress,
        "generator_seed": generator.initial_seed(),
        "threads": torch.get_num_threads(),
        "reason": rejection.result.rejection_reason,
        "metrics": rejection.result.metrics,
        "collected": _collected(rejection.rollout),
    }
    save(plain(state), path)


def leave_capsule(module: TRPO, folder: Path) -> str:
    """Write the capsule of the rejection that stopped the run, unless an earlier process has; says what to do."""
    path = capsule_path(folder, module.iteration)
    said = f"the last {module.rejected_in_a_row} updates were rejected"
    if module.last_rejection is not None:
        said += f" ({module.last_rejection.result.rejection_reason})"
        try:
            write_capsule(module, path)
        except DiskError as error:
            return f"{said}, and their capsule is lost: {error}"
    return f"{said}: see why with python -m trpo_lightning replay {path}"


def read_capsule(path: Path) -> Capsule:
    """A capsule from its file. Raises `UserError` naming a file that is missing, damaged or something else."""
    state = read(path)
    if state.get("kind") != "capsule":
        raise UserError(f"{path}: is no capsule: give a capsule_<iteration>.pt of a run directory")
    try:
        settings = from_record(state["settings"])
        policy, _, _ = rebuilt_policy(state, settings)
        fields = {item.name for item in dataclasses.fields(Capsule)} - {"settings", "policy", "batch", "rule_state"}
        kept = {name: state[name] for name in fields}
        return Capsule(
            settings=settings, policy=policy, batch=_unpacked(state["batch"]), rule_state=state["rule"], **kept
        )
    except UserError as error:
        raise UserError(f"{path}: was written by another version: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: was written by another version: it lacks or has other parts ({error})") from error


def _packed(value: Any) -> Any:
    """Data classes as dicts that name their class, tensors on the CPU."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        given = {item.name: getattr(value, item.name) for item in dataclasses.fields(value) if item.init}
        assert type(value).__name__ in CLASSES, f"{type(value).__name__} is not in CLASSES"
        return {"class": type(value).__name__, "fields": {name: _packed(part) for name, part in given.items()}}
    if isinstance(value, dict):
        return {key: _packed(part) for key, part in value.items()}
    return value.detach().cpu() if isinstance(value, Tensor) else value


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict) and "class" in value:
        return CLASSES[value["class"]](**{name: _unpacked(part) for name, part in value["fields"].items()})
    return value


def _collected(rollout: Rollout) -> dict[str, Tensor]:
    """Arrays of a rollout; numbers in slots that are no data become 0."""
    valid = getattr(rollout, "valid", None)
    arrays = {name: value for name, value in vars(rollout).items() if isinstance(value, np.ndarray)}
    kept = {}
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            continue
        if valid is not None and array.shape[:2] == valid.shape:
            array = np.where(valid.reshape(*valid.shape, *[1] * (array.ndim - 2)), array, 0.0)
        if array.ndim <= 2 or not np.isfinite(array).all():
            kept[name] = torch.from_numpy(np.ascontiguousarray(array))
    return kept
