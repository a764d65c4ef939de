import math
from pathlib import Path

import pytest

from trpo_lightning.errors import UserError
from trpo_lightning.experiment.declaration import directory_of, experiment_names, load_experiment
from trpo_lightning.runs.config import Source, merge, read_yaml
from trpo_lightning.settings import RunSettings, check, from_keywords, get

FOLDER = Path(__file__).parents[2] / "experiments"
HEAD = "title: T\nhypothesis: H\nminutes: 1\n"

SMALL = (
    HEAD
    + """
bases: [rules/base]
overrides: {rule.delta: 0.25, env: {num_envs: 4}}
seeds: [3, 5]
variants:
  plain: {}
  other: {rule.delta: 0.5, rollout.steps_per_iteration: 8}
  third: {seeds: [7, 8, 9], env.id: CartPole-v1, total_env_steps: 50}
"""
)
GRID = HEAD + "axes: {rule.delta: [0.25, 0.5], rule.damping: [0.125, 0.75]}\nenvironments: [A-v0, B-v0]\nseeds: [0, 1]"
SEARCH = """
seeds: [0, 1]
search:
  method: random
  runs: 20
  ranges:
    rule.delta: {min: 0.001, max: 0.1, distribution: log_uniform_values}
    rule.damping: {min: 0.25, max: 0.5}
    rule.cg_iterations: {min: 5, max: 20}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "experiments" / "rules").mkdir(parents=True)
    (tmp_path / "experiments" / "rules" / "base.yaml").write_text("gamma: 0.5\nrule: {delta: 0.125, damping: 0.75}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "experiments"


def declare(folder, text, scale="full"):
    (folder / "small.yaml").write_text(text)
    return load_experiment("small", scale)


def refused(folder, text, arguments=None, scale="full"):
    with pytest.raises(UserError) as error:
        declare(folder, text, scale).cells(arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def labels(experiment, arguments=None):
    return [(cell.settings.name, cell.settings.seed) for cell in experiment.cells(arguments)]


def names(folder, text):
    return [cell.settings.name for cell in declare(folder, HEAD + text).cells()]


# Which runs, in which order.


def test_axes_environments_and_seeds_multiply_with_seeds_outermost(folder):
    cells = declare(folder, GRID).cells()
    found = [(c.settings.seed, c.settings.rule.delta, c.settings.rule.damping, c.settings.env.id) for c in cells]
    assert found == [
        (seed, delta, damping, env)
        for seed in (0, 1)
        for delta in (0.25, 0.5)
        for damping in (0.125, 0.75)
        for env in ("A-v0", "B-v0")
    ]
    assert cells[3].levels == {"rule.delta": 0.25, "rule.damping": 0.75}
    assert cells[3].directory == Path("small/full/B-v0/delta=0.25,damping=0.75/seed_0")


def test_variants_multiply_with_axes(folder):
    text = "axes: {rule.delta: [0.25, 0.5]}\nvariants: {a: {gamma: 0.5}, b: {gamma: 0.75}}"
    assert names(folder, text) == ["a,delta=0.25", "a,delta=0.5", "b,delta=0.25", "b,delta=0.5"]
    assert load_experiment("small").cells()[2].levels == {"variant": "b", "rule.delta": 0.25}


def test_seeds_are_outermost_so_that_an_interrupted_experiment_has_all_variants(folder):
    assert labels(declare(folder, SMALL)) == [
        *[("plain", 3), ("other", 3), ("third", 7)],
        *[("plain", 5), ("other", 5), ("third", 8)],
        ("third", 9),
    ]


def test_a_variant_has_seeds_environment_and_budget_of_its_own(folder):
    cells = declare(folder, SMALL + "environments: [A-v0, B-v0]").cells()
    third = [cell for cell in cells if cell.settings.name == "third"]
    found = [(c.settings.seed, c.settings.env.id, c.settings.total_env_steps) for c in third]
    assert found == [(seed, "CartPole-v1", 50) for seed in (7, 8, 9)]
    assert {cell.settings.env.id for cell in cells if cell.settings.name == "plain"} == {"A-v0", "B-v0"}


def test_without_variants_there_is_one_named_default(folder):
    assert labels(declare(folder, HEAD)) == [("default", 0)]
    assert labels(declare(folder, HEAD + "seeds: [4, 2]")) == [("default", 4), ("default", 2)]


@pytest.mark.parametrize("key", ["bases", "overrides", "variants", "seeds", "axes", "environments", "search", "scales"])
def test_an_empty_key_is_as_good_as_none(folder, key):
    assert labels(declare(folder, HEAD + f"{key}:\n")) == [("default", 0)]


def test_a_variant_without_keys_is_the_base(folder):
    assert names(folder, "variants: {a: , 2: {gamma: 0.5}}") == ["a", "2"]


# Names.


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ("{rule.delta: [0.01]}", "delta=0.01"),
        ("{rule.delta: [1e-3]}", "delta=0.001"),
        ("{rule.delta: [1.0e-5]}", "delta=1e-05"),
        ("{rule.delta: [1]}", "delta=1"),
        ("{rule.delta: [0.123456789]}", "delta=0.123456789"),
        ("{total_env_steps: [1_000_000]}", "total_env_steps=1000000"),
        ("{rule.standardize_advantages: [true]}", "standardize_advantages=true"),
        ("{env.max_episode_steps: [null]}", "max_episode_steps=none"),
        ("{policy.hidden_sizes: [[64, 32]]}", "hidden_sizes=64-32"),
        ("{policy.hidden_sizes: [[]]}", "hidden_sizes=none"),
        ("{rule.delta: [0.5], gamma: [0.75]}", "delta=0.5,gamma=0.75"),
        ("{policy.hidden_sizes: [[8]], value.hidden_sizes: [[9]]}", "policy.hidden_sizes=8,value.hidden_sizes=9"),
        ("{env.id: [ALE/Pong-v5]}", "id=ALE/Pong-v5"),
    ],
)
def test_levels_name_a_run(folder, axes, expected):
    assert names(folder, f"axes: {axes}") == [expected]


def test_a_level_has_one_name_however_it_is_written(folder):
    experiment = declare(folder, HEAD + "axes: {rule.delta: [1, 0.001]}")
    for text, level in (("1.0", 0), ("1", 0), ("1e-3", 1), ("0.0010", 1)):
        assert experiment.cells([f"rule.delta={text}"])[0].directory == experiment.cells()[level].directory


def test_directories_and_groups(folder):
    cells = declare(folder, SMALL).cells()
    assert cells[0].directory == Path("small/full/Hopper-v5/plain/seed_3")
    assert cells[-1].directory == Path("small/full/CartPole-v1/third/seed_9")
    assert len({cell.directory for cell in cells}) == len(cells)
    assert {cell.settings.tracking.group for cell in cells} == {"small"}
    assert load_experiment("small").cells(["tracking.group=mine"])[0].settings.tracking.group == "mine"


def test_directories_have_no_odd_characters():
    assert directory_of(from_keywords(id="my.module:make")) == Path("my.module_make/default/seed_0")
    assert directory_of(from_keywords(id="ALE/Pong-v5")).parts[0] == "ALE_Pong-v5"
    assert directory_of(from_keywords(name="../a")).parts[1] == ".._a"
    assert directory_of(from_keywords(name="..")).parts[1] == "__"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "default"),
        (
            "bases: [rules/base]\naxes: {rule.delta: [0.5, 0.125], rule.damping: [0.5, 0.75]}",
            "delta=0.125,damping=0.75",
        ),
        ("bases: [rules/base]\naxes: {rule.delta: [0.5, 0.25]}", "delta=0.5"),
        ("axes: {rule.delta: [0.5, 0.01]}", "delta=0.01"),
        ("variants: {b: {gamma: 0.5}, a: {}}", "b"),
    ],
)
def test_the_variant_that_others_are_compared_with(folder, text, expected):
    assert declare(folder, HEAD + text).default_name() == expected


# What settings a run has.


def test_later_sources_win_base_overrides_variant_command_line(folder):
    plain, other = declare(folder, SMALL).cells()[:2]
    assert (plain.settings.gamma, plain.settings.rule.damping) == (0.5, 0.75)
    assert (plain.settings.rule.delta, plain.settings.env.num_envs) == (0.25, 4)
    assert other.settings.rule.delta == 0.5
    plain, other = load_experiment("small").cells(["rule.delta=0.75", "gamma=1e-1"])[:2]
    assert plain.settings.rule.delta == other.settings.rule.delta == 0.75
    assert plain.settings.gamma == 0.1


def test_groups_and_dotted_keys_mean_the_same(folder):
    text = """
overrides: {rule: {delta: 0.25, damping: 0.25}, env.num_envs: 4}
variants: {a: {rule: {delta: 0.5}, env: {id: A-v0}}}
environments: [B-v0]
scales: {quick: {overrides: {env: {num_envs: 2}, rule: {damping: 0.5}}}}
"""
    (cell,) = declare(folder, HEAD + text, "quick").cells()
    assert (cell.settings.rule.delta, cell.settings.rule.damping) == (0.5, 0.5)
    assert (cell.settings.env.id, cell.settings.env.num_envs) == ("A-v0", 2)


def test_a_run_has_one_thread_unless_someone_says_otherwise(folder):
    assert RunSettings().threads is None
    assert declare(folder, HEAD).cells()[0].settings.threads == 1
    assert load_experiment("small").cells(["threads=3"])[0].settings.threads == 3
    assert declare(folder, HEAD + "overrides: {threads: 2}").cells()[0].settings.threads == 2
    (folder / "rules" / "base.yaml").write_text("threads: 4\n")
    assert declare(folder, HEAD + "bases: [rules/base]").cells()[0].settings.threads == 4


def test_a_variant_has_bases_of_its_own_below_the_overrides(folder):
    (folder / "rules" / "top.yaml").write_text("gamma: 0.75\nrule: {delta: 0.0625, cg_iterations: 7}\n")
    text = """
bases: [rules/base]
overrides: {rule.delta: 0.25}
variants: {plain: {}, top: {bases: [rules/top]}, own: {bases: [rules/top], rule.delta: 0.5, gamma: 0.25}}
"""
    cells = declare(folder, HEAD + text).cells()
    found = [(c.settings.gamma, c.settings.rule.delta, c.settings.rule.damping) for c in cells]
    assert found == [(0.5, 0.25, 0.75), (0.75, 0.25, 0.75), (0.25, 0.5, 0.75)]
    assert [c.settings.rule.cg_iterations for c in cells] == [10, 7, 7]
    assert load_experiment("small").cells(["gamma=1e-1", "name=top"])[0].settings.rule.cg_iterations == 7


def test_a_variant_has_settings_for_single_environments(folder):
    text = """
environments: [A-v0, B-v0]
axes: {gamma: [0.5, 0.75]}
variants:
  a: {rule.delta: 0.25, environments: {B-v0: {rule: {delta: 0.5}, total_env_steps: 7}}}
  b:
"""
    cells = declare(folder, HEAD + text).cells()
    found = {(c.settings.name, c.settings.env.id): (c.settings.rule.delta, c.settings.total_env_steps) for c in cells}
    default = (0.01, 1_000_000)
    for gamma in ("0.5", "0.75"):
        assert found[f"a,gamma={gamma}", "A-v0"] == (0.25, 1_000_000)
        assert found[f"a,gamma={gamma}", "B-v0"] == (0.5, 7)
        assert found[f"b,gamma={gamma}", "A-v0"] == found[f"b,gamma={gamma}", "B-v0"] == default
    assert load_experiment("small").cells(["env.id=B-v0", "rule.delta=0.75"])[0].settings.rule.delta == 0.75


# Arguments.


@pytest.mark.parametrize(
    ("arguments", "count", "key", "values"),
    [
        (["rule.delta=0.5"], 8, "rule.delta", {0.5}),
        (["rule.delta=0.75"], 8, "rule.delta", {0.75}),
        (["seed=1"], 8, "seed", {1}),
        (["seed=17"], 8, "seed", {17}),
        (["env.id=B-v0"], 8, "env.id", {"B-v0"}),
        (["env.id=C-v0"], 8, "env.id", {"C-v0"}),
        (["name=delta=0.25,damping=0.75"], 4, "name", {"delta=0.25,damping=0.75"}),
        (["rule.delta=0.5", "rule.damping=0.75", "seed=0", "env.id=A-v0"], 1, "seed", {0}),
        (["seed=[1,17]"], 16, "seed", {1, 17}),
        (["env.id=[B-v0,C-v0]", "seed=[0]"], 8, "env.id", {"B-v0", "C-v0"}),
        (["gae_lambda=0.5"], 16, "gae_lambda", {0.5}),
        (["env.kwargs.x=3"], 16, "env.id", {"A-v0", "B-v0"}),
    ],
)
def test_arguments_narrow_and_override(folder, arguments, count, key, values):
    cells = declare(folder, GRID).cells(arguments)
    assert len(cells) == count
    assert {get(cell.settings, key) for cell in cells} == values


def test_a_level_that_is_not_declared_has_a_directory_of_its_own(folder):
    experiment = declare(folder, HEAD + "axes: {rule.delta: [0.25, 0.5]}")
    (cell,) = experiment.cells(["rule.delta=0.75"])
    assert cell.levels == {"rule.delta": 0.75} and cell.settings.name == "delta=0.75"


def test_narrowing_leaves_out_variants_that_are_elsewhere(folder):
    assert labels(declare(folder, SMALL), ["env.id=CartPole-v1", "seed=3"]) == [
        *[("plain", 3), ("other", 3), ("third", 3)],
    ]
    assert labels(declare(folder, SMALL), ["env.id=Ant-v5", "seed=3"]) == [("plain", 3), ("other", 3)]


def test_lists_on_the_command_line_keep_the_order_and_leave_out_what_is_elsewhere(folder):
    arguments = ["seed=[4,3]", "name=[third,plain]", "env.id=[CartPole-v1,Ant-v5]"]
    assert labels(declare(folder, SMALL), arguments) == [
        *[("third", 4), ("plain", 4), ("plain", 4)],
        *[("third", 3), ("plain", 3), ("plain", 3)],
    ]


def test_a_seed_on_the_command_line_leaves_one_run_of_each_variant(folder):
    assert labels(declare(folder, SMALL), ["seed=0"]) == [("plain", 0), ("other", 0), ("third", 0)]


@pytest.mark.parametrize(
    ("text", "arguments", "parts"),
    [
        (SMALL, ["name=thrid"], ["no run is left of experiment small with name=thrid"]),
        (SMALL, ["name=third", "env.id=Ant-v5"], ["no run is left"]),
        (SMALL, ["seed=[]"], ["no run is left"]),
        (GRID, ["seed=[0,x]"], ["command line", "seed", "x"]),
        (GRID, ["env.id=[A-v0,[B-v0]]"], ["command line: env.id takes one value, or a list of them"]),
        (GRID, ["env.id={a: 1}"], ["command line: env.id takes one value, or a list of them"]),
        (HEAD + "seeds: []", [], ["no run is left of experiment small"]),
        (SMALL, ["rule.dleta=1"], ["command line: unknown key rule.dleta", "did you mean rule.delta?"]),
        (GRID, ["rule.delta=big"], ["command line", "rule.delta", "big"]),
        (GRID, ["seed=1.5"], ["command line", "seed", "1.5"]),
        (GRID, ["rule=1"], ["rule is a group"]),
    ],
)
def test_arguments_that_do_not_fit_are_one_line(folder, text, arguments, parts):
    told = refused(folder, text, arguments)
    for part in parts:
        assert part in told, told


# Scales.


def test_a_scale_replaces_keys_and_merges_overrides_and_axes(folder):
    text = (
        GRID
        + """
overrides: {gamma: 0.5, total_env_steps: 1000}
scales:
  quick:
    minutes: 0.5
    overrides: {total_env_steps: 10}
    axes: {rule.delta: [0.75]}
    environments: [C-v0]
    seeds: [9]
"""
    )
    full, quick = declare(folder, text), declare(folder, text, "quick")
    assert (full.scale, full.minutes, len(full.cells()), full.scales) == ("full", 1, 16, ("quick",))
    assert (quick.scale, quick.minutes, quick.scales) == ("quick", 0.5, ("quick",))
    cells = quick.cells()
    assert [str(c.directory) for c in cells] == [
        f"small/quick/C-v0/delta=0.75,damping={damping}/seed_9" for damping in ("0.125", "0.75")
    ]
    assert {(c.settings.gamma, c.settings.total_env_steps) for c in cells} == {(0.5, 10)}


def test_a_scale_changes_variants_key_by_key(folder):
    text = "variants: {a: {rule.delta: 0.25, gamma: 0.5}, b: {}}\n"
    text += "scales: {quick: {variants: {a: {rule: {delta: 0.5}}}}}"
    full, quick = (declare(folder, HEAD + text, scale).cells() for scale in ("full", "quick"))
    assert [(c.settings.rule.delta, c.settings.gamma) for c in full] == [(0.25, 0.5), (0.01, 0.99)]
    assert [(c.settings.rule.delta, c.settings.gamma) for c in quick] == [(0.5, 0.5), (0.01, 0.99)]


@pytest.mark.parametrize(
    ("scales", "parts"),
    [
        ("{quick: {variants: {a: {gamma: 0.5}}}}", ["scales.quick.variants: there is no variant a"]),
        ("{quick: {variants: [a]}}", ["scales.quick.variants", "dict"]),
        ("{other: {seeds: [1]}}", ["there is no scale quick: it has full, other"]),
        ("{1: {seeds: [1]}}", ["there is no scale quick: it has full, 1"]),
        ("{quick: {seed: [1]}}", ["scales.quick.seed is not one of", "seeds"]),
        ("{quick: {title: x}}", ["scales.quick.title is not one of"]),
        ("{quick: {seeds: }}", ["scales.quick.seeds=None", "list"]),
        ("{quick: {overrides: [a]}}", ["scales.quick.overrides", "dict"]),
        ("{quick: 3}", ["scales.quick=3"]),
        ("[quick]", ["scales", "dict"]),
        ("{full: {seeds: [1]}}", ["scales.full"]),
        ("{quick: {axes: {rule.dleta: [1]}}}", ["axis rule.dleta", "did you mean rule.delta?"]),
        ("{quick: {overrides: {rule.dleta: 1}}}", ["unknown key rule.dleta"]),
    ],
)
def test_scales_that_do_not_fit_are_one_line(folder, scales, parts):
    told = refused(folder, HEAD + f"scales: {scales}", scale="quick")
    for part in [*parts, str(folder / "small.yaml")]:
        assert part in told, told


def test_a_scale_without_changes_is_one(folder):
    assert labels(declare(folder, HEAD + "scales: {quick: }", "quick")) == [("default", 0)]


# Search.


def test_a_search_draws_the_same_points_each_time_within_its_ranges(folder):
    cells = declare(folder, HEAD + SEARCH).cells()
    assert len(cells) == 40
    assert [cell.directory for cell in cells] == [cell.directory for cell in load_experiment("small").cells()]
    assert [c.settings.seed for c in cells] == [0] * 20 + [1] * 20
    rules = [cell.settings.rule for cell in cells[:20]]
    assert [cell.settings.rule for cell in cells[20:]] == rules
    assert all(0.001 <= r.delta <= 0.1 and 0.25 <= r.damping <= 0.5 and 5 <= r.cg_iterations <= 20 for r in rules)
    assert len({rule.delta for rule in rules}) == 20
    assert set(cells[0].levels) == {"rule.delta", "rule.damping", "rule.cg_iterations"}
    assert cells[0].settings.name.startswith("delta=0.0") and len(cells[0].settings.name) < 60


def test_log_uniform_means_as_many_points_in_each_decade(folder):
    text = SEARCH.replace("runs: 20", "runs: 100").replace("seeds: [0, 1]", "seeds: [0]")
    deltas = [cell.settings.rule.delta for cell in declare(folder, HEAD + text).cells()]
    share = sum(delta < 0.01 for delta in deltas) / len(deltas)
    assert abs(share - 0.5) < 4 * math.sqrt(0.25 / 100)


def test_whole_numbers_are_drawn_once_each(folder):
    search = "search: {method: random, runs: 10, ranges: {rule.cg_iterations: {min: 3, max: 5}}}"
    found = [cell.settings.rule.cg_iterations for cell in declare(folder, HEAD + search).cells()]
    assert sorted(found) == [3, 4, 5]


def test_arguments_pin_a_searched_key(folder):
    cells = declare(folder, HEAD + SEARCH).cells(["rule.delta=0.5", "seed=0"])
    assert len(cells) == 20 and {cell.settings.rule.delta for cell in cells} == {0.5}
    pinned = ["rule.delta=0.5", "rule.damping=0.5", "rule.cg_iterations=7", "seed=0"]
    assert labels(load_experiment("small"), pinned) == [("delta=0.5,damping=0.5,cg_iterations=7", 0)]


def search_with(**changes):
    keys = {"method": "random", "runs": "2", "ranges": "{rule.delta: {min: 0.5, max: 1.5}}", **changes}
    return HEAD + "search: {" + ", ".join(f"{key}: {value}" for key, value in keys.items() if value) + "}"


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"method": "grid"}, ["search.method=grid", "random, bayes"]),
        ({"method": ""}, ["search.method=None"]),
        ({"runs": "0"}, ["search.runs=0"]),
        ({"runs": "many"}, ["search.runs=many"]),
        ({"runs": "true"}, ["search.runs=True"]),
        ({"rnus": "3"}, ["unknown key search.rnus", "did you mean runs?"]),
        ({"ranges": ""}, ["search.ranges is missing"]),
        ({"ranges": "{rule.dleta: {min: 0.5, max: 1.5}}"}, ["rule.dleta is not a key", "rule.delta"]),
        ({"ranges": "{seed: {min: 0, max: 5}}"}, ["search.ranges: seed", "use seeds"]),
        ({"ranges": "{rule.delta: {min: 1.5, max: 0.5}}"}, ["rule.delta: min must be a number below max"]),
        ({"ranges": "{rule.delta: {min: 0.5}}"}, ["rule.delta: min must be a number below max"]),
        ({"ranges": "{rule.delta: {min: 0, max: 0.5}}"}, ["both must be integers or both floats"]),
        ({"ranges": "{rule.delta: {min: 0.5, max: .inf}}"}, ["rule.delta: min must be a number below max"]),
        ({"ranges": "{rule.delta: {min: false, max: true}}"}, ["rule.delta: min must be a number below max"]),
        ({"ranges": "{rule.delta: 3}"}, ["rule.delta: min must be a number below max"]),
        ({"ranges": "{rule.delta: }"}, ["rule.delta: min must be a number below max"]),
        ({"ranges": "{rule.delta: {mni: 0.5, max: 1.5}}"}, ["unknown key mni", "did you mean min?"]),
        ({"ranges": "{rule.delta: {min: 0.5, max: 1.5, distribution: normal}}"}, ["distribution=normal"]),
        ({"ranges": "{rule.delta: {min: 0.0, max: 1.5, distribution: log_uniform_values}}"}, ["above 0"]),
        (
            {"ranges": "{rule.cg_iterations: {min: 1, max: 9, distribution: log_uniform_values}}"},
            ["with a decimal point"],
        ),
    ],
)
def test_searches_that_do_not_fit_are_one_line(folder, changes, parts):
    told = refused(folder, search_with(**changes))
    for part in [*parts, str(folder / "small.yaml")]:
        assert part in told, told


# Files that do not fit.


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (HEAD + "varients: {}", ["unknown key varients", "did you mean variants?"]),
        (HEAD + "1: 2", ["unknown key 1"]),
        ("title: T\nhypothesis: H\n", ["the key minutes is missing"]),
        ("title: T\nhypothesis:\nminutes: 1\n", ["the key hypothesis is missing"]),
        ("title: T\nhypothesis: H\nminutes: soon\n", ["minutes='soon'"]),
        (HEAD + "bases: rules/base", ["bases", "list"]),
        (HEAD + "bases: [rules/bas]", ["there is no base rules/bas", "did you mean rules/base?"]),
        (HEAD + "bases: [1]", ["there is no base 1"]),
        (HEAD + "seeds: 3", ["seeds=3", "list"]),
        (HEAD + "seeds: [a]", ["seed"]),
        (HEAD + "seeds: [-1]", ["seed=-1"]),
        (HEAD + "seeds: [1, 1]", ["two runs are the same: small/full/Hopper-v5/default/seed_1"]),
        (HEAD + "environments: [A-v0, A-v0]", ["two runs are the same"]),
        (HEAD + "score: best", ["score=best is not one of last_episodes"]),
        (HEAD + "x: time", ["x=time is not one of env_steps, iteration"]),
        (HEAD + "variants: {a: {bases: rules/base}}", ["seeds and bases to a list"]),
        (HEAD + "variants: {a: {bases: [rules/bas]}}", ["there is no base rules/bas", "did you mean rules/base?"]),
        (HEAD + "variants: {a: {environments: [A-v0]}}", ["variant a: environments must map"]),
        (HEAD + "variants: {a: {environments: {A-v0: 1}}}", ["variant a: environments must map"]),
        (
            HEAD + "environments: [Ant-v5]\nvariants: {a: {environments: {Ant-v4: {gamma: 0.5}}}}",
            ["variant a: Ant-v4 is not one of environments", "did you mean Ant-v5?"],
        ),
        (
            HEAD + "environments: [A-v0]\nvariants: {a: {environments: {A-v0: {seeds: [1]}}}}",
            ["variant a: seeds has no place"],
        ),
        (
            HEAD + "environments: [A-v0]\nvariants: {a: {environments: {A-v0: {seed: 1}}}}",
            ["variant a: seed would have no effect"],
        ),
        (
            HEAD + "axes: {gamma: [0.5]}\nenvironments: [A-v0]\nvariants: {a: {environments: {A-v0: {gamma: 0.75}}}}",
            ["variant a sets gamma, which is an axis"],
        ),
        (HEAD + "claims: {a: 1}", ["claims", "list"]),
        (HEAD + "claims: [a]", ["claim 1: 'a' is not a mapping"]),
        (HEAD + "overrides: [gamma]", ["overrides", "dict"]),
        (HEAD + "overrides: {rule.dleta: 1}", ["unknown key rule.dleta", "did you mean rule.delta?"]),
        (HEAD + "overrides: {rule: 1}", ["rule is a group"]),
        (HEAD + "overrides: {seed: 1}", ["overrides: seed would have no effect: use seeds"]),
        (HEAD + "overrides: {name: a}", ["overrides: name would have no effect: use variants"]),
        (HEAD + "variants: [a]", ["variants", "dict"]),
        (HEAD + "variants: {a: 1}", ["variants"]),
        (HEAD + "variants: {a: {seeds: 3}}", ["variants"]),
        (HEAD + "variants: {a: {seed: 3}}", ["variant a: seed would have no effect: use seeds"]),
        (HEAD + "variants: {a: {rule.dleta: 1}}", ["unknown key rule.dleta"]),
        (HEAD + "variants: {a: {gamma: 2}}", ["gamma=2.0"]),
        (HEAD + "variants: {a: {gamma: x}}", ["gamma"]),
        (HEAD + "variants: {a/b: {gamma: 0.5}, a:b: {gamma: 0.75}}", ["two runs are the same"]),
        (HEAD + "axes: [rule.delta]", ["axes", "dict"]),
        (HEAD + "axes: {rule.delta: []}", ["axis rule.delta has no levels"]),
        (HEAD + "axes: {rule.delta: }", ["axis rule.delta has no levels"]),
        (HEAD + "axes: {rule.delta: 0.5}", ["axis rule.delta has no levels: give a list"]),
        (HEAD + "axes: {rule.dleta: [0.5]}", ["axis rule.dleta is not a key", "did you mean rule.delta?"]),
        (HEAD + "axes: {delta: [0.5]}", ["did you mean rule.delta?"]),
        (HEAD + "axes: {seed: [0, 1]}", ["axis seed would have no effect: use seeds"]),
        (HEAD + "axes: {rule.delta: [0.5, big]}", ["rule.delta", "big"]),
        (HEAD + "axes: {rule.delta: [0.5, -1]}", ["rule.delta=-1.0"]),
        (HEAD + "axes: {policy.hidden_sizes: [64]}", ["policy.hidden_sizes"]),
        (HEAD + "axes: {rule.delta: [0.5, 0.50]}", ["two runs are the same"]),
        (HEAD + "axes: {gamma: [0.5]}\nvariants: {a: {gamma: 0.75}}", ["variant a sets gamma, which is an axis"]),
        (HEAD + "axes: {gamma: [0.5]}\n" + SEARCH, ["axes and search exclude each other"]),
        ("- a", ["must be a mapping"]),
        ("a: [", ["is not valid YAML"]),
    ],
)
def test_files_that_do_not_fit_are_one_line_naming_the_file(folder, text, parts):
    told = refused(folder, text)
    for part in parts:
        assert part in told, told
    after_merging = ("gamma=2.0", "seed=-1", "rule.delta=-1.0")  # ranges of values are judged last
    if not any(part in told for part in after_merging):
        assert str(folder / "small.yaml") in told, told


def test_a_base_that_does_not_fit_is_named(folder):
    (folder / "rules" / "base.yaml").write_text("gama: 1\n")
    told = refused(folder, SMALL)
    assert str(folder / "rules" / "base.yaml") in told and "did you mean gamma?" in told


def test_an_unknown_experiment_names_the_nearest_and_all(folder):
    declare(folder, SMALL)
    with pytest.raises(UserError, match=r"no experiment smal \(did you mean small\?\).*small"):
        load_experiment("smal")
    with pytest.raises(UserError, match="no experiment rules/base"):
        load_experiment("rules/base")


# The project's own experiments.


def test_quickstart():
    quickstart = load_experiment("quickstart")
    cells = quickstart.cells()
    assert quickstart.minutes == 2 and quickstart.title.startswith("Quickstart")
    assert [str(cell.directory) for cell in cells] == [
        "quickstart/full/CartPole-v1/cartpole/seed_0",
        "quickstart/full/Hopper-v5/hopper/seed_0",
        "quickstart/full/CartPole-v1/cartpole/seed_1",
        "quickstart/full/CartPole-v1/cartpole/seed_2",
    ]
    assert [cell.settings.total_env_steps for cell in cells] == [100_000, 300_000, 100_000, 100_000]


def every_scale():
    """All experiments of the project at all their scales."""
    return [
        (file.stem, str(scale))
        for file in sorted(FOLDER.glob("*.yaml"))
        for scale in ("full", *(read_yaml(file).get("scales") or {}))
    ]


@pytest.mark.parametrize(("name", "scale"), every_scale())
def test_all_runs_of_all_experiments_validate(name, scale):
    experiment = load_experiment(name, scale)
    cells = experiment.cells()
    assert cells and experiment.minutes > 0
    assert len({cell.directory for cell in cells}) == len(cells)
    assert sorted(experiment.directories()) == sorted(cell.directory for cell in cells)
    for cell in cells:
        check(cell.settings)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*/*.yaml")), ids=lambda file: file.stem)
def test_all_bases_validate(file):
    merge([Source(str(file), read_yaml(file))])


def test_names_are_those_of_the_files():
    assert experiment_names() == sorted(file.stem for file in FOLDER.glob("*.yaml"))


TWO = "title: t\nhypothesis: h\nminutes: 1\nvariants: {small: {rule.delta: 0.01}, large: {rule.delta: 0.05}}\n"


def test_an_argument_may_not_make_variants_equal(folder):
    told = refused(folder, TWO, ["rule.delta=0.1"])
    assert "rule.delta makes variants small and large the same" in told and "name=large" in told
    experiment = declare(folder, TWO)
    assert len(experiment.cells(["rule.delta=0.1", "name=small"])) == 1
    assert len(experiment.cells(["gamma=0.9"])) == 2


def test_several_environments_and_variants_are_written_as_lists(folder):
    assert "several are written 'env.id=[CartPole-v1,Hopper-v5]'" in refused(
        folder, TWO, ["env.id=CartPole-v1,Hopper-v5"]
    )
    assert "variants are large, small" in refused(folder, TWO, ["name=small,large"])


def test_a_path_is_no_name(folder):
    declare(folder, TWO)
    name = next(iter(experiment_names()))
    with pytest.raises(UserError, match=f"there is no experiment experiments/{name}.yaml: write {name}"):
        load_experiment(f"experiments/{name}.yaml")
