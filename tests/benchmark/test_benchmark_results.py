"""Medians, spreads, verdicts and fits against numbers worked out by hand."""

import json
import math

import numpy as np
import pytest

from trpo_lightning.benchmark.results import Result, Target, from_dict, linear_deviation, ratio, to_dict


def test_a_result_tells_median_spread_and_verdict():
    result = Result("where", "what", "x", (3.0, 1.0, 10.0), Target(3.0))
    assert (result.median, result.low, result.high, result.verdict) == (3.0, 1.0, 10.0, "met")
    assert Result("where", "what", "x", (4.0, 2.0)).median == 3.0


@pytest.mark.parametrize(
    ("limit", "at_least", "verdict"),
    [(2.0, True, "met"), (2.1, True, "missed"), (2.0, False, "met"), (1.9, False, "missed")],
)
def test_a_target_is_a_limit_on_one_side(limit, at_least, verdict):
    assert Result("", "", "x", (2.0,), Target(limit, at_least)).verdict == verdict
    assert str(Target(limit, at_least)) == f"{'>=' if at_least else '<='} {limit:g}"


def test_nothing_measured_is_no_target_missed():
    result = Result("", "", "x", (), Target(1.0))
    assert math.isnan(result.median) and result.verdict == "not measured"
    assert Result("", "", "x", (1.0,)).verdict == ""


def test_ratios_are_those_of_neighbours():
    result = ratio("where", "a / b", (10.0, 30.0, 50.0), (10.0, 10.0), Target(2.0))
    assert result.values == (1.0, 3.0)  # a third repeat of the other is missing
    assert result.median == 2.0 and result.verdict == "met"
    # the machine got twice as fast between repeats: the ratio does not change
    assert ratio("", "", (2.0, 4.0, 8.0), (1.0, 2.0, 4.0), None).values == (2.0, 2.0, 2.0)


def test_results_survive_json():
    for result in (Result("w", "q", "ms", (1.5, 2.0), Target(5.0, at_least=False)), Result("w", "q", "ms")):
        text = json.dumps(to_dict(result), allow_nan=False)
        assert from_dict(json.loads(text)) == result


def test_a_linear_cost_deviates_by_nothing_and_a_bend_by_what_it_is():
    sizes = [2**k for k in range(11, 21, 2)]
    assert linear_deviation(sizes, [0.01 + 3e-6 * n for n in sizes]) < 1e-9
    assert linear_deviation(sizes, [3e-6 * n for n in sizes]) < 1e-9
    quadratic = linear_deviation(sizes, [1e-9 * n**1.3 for n in sizes])
    assert quadratic > 0.3


def test_the_line_is_the_best_one_in_relative_terms():
    generator = np.random.default_rng(0)
    sizes = np.array([1.0, 4.0, 16.0, 64.0, 256.0])
    seconds = (0.5 + 0.1 * sizes) * np.exp(0.05 * generator.standard_normal(5))
    design = np.stack([1 / seconds, sizes / seconds], axis=1)
    (constant, slope), *_ = np.linalg.lstsq(design, np.ones(5))
    assert constant > 0
    fit = constant + slope * sizes
    expected = np.max(np.abs(seconds - fit) / fit)
    assert linear_deviation(list(sizes), list(seconds)) == pytest.approx(expected)


def test_no_iteration_is_said_to_cost_less_than_nothing():
    # the best line would start below zero; the best one through the origin has slope sum(s/t) / sum(s^2/t^2)
    sizes, seconds = [1.0, 2.0], [1.0, 4.0]
    slope = (1 / 1 + 2 / 4) / (1 / 1 + 4 / 16)
    assert linear_deviation(sizes, seconds) == pytest.approx(4 / (2 * slope) - 1)
