"""What a record of a process says."""

from trpo_lightning.training.provenance import started_as


def test_a_command_is_recorded_as_it_is_typed_without_this_machines_paths():
    argv = ["/somewhere/of/ours/trpo_lightning/__main__.py", "train", "seed=1"]
    assert started_as(argv) == ["python", "-m", "trpo_lightning", "train", "seed=1"]
    assert started_as(["script.py", "x"]) == ["script.py", "x"]
