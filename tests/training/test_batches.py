import pytest
import torch

from trpo_lightning import TRPO
from trpo_lightning.rollouts.rollout import Batch
from trpo_lightning.training.batches import make_batch

GAMMA = 0.9


def batches(iterations: int = 3, **rule) -> list[tuple[Batch, torch.Tensor]]:
    """Batches of an environment that observes the steps of its episode, and these steps."""
    module = TRPO(
        "environments:counting",
        num_envs=3,
        steps_per_iteration=33,  # ends within episodes of 3, 1, 4 steps: they go on in the next iteration
        normalize={"observations": False, "rewards": False},
        value={"name": "none"},
        gamma=GAMMA,
        gae_lambda=0.7,
        rule=rule,
    )
    found = []
    for _ in range(iterations):
        rollout = module.collect()
        estimate = make_batch(rollout, module.value_function, module.settings, module.device)
        batch = estimate.batch
        assert isinstance(batch, Batch)
        if not rule:
            assert estimate.metrics["advantages/std"] == pytest.approx(batch.advantage_std)
        found.append((batch, batch.observations[:, 2].double()))
        module.iteration += 1
    module.scheme.close()
    return found


@pytest.mark.parametrize("standardize", [True, False])
def test_discounted_state_weights_multiply_advantages_by_gamma_to_the_step_of_the_episode(standardize):
    plain = batches(standardize_advantages=standardize)
    weighted = batches(standardize_advantages=standardize, discounted_state_weights=True)
    for (without, steps), (with_weights, _) in zip(plain, weighted, strict=True):
        assert set(steps.tolist()) == {0.0, 1.0, 2.0, 3.0}
        expected = without.advantages.double() * torch.tensor([GAMMA**t for t in steps.tolist()], dtype=torch.float64)
        torch.testing.assert_close(with_weights.advantages.double(), expected, rtol=1e-6, atol=1e-7)
        assert torch.equal(with_weights.observations, without.observations)


def test_standardized_advantages_have_mean_0_and_std_1_before_their_weights():
    for batch, steps in batches(discounted_state_weights=True):
        unweighted = batch.advantages.double() / GAMMA**steps
        assert abs(float(unweighted.mean())) < 1e-6
        assert float(unweighted.std(correction=0)) == pytest.approx(1.0, abs=1e-5)


def test_advantage_std_is_what_standardized_advantages_were_divided_by():
    for (raw, _), (batch, _) in zip(batches(standardize_advantages=False), batches(), strict=True):
        assert raw.advantage_std == 1.0
        restored = batch.advantage_std * batch.advantages.double() + raw.advantages.double().mean()
        torch.testing.assert_close(restored, raw.advantages.double(), rtol=1e-6, atol=1e-7)
