"""The same config gives the same bits: in fresh processes, with and without W&B, console and evaluation.

After a change that is meant to change numbers, `python tests/faults/golden.py` writes the hashes anew.
"""

import os

import golden
import pytest
from small_runs import assert_same_run, command_line, learned_hash, newest

from trpo_lightning.runs.checkpoint import checkpoint_files

KEY = golden.key()
HASHES = golden.recorded()


def test_each_run_has_a_golden_hash():
    assert all(set(hashes) == set(golden.RUNS) for hashes in HASHES.values())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.faults] if "c" == name[0] else []) for name in golden.RUNS]
)
def test_the_golden_hash(tmp_path, name):
    if KEY not in HASHES:
        pytest.skip(f"no golden hashes for {KEY}: python tests/faults/golden.py writes them")
    if "envpool" in name:
        pytest.importorskip("envpool")
    assert golden.computed(name, tmp_path / "run") == HASHES[KEY][name]


VARIANTS = {
    "again": [],
    "W&B offline": ["tracking.wandb=offline"],
    "W&B disabled, a line per update": ["tracking.wandb=disabled", "--loud"],
    "no evaluation": ["evaluation.every=0"],
    "evaluation": ["evaluation.every=1", "evaluation.episodes=3"],
    "other hash seed": [],
}


@pytest.mark.faults
@pytest.mark.parametrize("backend", ["gymnasium", "envpool"])
def test_fresh_processes_learn_the_same_bits(tmp_path, backend):
    overrides = [*golden.HOPPER, *golden.RUNS[backend]]
    hashes = {}
    for number, (name, more) in enumerate(VARIANTS.items()):
        run_dir = tmp_path / str(number)
        quiet = [] if "--loud" in more else ["--quiet"]
        arguments = [*quiet, "--run-dir", str(run_dir), *overrides, *(item for item in more if item != "--loud")]
        done = command_line("train", *arguments, HOME=str(tmp_path), PYTHONHASHSEED=str(number))
        assert done.returncode == 0, done.stderr
        hashes[name] = learned_hash(newest(run_dir))
    assert len(set(hashes.values())) == 1, hashes
    if KEY in HASHES:
        assert set(hashes.values()) == {HASHES[KEY][backend]}
    assert_same_run(tmp_path / "0", tmp_path / "1")


@pytest.mark.faults
@pytest.mark.parametrize("backend", ["gymnasium", "envpool"])
def test_another_seed_and_another_thread_count(tmp_path, backend):
    """Other seeds learn other bits; the same thread count twice learns the same."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one core")
    hashes = {
        name: golden.computed(backend, tmp_path / name, *more)
        for name, more in {"a": ["threads=2"], "b": ["threads=2"], "seed": ["seed=1"]}.items()
    }
    assert hashes["a"] == hashes["b"] != hashes["seed"]
    assert checkpoint_files(tmp_path / "a" / "checkpoints")
