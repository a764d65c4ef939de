from pathlib import Path

import pytest
from synthetic_runs import experiment

from trpo_lightning.errors import UserError
from trpo_lightning.experiment.declaration import load_experiment
from trpo_lightning.experiment.experiment_file import experiment_names
from trpo_lightning.report.references import (
    COLUMNS,
    chosen_references,
    for_environment,
    letters,
    read_references,
    without_version,
)
from trpo_lightning.report.style import references_caption

SHIPPED = Path(__file__).parents[2] / "experiments" / "references" / "published.csv"


def write(folder, text):
    (folder / "experiments" / "references").mkdir(parents=True)
    file = folder / "experiments" / "references" / "some.csv"
    file.write_text(text)
    return file


def test_the_shipped_file():
    references = read_references(SHIPPED)
    assert len({r.key for r in references}) >= 6
    tasks = {"Hopper", "Walker2d", "HalfCheetah", "Humanoid", "Ant", "Swimmer", "Reacher"}
    assert {*tasks, "InvertedPendulum", "InvertedDoublePendulum"} == {r.env for r in references}
    for r in references:
        assert r.low <= r.score <= r.high and 1_000_000 <= r.env_steps <= 2_100_000 and r.version
        assert "interval" in r.definition and len(r.definition) < 200
        assert not r.env.endswith(r.version)
    pairs = [(r.key, r.env) for r in references]
    assert len(set(pairs)) == len(pairs)


def test_every_experiment_names_references_that_there_are():
    for name in experiment_names():
        declared = load_experiment(name)
        found = chosen_references(declared)
        assert {r.key for r in found} == set(declared.references)


def test_versions_are_ignored_and_named(tmp_path):
    references = read_references(SHIPPED)
    assert without_version("Hopper-v5") == "Hopper" and without_version("dm/cheetah-run") == "dm/cheetah-run"
    found = for_environment(references, "Hopper-v5")
    assert found and all(r.env == "Hopper" for r in found) and for_environment(references, "CartPole-v1") == []
    caption = references_caption(found, ["Hopper-v5"])
    assert "other versions" in caption[-1] and "Hopper-v5" in caption[-1]
    assert all(r.definition in "\n".join(caption) and r.env_id in "\n".join(caption) for r in found)
    marks = letters(references)
    assert next(iter(marks.values())) == "A" and len(set(marks.values())) == len(marks)


def test_an_unknown_key_names_the_nearest(tmp_path):
    write(tmp_path, f"{','.join(COLUMNS)}\npfrl,Hopper,1,,,5,L,D,S,v2\n")
    with pytest.raises(UserError, match=r"no reference pfrll .*did you mean pfrl\?"):
        chosen_references(experiment(tmp_path, references=["pfrll"]))
    (reference,) = chosen_references(experiment(tmp_path, references=["pfrl"]))
    assert reference.low != reference.low and reference.env_id == "Hopper-v2"
    assert chosen_references(experiment(tmp_path)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key,env\na,b\n", "column score is missing"),
        (f"{','.join(COLUMNS)}\na,Hopper,x,,,5,L,D,S,v2\n", "some.csv:2: .*must be numbers"),
        (f"{','.join(COLUMNS)}\na,Hopper,,,,5,L,D,S,v2\n", "some.csv:2: score is missing"),
        (f"{','.join(COLUMNS)}\na,Hopper,1,,,5,L,,S,v2\n", "some.csv:2: definition is empty"),
        (f"{','.join(COLUMNS)}\na,Hopper,1\n", "some.csv:2: label is empty"),
        ("", "column key is missing"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, text, message):
    file = write(tmp_path, text)
    with pytest.raises(UserError, match=message):
        read_references(file)
