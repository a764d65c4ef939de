"""Whole episodes of candidates, against playing them one by one."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch
from environments import Walk, policy_for
from methods import mlp_policy

from trpo_lightning.environments.backends import describe_environment
from trpo_lightning.environments.spaces import to_env_action
from trpo_lightning.errors import UserError
from trpo_lightning.policies.networks import assign_parameter_vector
from trpo_lightning.policies.spaces import BinaryActions, ContinuousActions, DiscreteActions
from trpo_lightning.randomness import Stream, environment_seed
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.rollouts.population import PopulationScheme, _Actors
from trpo_lightning.settings import from_keywords

WALK = {"id": "environments:walk", "backend": "gymnasium", "max_episode_steps": 12}
PENDULUM = {"id": "Pendulum-v1", "backend": "gymnasium", "max_episode_steps": 9}


def around(policy, generator, count=7):
    theta = torch.cat([p.detach().reshape(-1) for p in policy.parameters()]).double()
    return theta + torch.randn(count, len(theta), dtype=torch.float64, generator=generator)


def scheme_for(env, *, num_envs, episodes=1, normalize=False, hidden_sizes=(3,), propose=around):
    settings = from_keywords(
        env={**env, "num_envs": num_envs},
        rollout={"scheme": "population"},
        rule={"name": "cem", "episodes_per_candidate": episodes},
        policy={"hidden_sizes": list(hidden_sizes)},
        normalize={"observations": normalize},
    )
    spec = describe_environment(settings.env)
    normalizer = Normalizer(spec.observation_shape, settings.normalize)
    return PopulationScheme(settings, spec, 1, propose), policy_for(settings, spec), normalizer


def with_theta(policy, theta):
    other = copy.deepcopy(policy)
    assign_parameter_vector(other, theta)
    return other


@torch.no_grad()
def play(env, observation, policy, normalizer, limit):
    """One episode by the distribution's mode: its return, length and the observations it acted on."""
    total, seen = 0.0, []
    for _ in range(limit):
        seen.append(observation)
        action = policy(torch.from_numpy(normalizer.normalize(observation[None]))).mode()[0].numpy()
        clipped = to_env_action(env.action_space, scaled=True)(action[None])[0]
        observation, reward, terminated, _, _ = env.step(clipped)
        total += float(reward)
        if terminated:
            break
    return total, len(seen), seen


@pytest.mark.parametrize(("num_envs", "episodes"), [(1, 1), (3, 1), (3, 2), (7, 1), (20, 2), (40, 1)])
@pytest.mark.parametrize("normalize", [False, True])
def test_returns_and_steps_are_those_of_the_candidates_alone(num_envs, episodes, normalize):
    scheme, policy, normalizer = scheme_for(WALK, num_envs=num_envs, episodes=episodes, normalize=normalize)
    if normalize:
        normalizer.merge(np.random.default_rng(0).normal(3.0, 2.0, (50, 2)), np.arange(50.0))
    frozen = copy.deepcopy(normalizer.state_dict())
    rollout = scheme.collect(policy, normalizer, iteration=4)
    env, expected, lengths, seen = Walk(), [], [], []
    for theta in rollout.candidates:
        found = play(env, env.reset()[0], with_theta(policy, theta.float()), normalizer, 12)
        expected.append(found[0])
        lengths.append(found[1])
        seen += episodes * found[2]
    assert len(set(lengths)) >= 3, "candidates should differ"
    np.testing.assert_allclose(rollout.returns.numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(rollout.episode_returns, np.repeat(expected, episodes), rtol=1e-5)
    assert rollout.episode_lengths == np.repeat(lengths, episodes).tolist()
    assert rollout.env_steps == episodes * sum(lengths)
    assert all(torch.equal(frozen[name], value) for name, value in normalizer.state_dict().items())
    observations, running = rollout.statistics()
    assert len(running) == 0 and observations.shape == (rollout.env_steps if normalize else 0, 2)
    if normalize:
        rows = [np.array(sorted(map(tuple, x))) for x in (observations, np.array(seen))]
        np.testing.assert_allclose(*rows, rtol=1e-5, atol=1e-6)
    scheme.close()


def test_environments_start_from_their_own_seeds_and_go_on_from_there():
    """Seven candidates, two episodes each, in three environments whose episodes have one length."""
    scheme, policy, normalizer = scheme_for(PENDULUM, num_envs=3, episodes=2)
    for iteration in (5, 6):
        rollout = scheme.collect(policy, normalizer, iteration)
        if iteration == 5:
            envs = [gym.make("Pendulum-v1") for _ in range(3)]
            starts = [environment_seed(0, Stream.ENVIRONMENT, iteration, i) for i in range(3)]
        returns = np.zeros(14)
        for episode in range(14):
            env = envs[episode % 3]
            seed = starts[episode] if iteration == 5 and episode < 3 else None
            candidate = with_theta(policy, rollout.candidates[episode // 2].float())
            returns[episode] = play(env, env.reset(seed=seed)[0], candidate, normalizer, 9)[0]
        np.testing.assert_allclose(rollout.episode_returns, returns, rtol=1e-4)
        np.testing.assert_allclose(rollout.returns.numpy(), returns.reshape(7, 2).mean(1), rtol=1e-4)
        assert rollout.env_steps == 14 * 9
        envs[2].reset()  # it idled while the others ran their fifth episode
    scheme.close()


@pytest.mark.parametrize(("env_id", "backend"), [("Pendulum-v1", "gymnasium"), ("Hopper-v5", "envpool")])
def test_the_same_seed_and_iteration_give_the_same_bits_after_a_restart(env_id, backend):
    if backend == "envpool":
        pytest.importorskip("envpool")
    env = {"id": env_id, "backend": backend, "max_episode_steps": 15}

    def collected(iterations, restart_at):
        scheme, policy, normalizer = scheme_for(env, num_envs=4)
        for iteration in iterations:
            if iteration == restart_at:
                scheme.restart(iteration)
            rollout = scheme.collect(policy, normalizer, iteration)
        scheme.close()
        return rollout

    through, fresh, other = collected(range(4), 3), collected([3], 3), collected([2], 2)
    assert torch.equal(through.candidates, fresh.candidates) and torch.equal(through.returns, fresh.returns)
    assert through.episode_lengths == fresh.episode_lengths
    assert not torch.equal(other.candidates, fresh.candidates) and not torch.equal(other.returns, fresh.returns)


@pytest.mark.parametrize("hidden_sizes", [[], [5, 4]])
@pytest.mark.parametrize("actions", [ContinuousActions(2), DiscreteActions((3, 2)), BinaryActions(4)])
def test_each_environment_acts_by_its_candidate_s_mode(actions, hidden_sizes):
    generator = torch.Generator().manual_seed(0)
    keywords = {"hidden_sizes": hidden_sizes, "activation": "tanh", "initial_log_std": 0.0}
    policy = mlp_policy((3,), actions, **keywords, generator=generator)
    candidates = around(policy, generator, 5)
    actors = _Actors(policy, candidates)
    for chosen in ([0, 1, 4, 4], [0, 1, 4, 4], [0, 1, 2, 4], [3, 3, 3, 3]):
        observations = torch.randn(4, 3, generator=generator)
        found = actors.act(np.array(chosen), observations)
        for row, k in enumerate(chosen):
            expected = policy.at(candidates[k].float(), observations[row : row + 1]).mode().detach().numpy()
            np.testing.assert_allclose(found[row : row + 1], expected, rtol=1e-5, atol=1e-6)
            assert found.dtype == expected.dtype


def test_an_environment_without_a_time_limit_is_refused():
    env = {"id": "environments:walk", "backend": "gymnasium"}
    with pytest.raises(UserError, match=r"env\.id=environments:walk has no time limit.*env\.max_episode_steps"):
        scheme_for(env, num_envs=2)


def test_barriers_are_spaced_by_whole_episodes():
    assert scheme_for(WALK, num_envs=3)[0].steps == 12
