"""A trained policy acts on what `reset` returns, and `step` takes what it does, wherever it was loaded from."""

import gymnasium as gym
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from environments import ACTION_SPACES, OBSERVATION_SPACES, VECTOR, OneStep
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from pytorch_lightning.callbacks import ModelCheckpoint

from trpo_lightning import TRPO, UserError, load
from trpo_lightning.environments.recorded_spaces import spaces_of
from trpo_lightning.storage.checksummed_file import read, save
from trpo_lightning.training.trained_policy import load_file

SMALL = dict(num_envs=2, steps_per_iteration=8, policy={"hidden_sizes": [4]}, value={"hidden_sizes": [4]}, threads=1)


def module_for(observations=VECTOR, actions=ACTION_SPACES["discrete"], **more):
    return TRPO(lambda: OneStep(observations, actions), **{**SMALL, **more})


def trainer(folder, *callbacks, **more):
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder)
    return pl.Trainer(max_epochs=2, callbacks=list(callbacks), enable_checkpointing=bool(callbacks), **quiet, **more)


def play(policy, env, steps=3, deterministic=True):
    """`OneStep` refuses actions that are not in its space."""
    observation, _ = env.reset(seed=0)
    for _ in range(steps):
        action = policy.act(observation, deterministic=deterministic)
        observation = env.step(action)[0]
    return action


@pytest.mark.parametrize("name", OBSERVATION_SPACES)
def test_any_observation_and_batches_of_them(tmp_path, name):
    space = OBSERVATION_SPACES[name]
    policy = module_for(observations=space).trained_policy()
    policy.save(tmp_path / "kept.pt")
    policy = load(tmp_path / "kept.pt")
    action = play(policy, OneStep(space, spaces.Discrete(4)))
    assert type(action) is int
    observations = [space.sample() for _ in range(3)]
    batch = policy.act(observations)
    assert batch.tolist() == [policy.act(one) for one in observations]
    envs = gym.vector.SyncVectorEnv([lambda: OneStep(space, spaces.Discrete(4))] * 3)
    seen, _ = envs.reset(seed=1)
    envs.step(policy.act(seen))


@pytest.mark.parametrize("name", ACTION_SPACES)
def test_any_action_is_in_its_space(tmp_path, name):
    space = ACTION_SPACES[name]
    policy = module_for(actions=space, policy={"hidden_sizes": [4], "initial_log_std": 2.0}).trained_policy()
    policy.save(tmp_path / "kept.pt")
    policy = load(tmp_path / "kept.pt")
    env = OneStep(VECTOR, space)
    for deterministic in (True, False):
        action = play(policy, env, deterministic=deterministic)
        assert space.contains(action)
    batch = policy.act(np.zeros((5, 2)), deterministic=False)
    assert batch_space(space, 5).contains(batch)


def test_cartpole_takes_an_int_whatever_steps_it(tmp_path):
    TRPO("CartPole-v1", **SMALL).trained_policy().save(tmp_path / "kept.pt")
    policy, env = load(tmp_path / "kept.pt"), gym.make("CartPole-v1")
    assert type(play(policy, env, steps=1)) is int
    env.close()


def test_what_envpool_has_trained_acts_in_gymnasium(tmp_path):
    pytest.importorskip("envpool")
    module = TRPO("Hopper-v5", **SMALL)
    module.trained_policy().save(tmp_path / "kept.pt")
    policy, env = load(tmp_path / "kept.pt"), gym.make("Hopper-v5")
    action = policy.act(env.reset(seed=0)[0])
    assert module.spec.backend == "envpool" and env.action_space.contains(action)
    env.close()


def test_a_checkpoint_of_lightnings_acts_as_the_module_did(tmp_path):
    module = module_for(actions=ACTION_SPACES["box"])
    kept = ModelCheckpoint(tmp_path / "checkpoints", filename="{epoch}", save_top_k=-1)
    fit = trainer(tmp_path, kept)
    fit.fit(module)
    fit.save_checkpoint(tmp_path / "final.ckpt")
    observations = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    expected = module.trained_policy().act(observations)
    for place in (tmp_path / "final.ckpt", tmp_path / "checkpoints" / "epoch=1.ckpt", tmp_path):
        policy = load(place)
        np.testing.assert_array_equal(policy.act(observations), expected)
        assert (policy.iteration, policy.env_steps) == (2, 16)
    assert load(tmp_path / "checkpoints" / "epoch=0.ckpt").iteration == 1
    with pytest.raises(UserError, match=r"trpo_lightning\.load"):
        trainer(tmp_path).fit(module_for(actions=ACTION_SPACES["box"]), ckpt_path=tmp_path / "final.ckpt")


def test_other_files_of_torch_are_refused_in_one_line(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=r"other\.ckpt: is a file of torch's without a policy"):
        load(tmp_path / "other.ckpt")
    torch.save({"trpo_lightning": object}, tmp_path / "code.ckpt")
    with pytest.raises(UserError, match=r"code\.ckpt: is refused"):
        load(tmp_path / "code.ckpt")
    whole = (tmp_path / "other.ckpt").read_bytes()
    (tmp_path / "half.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"half\.ckpt: is refused"):
        load(tmp_path / "half.ckpt")


@pytest.mark.parametrize("name", ["discrete", "multi_discrete", "box", "multi_binary"])
def test_files_without_spaces_act_with_what_is_known(tmp_path, name):
    module_for(actions=ACTION_SPACES[name]).trained_policy().save(tmp_path / "kept.pt")
    state = read(tmp_path / "kept.pt")
    del state["spaces"]
    save(state, tmp_path / "old.pt")
    old, new = load_file(tmp_path / "old.pt"), load_file(tmp_path / "kept.pt")
    assert old.spec.spaces is None and spaces_of(new.spec) == (VECTOR, ACTION_SPACES[name])
    observation = np.array([0.1, -0.2], np.float32)
    np.testing.assert_array_equal(old.act(observation), new.act(observation))


def test_a_policy_acts_without_the_object_that_it_was_trained_on(tmp_path):
    module = module_for()
    module.trained_policy().save(tmp_path / "kept.pt")
    state = read(tmp_path / "kept.pt")
    state["settings"]["env"]["id"] = "<function 999>"
    save(state, tmp_path / "elsewhere.pt")
    assert load(tmp_path / "elsewhere.pt").act(np.zeros(2, np.float32)) in range(4)
