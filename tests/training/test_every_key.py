"""No dead options: every key, changed alone, changes what a run computes, or has its own test elsewhere."""

import hashlib
from contextlib import suppress
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import pytorch_lightning as pl

from trpo_lightning import TRPO
from trpo_lightning.errors import StuckError
from trpo_lightning.settings import RunSettings, all_keys, updated
from trpo_lightning.training.evaluation import episodes_now, evaluate

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
VINE = {"rollout.scheme": "vine", "value.name": "none", "rollout.rollout_set_size": 5, "rollout.branch_length": 3}
CEM = {"rule.name": "cem", "rollout.scheme": "population", "rule.population": 6, "policy.hidden_sizes": []}
RWR = {"rule.name": "reward_weighted_regression", "value.name": "none", "gae_lambda": 1.0}
SEEN = {"env.id": "image_environments:Light", "env.max_episode_steps": None, "policy.activation": "relu"}
GAME = {"env.id": "ALE/Breakout-v5", "env.frame_size": [24, 24], "env.noop_max": 2, "env.max_episode_steps": 100}
CHANGES = {
    "env.id": ({}, "Swimmer-v5"),
    "env.num_envs": ({}, 8),
    "env.backend": ({}, "envpool"),
    "env.max_episode_steps": ({}, 8),
    "env.wrappers": ({"env.backend": "gymnasium"}, ["gymnasium.wrappers:TimeAwareObservation"]),
    "env.scale_actions": ({"env.id": "InvertedPendulum-v5"}, False),
    "env.frame_skip": (GAME, 2),
    "env.frame_stack": (GAME, 2),
    "env.frame_size": (GAME, [28, 28]),
    "env.noop_max": (GAME, 30),
    "env.sticky_actions": (GAME, 0.5),
    "env.episodic_life": (GAME, True),
    "env.kwargs": ({}, {"ctrl_cost_weight": 0.5}),
    "rollout.steps_per_iteration": ({}, 64),
    "rollout.scheme": ({"value.name": "none"}, "vine"),
    "rollout.whole_episodes": ({}, True),
    "rollout.spread_episodes": ({}, True),
    "rollout.rollout_set_size": (VINE, 6),
    "rollout.branches": (VINE, 3),
    "rollout.branch_length": (VINE, 4),
    "rollout.branch_actions": ({**VINE, "env.id": "CartPole-v1"}, "all"),
    "normalize.observations": ({}, False),
    "normalize.rewards": ({}, False),
    "normalize.reward_signs": ({}, True),
    "normalize.first_rewards": ({}, "raw"),
    "normalize.observation_clip": ({}, 0.1),
    "normalize.reward_clip": ({}, 0.01),
    "policy.name": ({}, "own_methods:WideStart"),
    "policy.hidden_sizes": ({}, [32]),
    "policy.activation": ({}, "relu"),
    "policy.image_network": (SEEN, "sizes"),
    "policy.convolutions": ({**SEEN, "policy.image_network": "sizes"}, ["8x4/4"]),
    "policy.initial_log_std": ({}, -1.0),
    "policy.least_log_std": ({}, 2.0),
    "rule.name": ({}, "vanilla_policy_gradient"),
    "rule.delta": ({}, 0.05),
    "rule.cg_iterations": ({}, 1),
    "rule.cg_tolerance": ({}, 0.9),
    "rule.damping": ({}, 1.0),
    "rule.final_delta": ({}, 0.005),
    "rule.annealing_steps": ({}, 1000),
    "rule.step_length": ({}, "undamped"),
    "rule.max_step_size": ({}, 1e-3),
    "rule.kl_state_slack": ({}, 1e-2),
    "rule.step_size": ({"rule.step_length": "fixed"}, 0.01),
    "rule.curvature": ({}, "empirical_fisher"),
    "rule.solve_dtype": ({}, "float64"),
    "rule.kl_over_states": ({}, "max"),
    "rule.kl_over_dimensions": ({}, "sum"),
    "rule.entropy_bonus": ({}, 0.1),
    "rule.discounted_state_weights": ({}, True),
    "rule.kl_direction": ({"rule.delta": 5.0, "rule.step_length": "undamped", "rule.backtrack_ratio": 0.98}, "new_old"),
    "rule.fisher_fraction": ({}, 0.2),
    "rule.backtrack_ratio": ({"rule.delta": 5.0, "rule.step_length": "undamped"}, 0.5),
    "rule.max_backtracks": ({"rule.delta": 5.0, "rule.step_length": "undamped"}, 0),
    "rule.kl_slack": ({"rule.delta": 5.0, "rule.step_length": "undamped"}, None),
    "rule.improvement_ratio": ({}, 0.99),
    "rule.reuse": ({}, "uniform"),
    "rule.reuse_batches": ({"rule.reuse": "uniform"}, 2),
    "rule.reuse_size": ({"rule.reuse": "optimal"}, 1.5),
    "rule.reuse_tradeoff": ({"rule.reuse": "optimal"}, 0.0),
    "rule.reuse_truncation": ({"rule.reuse": "uniform"}, None),
    "rule.max_rejections": ({"rule.kl_slack": 1e-9}, 1),
    "rule.standardize_advantages": ({"rule.name": "vanilla_policy_gradient", "normalize.rewards": False}, False),
    "rule.learning_rate": ({"rule.name": "vanilla_policy_gradient"}, 0.1),
    "rule.population": (CEM, 8),
    "rule.episodes_per_candidate": (CEM, 2),
    "rule.initial_std": (CEM, 0.1),
    "rule.elite_fraction": (CEM, 0.5),
    "rule.extra_std": (CEM, 1.0),
    "rule.extra_std_generations": ({**CEM, "rule.extra_std": 1.0}, 1),
    "rule.covariance": ({**CEM, "rule.name": "cma_es"}, "diagonal"),
    "rule.effective_sample_fraction": (RWR, 0.5),
    "rule.least_log_std": (RWR, 0.5),
    "rule.regression_iterations": (RWR, 1),
    "value.name": ({}, "linear"),
    "value.features": ({}, "policy"),
    "value.hidden_sizes": ({}, [32]),
    "value.activation": ({}, "elu"),
    "value.image_network": (SEEN, "sizes"),
    "value.convolutions": ({**SEEN, "value.image_network": "sizes"}, ["8x4/4"]),
    "value.learning_rate": ({}, 0.1),
    "value.epochs": ({}, 2),
    "value.minibatch_size": ({}, 64),
    "value.clip": ({}, 0.001),
    "value.minibatches": ({"value.name": "gru"}, 2),
    "value.iterations": ({"value.name": "lbfgs"}, 1),
    "value.l2": ({"value.name": "lbfgs"}, 1.0),
    "value.epsilon": ({"value.name": "trust_region"}, 1e-4),
    "value.cg_iterations": ({"value.name": "trust_region"}, 1),
    "value.damping": ({"value.name": "trust_region"}, 1.0),
    "value.rescale": ({"value.name": "trust_region", "value.epsilon": 100.0}, "always"),
    "value.targets": ({}, "returns"),
    "value.bootstrap_time_limits": ({}, False),
    "checkpoint.every": ({}, 1),
    "gamma": ({}, 0.5),
    "gae_lambda": ({}, 0.5),
    "total_env_steps": ({}, 600),
    "total_iterations": ({}, 2),
    "seed": ({}, 1),
}
"""For each key: settings under which it counts, and another value."""
ELSEWHERE = {
    "env.asynchronous": "test_barriers, test_transitions: the same results from other processes",
    "env.instances": "test_one_instance: evaluation opens no more environments",
    "env.timeout": "faults/test_environments: what hangs ends",
    "env.restarts": "faults/test_environments: environments are built anew",
    "evaluation.every": "test_barriers: rows of evaluation, no effect on the run",
    "evaluation.episodes": "test_evaluation_episodes_are_as_many_as_asked",
    "evaluation.final_episodes": "test_the_last_iteration_may_be_evaluated_over_more_episodes",
    "tracking.loggers": "tracking/test_loggers, test_background_logger",
    "tracking.mlflow": "report/test_tracked: where runs are looked for",
    "tracking.wandb": "test_wandb",
    "tracking.project": "test_wandb",
    "tracking.entity": "test_wandb",
    "tracking.group": "test_wandb",
    "tracking.tags": "test_wandb",
    "name": "test_declaration: names the run directory",
    "threads": "test_threads_and_device_reach_their_places",
    "devices": "test_ranks, runs/test_devices: the same results from several processes",
    "device": "test_threads_and_device_reach_their_places",
}


def fingerprint(values: dict) -> str:
    """A hash of everything that three iterations leave behind."""
    module = TRPO(settings=updated(RunSettings(), {**BASE, **values}, lenient=BASE.keys() - values.keys()))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    with suppress(StuckError), TemporaryDirectory() as folder:
        pl.Trainer(max_epochs=-1, enable_model_summary=False, accelerator="cpu", default_root_dir=folder, **quiet).fit(
            module
        )
    digest = hashlib.sha256()
    for tensor in [*module.policy.state_dict().values(), *module.value_function.state_dict().values()]:
        digest.update(tensor.numpy().tobytes())
    digest.update(np.array([module.iteration, module.env_steps]).tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def known():
    """Fingerprints by settings: most keys share the same base."""
    return {}


@pytest.mark.parametrize("key", CHANGES)
def test_a_key_changes_the_run(key, known):
    under, value = CHANGES[key]
    if under is GAME:
        pytest.importorskip("ale_py")
    base = str(sorted(under.items()))
    if base not in known:
        known[base] = fingerprint(under)
    assert fingerprint({**under, key: value}) != known[base]


def test_every_key_is_accounted_for():
    assert set(CHANGES) | set(ELSEWHERE) == set(all_keys())


def test_evaluation_episodes_are_as_many_as_asked():
    module = TRPO(settings=updated(RunSettings(), {**BASE, "evaluation.episodes": 3}))
    assert len(evaluate(module, 3, deterministic=True).returns) == 3


@pytest.mark.parametrize("budget", [{"total_iterations": 5}, {"total_iterations": None, "total_env_steps": 70}])
@pytest.mark.parametrize(("every", "expected"), [(0, {5: 7}), (2, {2: 3, 4: 3, 5: 7}), (5, {5: 7})])
def test_the_last_iteration_may_be_evaluated_over_more_episodes(every, expected, budget):
    evaluation = {"evaluation.every": every, "evaluation.episodes": 3}
    settings = updated(RunSettings(), {**evaluation, "evaluation.final_episodes": 7, **budget})
    found = {i: episodes_now(settings, i, i * 14) for i in range(1, 6)}
    assert {i: episodes for i, episodes in found.items() if episodes} == expected
    without = updated(RunSettings(), {**evaluation, **budget})
    assert episodes_now(without, 5, 70) == (3 if every == 5 else 0)


def test_threads_and_device_reach_their_places(tmp_path, monkeypatch):
    from trpo_lightning.runs import run
    from trpo_lightning.runs.ranks import member

    seen = {}

    class Stop(Exception):
        pass

    def trainer(**arguments):
        seen.update(arguments)
        raise Stop

    monkeypatch.setattr(member.pl, "Trainer", trainer)
    settings = updated(RunSettings(), {**BASE, "threads": 2, "device": "gpu", "tracking.wandb": "disabled"})
    with pytest.raises(Stop):
        run.train_run(settings, tmp_path, quiet=True)
    assert seen["accelerator"] == "gpu" and TRPO(settings=settings).scheme.threads == 2
