"""Agreement with another library: its advantages and policy updates, recomputed here from its own batches."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trpo_lightning.benchmark.bench import Bench
from trpo_lightning.benchmark.comparisons import is_there, run_peer
from trpo_lightning.benchmark.configurations import LIKE_SB3
from trpo_lightning.benchmark.peer_environment import SB3
from trpo_lightning.benchmark.processes import MeasurementError
from trpo_lightning.benchmark.results import Result, Target
from trpo_lightning.environments.backends import describe_environment
from trpo_lightning.numerics.returns import generalized_advantages, standardize
from trpo_lightning.policies.networks import assign_parameter_vector
from trpo_lightning.policies.policy import build_policy
from trpo_lightning.policies.sequences import rows_of
from trpo_lightning.policies.spaces import ContinuousActions
from trpo_lightning.rollouts.rollout import Batch
from trpo_lightning.rules.trust_region import TrustRegionRule
from trpo_lightning.settings import EnvSettings, RunSettings, get, updated

ITERATIONS = 40
ADVANTAGES = "largest difference of advantages / their std"
UPDATE = "distance of the policy update from theirs / its length"
Arrays = dict[str, np.ndarray]


def parity(bench: Bench) -> list[Result]:
    """Compare advantages and policy updates of sb3-contrib with ours, recomputed from its own batches."""
    results: list[Result] = []
    for environment in bench.peer_environments if is_there(bench, SB3) else ():
        try:
            results += _compared(bench, environment)
        except MeasurementError as error:
            bench.note(f"{SB3.name} was not compared on {environment}: {error}")
    return results


def _compared(bench: Bench, environment: str) -> list[Result]:
    """The differences in each iteration, and the largest ones, which have targets."""
    if not isinstance(describe_environment(EnvSettings(id=environment)).actions, ContinuousActions):
        raise MeasurementError("only policies of continuous actions are compared")
    folder = bench.folder / f"batches_{environment}"
    folder.mkdir()
    settings = updated(RunSettings(), LIKE_SB3)
    total = ITERATIONS * get(settings, "rollout.steps_per_iteration")
    keys = {**LIKE_SB3, "env.id": environment, "total_env_steps": total}
    run_peer(bench, SB3, keys, batches=folder.resolve())
    batches = [_arrays(folder / f"{i}.npz") for i in range(1, ITERATIONS + 1)]
    found = {
        ADVANTAGES: ([advantage_difference(b, settings) for b in batches], Target(1e-4, at_least=False)),
        UPDATE: ([update_difference(b, settings) for b in batches], Target(1e-2, at_least=False)),
    }
    for name, (values, _) in found.items():
        bench.say(f"  {environment}, {ITERATIONS} iterations, {name}: at most {np.max(values):.1e}")
    subject = f"{environment}, the first {ITERATIONS} iterations of {SB3.name}"
    each = [Result(subject, name, "x", tuple(values)) for name, (values, _) in found.items()]
    largest = {name: (float(np.max(values)), target) for name, (values, target) in found.items()}  # NaN if one is
    return each + [Result(subject, f"{name}, at most", "x", (v,), target) for name, (v, target) in largest.items()]


def _arrays(file: Path) -> Arrays:
    with np.load(file) as stored:
        return dict(stored)


def advantage_difference(batch: Arrays, settings: RunSettings) -> float:
    """The largest difference between an advantage and ours from `generalized_advantages`, in units of their std.

    That library adds the bootstrap at time limits to its rewards, so every episode end is a termination here.
    """
    ended = torch.from_numpy(np.concatenate([batch["episode_starts"][1:], batch["last_dones"][None]])).bool()
    values = torch.from_numpy(np.concatenate([batch["values"], batch["last_values"][None]])).double()
    rewards, theirs = (torch.from_numpy(batch[name]).double() for name in ("rewards", "advantages"))
    valid = torch.ones_like(ended)
    ours = generalized_advantages(
        rewards, values, ended, ended, valid, gamma=settings.gamma, gae_lambda=settings.gae_lambda
    )
    return float((ours - theirs).abs().max() / theirs.std())


def update_difference(batch: Arrays, settings: RunSettings) -> float:
    """The distance between the parameters after our update and theirs, relative to the length of their step."""

    def rows(name: str) -> Tensor:
        return torch.from_numpy(batch[name]).float().flatten(0, 1)

    before, after = (torch.from_numpy(batch[name]) for name in ("before", "after"))
    learned = Batch(rows("observations"), rows("actions"), *standardize(rows("advantages")))
    policy = _policy(learned, before, settings)
    result = TrustRegionRule(settings.rule).update(policy, learned, torch.Generator())
    length, difference = float((after - before).norm()), float((result.theta - after).norm())
    return difference / length if length else (0.0 if difference == 0.0 else float("inf"))


def _policy(batch: Batch, theta: Tensor, settings: RunSettings) -> Any:
    policy = build_policy(
        tuple(rows_of(batch.observations).shape[1:]),
        ContinuousActions(batch.actions.shape[1]),
        settings.policy,
        torch.Generator(),
    )
    assign_parameter_vector(policy, theta)
    return policy
