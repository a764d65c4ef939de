"""Value functions with a memory: fits to sequences, and predictions along episodes that several rollouts cut."""

import copy
import math

import pytest
import torch
from methods import value_settings
from recurrent_problem import LENGTHS, slow
from torch import Tensor

from trpo_lightning import TRPO
from trpo_lightning.policies import images
from trpo_lightning.policies.images import rows_at_once
from trpo_lightning.policies.networks import parameter_vector
from trpo_lightning.policies.sequences import Sequences
from trpo_lightning.training.batches import make_batch
from trpo_lightning.values import build_value_function
from trpo_lightning.values.gradients import loss_gradient
from trpo_lightning.values.recurrent import RecurrentValueFunction

every_cell = pytest.mark.parametrize("name", ["gru", "lstm"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build(name: str, seed: int = 0, **settings) -> RecurrentValueFunction:
    chosen = {"hidden_sizes": [8, 8], "learning_rate": 0.01, "minibatches": 3, **settings}
    found = build_value_function((3,), value_settings(name=name, **chosen), generator(seed))
    assert isinstance(found, RecurrentValueFunction)
    return found


def data(vf: RecurrentValueFunction, lengths=(9, 4, 12, 7, 7, 1, 10)) -> tuple[Sequences, Tensor]:
    """Targets that only a memory can tell: the first coordinate of each sequence's first observation."""
    observations = torch.randn(sum(lengths), 3, generator=generator(1))
    firsts = torch.cat([rows[:1, 0].expand(len(rows)) for rows in observations.split(list(lengths))])
    return Sequences(observations, torch.tensor(lengths), torch.zeros(len(lengths), vf.state_size)), firsts


def state(vf) -> list[Tensor]:
    return [*copy.deepcopy(vf.state_dict()).values()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@every_cell
def test_a_fit_learns_what_only_a_memory_knows(name):
    vf = build(name, epochs=20)
    observed, targets = data(vf)
    losses = [vf.fit(observed, targets, generator(i)) for i in range(15)]
    assert losses[-1] < 0.05 * float(targets.var())
    assert float((vf.predict(observed) - targets).square().mean()) < 0.05 * float(targets.var())


@every_cell
@pytest.mark.parametrize("chunk", [1, 10, 15, 10_000])
def test_prediction_in_chunks_is_the_prediction(name, chunk):
    vf = build(name)
    observed, _ = data(vf)
    values = vf.predict(observed, chunk)
    assert values.shape == (50,) and not values.requires_grad
    torch.testing.assert_close(values, vf.predict(observed))
    assert vf.predict(Sequences(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), torch.zeros(0, 8))).shape == (0,)


@every_cell
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["targets", "observations", "nothing"])
def test_bad_data_leave_everything_bit_identical(name, bad, where):
    vf = build(name)
    observed, targets = data(vf)
    vf.fit(observed, targets, generator())
    before, optimizer = state(vf), copy.deepcopy(vf.optimizer_state())
    if where == "targets":
        targets[17] = bad
    elif where == "observations":
        observed.observations[17, 1] = math.nan
    else:
        observed, targets = (
            Sequences(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), torch.zeros(0, 8)),
            targets[:0],
        )
    assert math.isnan(vf.fit(observed, targets, generator()))
    assert same(before, state(vf))
    assert str(vf.optimizer_state()) == str(optimizer)


@every_cell
@pytest.mark.parametrize("lengths", [(1,), (5,), (1, 1)], ids=str)
def test_fewer_sequences_than_minibatches_are_a_batch(name, lengths):
    vf = build(name, minibatches=10)
    observed, targets = data(vf, lengths)
    losses = [vf.fit(observed, targets, generator(i)) for i in range(30)]
    assert losses[-1] < 0.1 * losses[0]


@every_cell
def test_saved_state_continues_identically(name):
    straight, resumed = build(name), build(name, seed=9)
    straight.fit(*data(straight), generator(5))
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    resumed.load_optimizer_state(copy.deepcopy(straight.optimizer_state()))
    assert len({vf.fit(*data(vf), generator(6)) for vf in (straight, resumed)}) == 1
    assert same(state(straight), state(resumed))


@every_cell
@pytest.mark.parametrize("env_id", ["environments:counting", "CartPole-v1"])
def test_values_follow_whole_episodes_across_rollouts_and_see_the_last_observation(name, env_id):
    """Episodes are cut by iterations; V is what one pass over the whole episode gives, also after its last step."""
    module = TRPO(
        env_id,
        num_envs=3,
        steps_per_iteration=3 * 7,
        value={"name": name, "hidden_sizes": [5, 4]},
        normalize={"observations": False, "rewards": False},
        gae_lambda=0.0,
        gamma=0.5,
        rule={"standardize_advantages": False},
        seed=3,
        backend="gymnasium",
        max_episode_steps=9,
    )
    network = slow(module.value_function).network
    history: list[list[Tensor]] = [[] for _ in range(3)]
    checked = 0
    for _ in range(6):
        rollout = module.collect()
        estimate = make_batch(rollout, module.value_function, module.settings, module.device)
        value_data, row = estimate.value_data, 0
        advantages = estimate.batch.advantages.new_zeros(rollout.valid.shape)
        advantages[torch.from_numpy(rollout.valid)] = estimate.batch.advantages
        for n in range(3):
            for t in range(len(rollout.valid)):
                if not rollout.valid[t, n]:
                    history[n] = []
                    continue
                history[n].append(torch.from_numpy(rollout.observations[t, n]))
                after = torch.from_numpy(rollout.observations[t + 1, n])
                rows = torch.stack([*history[n], after])
                whole = Sequences(rows, torch.tensor([len(rows)]), torch.zeros(1, module.value_function.state_size))
                now, then = network(whole)[-2:, 0].tolist()
                assert float(value_data.values[row]) == pytest.approx(now, abs=1e-5)
                bootstrap = 0.0 if rollout.terminated[t, n] else 0.5 * then
                expected = rollout.rewards[t, n] + bootstrap - now  # lambda = 0
                assert float(advantages[t, n]) == pytest.approx(expected, rel=1e-5, abs=1e-4)
                row += 1
                checked += 1
        module.iteration += 1
    module.scheme.close()
    assert checked > 80 and LENGTHS


@every_cell
def test_gradients_of_image_sequences_are_summed_over_parts_that_fit(name, monkeypatch):
    """A minibatch whose intermediate results exceed the working memory is differentiated a few sequences at a time."""
    shape, lengths = (2, 12, 12), torch.tensor([5, 1, 7, 3, 4])
    sizes = {"hidden_sizes": [5], "image_network": "sizes", "convolutions": ["3x4/2", "2x2/1"]}
    vf = build_value_function(shape, value_settings(name=name, **sizes), generator())
    vf.network.double()
    pixels = torch.randint(256, (int(lengths.sum()), *shape), generator=generator(1), dtype=torch.uint8)
    x = Sequences(pixels, lengths, torch.zeros(len(lengths), vf.state_size, dtype=torch.float64))
    y, theta = torch.randn(len(x), 1, generator=generator(2), dtype=torch.float64), parameter_vector(vf.network)
    found = []
    for memory in (images.WORKING_MEMORY, 4 * images.KEPT_BY_AUTOGRAD * vf.network.encoder.numbers_per_row * 8):
        monkeypatch.setattr(images, "WORKING_MEMORY", memory)
        parts, gradient = x.parts(rows_at_once(vf.network, len(x))), torch.full_like(theta, math.nan)
        loss_gradient(vf.network, theta, gradient).write(x, lambda v: 2.0 * (v - y) / len(y))
        found.append((len(parts), gradient))
    (one, whole), (several, summed) = found
    assert one == 1 and several >= 3
    loss = (vf.network(x) - y).square().mean()
    expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(vf.network.parameters()))])
    torch.testing.assert_close(whole, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(summed, expected, rtol=1e-9, atol=1e-12)
