import gymnasium as gym
import numpy as np
import pytest

from trpo_lightning.environments.gymnasium_backend import describe, make_one
from trpo_lightning.environments.tasks import CartPole, ImpactPenalty, cart_pole, walker
from trpo_lightning.environments.tasks.cart_pole import accelerations
from trpo_lightning.settings import EnvSettings

CART, POLE, LENGTH, GRAVITY = 1.0, 0.1, 0.5, 9.8
MU_CART, MU_POLE = 0.0005, 0.000002


def states(count=200):
    return np.random.default_rng(0).normal(size=(count, 4)) * [1.0, 1.0, 0.5, 2.0]


def lagrangian(state, force, mu_cart=MU_CART, mu_pole=MU_POLE):
    """Accelerations from the equations of motion of a cart with a thin uniform rod, as a linear system."""
    _, v, theta, omega = state
    inertia = POLE * LENGTH**2 + POLE * (2 * LENGTH) ** 2 / 12  # about the pivot
    coupling = POLE * LENGTH * np.cos(theta)
    matrix = [[CART + POLE, coupling], [coupling, inertia]]
    pushed = force + POLE * LENGTH * omega**2 * np.sin(theta) - mu_cart * np.sign(v)
    return np.linalg.solve(matrix, [pushed, POLE * GRAVITY * LENGTH * np.sin(theta) - mu_pole * omega])


def energy(state):
    _, v, theta, omega = state
    centre = np.array([v + LENGTH * omega * np.cos(theta), -LENGTH * omega * np.sin(theta)])
    rotation = POLE * (2 * LENGTH) ** 2 / 12 * omega**2 / 2
    return CART * v**2 / 2 + POLE * centre @ centre / 2 + rotation + POLE * GRAVITY * LENGTH * np.cos(theta)


def integrated(function, state, duration, step=0.001):
    """The path `[steps + 1, 4]` under accelerations of the state, by Runge and Kutta's method of fourth order."""

    def slope(y):
        cart, pole = function(tuple(y))
        return np.array([y[1], cart, y[3], pole])

    path = [np.array(state)]
    for _ in range(round(duration / step)):
        y = path[-1]
        a = slope(y)
        b = slope(y + step / 2 * a)
        c = slope(y + step / 2 * b)
        path.append(y + step / 6 * (a + 2 * b + 2 * c + slope(y + step * c)))
    return np.array(path)


def started(state):
    env = CartPole()
    env.reset(seed=0)
    env.state = tuple(state)
    return env


def test_cart_pole_obeys_the_equations_of_motion():
    for state in states():
        for friction in ({}, {"cart_friction": 0.3, "pole_friction": 0.2}):
            expected = lagrangian(state, 3.0, *friction.values())
            np.testing.assert_allclose(accelerations(tuple(state), 3.0, **friction), expected, rtol=1e-10)


def test_cart_pole_keeps_its_energy_without_friction():
    path = integrated(lambda y: accelerations(y, 0.0, 0.0, 0.0), [0.0, 0.3, 0.1, -0.2], 3)
    energies = [energy(state) for state in path]
    assert np.ptp(path[:, 2]) > 1
    np.testing.assert_allclose(energies, energies[0], rtol=1e-8)


def test_cart_pole_loses_energy_by_friction():
    path = integrated(lambda y: accelerations(y, 0.0), [0.0, 0.3, 0.1, -0.2], 3)
    assert np.all(np.diff([energy(state) for state in path]) < 1e-9) and energy(path[-1]) < energy(path[0]) - 1e-4


def test_cart_pole_steps_approach_an_independent_integration(monkeypatch):
    start, errors = [0.1, -0.2, 0.02, 0.1], []
    exact = integrated(lambda y: lagrangian(y, 1.5), start, 0.4)[-1]
    for step in (0.02, 0.002, 0.0002):
        monkeypatch.setattr(cart_pole, "STEP", step)
        env = started(start)
        for _ in range(round(0.4 / step)):
            observation, *_ = env.step(np.array([1.5], dtype=np.float32))
        np.testing.assert_allclose(observation, env.state, rtol=1e-6)
        errors.append(np.abs(np.array(env.state) - exact).max())
    assert errors[0] < 0.05 and errors[1] < errors[0] / 8 and errors[2] < errors[1] / 8


def test_cart_pole_is_symmetric_and_falls():
    for state in states(20):
        mirrored = accelerations(tuple(-state), -2.0)
        np.testing.assert_allclose(mirrored, [-a for a in accelerations(tuple(state), 2.0)], rtol=1e-12)
    assert accelerations((0.0, 0.0, 0.1, 0.0), 0.0)[1] > 0 and accelerations((0.0, 0.0, 0.0, 0.0), 1.0)[0] > 0


def test_cart_pole_ends_at_its_limits_and_clips_its_force():
    for state, failed in (
        ((2.39, 0.0, 0.0, 0.0), False),
        ((2.399, 0.1, 0.0, 0.0), True),
        ((-2.399, -0.1, 0.0, 0.0), True),
        ((0.0, 0.0, np.radians(11.9), 0.0), False),
        ((0.0, 0.0, np.radians(-11.9), -0.2), True),
    ):
        _, reward, terminated, truncated, _ = started(state).step(np.zeros(1))
        assert (reward, terminated, truncated) == (1.0, failed, False)
    ends = [started((0.0, 0.0, 0.0, 0.0)).step(np.array([force]))[0] for force in (10.0, 1e6)]
    np.testing.assert_array_equal(*ends)


def test_cart_pole_can_be_balanced_with_a_linear_policy_to_the_horizon():
    env = make_one(EnvSettings(id="CartPole1983-v0"))
    observation, _ = env.reset(seed=3)
    assert np.all(np.abs(observation) <= 0.05) and np.ptp(observation) > 0
    for step in range(1, 1001):
        force = np.array([[1.0, 2.0, 30.0, 5.0]], dtype=np.float32) @ observation
        observation, _, terminated, truncated, _ = env.step(force)
        assert not terminated and truncated == (step == 1000)


def test_cart_pole_goes_back_to_a_snapshot():
    env = started((0.0, 0.1, 0.02, -0.1))
    snapshot = env.snapshot()
    futures = []
    for _ in range(2):
        env.restore(snapshot)
        futures.append([env.step(np.array([force]))[0] for force in (3.0, -2.0, 5.0)])
    np.testing.assert_array_equal(*futures)
    assert env.snapshot() != snapshot


@pytest.mark.parametrize(
    ("env_id", "kwargs", "size"),
    [
        ("trpo_lightning.environments.tasks:cart_pole_1983", {}, 4),
        ("trpo_lightning.environments.tasks:walker_2015", {}, 18),
        ("CartPole1983-v0", {}, 4),
        ("Walker2015-v0", {"reset_noise_scale": 0.0}, 18),
    ],
)
def test_tasks_are_found_by_id_and_as_functions(env_id, kwargs, size):
    for limit in (None, 7, 2000):
        spec = describe(EnvSettings(id=env_id, kwargs=kwargs, max_episode_steps=limit))
        own = None if ":" in env_id else 1000
        assert spec.observation_shape == (size,) and spec.max_episode_steps == (limit or own)


def standing(action=0.0, steps=40):
    """The walker and gymnasium's own from the same state, as (reward, its own reward, cost) of each step."""
    mine = make_one(EnvSettings(id="Walker2015-v0"))
    own = gym.make("Walker2d-v5", ctrl_cost_weight=1e-5, disable_env_checker=True)
    mine.reset(seed=1), own.reset(seed=1)
    for _ in range(steps):
        _, reward, ended, _, info = mine.step(np.full(6, action, dtype=np.float32))
        yield reward, own.step(np.full(6, action, dtype=np.float32))[1], -info["reward_impact"], mine
        if ended:
            break


def test_the_walker_pays_for_impacts_only():
    light = [(r, own, cost) for r, own, cost, _ in standing()]
    np.testing.assert_allclose([r + cost for r, _, cost in light], [own for _, own, _ in light], atol=1e-12)
    assert min(cost for *_, cost in light) == 0.0
    hard = [cost for *_, cost, _ in standing(1.0)]
    assert 0.0 < max(hard) <= walker.LARGEST_COST


def test_the_impact_is_what_the_feet_feel_beyond_the_weight():
    def wrapped(env):
        return env if isinstance(env, ImpactPenalty) else wrapped(env.env)

    seen = set()
    for *_, cost, env in standing(1.0):
        penalty = wrapped(env)
        assert penalty.weight == pytest.approx(9.81 * env.unwrapped.model.body_mass.sum())
        forces = [env.unwrapped.data.body(name).cfrc_ext[3:] for name in ("foot", "foot_left")]
        excess = [max(0.0, float(np.sqrt((force**2).sum())) - penalty.weight) for force in forces]
        assert cost == pytest.approx(min(1.0, 1e-5 * sum(value**2 for value in excess)))
        seen.add(0 if cost == 0 else 2 if cost == 1 else 1)
    assert 0 in seen and len(seen) > 1


def test_an_impact_costs_at_most_what_staying_alive_is_worth():
    *_, (*_, env) = standing(steps=1)
    while not isinstance(env, ImpactPenalty):
        env = env.env
    for force, cost in ((0.0, 0.0), (env.weight, 0.0), (env.weight + 100, 0.1), (env.weight + 1e4, 1.0)):
        env.unwrapped.data.cfrc_ext[:] = 0.0
        env.unwrapped.data.cfrc_ext[env.feet[1], 3:] = force * np.array([0.6, 0.0, -0.8])
        assert env.cost() == pytest.approx(cost)


def test_the_impact_penalty_needs_feet():
    with pytest.raises(ValueError, match="no bodies named foot and foot_left"):
        ImpactPenalty(gym.make("Hopper-v5"))
