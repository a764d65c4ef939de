"""Numbers of the model that can be worked out by hand."""

import pytest

from trpo_lightning.benchmark.scaling_model import Network, Work, least_steps


def test_small_all_reduces_double_and_large_ones_go_round_the_ring():
    network = Network(latency=1e-3, bandwidth=1e6)
    assert network.all_reduce(8.0, 1) == 0.0
    assert network.all_reduce(8.0, 8) == pytest.approx(3 * (1e-3 + 8e-6))
    assert network.all_reduce(8e6, 8) == pytest.approx(14 * (1e-3 + 1.0))
    assert network.all_reduce(8.0, 9) == pytest.approx(4 * (1e-3 + 8e-6))


def test_efficiency_is_the_share_of_the_time_that_is_computed():
    work = Work(seconds_per_step=1e-3, policy=250, value=500, products=2, epochs=3, small=5)
    network = Network(latency=0.0, bandwidth=1e6)
    # two ranks: a ring passes 2 (2 - 1) / 2 of the bytes, doubling all of them, which is the same
    told = 2 * 1e-3 + 3 * 4 * 2e-3 + 5 * 8e-6
    assert work.communicate(network, 2, steps=4096, minibatch=1024) == pytest.approx(told)
    assert work.efficiency(network, 2, 4096, 1024) == pytest.approx(4.096 / (4.096 + told))
    assert work.efficiency(network, 1, 4096, 1024) == 1.0


def test_ranks_wait_for_the_first_one_that_fits_small_minibatches_alone():
    work = Work(seconds_per_step=1e-3, policy=250, value=500, products=2, small=5, fit_per_step=2e-4, row=10)
    network = Network(latency=0.0, bandwidth=1e6)
    told = 2 * 1e-3 + 5 * 8e-6 + 100 * 40e-6 + 2e-3 + 100 * 2e-4
    assert work.communicate(network, 2, steps=100, minibatch=25) == pytest.approx(told)
    assert work.efficiency(network, 1, 100, 25) == 1.0


def test_the_least_batch_is_a_power_of_two_that_suffices():
    assert least_steps(lambda steps: steps / (steps + 100.0), 0.8) == 512
    assert least_steps(lambda steps: 0.5, 0.8) is None
