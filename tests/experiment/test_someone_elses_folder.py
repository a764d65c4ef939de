"""A folder `experiments` that belongs to another program: its files are passed over, ours stay."""

import pytest

from trpo_lightning.__main__ import main
from trpo_lightning.errors import UserError
from trpo_lightning.experiment.declaration import load_experiment
from trpo_lightning.experiment.experiment_file import experiment_names, foreign_files

OTHERS = {
    "hydra": "# @package _global_\ndefaults:\n  - model: mlp\nlr: 0.1\n",
    "list": "- a\n- b\n",
    "template": "{{ cookiecutter.name }}: {\n",
    "tabs": "\tx: 1\n",
    "empty": "",
}
MINE = "title: T\nhypothesis: H\nminutes: 1\nbases: [rules/trpo_2015]\nseeds: [0]\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    for name, text in OTHERS.items():
        (tmp_path / "experiments" / f"{name}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "experiments"


def test_files_of_others_are_passed_over_and_named(folder):
    assert "quickstart" in experiment_names() and not OTHERS.keys() & set(experiment_names())
    assert sorted(file.stem for file in foreign_files()) == sorted(OTHERS)
    assert load_experiment("quickstart").cells()


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_that_is_asked_for_by_name_is_told_what_is_wrong_with_it(folder, name):
    with pytest.raises(UserError, match=str(folder / f"{name}.yaml")):
        load_experiment(name)


def test_an_experiment_of_ones_own_uses_shipped_bases_and_hides_a_shipped_one_by_name(folder):
    (folder / "quickstart.yaml").write_text(MINE)
    mine = load_experiment("quickstart")
    assert mine.file == folder / "quickstart.yaml" and mine.title == "T"
    assert mine.cells()[0].settings.rollout.whole_episodes is True
    assert load_experiment("ablation_delta").cells()


def test_list_shows_the_rest_beside_a_broken_file_and_says_so(folder, capsys, monkeypatch):
    from trpo_lightning.experiment import experiment_file

    shipped = experiment_file.experiments_folders()[1:]
    monkeypatch.setattr(experiment_file, "experiments_folders", lambda: [folder])  # the shipped ones take seconds
    (folder / "broken.yaml").write_text("title: T\nhypothesis: H\nmintues: 1\n")
    (folder / "fine.yaml").write_text("title: Fine\nhypothesis: H\nminutes: 1\n")
    assert shipped and main(["list"]) == 2
    seen = capsys.readouterr()
    assert "fine" in seen.out and "broken.yaml: unknown key mintues" in seen.err
    assert "hydra.yaml is skipped" in seen.err
