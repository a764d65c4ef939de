import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trpo_lightning.errors import UserError
from trpo_lightning.runs.config import load_settings, recorded_settings, write_config
from trpo_lightning.settings import RunSettings, changed_keys, check, completed, counting_keys, from_keywords, get, keys


def file_with(folder: Path, text: str | bytes) -> Path:
    file = folder / "my.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def message(*overrides: str, file: Path | None = None) -> str:
    with pytest.raises(UserError) as error:
        load_settings(list(overrides), file)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_overrides_win_over_the_file_and_the_file_over_defaults(tmp_path):
    file = file_with(tmp_path, "rule: {delta: 0.5, damping: 0.25}\ngamma: 0.75\n")
    found = load_settings(["rule.delta=0.125", "policy.hidden_sizes=[3, 4]"], file)
    expected = RunSettings()
    expected.rule.delta, expected.rule.damping, expected.gamma = 0.125, 0.25, 0.75
    expected.policy.hidden_sizes = [3, 4]
    assert found == expected


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_an_empty_file_is_the_defaults(tmp_path, text):
    assert load_settings([], file_with(tmp_path, text)) == RunSettings()


@pytest.mark.parametrize(
    ("text", "number"), [("1e-3", 1e-3), ("1E2", 100.0), ("5e-1", 0.5), ("1", 1.0), ("'0.25'", 0.25), ("1_0.5", 10.5)]
)
def test_numbers_parse_as_floats(text, number):
    delta = load_settings([f"rule.delta={text}"]).rule.delta
    assert delta == number and isinstance(delta, float)


@pytest.mark.parametrize("null", ["null", "~", ""])
def test_null_of_optional_keys(null, tmp_path):
    file = file_with(tmp_path, "threads: 3\nenv: {max_episode_steps: 5}\ncheckpoint: {every: 7}\n")
    found = load_settings([f"{key}={null}" for key in ("threads", "env.max_episode_steps", "checkpoint.every")], file)
    assert found == RunSettings()


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("rule.dleta=1", ["command line", "unknown key rule.dleta", "did you mean rule.delta?"]),
        ("delta=1", ["unknown key delta", "did you mean rule.delta?"]),
        ("rule.delta.x=1", ["unknown key rule.delta.x"]),
        ("qqqq=1", ["unknown key qqqq"]),
        ("rule=1", ["rule is a group"]),
        ("rule=null", ["rule is a group"]),
        ("rule.delta=big", ["command line", "rule.delta", "big"]),
        ("rule.delta=[1]", ["rule.delta"]),
        ("rule.delta=null", ["rule.delta"]),
        ("rule.delta={}", ["rule.delta"]),
        ("seed=1.5", ["seed", "1.5"]),
        ("seed=true", ["seed"]),
        ("seed=-1", ["seed=-1", "at least 0"]),
        ("gamma=.nan", ["gamma=nan is not finite"]),
        ("gamma=1" + "0" * 400, ["command line", "too large"]),
        ("seed=1" + "0" * 5000, ["seed"]),
        ("policy.hidden_sizes=5,x", ["policy.hidden_sizes[1]=x is not a whole number"]),
        ("rule.delta=[0.02,0.04]", ["rule.delta=[0.02, 0.04] is not a number"]),
        ("seed=[0,1]", ["seed=[0, 1]", "an experiment's file lists several"]),
        ("env.id=[A,B]", ["a run has one environment"]),
        ("rule=vanilla", ["write rule.name=vanilla"]),
        ("policy.hidden_sizes=[a]", ["policy.hidden_sizes[0]"]),
        ("policy.hidden_sizes=[0]", ["policy.hidden_sizes[0]=0"]),
        ("env.kwargs=5", ["env.kwargs"]),
        ("env.kwargs={1: 2}", ["env.kwargs"]),
        ("normalize.observations=perhaps", ["normalize.observations", "perhaps"]),
        ("rule.name=trust", ["rule.name='trust'", "trust_region"]),
        ("rule.delta=${nothing}", ["rule.delta", "nothing"]),
        ("rule.delta=${oc.env:NO_SUCH_VARIABLE}", ["rule.delta", "NO_SUCH_VARIABLE"]),
        ("name=${name}", ["name"]),
        ("rule.delta=${", ["rule.delta"]),
        ("rule.delta=[1", ["rule.delta=[1"]),
        ("seed=!!int x", ["seed=!!int x"]),
        ("normalize.rewards=!!bool x", ["!!bool x"]),
        ("name=!!timestamp x", ["!!timestamp x"]),
        ("name=!!python/object/apply:os.getcwd []", ["command line"]),
        ("name=!!python/name:os.system", ["command line"]),
        ("novalue", ["'novalue' is not key=value"]),
        ("=1", ["is not key=value"]),
        ("a b=1", ["is not key=value"]),
        ("rule[delta]=1", ["is not key=value"]),
        ("name=\x00", ["command line"]),
        ("name=\udcff", ["command line"]),
    ],
)
def test_overrides_that_do_not_fit_are_one_line(override, parts):
    told = message(override)
    assert all(part in told for part in parts), told
    assert len(told) < 6000


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("rule: {dleta: 1}", ["unknown key rule.dleta", "did you mean rule.delta?"]),
        ("rule:\n  delta: much", ["rule.delta", "much"]),
        ("rule: 5", ["rule is a group"]),
        ("1: 2", ["unknown key 1"]),
        ("- gamma\n- 1", ["must be a mapping"]),
        ("gamma", []),
        ("gamma: [1", ["is not valid YAML"]),
        ("gamma: 1\ngamma: 2", ["is not valid YAML"]),
        ("\tgamma: 1", ["is not valid YAML"]),
        ("gamma: ${nothing", ["is not valid YAML"]),
        ("seed: !!int x", ["is not valid YAML"]),
        ("name: !!python/object/apply:os.getcwd []", ["is not valid YAML"]),
        (b"name: \xff\xfe\xff", ["is not valid YAML"]),
        ("&a [*a]", []),
    ],
)
def test_files_that_do_not_fit_are_one_line_naming_the_file(tmp_path, text, parts):
    file = file_with(tmp_path, text)
    told = message(file=file)
    assert str(file) in told
    assert all(part in told for part in parts), told


def test_python_tags_run_nothing(tmp_path):
    target = tmp_path / "made"
    message(f"name=!!python/object/apply:pathlib.Path.touch [{target}]")
    message(file=file_with(tmp_path, f"name: !!python/object/apply:os.mkdir ['{target}']"))
    assert not target.exists()


def test_missing_files_and_directories_are_one_line(tmp_path):
    for file in (tmp_path / "none.yaml", tmp_path):
        assert str(file) in message(file=file)


def test_values_out_of_range_in_a_file_name_the_key(tmp_path):
    assert "gamma=1.5" in message(file=file_with(tmp_path, "gamma: 1.5"))


@pytest.mark.parametrize(
    ("override", "kwargs"),
    [
        ("env.kwargs={}", {}),
        ("env.kwargs.a=1", {"a": 1}),
        ("env.kwargs={a: {b: [1, x, null]}, c: {}}", {"a": {"b": [1, "x", None]}, "c": {}}),
        ("env.kwargs.a.b.c=1e-3", {"a": {"b": {"c": 1e-3}}}),
        ("env.kwargs.name='on'", {"name": "on"}),
    ],
)
def test_keyword_arguments_of_environments_are_free(override, kwargs, tmp_path):
    found = load_settings([override])
    assert found.env.kwargs == kwargs
    assert type(found.env.kwargs) is dict
    write_config(found, tmp_path / "config.yaml")
    assert load_settings([], tmp_path / "config.yaml") == found


def test_settings_hold_plain_lists_and_dicts():
    found = load_settings(["policy.hidden_sizes=[3]", "tracking.tags=[a]", "env.kwargs={a: [1], b: {c: 2}}"])
    assert type(found.policy.hidden_sizes) is type(found.tracking.tags) is list
    assert type(found.env.kwargs["a"]) is list and type(found.env.kwargs["b"]) is dict
    assert isinstance(found, RunSettings)


def test_a_written_config_reads_back(tmp_path):
    changed = from_keywords(
        env={"id": "CartPole-v1", "kwargs": {"a": "1", "b": [True, None], "c": "null", "d": "1e3"}},
        policy={"hidden_sizes": []},
        delta=1.1e-7,
        name="yes",
        tags=["1", "no", "#x", "a: b"],
        threads=None,
        seed=2**63 - 1,
    )
    write_config(changed, tmp_path / "config.yaml")
    assert load_settings([], tmp_path / "config.yaml") == changed
    assert recorded_settings(tmp_path) == changed


@pytest.mark.parametrize("rewards", [True, False])
def test_a_record_that_is_older_than_a_key_says_what_was_done_then(tmp_path, rewards):
    before = from_keywords(normalize={"rewards": rewards, "first_rewards": "raw"} if rewards else {"rewards": False})
    write_config(before, tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text("".join(x for x in text.splitlines(True) if "first_rewards" not in x))
    assert recorded_settings(tmp_path) == before
    assert load_settings([], tmp_path / "config.yaml").normalize.first_rewards == "own_scale"  # any file: defaults


def test_a_record_from_before_actions_were_scaled_does_not_scale_them(tmp_path):
    before = from_keywords(env={"id": "Pendulum-v1", "scale_actions": False})
    write_config(before, tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text("".join(x for x in text.splitlines(True) if "scale_actions" not in x))
    assert recorded_settings(tmp_path) == before
    assert load_settings([], tmp_path / "config.yaml").env.scale_actions  # any file: defaults


def test_a_record_from_before_noise_had_a_floor_has_none(tmp_path):
    before = from_keywords(policy={"least_log_std": None})
    write_config(before, tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text("".join(x for x in text.splitlines(True) if "least_log_std" not in x))
    assert recorded_settings(tmp_path) == before


@pytest.mark.parametrize(
    ("scheme", "raw"), [("single_path", True), ("vine", True), ("population", False), ("exact", False)]
)
def test_an_older_record_of_a_scheme_that_scales_no_rewards_is_as_today(scheme, raw):
    record = {"rollout": {"scheme": scheme}, "normalize": {"rewards": True}}
    assert ("first_rewards" in completed(record)["normalize"]) == raw


def test_every_key_is_in_the_written_config_and_each_survives_alone(tmp_path):
    write_config(RunSettings(), tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    assert all(key.rsplit(".", 1)[-1] + ":" in text for key in counting_keys(RunSettings()))


def test_a_directory_without_a_run_is_told(tmp_path):
    with pytest.raises(UserError, match="is not a run directory"):
        recorded_settings(tmp_path)


def test_changed_keys_leaves_out_what_a_continued_run_may_change():
    after = from_keywords(total_env_steps=5, tracking={"wandb": "disabled"}, delta=0.5, env={"kwargs": {"a": 1}})
    assert changed_keys(RunSettings(), after) == ["env.kwargs", "rule.delta"]
    assert changed_keys(after, after) == []


def test_the_budget_is_kept_where_settings_follow_it():
    before = from_keywords(annealing_steps=None, total_env_steps=1000)
    after = from_keywords(annealing_steps=None, total_env_steps=2000, tracking={"wandb": "disabled"})
    assert changed_keys(before, after) == changed_keys(after, before) == ["total_env_steps"]
    iterations = from_keywords(annealing_steps=None, total_env_steps=1000, total_iterations=5)
    assert changed_keys(before, iterations) == ["total_iterations"]
    plain = from_keywords(total_env_steps=2000)
    assert changed_keys(before, plain) == ["rule.annealing_steps", "total_env_steps"]
    assert changed_keys(plain, before) == ["rule.annealing_steps"]


SNIPPETS = st.sampled_from(
    ["null", "~", "", "true", "1", "-1", "0", "0.5", "1e-3", "1e999", ".nan", "-.inf", "[]", "{}", "[1, 2]", "{a: 1}"]
    + [
        "[[1]]",
        "'x'",
        '"\\t"',
        "${gamma}",
        "${x}",
        "\\${gamma}",
        "${",
        "$",
        "???",
        "!!int x",
        "!!set {a}",
        "!!binary aGk=",
    ]
    + [
        "&a [*a]",
        "*a",
        "<<",
        "{<<: 1}",
        "0x1F",
        "0o7",
        "1:30",
        "2020-01-01",
        "=",
        "- a",
        "a: b",
        "#",
        "%",
        "@",
        "`",
        ">-",
    ]
    + ["trust_region", "relu", "cpu", "disabled", "gymnasium", "9" * 25, "${oc.env:HOME}", "${oc.decode:1}", "${.id}"]
)
VALUES = st.one_of(SNIPPETS, st.text(max_size=12), st.integers().map(str), st.floats().map(str))
KEYS = st.one_of(
    st.sampled_from(list(keys())),
    st.sampled_from(
        ["env", "rule", "env.kwargs.a", "env.kwargs.a.b", "rule.delta.x", "a..b", "rule.", "env.kwargs.", "_"]
    ),
    st.text(string.ascii_letters + "._[]{}$", max_size=8),
)
OVERRIDES = st.lists(st.tuples(KEYS, VALUES).map("=".join), max_size=4)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(overrides=OVERRIDES)
@example(overrides=["env.kwargs.a=\\${gamma}"])
@example(overrides=["name=\\${x}"])
@example(overrides=["name=a\\\\\\${x}\\b"])
@example(overrides=["name=???"])
@example(overrides=["env.kwargs.a=1", "env.kwargs.a.b=2"])
def test_any_override_gives_settings_that_round_trip_or_one_line(overrides, tmp_path):
    try:
        found = load_settings(overrides)
    except UserError as error:
        assert str(error) and "\n" not in str(error)
        return
    assert repr(check(found)) == repr(found)
    write_config(found, tmp_path / "config.yaml")
    back = load_settings([], tmp_path / "config.yaml")
    for key in keys():
        assert repr(get(back, key)) == repr(get(found, key)), key  # repr: NaN in env.kwargs equals itself
