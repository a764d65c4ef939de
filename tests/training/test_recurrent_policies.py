"""Policies with a memory as users meet them: any spaces, sessions, files, refusals, failed updates."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from environments import ACTION_SPACES, OBSERVATION_SPACES, VECTOR, OneStep
from gymnasium import spaces

from trpo_lightning import TRPO, UserError, load
from trpo_lightning.__main__ import main
from trpo_lightning.rollouts.episodes import run_episodes
from trpo_lightning.runs.config import load_settings
from trpo_lightning.runs.run import train_run
from trpo_lightning.training.batches import make_batch
from trpo_lightning.training.failed_update import read_failed_update

every_cell = pytest.mark.parametrize("name", ["gru", "lstm"])
SMALL = dict(num_envs=2, steps_per_iteration=8, value={"name": "none"}, threads=1)


def module_for(observations=VECTOR, actions=ACTION_SPACES["discrete"], name="gru", environment=None, **more):
    policy = {"name": name, "hidden_sizes": [4, 3], "initial_log_std": 1.0}
    module = TRPO(environment or (lambda: OneStep(observations, actions)), **{**SMALL, "policy": policy, **more})
    for parameter in module.policy.parameters():
        parameter.data += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return module


def update(module):
    """One update from a rollout, as `training_step` makes it."""
    rollout = module.collect()
    return module.update(make_batch(rollout, module.value_function, module.settings, module.device).batch)


@every_cell
@pytest.mark.parametrize("space", OBSERVATION_SPACES)
def test_any_observations_are_remembered(tmp_path, name, space):
    module = module_for(observations=OBSERVATION_SPACES[space], name=name)
    assert update(module).rejection_reason is None or space == "box_scalar"
    module.scheme.close()
    module.save(tmp_path / "kept.pt")
    session = load(tmp_path / "kept.pt").session()
    env = OneStep(OBSERVATION_SPACES[space], spaces.Discrete(4))
    observation, _ = env.reset(seed=0)
    for _ in range(3):
        observation = env.step(session.act(observation))[0]


@every_cell
@pytest.mark.parametrize("space", ACTION_SPACES)
def test_any_actions_are_taken(tmp_path, name, space):
    module = module_for(actions=ACTION_SPACES[space], name=name)
    assert torch.isfinite(update(module).theta).all()
    module.scheme.close()
    env, session = OneStep(VECTOR, ACTION_SPACES[space]), module.session()
    observation, _ = env.reset(seed=0)
    for _ in range(3):
        observation = env.step(session.act(observation, deterministic=False))[0]


@every_cell
def test_a_session_remembers_until_it_is_reset(name):
    policy = module_for(name=name, actions=ACTION_SPACES["box"]).trained_policy()
    session, seen = policy.session(), [VECTOR.sample() for _ in range(3)]
    first = [session.act(x) for x in seen]
    again = session.act(seen[0])
    session.reset()
    assert np.array_equal(first, [session.act(x) for x in seen])
    assert not np.array_equal(again, first[0])


@every_cell
def test_environments_of_a_batch_are_reset_by_themselves(name):
    policy = module_for(name=name, actions=ACTION_SPACES["box"]).trained_policy()
    seen = [np.stack([VECTOR.sample() for _ in range(2)]) for _ in range(4)]
    batch, alone = policy.session(), [policy.session() for _ in range(2)]
    for t, observations in enumerate(seen):
        if t == 2:
            batch.reset([False, True])
            alone[1].reset()
        expected = [session.act(x) for session, x in zip(alone, observations, strict=True)]
        np.testing.assert_allclose(batch.act(observations), expected, atol=1e-6)
    with pytest.raises(ValueError, match="remembers 2 episodes, and gets 1"):
        batch.act(seen[0][:1])
    for mask in ([True], [True, False, True]):
        with pytest.raises(ValueError, match=f"remembers 2 episodes, and the mask is of {len(mask)}"):
            batch.reset(mask)


def test_sessions_of_policies_without_a_memory_are_act():
    policy = module_for(name="mlp").trained_policy()
    session, observation = policy.session(), VECTOR.sample()
    session.reset(), session.reset([True])
    assert session.act(observation) == policy.act(observation)


@every_cell
def test_act_alone_says_how_a_policy_with_a_memory_acts(name):
    with pytest.raises(UserError, match=f"policy.name={name} remembers the episode: make `session = policy.session"):
        module_for(name=name).act(VECTOR.sample())


@every_cell
@pytest.mark.parametrize("deterministic", [True, False])
def test_evaluation_plays_what_a_session_plays(name, deterministic):
    """One environment and one observation at a time."""
    module = module_for(name=name, environment="CartPole-v1", backend="gymnasium")
    trained = module.trained_policy()
    found = run_episodes(
        trained.policy, trained.normalizer, module.settings.env, module.spec, episodes=3, deterministic=True, seed=0
    )
    env, session, steps = gym.make("CartPole-v1"), trained.session(), []
    from trpo_lightning.randomness import Stream, environment_seed

    for i in range(3):
        session.reset()
        observation, _ = env.reset(seed=environment_seed(0, Stream.EVALUATION_ENVIRONMENT, 0, i))
        over, count = False, 0
        while not over:
            observation, _, terminated, truncated, _ = env.step(session.act(observation))
            over, count = terminated or truncated, count + 1
        steps.append(count)
    assert found.lengths.tolist() == steps


REFUSED = {
    "rollout.scheme=population rule.name=cem": "policy.name=gru does not go with rollout.scheme=population",
    "rollout.scheme=exact value.name=none rule.fisher_fraction=1 env.id=FrozenLake-v1": (
        "policy.name=gru does not go with rollout.scheme=exact"
    ),
    "policy.hidden_sizes=[]": "policy.hidden_sizes=[] has no last layer to be recurrent",
    "value.name=lstm value.hidden_sizes=[]": "value.hidden_sizes=[] has no last layer to be recurrent",
    "value.name=gru rollout.scheme=vine": "value.name=gru does not go with rollout.scheme=vine",
    "value.name=gru value.minibatch_size=3": "value.minibatch_size does not count with value.name=gru",
    "devices=2": "policy.name=gru does not go with devices=2",
    "policy.name=mlp value.name=gru devices=2": "value.name=gru does not go with devices=2",
    "policy.hidden_sizes=[0]": "policy.hidden_sizes[0]=0 is too small",
}


@pytest.mark.parametrize("keys", REFUSED)
def test_what_cannot_be_trained_is_one_line(keys, capsys):
    assert main(["train", "env.id=CartPole-v1", "policy.name=gru", *keys.split(), "--run-dir", "/nonexistent"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and REFUSED[keys] in line


def test_a_rule_that_takes_single_rows_is_told_in_one_line(monkeypatch):
    monkeypatch.syspath_prepend("examples")
    module = module_for(rule={"name": "kl_penalty_rule:KLPenalty"})
    with pytest.raises(UserError, match="whole sequences, not single rows"):
        update(module)
    module.scheme.close()


RUN = """env.id=CartPole-v1 env.backend=gymnasium env.num_envs=2 rollout.steps_per_iteration=32 policy.name=gru
    policy.hidden_sizes=[4] value.name=lstm value.hidden_sizes=[4] value.epochs=1 total_iterations=2 evaluation.every=1
    evaluation.episodes=1 tracking.wandb=disabled threads=1""".split()


def test_a_run_is_evaluated_and_exported_without_a_graph_of_one_step(tmp_path, capsys):
    assert main(["train", *RUN, "--run-dir", str(tmp_path / "run"), "--quiet"]) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--episodes", "2"]) == 0
    pytest.importorskip("safetensors")
    assert main(["export", str(tmp_path / "run"), "--to", str(tmp_path / "folder")]) == 0
    said = capsys.readouterr().out
    assert "no policy.onnx: policy.name=gru remembers the episode" in said
    assert "session = policy.session()" in (tmp_path / "folder" / "README.md").read_text()
    sessions = [load(tmp_path / where).session() for where in ("run", "folder")]
    for _ in range(3):
        observation = np.random.default_rng(0).standard_normal(4)
        assert sessions[0].act(observation) == sessions[1].act(observation)


def test_a_failed_update_of_sequences_replays(tmp_path):
    settings = load_settings([*RUN, "rule.max_rejections=1", "rule.kl_slack=1e-12", "evaluation.every=0"])
    with pytest.raises(UserError, match="replay"):
        train_run(settings, tmp_path / "run", quiet=True)
    failed = read_failed_update(next((tmp_path / "run").glob("failed_update_*.pt")))
    assert failed.update(failed.settings).rejection_reason == failed.reason
    assert failed.batch.observations.states.shape == (len(failed.batch.observations.lengths), 4)
