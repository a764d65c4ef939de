"""What a record of a process says."""

from trpo_lightning.runs.provenance import provenance, started_as


def test_a_command_is_recorded_as_it_is_typed_without_this_machines_paths():
    argv = ["/somewhere/of/ours/trpo_lightning/__main__.py", "train", "seed=1"]
    assert started_as(argv) == ["python", "-m", "trpo_lightning", "train", "seed=1"]
    assert started_as(["script.py", "x"]) == ["script.py", "x"]


def test_what_blas_was_told_is_recorded(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    told = provenance()["machine"]["told"]
    assert told["OPENBLAS_CORETYPE"] == "Prescott"
    assert "OPENBLAS_NUM_THREADS" not in told
