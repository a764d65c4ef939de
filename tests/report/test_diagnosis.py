import numpy as np
import pytest
from synthetic_runs import experiment, result, row

from trpo_lightning.report.diagnosis import diagnose
from trpo_lightning.report.records import read_record

TIMES = {"time/collect": 3.0, "time/simulator": 2.0, "time/inference": 0.5, "time/cg": 1.0, "time/steps_per_second": 20}


def update(iteration, kl, backtracks, rejected, reason=""):
    more = {"trust_region/kl": kl, "trust_region/delta": 0.01, "line_search/backtracks": backtracks}
    more |= {"update/rejected": rejected, "update/rejection_reason": reason, "cg/residual": 0.1}
    return row(iteration, **more, **TIMES)


def diagnosis_of(folder, rows, state="finished"):
    declared = experiment(folder, seeds=[0])
    (found,) = diagnose([read_record(result(folder, declared.cells()[0], rows, state), declared)])
    return found


def test_rejections_backtracks_and_kl_are_counted(tmp_path):
    rows = [update(1, 0.005, 0, 0), update(2, 0.015, 3, 0), update(3, 0.2, 9, 1, "no step"), update(4, 0.01, 0, 1)]
    found = diagnosis_of(tmp_path, rows, "failed")
    assert (found.iterations, found.rejected, found.reasons) == (4, 1, {"no step": 1})
    assert found.backtracks == [2, 0, 0, 1, 1] and found.mean_backtracks == 3
    assert found.kl[2] == pytest.approx(1.0) and found.kl[-1] < 1.5 + 1e-9  # the rejected update is no step
    assert found.above == pytest.approx(1 / 3) and found.residual == 0.1


def test_parts_of_the_time_sum_to_the_wall_clock(tmp_path):
    found = diagnosis_of(tmp_path, [update(1, 0.005, 0, 0), update(2, 0.005, 0, 0)])
    expected = {"simulator": 4, "inference": 1, "rest of collect": 1, "cg": 2, "overhead": 2}
    assert list(found.seconds) == list(expected)
    assert found.seconds == pytest.approx(expected) and sum(found.seconds.values()) == pytest.approx(2 * 100 / 20)


def test_methods_without_a_trust_region_have_no_kl(tmp_path):
    found = diagnosis_of(tmp_path, [row(1, 5.0, 1, **{"update/rejected": 0})])
    assert found.kl == [] and found.backtracks == [] and np.isnan(found.above) and np.isnan(found.mean_backtracks)


def test_runs_without_rows_are_not_diagnosed(tmp_path):
    declared = experiment(tmp_path, seeds=[0])
    assert diagnose([read_record(result(tmp_path, declared.cells()[0], [], "failed"), declared)]) == []
