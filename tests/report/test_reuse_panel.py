"""The section about sample reuse: coverage and errors of made-up predictions, and nothing without any."""

import numpy as np
import pytest

from trpo_lightning.report.figures.reuse import reuse_panels
from trpo_lightning.report.records import Record


def record(variant="getrpo", bias=0.0, iterations=400, seed=0, **more) -> Record:
    """Predictions with standard error 2 of what is measured with 1.5 a row later, so 2.5 together."""
    rng = np.random.default_rng(seed)
    truth = np.linspace(0.0, 100.0, iterations)
    predicted = np.append(truth[1:], 100.0) + rng.normal(0.0, 2.0, iterations)
    columns = {
        "env_steps": 1000.0 * np.arange(1, iterations + 1),
        "reuse/return_predicted": predicted,
        "reuse/return_low": predicted - 1.96 * 2.0,
        "reuse/return_high": predicted + 1.96 * 2.0,
        "reuse/return_measured": truth + bias + rng.normal(0.0, 1.5, iterations),
        "reuse/return_measured_error": np.full(iterations, 1.5),
        "reuse/batches": np.full(iterations, 4.0),
        "reuse/kl_oldest": np.full(iterations, 0.07),
        "reuse/truncated": np.full(iterations, 0.5),
        "reuse/effective_sample_size": np.full(iterations, 3000.0),
        **more,
    }
    return Record("Hopper-v5", variant, seed, "finished", None, columns=columns)


def test_true_predictions_lie_within_their_interval_as_often_as_they_should():
    (panel,) = reuse_panels([record(seed=seed) for seed in range(5)])
    (trace,) = panel.figure.data
    assert trace.name == "Hopper-v5 getrpo" and len(trace.x) == 10
    assert np.abs(trace.y).max() < 0.4
    assert "<td>getrpo</td>" in panel.html and ">1,995</td>" in panel.html
    share = int(panel.html.partition("1,995</td>")[2].partition("%")[0].rpartition(">")[2])
    assert 93 <= share <= 97
    assert ">75%</td>" in panel.html  # 3000 of 4 batches of 1000


def test_a_bias_shows_in_units_of_its_standard_error():
    (panel,) = reuse_panels([record(), record("biased", bias=5.0)])
    honest, biased = panel.figure.data
    assert np.mean(biased.y) - np.mean(honest.y) == pytest.approx(5.0 / 2.5, abs=0.05)


def test_runs_without_reuse_have_no_such_section():
    plain = Record("Hopper-v5", "trpo", 0, "finished", None, columns={"env_steps": np.arange(3.0)})
    empty = record(**{"reuse/return_measured": np.full(400, np.nan)})
    assert reuse_panels([plain, empty]) == []
    assert len(reuse_panels([plain, record()])[0].figure.data) == 1


def test_one_environment_has_no_interval_and_no_section():
    nothing = np.full(400, np.nan)
    assert reuse_panels([record(**{"reuse/return_low": nothing, "reuse/return_high": nothing})]) == []
