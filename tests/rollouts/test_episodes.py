"""Evaluation episodes: one of each environment, from seeds of their own."""

from dataclasses import replace

import numpy as np
import pytest
from environments import TERMINATED, TRUNCATED, policy_for

from trpo_lightning.environments.backends import describe_environment
from trpo_lightning.environments.gymnasium_backend import make_one
from trpo_lightning.randomness import Stream, environment_seed
from trpo_lightning.rollouts.episodes import run_episodes
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.settings import EnvSettings, NormalizeSettings, RunSettings


def run(env, *, episodes=6, deterministic=True, seed=1, backend=None, normalizer=None, limit=None, **more):
    spec = describe_environment(env)
    spec = replace(spec, backend=backend or spec.backend, max_episode_steps=limit or spec.max_episode_steps)
    policy = policy_for(RunSettings(env=env), spec)
    normalizer = normalizer or Normalizer(spec.observation_shape, NormalizeSettings())
    return run_episodes(
        policy,
        normalizer,
        env,
        spec,
        episodes=episodes,
        deterministic=deterministic,
        seed=seed,
        **more,
    )


def counting(lengths, ends=(TERMINATED,)):
    return EnvSettings(id="environments:counting", kwargs={"lengths": list(lengths), "ends": list(ends)})


@pytest.mark.parametrize("ends", [(TERMINATED,), (TRUNCATED,)])
def test_the_first_episode_of_each_environment_and_nothing_of_the_second(ends):
    episodes = run(counting([7, 2], ends), episodes=4)
    assert episodes.lengths.tolist() == [7] * 4
    assert episodes.returns.tolist() == [100.0 * 7 + 28.0] * 4


def varied():
    """Lengths of CartPole episodes vary, so the first to end would be short ones."""
    return EnvSettings(id="CartPole-v1", backend="gymnasium")


def test_each_environment_s_first_episode_equals_one_played_alone():
    env = varied()
    lengths = run(env, episodes=8).lengths
    alone = []
    for index in range(8):
        single = make_one(env)
        policy = policy_for(RunSettings(env=env), describe_environment(env))
        observation, _ = single.reset(seed=environment_seed(1, Stream.EVALUATION_ENVIRONMENT, 0, index))
        for count in range(1, 501):  # noqa: B007
            action = int(policy(_row(observation)).mode()[0, 0])
            observation, _, terminated, truncated, _ = single.step(action)
            if terminated or truncated:
                break
        alone.append(count)
        single.close()
    assert lengths.tolist() == alone
    assert len(set(alone)) > 1


def _row(observation):
    import torch

    return torch.from_numpy(observation[None].astype(np.float32))


@pytest.mark.parametrize("backend", ["gymnasium", "envpool"])
@pytest.mark.parametrize("deterministic", [True, False])
def test_the_seed_determines_everything(backend, deterministic):
    if backend == "envpool":
        pytest.importorskip("envpool")
    env = EnvSettings(id="CartPole-v1", backend=backend)
    one, two = (run(env, deterministic=deterministic, episodes=10) for _ in range(2))
    np.testing.assert_array_equal(one.returns, two.returns)
    np.testing.assert_array_equal(one.lengths, two.lengths)
    for change in ({"seed": 2}, {"iteration": 1}):
        other = run(env, deterministic=deterministic, episodes=10, **change)
        assert other.returns.tolist() != one.returns.tolist()


def test_more_episodes_leave_the_first_ones_as_they_were():
    few, many = (run(varied(), episodes=n, deterministic=False) for n in (3, 9))
    assert few.returns.tolist() == many.returns[:3].tolist()


def test_stochastic_differs_from_deterministic():
    env = EnvSettings(id="Pendulum-v1", backend="gymnasium", max_episode_steps=30)
    one, two = (run(env, deterministic=d) for d in (True, False))
    assert (one.returns != two.returns).all()
    assert one.lengths.tolist() == two.lengths.tolist() == [30] * 6


def test_the_normalizer_is_used_and_not_changed():
    env = varied()
    normalizer = Normalizer((4,), NormalizeSettings())
    rng = np.random.default_rng(0)
    normalizer.merge(rng.normal(3.0, 0.1, size=(50, 4)), rng.normal(size=50))
    before = {name: tensor.clone() for name, tensor in normalizer.state_dict().items()}
    shifted = run(env, normalizer=normalizer, episodes=10)
    assert all((before[name] == tensor).all() for name, tensor in normalizer.state_dict().items())
    assert shifted.returns.tolist() != run(env, episodes=10).returns.tolist()


def test_an_environment_without_time_limit_is_cut():
    episodes = run(counting([10**6]), episodes=2, limit=13)
    assert episodes.lengths.tolist() == [13, 13]


def test_noise_differs_between_episodes_iterations_and_seeds_and_the_mode_has_none():
    env = EnvSettings(id="environments:echo")
    returns = [
        *run(env, deterministic=False).returns,
        *run(env, deterministic=False, iteration=1).returns,
        *run(env, deterministic=False, seed=2).returns,
    ]
    assert len(set(returns)) == 18
    assert len(set(run(env, iteration=3).returns)) == 1
