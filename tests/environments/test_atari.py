"""Atari: the same frames from both backends, lives, sticky actions, and states that are restored to the bit."""

import sys
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from trpo_lightning.environments.backends import describe_environment, make_environments
from trpo_lightning.environments.gymnasium_backend import checked_environment, make_one
from trpo_lightning.environments.snapshots import Restorable
from trpo_lightning.errors import UserError
from trpo_lightning.settings import EnvSettings, RunSettings, updated

pytest.importorskip("ale_py")
BACKENDS = ("gymnasium", "envpool")
SMALL = [52, 40]


def settings(game="Pong", backend="gymnasium", **keywords):
    return EnvSettings(id=f"ALE/{game}-v5", backend=backend, **{"frame_size": SMALL, **keywords})


def environments(mine, number=1, seed=0):
    if mine.backend == "envpool":
        pytest.importorskip("envpool")
    return make_environments(mine, mine.backend, list(range(seed, seed + number)), 1)


def actions(count, number, choices, seed=0):
    return np.random.default_rng(seed).integers(choices, size=(count, number, 1))


def play(mine, taken, number=1):
    """Observations, rewards and both ends of all steps, and whether a life was all that was lost."""
    envs = environments(mine, number)
    seen = [(envs.reset(), np.zeros(number), np.zeros(number, bool), np.zeros(number, bool), np.zeros(number, bool))]
    seen += [(*envs.step(action), envs.life_lost.copy()) for action in taken]
    envs.close()
    return [np.array(column) for column in zip(*seen, strict=True)]


@pytest.mark.parametrize("sizes", [SMALL, [84, 84]], ids=["52x40", "84x84"])
def test_both_backends_show_the_same_frames_and_rewards_to_the_bit(sizes):
    """The emulator has no randomness of its own: only the number of first frames without an action is drawn."""
    taken = actions(400, 1, 4)
    kept = dict(noop_max=1, frame_size=sizes)
    mine, theirs = (play(settings("Breakout", backend, **kept), taken) for backend in BACKENDS)
    end = int(np.flatnonzero(mine[2])[0]) + 1
    assert end > 100
    assert mine[0].dtype == np.uint8 and mine[0].shape[1:] == (1, 4, *sizes)
    for ours, others in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(ours[:end], others[:end])
    assert mine[0].max() > 100 and mine[1].sum() > 0


def test_auto_takes_envpool_and_both_describe_a_game_alike():
    pytest.importorskip("envpool")
    auto, *both = (describe_environment(settings(backend=backend)) for backend in ("auto", *BACKENDS))
    assert auto.backend == "envpool" and auto.spaces == both[0].spaces == both[1].spaces
    assert {spec.observation_shape for spec in both} == {(4, *SMALL)}
    assert {spec.max_episode_steps for spec in both} == {27_000}
    assert both[0].actions == both[1].actions and both[0].notes == both[1].notes


def test_random_policies_earn_the_same_in_both():
    """Returns of 12 games of Breakout, 150 steps of each, with a std of about 1.2: the means are within four errors."""
    pytest.importorskip("envpool")
    found = []
    for backend in BACKENDS:
        _, rewards, terminated, *_ = play(settings("Breakout", backend), actions(150, 12, 4, seed=1), 12)
        over = np.cumsum(terminated, axis=0) - terminated > 0
        found.append(np.where(over, 0.0, rewards).sum(0))
    error = np.sqrt(sum(returns.var(ddof=1) / 12 for returns in found))
    assert abs(found[0].mean() - found[1].mean()) < 4 * error
    assert all(0.2 < returns.mean() < 4.0 for returns in found)  # the paper's random player: 1.2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_life_ends_an_episode_and_the_game_goes_on(backend):
    mine = settings("Breakout", backend, episodic_life=True)
    taken = actions(700, 1, 4)
    _, _, terminated, truncated, lost = play(mine, taken)
    ends = np.flatnonzero(terminated | truncated)
    lives = [bool(lost[t, 0]) for t in np.nonzero(terminated)[0]]
    assert len(ends) >= 6 and lives[:5] == [True] * 4 + [False]  # five lives


@pytest.mark.parametrize("backend", BACKENDS)
def test_time_limits_are_those_of_games_not_of_lives(backend):
    mine = settings("Breakout", backend, episodic_life=True, max_episode_steps=150, noop_max=1)
    _, _, _, truncated, lost = play(mine, actions(170, 1, 4))
    (end,) = np.flatnonzero(truncated[:, 0])
    lives = int(lost[:end].sum())
    assert lives > 0 and not lost[end, 0]
    assert end - lives <= 150 <= end  # a new life's first step, without an action, may count or not


@pytest.mark.parametrize("backend", BACKENDS)
def test_sticky_actions_are_random_and_off_unless_asked(backend):
    taken = np.repeat(actions(30, 1, 6), 4, axis=1)
    kept = dict(noop_max=1)
    plain = play(settings(backend=backend, **kept), taken, 4)[0]
    sticky = play(settings(backend=backend, sticky_actions=0.5, **kept), taken, 4)[0]
    assert (plain == plain[:, :1]).all() and not (sticky == sticky[:, :1]).all()


def test_evaluation_plays_whole_games_and_training_reports_them():
    from trpo_lightning import TRPO

    trpo = TRPO(
        settings=updated(
            RunSettings(),
            {
                "env.id": "ALE/Breakout-v5",
                "env.backend": "gymnasium",
                "env.num_envs": 2,
                "env.frame_size": SMALL,
                "env.episodic_life": True,
                "env.noop_max": 1,
                "rollout.steps_per_iteration": 1600,
                "normalize.reward_signs": True,
                "value.name": "none",
                "gae_lambda": 1.0,
                "env.max_episode_steps": 300,
            },
        )
    )
    rollout = trpo.collect()
    lost, ends = rollout.life_lost, rollout.terminated | rollout.truncated
    trpo.scheme.close()
    assert lost.sum() >= 8 and not (lost & ~ends).any()
    games = int((ends & ~lost).sum())
    assert 2 <= len(rollout.episode_returns) <= games < lost.sum()
    assert min(rollout.episode_lengths) > 100  # five lives, not one


def test_rewards_that_the_update_sees_are_signs_and_returns_are_not():
    """In Beam Rider an enemy is worth 44 points."""
    from trpo_lightning import TRPO

    values = {
        "env.id": "ALE/BeamRider-v5",
        "env.num_envs": 4,
        "env.frame_size": SMALL,
        "rollout.steps_per_iteration": 2400,
        "normalize.rewards": False,
        "normalize.reward_signs": True,
        "value.name": "none",
        "gae_lambda": 1.0,
        "env.max_episode_steps": 290,
    }
    trpo = TRPO(settings=updated(RunSettings(), values))
    rollout = trpo.collect()
    trpo.scheme.close()
    assert set(np.unique(rollout.rewards)) == {0.0, 1.0}
    assert max(rollout.episode_returns) >= 44.0 and rollout.running_returns.max() < 44.0


@pytest.mark.parametrize("sticky", [0.0, 0.5])
def test_states_of_the_emulator_are_restored_with_its_random_generator(sticky):
    mine = settings("Breakout", sticky_actions=sticky)
    one, other = (checked_environment(mine) for _ in range(2))
    one.reset(seed=3)
    other.reset(seed=4)
    taken = actions(300, 1, 4)[:, 0, 0]
    for action in taken[:60]:
        one.step(int(action))
        other.step(int(taken[0]))
    first, second = Restorable(one, mine.id), Restorable(other, mine.id)
    snapshot = first.snapshot()

    def future(env):
        found, over = [], False
        for action in taken:
            if over:
                found.append((env.reset()[0], 0.0, False, False))
            else:
                found.append(env.step(int(action))[:4])
            over = found[-1][2] or found[-1][3]
        return [np.array(column) for column in zip(*found, strict=True)]

    expected = future(one)
    assert expected[2].any()  # through a game's end and the next one's random begin
    for restorable in (first, second, first, second):
        restorable.restore(snapshot)
        for found, wanted in zip(future(restorable.env), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
    one.reset(seed=3)
    assert any((a != b).any() for a, b in zip(future(one), expected, strict=True))


def test_raw_frames_are_shown_in_videos():
    env = make_one(settings(), render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape == (210, 160, 3)
    env.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": "ALE/Pongg-v5"}, r"env\.id=ALE/Pongg-v5: ale-py has no such game \(did you mean ALE/Pong-v5\?\)"),
        ({"id": "ALE/Pongg-v5", "backend": "envpool"}, r"is not in EnvPool \(did you mean Pong-v5"),
        ({"kwargs": {"frameskip": 2}}, r"env\.kwargs\.frameskip: set env\.frame_skip instead"),
        ({"kwargs": {"obs_type": "ram"}}, r"env\.kwargs\.obs_type: the preprocessing"),
        ({"frame_size": [84]}, r"env\.frame_size=\[84\] is not \[height, width\]"),
        ({"frame_size": [52, 4], "frame_stack": 5}, r"env\.frame_stack=5 is more than the pixels of a side"),
        ({"kwargs": {"mode": 77}}, r"env\.id=ALE/Pong-v5 with env\.kwargs=\{'mode': 77\} could not be built"),
    ],
)
def test_what_cannot_be_built_is_told_in_one_line(changes, said):
    mine = replace(settings(), **changes)
    with pytest.raises(UserError, match=said) as error:
        describe_environment(mine)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("backend", ["auto", "gymnasium"])
@pytest.mark.parametrize("module", ["ale_py", "cv2"])
def test_a_missing_extra_is_told_with_the_line_to_type(backend, module, monkeypatch):
    monkeypatch.setattr("trpo_lightning.extras.find_spec", lambda name: None if name == module else sys)
    with pytest.raises(UserError, match=r"env\.id=ALE/Pong-v5 needs the extra: pip install 'trpo_lightning\[atari\]'"):
        describe_environment(settings(backend=backend))


def test_keys_of_games_do_not_count_elsewhere():
    with pytest.raises(UserError, match=r"env\.frame_skip does not count with env\.id=Hopper-v5: .* env\.id=ALE/\*"):
        updated(RunSettings(), {"env.frame_skip": 2})
    kept = updated(RunSettings(), {"env.id": "ALE/Pong-v5", "env.frame_skip": 2})
    assert kept.env.frame_skip == 2


def test_envpools_own_name_of_a_game_is_answered_with_the_one_to_use():
    pytest.importorskip("envpool")
    for backend in ("auto", "envpool"):
        with pytest.raises(UserError, match=r"env.id=Pong-v5 is EnvPool's name for a game: env.id=ALE/Pong-v5 is"):
            describe_environment(replace(settings(backend=backend), id="Pong-v5"))


def training(backend, **more):
    """TRPO on Breakout, whose episodes end with a life."""
    from trpo_lightning import TRPO

    if backend == "envpool":
        pytest.importorskip("envpool")
    keys = {"env.id": "ALE/Breakout-v5", "env.backend": backend, "env.num_envs": 2, "env.frame_size": SMALL}
    keys |= {"env.episodic_life": True, "env.noop_max": 1, "normalize.reward_signs": True, "value.name": "none"}
    return TRPO(settings=updated(RunSettings(), {**keys, "gae_lambda": 1.0, **more}))


@pytest.mark.parametrize("backend", BACKENDS)
def test_whole_episodes_are_whole_games_whose_returns_are_those_of_all_lives(backend):
    keys = {"rollout.steps_per_iteration": 100, "rollout.whole_episodes": True, "env.max_episode_steps": 1000}
    trpo = training(backend, **keys)
    for _ in range(3):
        rollout = trpo.scheme.collect(trpo.policy, trpo.normalizer, 0)
        over = (rollout.terminated | rollout.truncated) & ~rollout.life_lost
        ends = np.argwhere(over)  # in the order of the steps
        assert over.sum() == 2 and (rollout.life_lost.sum(0) == 4).all()  # five lives
        totals = [rollout.raw_rewards[: t + 1, n].sum() for t, n in ends]
        assert totals == list(rollout.episode_returns)
        assert [int(rollout.valid[: t + 1, n].sum()) for t, n in ends] == list(rollout.episode_lengths)
    trpo.scheme.close()


def test_a_game_that_was_cut_is_not_gone_on_with():
    """As where a rollout cuts first episodes (rollout.spread_episodes) or a wrapper ends one."""
    env = make_one(settings("Breakout", episodic_life=True, noop_max=1))
    first, _ = env.reset(seed=0)
    for _ in range(10):
        seen, _, terminated, truncated, _ = env.step(2)
    assert not (terminated or truncated or np.array_equal(seen, first))
    np.testing.assert_array_equal(env.reset()[0], first)


def test_beginning_anew_begins_a_game_even_after_a_lost_life():
    envs = environments(settings("Breakout", episodic_life=True, noop_max=1))
    first = envs.reset()
    for action in actions(200, 1, 4):
        envs.step(action)
        if envs.life_lost[0]:
            break
    assert envs.life_lost[0]
    np.testing.assert_array_equal(envs.reset(), first)
    envs.close()


@pytest.mark.parametrize("given", [str, gym.spec], ids=["an id", "a spec"])
def test_keys_of_games_count_where_the_game_is_given_in_python(given):
    from trpo_lightning import TRPO

    small = {"num_envs": 2, "frame_stack": 1, "frame_size": SMALL}
    trpo = TRPO(given("ALE/Pong-v5"), env=small, steps_per_iteration=8)
    assert trpo.spec.observation_shape == (1, *SMALL)
    with pytest.raises(UserError, match=r"env\.frame_stack"):
        TRPO("CartPole-v1", env={"frame_stack": 1})


def test_a_spec_that_is_not_made_from_its_id_has_no_keys_of_games():
    from trpo_lightning import TRPO

    wrapped = gym.wrappers.FlattenObservation(gym.make("ALE/Pong-v5", obs_type="ram"))
    with pytest.raises(UserError, match=r"env\.frame_stack"):
        TRPO(wrapped.spec, env={"frame_stack": 1})
    wrapped.close()
