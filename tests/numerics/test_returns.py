import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from trpo_lightning.numerics.returns import (
    discounted_returns,
    explained_variance,
    generalized_advantages,
    standardize,
)

GAMMA, LAMBDA = 0.97, 0.9


@dataclass
class Slots:
    rewards: Tensor
    values: Tensor
    terminated: Tensor
    ended: Tensor
    valid: Tensor

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        return self.rewards, self.values, self.terminated, self.ended, self.valid


def random_slots(seed: int, steps: int = 25, envs: int = 6) -> Slots:
    """Odd environments insert a fake slot after each end, as autoreset does; even ones do not."""
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(steps, envs, dtype=torch.float64, generator=generator)
    values = torch.randn(steps + 1, envs, dtype=torch.float64, generator=generator)
    dice = torch.rand(steps, envs, generator=generator)
    terminated, truncated = dice < 0.12, (dice >= 0.12) & (dice < 0.24)
    valid = torch.ones(steps, envs, dtype=torch.bool)
    valid[0, ::3] = False
    for t in range(1, steps):
        valid[t, 1::2] = ~((terminated | truncated) & valid)[t - 1, 1::2]
    terminated, truncated = terminated & valid, truncated & valid
    assert terminated.any() and truncated.any() and not valid.all()
    return Slots(rewards, values, terminated, terminated | truncated, valid)


def advantages_by_definition(slots: Slots, gamma: float, gae_lambda: float, ratios: Tensor | None = None) -> Tensor:
    """A_t = sum_l (gamma lambda)^l c_{t+1} ... c_{t+l} delta_{t+l} up to the end of the episode or of the batch."""
    steps, envs = slots.rewards.shape
    result = torch.zeros(steps, envs, dtype=torch.float64)
    for n in range(envs):
        for t in range(steps):
            if not slots.valid[t, n]:
                continue
            total, trace = 0.0, 1.0
            for step in range(t, steps):
                if ratios is not None and step > t:
                    trace *= float(ratios[step, n])
                following = 0.0 if slots.terminated[step, n] else float(slots.values[step + 1, n])
                delta = float(slots.rewards[step, n]) + gamma * following - float(slots.values[step, n])
                total += (gamma * gae_lambda) ** (step - t) * trace * delta
                if slots.ended[step, n]:
                    break
            result[t, n] = total
    return result


def returns_by_definition(slots: Slots, gamma: float) -> Tensor:
    steps, envs = slots.rewards.shape
    result = torch.zeros(steps, envs, dtype=torch.float64)
    for n in range(envs):
        for t in range(steps):
            if not slots.valid[t, n]:
                continue
            last = next((k for k in range(t, steps) if slots.ended[k, n]), steps - 1)
            total = sum(gamma ** (k - t) * float(slots.rewards[k, n]) for k in range(t, last + 1))
            if not slots.terminated[last, n]:
                total += gamma ** (last + 1 - t) * float(slots.values[last + 1, n])
            result[t, n] = total
    return result


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("gamma", "gae_lambda"), [(GAMMA, LAMBDA), (1.0, 0.5), (0.5, 1.0), (0.0, 0.9)])
def test_advantages_equal_their_definition(seed, gamma, gae_lambda):
    slots = random_slots(seed)
    expected = advantages_by_definition(slots, gamma, gae_lambda)
    found = generalized_advantages(*slots.arguments, gamma=gamma, gae_lambda=gae_lambda)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gae_lambda", [0.5, 1.0])
def test_advantages_of_another_policy_equal_their_definition(seed, gae_lambda):
    slots = random_slots(seed)
    ratios = torch.rand(slots.rewards.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2.0
    ratios = torch.where(slots.valid, ratios, float("nan"))  # what is no transition does not matter
    expected = advantages_by_definition(slots, GAMMA, gae_lambda, ratios)
    found = generalized_advantages(*slots.arguments, gamma=GAMMA, gae_lambda=gae_lambda, ratios=ratios)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_ratios_of_1_change_no_bit():
    slots = random_slots(3)
    plain = generalized_advantages(*slots.arguments, gamma=GAMMA, gae_lambda=LAMBDA)
    ones = torch.ones_like(slots.rewards)
    assert torch.equal(generalized_advantages(*slots.arguments, gamma=GAMMA, gae_lambda=LAMBDA, ratios=ones), plain)


def test_weights_standardize_as_copies_do():
    generator = torch.Generator().manual_seed(0)
    x, counts = (
        torch.randn(50, dtype=torch.float64, generator=generator),
        torch.randint(1, 5, (50,), generator=generator),
    )
    found, std = standardize(x, weights=counts)
    copies, std_of_copies = standardize(x.repeat_interleave(counts))
    assert std == pytest.approx(std_of_copies, rel=1e-12)
    torch.testing.assert_close(found.repeat_interleave(counts), copies, rtol=1e-12, atol=1e-12)
    assert standardize(torch.full((9,), 0.1), weights=torch.arange(1.0, 10.0))[0].abs().max() == 0.0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gamma", [GAMMA, 1.0, 0.0])
def test_returns_equal_their_definition(seed, gamma):
    slots = random_slots(seed)
    found = discounted_returns(*slots.arguments, gamma=gamma)
    torch.testing.assert_close(found, returns_by_definition(slots, gamma), rtol=1e-12, atol=1e-12)


def test_lambda_zero_is_the_one_step_error():
    slots = random_slots(7)
    following = torch.where(slots.terminated, 0.0, slots.values[1:])
    expected = torch.where(slots.valid, slots.rewards + GAMMA * following - slots.values[:-1], 0.0)
    found = generalized_advantages(*slots.arguments, gamma=GAMMA, gae_lambda=0.0)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)


def test_lambda_one_plus_value_is_the_discounted_return():
    slots = random_slots(8)
    advantages = generalized_advantages(*slots.arguments, gamma=GAMMA, gae_lambda=1.0)
    returns = discounted_returns(*slots.arguments, gamma=GAMMA)
    torch.testing.assert_close(advantages, torch.where(slots.valid, returns - slots.values[:-1], 0.0))


def constant_reward_slots(end: str) -> Slots:
    """Episodes of 5 steps with reward 1, a fake slot after each, cut by the batch's end in the fourth."""
    position = torch.arange(20) % 6
    valid, ended = position < 5, position == 4
    terminated = ended if end == "terminated" else torch.zeros_like(ended)
    columns = [mask[:, None].expand(-1, 2) for mask in (terminated, ended, valid)]
    values = torch.full((21, 2), 1.0 / (1.0 - GAMMA), dtype=torch.float64)
    return Slots(columns[2].double(), values, *columns)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95, 1.0])
def test_constant_reward_under_a_time_limit_has_no_advantage(gae_lambda):
    slots = constant_reward_slots("truncated")
    found = generalized_advantages(*slots.arguments, gamma=GAMMA, gae_lambda=gae_lambda)
    torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-11)


def test_constant_reward_that_ends_in_death_has_negative_advantages():
    slots = constant_reward_slots("terminated")
    found = generalized_advantages(*slots.arguments, gamma=GAMMA, gae_lambda=LAMBDA)
    value = 1.0 / (1.0 - GAMMA)
    for steps_before in range(5):
        expected = -((GAMMA * LAMBDA) ** steps_before) * GAMMA * value
        torch.testing.assert_close(found[4 - steps_before], torch.full((2,), expected, dtype=torch.float64))


def test_fake_slots_are_zero_and_what_they_hold_is_harmless():
    slots = random_slots(9)
    values = slots.values.clone()
    fake_after_death = torch.zeros_like(slots.valid)
    fake_after_death[1:] = slots.terminated[:-1] & ~slots.valid[1:]
    values[:-1][fake_after_death] = math.nan
    values[:-1][0, ~slots.valid[0]] = math.nan
    rewards = torch.where(slots.valid, slots.rewards, math.nan)
    assert fake_after_death.any()
    for garbage in (replace(slots, rewards=rewards), replace(slots, values=values)):
        for function, keywords in (
            (generalized_advantages, {"gamma": GAMMA, "gae_lambda": LAMBDA}),
            (discounted_returns, {"gamma": GAMMA}),
        ):
            found = function(*garbage.arguments, **keywords)
            assert torch.equal(found, function(*slots.arguments, **keywords))
            assert torch.equal(found[~slots.valid], torch.zeros_like(found[~slots.valid]))


def test_a_fake_slots_own_flags_are_ignored():
    slots = random_slots(10)
    flipped = Slots(
        slots.rewards, slots.values, slots.terminated | ~slots.valid, slots.ended | ~slots.valid, slots.valid
    )
    for one, other in (
        (
            generalized_advantages(*slots.arguments, gamma=GAMMA, gae_lambda=LAMBDA),
            generalized_advantages(*flipped.arguments, gamma=GAMMA, gae_lambda=LAMBDA),
        ),
        (discounted_returns(*slots.arguments, gamma=GAMMA), discounted_returns(*flipped.arguments, gamma=GAMMA)),
    ):
        assert torch.equal(one, other)


def test_environments_do_not_mix():
    slots = random_slots(11)
    whole = generalized_advantages(*slots.arguments, gamma=GAMMA, gae_lambda=LAMBDA)
    alone = [
        generalized_advantages(*(x[:, n : n + 1] for x in slots.arguments), gamma=GAMMA, gae_lambda=LAMBDA)
        for n in range(whole.shape[1])
    ]
    assert torch.equal(whole, torch.cat(alone, dim=1))


def test_arguments_are_left_alone():
    slots = random_slots(12)
    before = [x.clone() for x in slots.arguments]
    generalized_advantages(*slots.arguments, gamma=GAMMA, gae_lambda=LAMBDA)
    discounted_returns(*slots.arguments, gamma=GAMMA)
    assert all(torch.equal(x, y) for x, y in zip(slots.arguments, before, strict=True))


@pytest.mark.parametrize("gamma", [1.0 - 1e-9, 1.0 / 3.0])
def test_discount_is_not_rounded_to_float32(gamma):
    slots = random_slots(13)
    found = generalized_advantages(*slots.arguments, gamma=gamma, gae_lambda=1.0 / 3.0)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, advantages_by_definition(slots, gamma, 1.0 / 3.0), rtol=1e-13, atol=1e-13)
    returns = discounted_returns(*slots.arguments, gamma=gamma)
    torch.testing.assert_close(returns, returns_by_definition(slots, gamma), rtol=1e-13, atol=1e-13)


def test_float32_stays_float32():
    slots = random_slots(14)
    single = Slots(slots.rewards.float(), slots.values.float(), slots.terminated, slots.ended, slots.valid)
    found = generalized_advantages(*single.arguments, gamma=GAMMA, gae_lambda=LAMBDA)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), advantages_by_definition(slots, GAMMA, LAMBDA), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: Slots(s.rewards[:, 0], s.values, s.terminated, s.ended, s.valid),
        lambda s: Slots(s.rewards, s.values[:-1], s.terminated, s.ended, s.valid),
        lambda s: Slots(s.rewards, s.values[:, :1], s.terminated, s.ended, s.valid),
        lambda s: Slots(s.rewards, s.values, s.terminated[:-1], s.ended, s.valid),
        lambda s: Slots(s.rewards, s.values, s.terminated, s.ended[:, :1], s.valid),
        lambda s: Slots(s.rewards, s.values, s.terminated, s.ended, s.valid[:, 0]),
        lambda s: Slots(s.rewards, s.values, s.terminated.double(), s.ended, s.valid),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change):
    slots = change(random_slots(15))
    with pytest.raises(ValueError, match=r"\[T"):
        generalized_advantages(*slots.arguments, gamma=GAMMA, gae_lambda=LAMBDA)
    with pytest.raises(ValueError, match=r"\[T"):
        discounted_returns(*slots.arguments, gamma=GAMMA)


def test_standardize_gives_mean_zero_and_population_std_one():
    x = 50.0 + 7.0 * torch.randn(101, generator=torch.Generator().manual_seed(0))
    found, std = standardize(x)
    assert std == pytest.approx(float(x.double().std(correction=0)))
    numbers = found.tolist()
    mean = sum(numbers) / 101
    assert mean == pytest.approx(0.0, abs=1e-12)
    assert math.sqrt(sum((v - mean) ** 2 for v in numbers) / 101) == pytest.approx(1.0, abs=1e-7)
    correlation = torch.corrcoef(torch.stack([x.double(), found]))[0, 1]
    assert float(correlation) == pytest.approx(1.0)


def test_standardize_of_two_values():
    torch.testing.assert_close(standardize(torch.tensor([3.0, 7.0]))[0], torch.tensor([-1.0, 1.0]).double())


@pytest.mark.parametrize("constant", [0.0, 0.1, -3.0, 1e9 + 0.1])
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_standardize_turns_a_constant_into_exact_zeros(constant, size):
    x = torch.full((size,), constant, dtype=torch.float64)
    assert torch.equal(standardize(x)[0], torch.zeros(size, dtype=torch.float64))


def test_standardize_keeps_a_nan_visible():
    assert standardize(torch.tensor([1.0, math.nan, 2.0]))[0].isnan().all()


def test_explained_variance_of_perfect_constant_and_shifted_predictions():
    targets = torch.randn(200, generator=torch.Generator().manual_seed(1))
    assert explained_variance(targets, targets) == 1.0
    assert explained_variance(torch.full_like(targets, 3.0), targets) == pytest.approx(0.0, abs=1e-9)
    assert explained_variance(targets + 5.0, targets) == pytest.approx(1.0, abs=1e-9)


def test_explained_variance_of_half_and_of_opposite_predictions():
    targets = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert explained_variance(0.5 * targets, targets) == pytest.approx(0.75)
    assert explained_variance(-targets, targets) == pytest.approx(-3.0)


@pytest.mark.parametrize("constant", [0.0, 0.1, 0.3, 1.7])
@pytest.mark.parametrize("size", [1, 3, 7, 56])
def test_explained_variance_of_constant_targets_is_nan(constant, size):
    predictions = torch.randn(size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert math.isnan(explained_variance(predictions, torch.full((size,), constant, dtype=torch.float64)))
