"""Sweeps without a server: what W&B is asked for, and that an agent's arguments lead back to the local run."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from tracking.wandb_server_fixture import closed_port, unauthorized_server
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from trpo_lightning.__main__ import main
from trpo_lightning.errors import UserError
from trpo_lightning.experiment.declaration import Experiment, experiment_names, load_experiment
from trpo_lightning.experiment.sweep import cell_of, run_of_sweep, sweep_config
from trpo_lightning.runs import run as run_module
from trpo_lightning.runs.config import write_config
from trpo_lightning.runs.run import RunOutcome
from trpo_lightning.settings import to_dict
from trpo_lightning.tracking.wandb_logger import RunTracker, read_back

ROOT = Path("runs")
HEAD = "title: T\nhypothesis: H\nminutes: 1\noverrides: {env.id: CartPole-v1, tracking.wandb: offline}\n"
GRID = HEAD + "axes: {rule.delta: [1.0e-5, 0.25], policy.hidden_sizes: [[], [8, 4]]}\nseeds: [0, 5]\n"
VARIANTS = HEAD + "variants: {plain: {}, other: {rule.delta: 0.5, seeds: [7, 8]}, none: {rule.kl_slack: null}}\n"
SEARCH = (
    HEAD
    + """
environments: [CartPole-v1]
seeds: [0, 1]
search:
  method: random
  runs: 20
  ranges:
    rule.delta: {min: 1.0e-5, max: 0.1, distribution: log_uniform_values}
    rule.cg_iterations: {min: 5, max: 20}
  early_terminate: {type: hyperband, min_iter: 20, eta: 3}
"""
)


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write `experiments/tiny.yaml` in a working directory of its own and read it."""
    (tmp_path / "experiments").mkdir()
    monkeypatch.chdir(tmp_path)

    def declare(text: str) -> Experiment:
        (tmp_path / "experiments" / "tiny.yaml").write_text(text, encoding="utf-8")
        return load_experiment("tiny")

    return declare


def points(config: dict[str, Any]) -> list[dict[str, Any]]:
    """All points of a grid."""
    parameters = config["parameters"]
    return [
        dict(zip(parameters, values, strict=True))
        for values in itertools.product(*(parameter["values"] for parameter in parameters.values()))
    ]


def as_agent(config: dict[str, Any], point: dict[str, Any]) -> list[str]:
    """The arguments after the experiment's name, as `wandb agent` writes them."""
    command = yaml.safe_load(yaml.safe_dump(config))["command"]
    words = create_sweep_command_args({"args": {name: {"value": value} for name, value in point.items()}})
    assert command[-1] == "${args_no_hyphens}"
    given = [word for word in command[command.index("sweep-run") + 2 : -1] if not word.startswith("--")]
    return [*given, *words["args_no_hyphens"]]


# ---- what W&B is asked for


def test_grid_is_the_axes_the_environment_and_the_seeds(declare) -> None:
    config = sweep_config(declare(GRID), [], ROOT)
    assert config["method"] == "grid" and config["run_cap"] == 8
    assert config["metric"] == {"name": "episode/return_mean", "goal": "maximize"}
    assert config["parameters"] == {
        "seed": {"values": [0, 5]},
        "env.id": {"values": ["CartPole-v1"]},
        "rule.delta": {"values": [1e-5, 0.25]},
        "policy.hidden_sizes": {"values": [[], [8, 4]]},
    }


def test_command_calls_the_project_with_the_interpreter_of_the_agents_environment(declare) -> None:
    config = sweep_config(declare(GRID), ["seed=5"], ROOT)
    assert config["command"][:5] == ["${env}", "${interpreter}", "-m", "trpo_lightning", "sweep-run"]
    assert config["command"][5:] == ["tiny", "--scale=full", "--root=runs", "seed=5", "${args_no_hyphens}"]


def test_variants_are_one_parameter_that_names_the_run(declare) -> None:
    config = sweep_config(declare(VARIANTS), [], ROOT)
    (values,) = config["parameters"].values()
    assert list(config["parameters"]) == ["cell"] and config["run_cap"] == 4
    assert set(values["values"]) == {
        "tiny/full/CartPole-v1/plain/seed_0",
        "tiny/full/CartPole-v1/other/seed_7",
        "tiny/full/CartPole-v1/other/seed_8",
        "tiny/full/CartPole-v1/none/seed_0",
    }


def test_search_is_its_ranges_with_early_terminate_and_as_many_runs(declare) -> None:
    config = sweep_config(declare(SEARCH), [], ROOT)
    assert config["method"] == "random" and config["run_cap"] == 40
    assert config["early_terminate"] == {"type": "hyperband", "min_iter": 20, "eta": 3}
    assert config["parameters"]["rule.cg_iterations"] == {"min": 5, "max": 20}
    assert config["parameters"]["seed"] == {"values": [0, 1]}


def test_arguments_narrow_a_search(declare) -> None:
    config = sweep_config(declare(SEARCH), ["seed=1"], ROOT)
    assert config["parameters"]["seed"] == {"values": [1]} and config["run_cap"] == 20


def test_null_among_levels_is_written_as_a_text_that_comes_back_as_null(declare) -> None:
    experiment = declare(HEAD + "axes: {rule.kl_slack: [null, 1.5], env.kwargs.render_mode: [null, 'on']}\n")
    config = sweep_config(experiment, [], ROOT)
    assert config["parameters"]["rule.kl_slack"] == {"values": ["null", 1.5]}
    assert config["parameters"]["env.kwargs.render_mode"] == {"values": ["null", "on"]}
    found = {
        cell.directory: cell for cell in (cell_of(experiment, as_agent(config, point)) for point in points(config))
    }
    assert found == {cell.directory: cell for cell in experiment.cells()}
    for point in points(config):  # what W&B's config holds: all settings, with the sweep's own keys over them
        cell = cell_of(experiment, as_agent(config, point))
        assert read_back(to_dict(cell.settings) | point) == cell.settings


def test_pythons_none_on_an_axis_of_ones_own_arrives_as_a_text_and_is_null(declare) -> None:
    experiment = declare(HEAD + "axes: {rule.kl_slack: [null, 1.5]}\n")
    cell = cell_of(experiment, ["env.id=CartPole-v1", "seed=0", "rule.kl_slack=None"])
    assert cell.settings.rule.kl_slack is None
    assert read_back(to_dict(cell.settings) | {"rule.kl_slack": "None"}) == cell.settings
    assert read_back({"tracking.group": "None"}).tracking.group == "None"


@pytest.mark.parametrize(
    "axes", ["env.kwargs: [{a: 1}, {}]", "env.kwargs.a: [null, 'null']", "env.kwargs.a: [1, 'None']"]
)
def test_levels_that_a_sweep_cannot_tell_apart_are_one_parameter_that_names_the_run(declare, axes: str) -> None:
    experiment = declare(HEAD + f"axes: {{{axes}}}\n")
    config = sweep_config(experiment, [], ROOT)
    assert list(config["parameters"]) == ["cell"]
    local = experiment.cells()
    assert [cell_of(experiment, as_agent(config, point)) for point in points(config)] == local


# ---- and back


@pytest.mark.parametrize("text", [GRID, VARIANTS])
@pytest.mark.parametrize("arguments", [[], ["rule.damping=0.5"], ["seed=5"]])
def test_arguments_of_the_agent_lead_to_the_local_runs(declare, text: str, arguments: list[str]) -> None:
    experiment = declare(text)
    config = sweep_config(experiment, arguments, ROOT)
    found = [cell_of(experiment, as_agent(config, point)) for point in points(config)]
    local = experiment.cells(arguments)
    assert {cell.directory: cell for cell in found} == {cell.directory: cell for cell in local}
    assert len(found) == len(local) == config["run_cap"]


def shipped() -> list[tuple[str, str]]:
    return [(name, scale) for name in experiment_names() for scale in ("full", *load_experiment(name).scales)]


@pytest.mark.parametrize(("name", "scale"), shipped())
def test_sweep_of_a_shipped_experiment_has_its_local_runs(name: str, scale: str) -> None:
    experiment = load_experiment(name, scale)
    if experiment.search:
        pytest.skip("W&B draws other points")
    config = sweep_config(experiment, [], ROOT)
    drawn, local = points(config), experiment.cells()
    assert config["run_cap"] == len(drawn) == len(local)
    for point in drawn[:: max(1, len(drawn) // 3)]:
        assert cell_of(experiment, as_agent(config, point)) in local


def test_point_that_the_server_draws_is_a_run_with_all_its_digits(declare) -> None:
    experiment = declare(SEARCH)
    point = {"rule.delta": 2.718281828459045e-05, "rule.cg_iterations": 7, "env.id": "CartPole-v1", "seed": 1}
    cell = cell_of(experiment, as_agent(sweep_config(experiment, [], ROOT), point))
    assert (cell.settings.rule.delta, cell.settings.rule.cg_iterations) == (2.718281828459045e-05, 7)
    name = "delta=2.718281828459045e-05,cg_iterations=7"
    assert cell.directory == Path("tiny/full/CartPole-v1") / name / "seed_1"
    assert read_back(to_dict(cell.settings) | point) == cell.settings


def test_settings_with_the_sweeps_own_keys_beside_them_are_read_back(declare) -> None:
    for cell in declare(VARIANTS).cells():
        assert read_back({**to_dict(cell.settings), "cell": str(cell.directory), "_wandb": {}}) == cell.settings


def test_run_that_the_experiment_does_not_have_is_refused(declare) -> None:
    with pytest.raises(UserError, match="there is no run tiny/full/x") as caught:
        cell_of(declare(VARIANTS), ["cell=tiny/full/x"])
    assert "\n" not in str(caught.value)


def test_call_without_an_agent_names_what_is_missing(declare) -> None:
    with pytest.raises(UserError, match=r"needs env\.id, rule\.delta, policy\.hidden_sizes"):
        cell_of(declare(GRID), ["seed=0"])


# ---- registering


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """No W&B variables, no netrc; a key of the right form."""
    import os

    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("NETRC", "HOME", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name, value in (("WANDB_ERROR_REPORTING", "false"), ("WANDB_API_KEY", "k" * 40)):
        monkeypatch.setenv(name, value)
    for name in ("WANDB_ENTITY", "WANDB_PROJECT"):  # the client sets them: have them taken back
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    wandb.teardown()
    yield monkeypatch
    wandb.teardown()


@contextlib.contextmanager
def nothing_there() -> Iterator[str]:
    yield f"http://127.0.0.1:{closed_port()}"


@pytest.mark.parametrize("server", [nothing_there, unauthorized_server])
def test_sweep_that_w_and_b_does_not_take_is_left_as_a_file(clean, declare, tmp_path, capfd, server) -> None:
    experiment = declare(GRID)
    with server() as url:
        clean.setenv("WANDB_BASE_URL", url)
        assert main(["sweep", "tiny", "--root", str(tmp_path / "r")]) == 2
    output = capfd.readouterr()
    (line,) = (output.out + output.err).splitlines()
    file = tmp_path / "r" / "tiny" / "full" / "sweep.yaml"
    assert line.startswith("error: W&B did not take the sweep (")
    assert f"it is in {file}" in line and line.endswith("make experiment NAME=tiny")
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == sweep_config(experiment, [], tmp_path / "r")


def test_sweep_without_a_key_asks_for_none(clean, declare, capfd) -> None:
    declare(GRID)
    clean.delenv("WANDB_API_KEY")
    assert main(["sweep", "tiny"]) == 2
    output = capfd.readouterr()
    (line,) = (output.out + output.err).splitlines()
    assert "no API key is configured" in line


# ---- the run


class Agent:
    """Stands in for `train_run`."""

    def __init__(self, **outcome: Any) -> None:
        self.outcome, self.calls = outcome, []

    def __call__(self, settings: Any, run_dir: Path, **arguments: Any) -> RunOutcome:
        self.calls.append((settings, run_dir, arguments["resume"]))
        return RunOutcome(run_dir, iteration=3, env_steps=7, **self.outcome)


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ({"state": "finished"}, 0),
        ({"state": "interrupted", "signal_number": 15}, 143),
        ({"state": "interrupted", "signal_number": 2}, 130),
        ({"state": "interrupted", "signal_number": 15, "stopped_by_sweep": True}, 0),
    ],
)
def test_exit_code_tells_the_agent_how_the_run_ended(declare, monkeypatch, tmp_path, outcome, code) -> None:
    experiment = declare(VARIANTS)
    monkeypatch.setattr(run_module, "train_run", train := Agent(**outcome))
    assert run_of_sweep(experiment, ["cell=tiny/full/CartPole-v1/plain/seed_0"], tmp_path) == code
    ((settings, run_dir, resume),) = train.calls
    assert run_dir == tmp_path / "tiny/full/CartPole-v1/plain/seed_0" and not resume
    assert (settings.name, settings.tracking.group) == ("plain", "tiny")


@pytest.mark.parametrize(("state", "calls"), [("interrupted", 1), ("running", 1), ("finished", 0)])
def test_run_that_began_is_continued_and_a_finished_one_is_left(declare, monkeypatch, tmp_path, state, calls) -> None:
    experiment = declare(VARIANTS)
    run_dir = tmp_path / "tiny/full/CartPole-v1/plain/seed_0"
    run_dir.mkdir(parents=True)
    write_config(experiment.cells()[0].settings, run_dir / "config.yaml")
    (run_dir / "status.json").write_text(f'{{"state": "{state}"}}', encoding="utf-8")
    monkeypatch.setattr(run_module, "train_run", train := Agent(state="finished"))
    assert run_of_sweep(experiment, ["cell=tiny/full/CartPole-v1/plain/seed_0"], tmp_path) == 0
    assert [resume for _, _, resume in train.calls] == calls * [True]


@pytest.mark.filterwarnings("ignore:.*agent.yaml:pytest.PytestUnraisableExceptionWarning")  # the client's open file
def test_run_refuses_a_config_that_differs_from_its_arguments(clean, declare, tmp_path) -> None:
    experiment = declare(GRID)
    point = {"seed": 0, "env.id": "CartPole-v1", "rule.delta": 0.25, "policy.hidden_sizes": [8, 4]}
    given = {**point, "rule.delta": 0.125}
    values = {name: {"value": value} for name, value in given.items()}
    (tmp_path / "agent.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    clean.setenv("WANDB_SWEEP_ID", "a_sweep")
    clean.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "agent.yaml"))
    arguments = as_agent(sweep_config(experiment, [], ROOT), point)
    with pytest.raises(UserError, match=r"W&B's config differs from the run's arguments: rule\.delta") as caught:
        run_of_sweep(experiment, arguments, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("metrics.csv"))


@pytest.mark.parametrize(("offline", "sweep_id"), [(True, "a_sweep"), (False, None)])
def test_run_is_not_stopped_by_a_sweep_where_none_can_say_so(clean, offline: bool, sweep_id: str | None) -> None:
    class Run:
        def define_metric(self, *_: Any, **__: Any) -> None:
            pass

    fake: Any = Run()
    fake.id, fake.offline, fake.sweep_id = "an_id", offline, sweep_id
    assert RunTracker(fake, Path("nowhere")).is_stopped() is False


def test_server_out_of_reach_says_nothing_of_a_stop(clean) -> None:
    class Run:
        id, offline, sweep_id = "an_id", False, "a_sweep"

        def define_metric(self, *_: Any, **__: Any) -> None:
            pass

    with nothing_there() as url:
        clean.setenv("WANDB_BASE_URL", url)
        fake: Any = Run()
        assert RunTracker(fake, Path("nowhere")).is_stopped() is False
