"""Rollouts of policies that remember the episode, against one environment and one observation at a time."""

import numpy as np
import pytest
import torch
from environments import no_proposals

from trpo_lightning import TRPO
from trpo_lightning.environments.backends import describe_environment
from trpo_lightning.environments.gymnasium_backend import checked_environment
from trpo_lightning.environments.spaces import to_env_action
from trpo_lightning.policies.policy import build_policy
from trpo_lightning.policies.sequences import Sequences
from trpo_lightning.randomness import Stream, environment_seed, numpy_generator
from trpo_lightning.rollouts import single_path
from trpo_lightning.rollouts.normalizers import Normalizer
from trpo_lightning.rollouts.rollout import SequenceSlots
from trpo_lightning.rollouts.vine import VineScheme
from trpo_lightning.settings import from_keywords
from trpo_lightning.training.batches import make_batch

every_cell = pytest.mark.parametrize("name", ["gru", "lstm"])


def module_for(env_id="CartPole-v1", name="gru", **more):
    keys = dict(num_envs=3, steps_per_iteration=3 * 8, policy={"name": name, "hidden_sizes": [6, 5]}, seed=4, threads=1)
    if env_id.startswith("image"):
        keys["policy"] |= {"image_network": "sizes", "convolutions": ["8x4/4"]}
    module = TRPO(env_id, **{**keys, **more})
    for parameter in module.policy.parameters():  # away from the uniform start
        parameter.data += 0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return module


@pytest.mark.parametrize("seed", range(20))
def test_slots_are_cut_where_environments_reset(seed):
    generator = np.random.default_rng(seed)
    shape = tuple(generator.integers(1, 8, size=2))
    valid, numbers = generator.random(shape) < 0.7, np.arange(np.prod(shape)).reshape(shape)
    states = generator.standard_normal((shape[1], 2), dtype=np.float32)
    expected = []
    for n in range(shape[1]):
        for t in range(shape[0]):
            if valid[t, n]:
                if t == 0 or not valid[t - 1, n]:
                    expected.append([])
                expected[-1].append(numbers[t, n])
    slots = SequenceSlots(valid)
    rows = slots.rows(numbers, torch.device("cpu"))
    assert [part.tolist() for part in rows.split(slots.lengths.tolist())] == (expected or [[]])[: len(expected)]
    observed = slots.sequences(numbers[..., None].astype(np.float32), states, torch.device("cpu"))
    assert observed.lengths.tolist() == [len(part) for part in expected]
    for part, state in zip(expected, observed.states, strict=True):
        t, n = divmod(part[0], shape[1])
        assert state.tolist() == (states[n].tolist() if t == 0 else [0.0, 0.0])
    padded = np.concatenate([numbers, numbers[-1:] + shape[1]])
    assert slots.after(padded, torch.device("cpu")).tolist() == [part[-1] + shape[1] for part in expected]
    t, n = np.nonzero(valid)
    assert slots.steps[slots.row_of(t, n)].tolist() == t.tolist()
    assert slots.envs[slots.row_of(t, n)].tolist() == n.tolist()


@every_cell
@pytest.mark.parametrize(
    ("env_id", "more"),
    [
        ("CartPole-v1", {"backend": "gymnasium", "max_episode_steps": 11}),
        ("CartPole-v1", {"backend": "envpool"}),
        ("environments:counting", {}),
        ("CartPole-v1", {"whole_episodes": True, "max_episode_steps": 11}),
        ("CartPole-v1", {"num_envs": 1, "steps_per_iteration": 1}),
        *(("image_environments:Light", {"kwargs": {"form": form}}) for form in ("stack", "picture", "mixture")),
    ],
    ids=["gymnasium", "envpool", "counting", "whole episodes", "one step", "stack", "picture", "mixture"],
)
def test_actions_come_from_the_whole_episode_so_far_and_the_update_sees_the_same(monkeypatch, name, env_id, more):
    """What sampling and the update compute equals one pass over each episode, which several rollouts may cut."""
    module, outputs = module_for(env_id, name, **more), []
    original = single_path.remembering_forward

    def recording(network):
        forward = original(network)

        def record(x, state):
            found = forward(x, state)
            outputs.append(found.copy())
            return found

        return record

    monkeypatch.setattr(single_path, "remembering_forward", recording)
    histories = [[] for _ in range(module.settings.env.num_envs)]
    ends = cut = 0
    for _ in range(5):
        outputs.clear()
        if module.settings.rollout.whole_episodes:
            histories = [[] for _ in histories]
        rollout = module.collect()
        seen = outputs[1:]  # after the one that finds out the shapes
        batch = make_batch(rollout, module.value_function, module.settings, module.device).batch
        with torch.no_grad():
            updated = module.policy(batch.observations).tensors[0].numpy()
        row = 0
        for n, history in enumerate(histories):
            cut += bool(history)
            for t in range(len(rollout.valid)):
                if not rollout.valid[t, n]:
                    history.clear()
                    continue
                history.append(rollout.observations[np.array([t]), np.array([n])][0])
                rows = torch.from_numpy(np.stack(history))
                whole = Sequences(rows, torch.tensor([len(rows)]), torch.zeros(1, module.policy.state_size))
                with torch.no_grad():
                    expected = module.policy(whole).tensors[0][-1].numpy()
                np.testing.assert_allclose(seen[t][n], expected, atol=1e-5)
                np.testing.assert_allclose(updated[row], expected, atol=1e-5)
                np.testing.assert_array_equal(batch.actions[row].numpy(), rollout.actions[t, n])
                row += 1
                ends += rollout.terminated[t, n] or rollout.truncated[t, n]
        assert row == len(batch)
        module.iteration += 1
        if module.settings.rollout.whole_episodes:
            module.normalizer.merge(*rollout.statistics())
    module.scheme.close()
    assert ends > 0 or more.get("steps_per_iteration") == 1
    assert cut > 0 or module.settings.rollout.whole_episodes


@every_cell
def test_a_restart_forgets(name):
    module = module_for(name=name)
    module.collect()
    assert np.abs(module.scheme._states).max() > 0.0
    module.scheme.restart(1)
    assert not module.scheme.collect(module.policy, module.normalizer, 1).states.any()
    module.scheme.close()


class Replay:
    """Branches of a vine, one observation at a time, with nothing of the sampling scheme."""

    def __init__(self, settings, policy, trunks):
        self.settings, self.policy, self.trunks = settings, policy, trunks
        self.env = checked_environment(settings.env)
        self.to_env = to_env_action(self.env.action_space, scaled=True)
        self.normal = settings.env.id == "Pendulum-v1"

    def act(self, action):
        observation, reward, terminated, truncated, _ = self.env.step(self.to_env(action[None])[0])
        return observation, float(reward), terminated or truncated

    def distribution(self, observations):
        rows = np.stack(observations)
        rows = torch.from_numpy(rows if rows.dtype == np.uint8 else rows.astype(np.float32))
        with torch.no_grad():
            return self.policy(Sequences(rows, torch.tensor([len(rows)]), torch.zeros(1, self.policy.state_size)))

    def draw(self, observations, noise):
        """The action after these observations."""
        noise = torch.from_numpy(noise).expand(len(observations), -1)
        return self.distribution(observations).sample(noise)[-1].detach().numpy()

    def noise(self, state, size):
        """For the first actions of two branches, then for the four later ones, which they share."""
        generator = numpy_generator(self.settings.seed, Stream.BRANCH_NOISE, 0, state)
        return (generator.standard_normal if self.normal else generator.random)((2 + 4, size), dtype=np.float32)

    def history(self, t, n):
        """The observations of the episode that is in slot t of environment n."""
        history = [self.env.reset(seed=environment_seed(self.settings.seed, Stream.ENVIRONMENT, 0, int(n)))[0]]
        over = False
        for action in self.trunks.actions[:t, n]:
            if over:
                history, over = [self.env.reset()[0]], False
            else:
                observation, _, over = self.act(action)
                history.append(observation)
        return history

    def q_value(self, history, action, noise, state):
        """The discounted sum of five rewards after these observations and this action."""
        self.env.unwrapped.np_random = numpy_generator(self.settings.seed, Stream.BRANCH_ENVIRONMENT, 0, state)
        total = 0.0
        for step in range(5):
            observation, reward, over = self.act(action)
            history.append(observation)
            total += 0.9**step * reward
            if over or step == 4:
                return total
            action = self.draw(history, noise[2 + step : 3 + step])


@every_cell
@pytest.mark.parametrize(
    ("env_id", "actions"), [("CartPole-v1", "all"), ("Pendulum-v1", "policy"), ("image_environments:Light", "all")]
)
def test_branches_remember_what_the_trunk_has_seen(name, env_id, actions):
    """Q-values, first actions and the update's rows, replayed from the first state one observation at a time."""
    sizes = dict(rollout_set_size=12, branches=2, branch_length=5, branch_actions=actions)
    settings = from_keywords(
        env=dict(id=env_id, num_envs=2, max_episode_steps=9),
        rollout=dict(scheme="vine", steps_per_iteration=2 * 20, **sizes),
        normalize=dict(observations=False, rewards=False),
        policy=dict(name=name, hidden_sizes=[4], image_network="sizes" if env_id.startswith("image") else "trpo_2015"),
        value=dict(name="none"),
        gamma=0.9,
        seed=5,
    )
    spec = describe_environment(settings.env, restorable=True)
    policy = build_policy(spec.observation_shape, spec.actions, settings.policy, torch.Generator().manual_seed(0))
    for parameter in policy.parameters():
        parameter.data += 0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    scheme = VineScheme(settings, spec, 1, no_proposals)
    rollout = scheme.collect(policy, Normalizer(spec.observation_shape, settings.normalize), 0)
    scheme.close()
    replay, ways = Replay(settings, policy, rollout.trunks), []
    for s, (t, n) in enumerate(rollout.slots):
        noise = replay.noise(s, rollout.actions.shape[2])
        for k in range(2):
            history = replay.history(t, n)
            at_state = replay.distribution(history).tensors[0][-1]
            if actions == "policy":
                drawn = replay.draw(history, noise[k : k + 1])
                np.testing.assert_allclose(rollout.actions[s, k], drawn, atol=1e-5)
            q_value = replay.q_value(history, rollout.actions[s, k], noise, s)
            assert rollout.q_values[s, k] == pytest.approx(q_value, rel=1e-4)
        ways.append((at_state, rollout.q_values[s]))
    batch = make_batch(rollout, None, settings, torch.device("cpu")).batch
    with torch.no_grad():
        rows = policy(batch.observations).tensors[0]
    order = [next(i for i, (_, q) in enumerate(ways) if np.array_equal(q, row.numpy())) for row in batch.q_values]
    assert len(batch) == len(ways) >= 8
    if len({tuple(q) for _, q in ways}) == len(ways):
        assert sorted(order) == list(range(len(ways)))
        torch.testing.assert_close(rows, torch.stack([ways[i][0] for i in order]), rtol=0, atol=1e-5)
