"""Repeats in turns, fresh processes, failures in one line."""

import os
import sys

import pytest

from trpo_lightning.benchmark import peer_environment
from trpo_lightning.benchmark.configurations import LIKE_SB3, LIKE_TIANSHOU, overrides
from trpo_lightning.benchmark.peer_environment import CONSTRAINTS, SB3, SCRIPTS, TIANSHOU, Peer, command, install
from trpo_lightning.benchmark.processes import MeasurementError, interleaved, measure
from trpo_lightning.runs.config import load_settings


def test_measurements_take_turns_and_a_broken_one_is_left_out():
    order, failures = [], []

    def cell(name, broken_from=99):
        def run():
            order.append(name)
            if order.count(name) >= broken_from:
                raise MeasurementError("it broke")
            return len(order)

        return run

    cells = {"a": cell("a"), "b": cell("b", broken_from=2), "c": cell("c")}
    found = interleaved(cells, 3, lambda key, value: None, lambda key, error: failures.append((key, error)))
    assert order == ["a", "b", "c", "a", "b", "c", "a", "c"]
    assert found == {"a": [1, 4, 7], "b": [2], "c": [3, 6, 8]} and failures == [("b", "it broke")]


def test_a_program_runs_in_a_process_of_its_own_with_its_threads(tmp_path):
    code = (
        "import json, os; print('other output');"
        "print(json.dumps({'pid': os.getpid(), 'cwd': os.getcwd(), 'threads': os.environ['OMP_NUM_THREADS']}))"
    )
    result = measure([sys.executable, "-c", code], 3, tmp_path)
    assert result["pid"] != os.getpid()
    assert result["cwd"] == str(tmp_path) and result["threads"] == "3"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ValueError('two\\nlines')", "exit code 1: lines"),
        ("import sys; sys.exit(7)", "exit code 7: no output"),
        ("print('hello')", "no number"),
        ("pass", "no number"),
    ],
)
def test_a_program_without_a_number_is_a_measurement_error(tmp_path, code, message):
    with pytest.raises(MeasurementError, match=message):
        measure([sys.executable, "-c", code], 1, tmp_path)


def test_the_compared_settings_are_valid_and_the_same_on_both_sides():
    sb3 = load_settings(overrides(LIKE_SB3))
    assert (sb3.env.num_envs, sb3.rollout.steps_per_iteration) == (8, 2048)
    assert (sb3.value.epochs, sb3.value.minibatch_size, sb3.rule.fisher_fraction) == (10, 128, 1.0)
    script = (SCRIPTS / SB3.script).read_text()
    for line in (
        "learning_rate=1e-3",
        "gamma=0.99",
        "gae_lambda=0.95",
        "cg_max_steps=options.cg_iterations",
        "cg_damping=0.1",
    ):
        assert line in script
    assert (sb3.value.learning_rate, sb3.gamma, sb3.gae_lambda) == (1e-3, 0.99, 0.95)
    assert (sb3.rule.cg_iterations, sb3.rule.damping) == (10, 0.1)
    defaults = f'("cg-iterations", {sb3.rule.cg_iterations}), ("critic-updates", {sb3.value.epochs})'
    assert defaults in script and f'"--delta", type=float, default={sb3.rule.delta}' in script
    assert sb3.rule.kl_over_dimensions == "mean" and sb3.checkpoint.every is None
    tianshou = load_settings(overrides(LIKE_TIANSHOU))
    script = (SCRIPTS / TIANSHOU.script).read_text()
    assert (tianshou.env.num_envs, tianshou.rollout.steps_per_iteration) == (16, 1024)
    assert tianshou.value.minibatch_size == 1024 and f"optim_critic_iters={tianshou.value.epochs}" in script
    assert f"max_kl={tianshou.rule.delta}" in script
    assert f"sigma_param, {tianshou.policy.initial_log_std}" in script


def test_scripts_of_other_libraries_do_not_know_ours(tmp_path):
    for script in SCRIPTS.glob("*.py"):
        assert "trpo_lightning" not in script.read_text()
    arguments = command(SB3, tmp_path, env="Hopper-v5", num_envs=8)
    assert arguments[0] == str(tmp_path / "bin" / "python") and arguments[1] == "-I"
    assert arguments[3:] == ["--env", "Hopper-v5", "--num-envs", "8"]


def test_the_pins_keep_pip_from_cuda():
    lines = CONSTRAINTS.read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all("==" in pin for pin in pins) and not any(pin.startswith("nvidia") for pin in pins)
    torch = [pin for pin in pins if pin.startswith("torch==")]
    assert torch[0].startswith("torch==2.13.0+cpu;") and len(torch) == 2
    names = {pin.partition("==")[0].lower().replace("_", "-") for pin in pins}
    for peer in (SB3, TIANSHOU):
        assert {package.partition("[")[0] for package in peer.packages} <= names


def test_a_library_that_cannot_be_installed_is_an_error_in_one_line(tmp_path, monkeypatch):
    asked = []

    def run(arguments, **more):
        asked.append(arguments)

        class Done:
            returncode = len(asked) - 1  # the environment is made, pip fails
            stderr = "WARNING: slow\nERROR: No matching distribution\nfound for it\n"

        return Done

    monkeypatch.setattr(peer_environment.subprocess, "run", run)
    with pytest.raises(MeasurementError, match="No matching distribution") as error:
        install(Peer("x", ("x-package",), "x.py"), tmp_path / "venv")
    assert "\n" not in str(error.value)
    assert asked[0][1:3] == ["-m", "venv"] and asked[1][-1] == "x-package"
    assert asked[1][asked[1].index("-c") + 1] == str(CONSTRAINTS)


def test_what_is_installed_is_not_installed_again(tmp_path, monkeypatch):
    asked = []

    def run(arguments):
        asked.append(arguments)

    monkeypatch.setattr(peer_environment, "_run", run)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    for _ in range(2):
        install(SB3, tmp_path)
    assert len(asked) == 1
    install(TIANSHOU, tmp_path)
    assert len(asked) == 2
