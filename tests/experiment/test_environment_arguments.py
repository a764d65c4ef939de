"""Arguments of the environment in experiments: added, replaced, varied along an axis, narrowed on the command line."""

import pytest

from trpo_lightning.errors import UserError
from trpo_lightning.experiment.declaration import load_experiment

HEAD = "title: T\nhypothesis: H\nminutes: 1\nseeds: [0]\n"


@pytest.fixture
def declare(tmp_path, monkeypatch):
    (tmp_path / "experiments" / "bases").mkdir(parents=True)
    (tmp_path / "experiments" / "bases" / "k.yaml").write_text("env: {id: Hopper-v5, kwargs: {length: 3}}\n")
    monkeypatch.chdir(tmp_path)

    def write(text, scale="full"):
        (tmp_path / "experiments" / "mine.yaml").write_text(HEAD + text)
        return load_experiment("mine", scale)

    return write


def arguments_of(experiment, *overrides):
    return [cell.settings.env.kwargs for cell in experiment.cells(list(overrides))]


@pytest.mark.parametrize("steps", ["1000", "${oc.decode:'1000'}"])  # plain values, and ones that OmegaConf resolves
@pytest.mark.parametrize(
    ("overrides", "typed", "kwargs"),
    [
        ("env.kwargs.bonus: 1", [], {"length": 3, "bonus": 1}),
        ("env: {kwargs: {bonus: 1}}", [], {"bonus": 1}),
        ("env.kwargs: {bonus: 1}", [], {"bonus": 1}),
        ("env.kwargs: {bonus: 1}", ["env.kwargs.noise=2"], {"bonus": 1, "noise": 2}),
        ("env.kwargs: {bonus: 1}", ["env.kwargs.bonus=2", "env.num_envs=4"], {"bonus": 2}),
        ("env.kwargs: {bonus: 1}", ["env.kwargs={noise: 2}"], {"noise": 2}),
        ("env.kwargs.bonus: 1", ["env.kwargs={noise: 2}"], {"noise": 2}),
        ("gamma: 0.5", ["env.kwargs.noise=2"], {"length": 3, "noise": 2}),
    ],
)
def test_an_argument_joins_and_a_mapping_replaces_whatever_other_keys_say(declare, overrides, typed, kwargs, steps):
    experiment = declare(f"bases: [bases/k]\noverrides:\n  {overrides}\n  total_env_steps: {steps}\n")
    assert arguments_of(experiment, *typed) == [kwargs]


def test_a_shipped_experiment_keeps_its_task_when_one_argument_is_set():
    before = load_experiment("trpo2015_swimmer").cells()
    after = load_experiment("trpo2015_swimmer").cells(["env.kwargs.reset_noise_scale=0.05"])
    for old, new in zip(before, after, strict=True):
        assert new.settings.env.kwargs == {**old.settings.env.kwargs, "reset_noise_scale": 0.05}


def test_an_axis_over_an_argument_names_runs_and_keeps_the_others(declare):
    experiment = declare("overrides: {env.kwargs: {bonus: 1.0}}\naxes: {env.kwargs.gravity: [-9.81, null, low]}\n")
    cells = experiment.cells()
    assert [cell.settings.name for cell in cells] == ["gravity=-9.81", "gravity=none", "gravity=low"]
    assert [cell.levels for cell in cells] == [{"env.kwargs.gravity": level} for level in (-9.81, None, "low")]
    assert [cell.settings.env.kwargs for cell in cells] == [
        {"bonus": 1.0, "gravity": level} for level in (-9.81, None, "low")
    ]
    assert arguments_of(experiment, "env.kwargs.gravity=low") == [{"bonus": 1.0, "gravity": "low"}]
    assert experiment.default_name() == "gravity=none"


def test_an_axis_multiplies_with_variants_that_replace_the_mapping(declare):
    experiment = declare(
        "overrides: {env.kwargs: {bonus: 1, old: 2}}\naxes: {env.kwargs.length: [3, 5]}\n"
        "variants: {a: {}, b: {env.kwargs: {noise: 1}}, c: {env.kwargs.noise: 2}}\n"
    )
    assert arguments_of(experiment) == [
        *({"bonus": 1, "old": 2, "length": length} for length in (3, 5)),
        *({"noise": 1, "length": length} for length in (3, 5)),
        *({"bonus": 1, "old": 2, "noise": 2, "length": length} for length in (3, 5)),
    ]


def test_a_search_may_draw_an_argument(declare):
    ranges = "search: {method: random, runs: 3, ranges: {env.kwargs.gravity: {min: 1.0, max: 20.0}}}\n"
    drawn = [kwargs["gravity"] for kwargs in arguments_of(declare(ranges))]
    assert len(set(drawn)) == 3 and all(1 <= value <= 20 for value in drawn)


def test_a_scale_adds_an_argument(declare):
    text = "overrides: {env.kwargs: {bonus: 1}}\nscales: {quick: {overrides: {env.kwargs.length: 2}}}\n"
    assert arguments_of(declare(text, "quick")) == [{"bonus": 1, "length": 2}]


@pytest.mark.parametrize("variant", ["env.kwargs.length: 5", "env.kwargs: {length: 5}", "env: {kwargs: {length: 5}}"])
def test_a_variant_that_sets_what_is_an_axis_is_refused(declare, variant):
    text = f"axes: {{env.kwargs.length: [3]}}\nvariants: {{a: {{{variant}}}}}\n"
    with pytest.raises(UserError, match=r"variant a sets env\.kwargs\.length, which is an axis"):
        declare(text)


def test_names_in_an_experiment_stay_as_they_are_written(declare):
    experiment = declare(
        "overrides: {tracking.group: 2024-01-01, tracking: {tags: [1.10]}}\n"
        "variants: {1e3: {}, 010: {rule.delta: 0.5}, on: {rule.delta: 0.25}}\n"
    )
    cells = experiment.cells()
    assert [cell.settings.name for cell in cells] == ["1e3", "010", "on"]
    assert {cell.settings.tracking.group for cell in cells} == {"2024-01-01"}
    assert cells[0].settings.tracking.tags == ["1.10"]
    assert [cell.settings.name for cell in experiment.cells(["name=010"])] == ["010"]
