"""A run's policy as a folder: it acts as the run's does, and says where it comes from."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from methods import on_top_of

import trpo_lightning
from trpo_lightning import UserError, extras, load
from trpo_lightning.__main__ import main
from trpo_lightning.export.folder import export_policy
from trpo_lightning.runs.config import load_settings
from trpo_lightning.runs.metrics_file import read_rows
from trpo_lightning.runs.run import train_run

SMALL = """env.id=CartPole-v1 env.backend=gymnasium env.num_envs=2 env.max_episode_steps=20
    rollout.steps_per_iteration=32 policy.hidden_sizes=[4] value.hidden_sizes=[4] value.epochs=1 checkpoint.every=2
    evaluation.every=2 evaluation.episodes=2 tracking.loggers=[] threads=1 total_iterations=5 seed=7""".split()
FILES = {
    *("README.md", "config.yaml", "learning_curve.png"),
    *("policy.json", "policy.onnx", "policy.safetensors"),
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "run"
    train_run(on_top_of(SMALL, []), folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def exported(run_dir: Path) -> Path:
    folder = run_dir.parent / "cart_pole"
    assert main(["export", str(run_dir), "--to", str(folder)]) == 0
    return folder


def header_of(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_folder_holds_everything_and_acts_bit_for_bit_as_the_run(run_dir: Path, exported: Path) -> None:
    assert {path.name for path in exported.iterdir()} == FILES
    found, expected = load(exported), load(run_dir)
    assert found.policy.state_dict().keys() == expected.policy.state_dict().keys()
    for name, tensor in expected.policy.state_dict().items():
        assert torch.equal(found.policy.state_dict()[name], tensor)
    for name, tensor in expected.normalizer.state_dict().items():
        assert torch.equal(found.normalizer.state_dict()[name], tensor) and tensor.dtype == torch.float64
    assert (found.settings, found.spec) == (expected.settings, expected.spec)
    assert (found.iteration, found.env_steps) == (expected.iteration, expected.env_steps)
    space = trpo_lightning.environments.recorded_spaces.spaces_of(expected.spec)[0]
    observations = [space.sample() for _ in range(20)]
    assert (found.act(observations) == expected.act(observations)).all()


def test_the_weights_are_readable_without_this_package(run_dir: Path, exported: Path) -> None:
    from safetensors import safe_open

    with safe_open(exported / "policy.safetensors", "pt") as file:
        names = set(file.keys())
        weight = file.get_tensor("policy.network.0.weight")
    assert "normalizer.observations.mean" in names
    assert torch.equal(weight, load(run_dir).policy.network[0].weight)
    rest = json.loads((exported / "policy.json").read_text(), parse_constant=pytest.fail)  # no NaN, no Infinity
    assert rest["settings"]["env"]["id"] == "CartPole-v1" and rest["kind"] == "policy"


def test_the_card_has_score_use_and_command(run_dir: Path, exported: Path) -> None:
    card = (exported / "README.md").read_text()
    (result,) = header_of(card)["model-index"][0]["results"]
    last = [row for row in read_rows(run_dir / "metrics.csv") if row["evaluation/return_mean"]][-1]
    assert result["metrics"][0] == {
        "type": "mean_reward",
        "value": f"{float(last['evaluation/return_mean']):.2f}",
        "name": "mean_reward",
        "verified": False,
    }
    assert result["dataset"]["name"] == "CartPole-v1" and header_of(card)["library_name"] == "trpo_lightning"
    assert f"evaluation during training, at {int(last['env_steps']):,} env steps, 2 episodes" in card
    assert 'policy = load("cart_pole")' in card and "![Return over env steps](learning_curve.png)" in card
    for file in FILES:
        assert f"`{file}`" in card or file in ("README.md",)
    assert (exported / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_config_in_the_folder_repeats_the_run(run_dir: Path, exported: Path, tmp_path: Path) -> None:
    assert "train --config config.yaml" in (exported / "README.md").read_text()
    train_run(load_settings([], exported / "config.yaml"), tmp_path / "again", quiet=True)
    again, first = (load(path).policy.state_dict() for path in (tmp_path / "again", run_dir))
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())


def test_an_evaluation_of_the_same_policy_is_the_better_score(run_dir: Path, tmp_path: Path) -> None:
    assert main(["evaluate", str(run_dir), "--episodes", "3"]) == 0
    mean = json.loads((run_dir / "evaluation.json").read_text())["deterministic"]["mean"]
    try:
        export_policy(run_dir, tmp_path / "last")
        export_policy(run_dir, tmp_path / "best", "best")
    finally:
        (run_dir / "evaluation.json").unlink()
    card = (tmp_path / "last" / "README.md").read_text()
    value = header_of(card)["model-index"][0]["results"][0]["metrics"][0]["value"]
    assert value.startswith(f"{mean:.2f} +/- ") and "`evaluate`, 3 episodes, seed 0" in card
    if load(run_dir, "best").env_steps != load(run_dir).env_steps:
        assert "3 episodes" not in (tmp_path / "best" / "README.md").read_text()


def test_the_best_policy_has_the_evaluation_that_chose_it(run_dir: Path, tmp_path: Path) -> None:
    export_policy(run_dir, tmp_path / "best", "best")
    best = load(run_dir, "best")
    (row,) = [row for row in read_rows(run_dir / "metrics.csv") if int(row["env_steps"]) == best.env_steps]
    card = (tmp_path / "best" / "README.md").read_text()
    assert f"{float(row['evaluation/return_mean']):.2f} | evaluation during training, 2 episodes" in card
    assert load(tmp_path / "best").iteration == best.iteration


def test_a_policy_file_without_a_run_is_exported_without_score_and_curve(run_dir: Path, tmp_path: Path) -> None:
    export_policy(run_dir / "checkpoints" / "last.pt", tmp_path / "new")
    card = (tmp_path / "new" / "README.md").read_text()
    assert "It was not evaluated" in card and "model-index" not in card and "learning_curve" not in card
    assert load(tmp_path / "new").env_steps == load(run_dir).env_steps


def test_an_exported_folder_can_be_evaluated_and_exported_again(exported: Path, tmp_path: Path) -> None:
    export_policy(exported, tmp_path / "again")
    first, second = (load(path).policy.state_dict() for path in (exported, tmp_path / "again"))
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("{empty} --to {new}", "is not a run directory"),
        ("{run} --to {full}", "is not empty"),
        ("{run} --to {file}", "is a file"),
        ("{missing} --to {new}", "there is no such file or directory"),
        ("{run}", "--to"),
    ],
)
def test_bad_input_is_one_line(run_dir: Path, tmp_path: Path, capsys, arguments: str, message: str) -> None:
    places = {name: tmp_path / name for name in ("empty", "new", "full", "file", "missing")}
    places["empty"].mkdir()
    places["full"].mkdir()
    (places["full"] / "a.txt").touch()
    places["file"].touch()
    code = main(["export", *arguments.format(run=run_dir, **places).split()])
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2 and message in line and not places["new"].exists()
    assert [path.name for path in places["full"].iterdir()] == ["a.txt"]


def test_missing_packages_are_a_line(run_dir: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    for extra, option in {"export": [], "hub": ["--push", "me/mine"]}.items():
        monkeypatch.setitem(extras.MODULES, extra, ("no_such_package_at_all",))
        assert main(["export", str(run_dir), "--to", str(tmp_path / "new"), *option]) == 2
        assert f"needs the extra: pip install 'trpo_lightning[{extra}]'\n" in capsys.readouterr().err
        monkeypatch.undo()
    assert not (tmp_path / "new").exists()


def test_a_damaged_folder_is_a_line(exported: Path, tmp_path: Path) -> None:
    for name, text in {"policy.json": "{", "policy.safetensors": "no tensors"}.items():
        damaged = tmp_path / name
        damaged.mkdir()
        for file in ("policy.json", "policy.safetensors"):
            (damaged / file).write_bytes((exported / file).read_bytes())
        (damaged / name).write_text(text)
        with pytest.raises(UserError, match="is no exported policy, or is damaged"):
            load(damaged)
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "policy.safetensors").write_bytes((exported / "policy.safetensors").read_bytes())
    (newer / "policy.json").write_text(json.dumps({**json.loads((exported / "policy.json").read_text()), "format": 99}))
    with pytest.raises(UserError, match="format 99"):
        load(newer)


def test_a_folder_that_names_code_is_refused(exported: Path, tmp_path: Path) -> None:
    rest = json.loads((exported / "policy.json").read_text())
    rest["settings"]["policy"]["name"] = "no_such_module:Evil"
    (tmp_path / "policy.json").write_text(json.dumps(rest))
    (tmp_path / "policy.safetensors").write_bytes((exported / "policy.safetensors").read_bytes())
    with pytest.raises(UserError, match="names code to run"):
        load(tmp_path)
