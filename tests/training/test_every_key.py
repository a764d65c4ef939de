"""No dead options: every key, changed alone, changes what a run computes, or has its own test elsewhere."""

import hashlib

import numpy as np
import pytest
import pytorch_lightning as pl

from trpo_lightning import TRPO
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.settings import RunSettings, keys, updated

BASE = {
    "env.id": "Hopper-v5",
    "env.num_envs": 4,
    "env.backend": "gymnasium",
    "env.max_episode_steps": 16,
    "rollout.steps_per_iteration": 128,
    "value.epochs": 1,
    "value.minibatch_size": 32,
    "checkpoint.every": 2,
    "total_env_steps": 370,
    "threads": 1,
}
CHANGES = {
    "env.id": ({}, "Swimmer-v5"),
    "env.num_envs": ({}, 8),
    "env.backend": ({}, "envpool"),
    "env.max_episode_steps": ({}, 8),
    "env.kwargs": ({}, {"ctrl_cost_weight": 0.5}),
    "rollout.steps_per_iteration": ({}, 64),
    "normalize.observations": ({}, False),
    "normalize.rewards": ({}, False),
    "normalize.observation_clip": ({}, 0.1),
    "normalize.reward_clip": ({}, 0.01),
    "policy.hidden_sizes": ({}, [32]),
    "policy.activation": ({}, "relu"),
    "policy.initial_log_std": ({}, -1.0),
    "rule.name": ({}, "vanilla_policy_gradient"),
    "rule.delta": ({}, 0.05),
    "rule.cg_iterations": ({}, 1),
    "rule.cg_tolerance": ({}, 0.9),
    "rule.damping": ({}, 1.0),
    "rule.step_length": ({}, "undamped"),
    "rule.kl_direction": ({"rule.delta": 5.0, "rule.step_length": "undamped", "rule.backtrack_ratio": 0.98}, "new_old"),
    "rule.fisher_fraction": ({}, 1.0),
    "rule.backtrack_ratio": ({"rule.delta": 5.0, "rule.step_length": "undamped"}, 0.5),
    "rule.max_backtracks": ({"rule.delta": 5.0, "rule.step_length": "undamped"}, 0),
    "rule.kl_slack": ({"rule.delta": 5.0, "rule.step_length": "undamped"}, None),
    "rule.improvement_ratio": ({}, 0.99),
    "rule.standardize_advantages": ({"rule.name": "vanilla_policy_gradient", "normalize.rewards": False}, False),
    "rule.learning_rate": ({"rule.name": "vanilla_policy_gradient"}, 0.1),
    "value.hidden_sizes": ({}, [32]),
    "value.activation": ({}, "elu"),
    "value.learning_rate": ({}, 0.1),
    "value.epochs": ({}, 2),
    "value.minibatch_size": ({}, 64),
    "value.targets": ({}, "returns"),
    "value.bootstrap_time_limits": ({}, False),
    "checkpoint.every": ({}, 1),
    "gamma": ({}, 0.5),
    "gae_lambda": ({}, 0.5),
    "total_env_steps": ({}, 600),
    "seed": ({}, 1),
}
"""For each key: settings under which it counts, and another value."""
ELSEWHERE = {
    "env.asynchronous": "test_barriers, test_transitions: the same results from other processes",
    "evaluation.every": "test_barriers: rows of evaluation, no effect on the run",
    "evaluation.episodes": "test_evaluation_episodes_are_as_many_as_asked",
    "tracking.wandb": "test_wandb",
    "tracking.project": "test_wandb",
    "tracking.entity": "test_wandb",
    "tracking.group": "test_wandb",
    "tracking.tags": "test_wandb",
    "name": "test_declaration: names the run directory",
    "threads": "test_threads_and_device_reach_their_places",
    "device": "test_threads_and_device_reach_their_places",
}


def fingerprint(values: dict) -> str:
    """A hash of everything that three iterations leave behind."""
    module = TRPO(settings=updated(RunSettings(), {**BASE, **values}))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    pl.Trainer(max_epochs=-1, enable_model_summary=False, accelerator="cpu", **quiet).fit(module)
    digest = hashlib.sha256()
    for part in (module.policy, module.value_function):
        digest.update(parameter_vector(part).numpy().tobytes())
    digest.update(np.array([module.iteration, module.env_steps]).tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def known():
    """Fingerprints by settings: most keys share the same base."""
    return {}


@pytest.mark.parametrize("key", CHANGES)
def test_a_key_changes_the_run(key, known):
    under, value = CHANGES[key]
    base = str(sorted(under.items()))
    if base not in known:
        known[base] = fingerprint(under)
    assert fingerprint({**under, key: value}) != known[base]


def test_every_key_is_accounted_for():
    assert set(CHANGES) | set(ELSEWHERE) == set(keys())


def test_evaluation_episodes_are_as_many_as_asked():
    from trpo_lightning.training.evaluation import evaluate

    module = TRPO(settings=updated(RunSettings(), {**BASE, "evaluation.episodes": 3}))
    assert len(evaluate(module, deterministic=True).returns) == 3


def test_threads_and_device_reach_their_places(tmp_path, monkeypatch):
    from trpo_lightning.training import run

    seen = {}

    class Stop(Exception):
        pass

    def trainer(**arguments):
        seen.update(arguments)
        raise Stop

    monkeypatch.setattr(run.pl, "Trainer", trainer)
    settings = updated(RunSettings(), {**BASE, "threads": 2, "device": "gpu", "tracking.wandb": "disabled"})
    with pytest.raises(Stop):
        run.train_run(settings, tmp_path, write_config=lambda *_: None, quiet=True)
    assert seen["accelerator"] == "gpu" and TRPO(settings=settings).collector.threads == 2
