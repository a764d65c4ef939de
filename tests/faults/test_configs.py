"""Thousands of strange configurations: each is a valid one that survives a round trip, or one line of error.

Nothing else: no other exception, no code that is run, no key that is ignored, and an answer within seconds.
"""

import contextlib
import os
import signal
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_runs import command_line, one_line_of

from trpo_lightning.errors import UserError
from trpo_lightning.experiment.declaration import load_experiment
from trpo_lightning.experiment.experiment_file import KEYS as EXPERIMENT_KEYS
from trpo_lightning.runs.config import load_settings, write_config
from trpo_lightning.settings import RunSettings, check, get, keys

SECRET = "the value of a variable"
SECONDS = 5.0
"""Of processor time that an input may take."""


def examples(number: int):
    return settings(
        max_examples=number, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("A_VARIABLE", SECRET)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "base.yaml").write_text("rule: {delta: 0.5}\n")
    return tmp_path


# ---- inputs

NUMBERS = st.one_of(
    st.integers(-3, 70),
    st.integers(),
    st.sampled_from([2**31, 2**63 - 1, 2**63, 10**30, -(10**400), 10**400]),
    st.floats(),
    st.floats(0, 1),
    st.sampled_from([0.0, -0.0, 5e-324, 1e308, 0.99]),
)
WORDS = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "null",
            "None",
            "true",
            "yes",
            "off",
            "1",
            "0.5",
            "1e-3",
            "1_000",
            "0x1F",
            "1:30",
            "2020-01-01",
            ".nan",
        ]
        + ["-.inf", "???", "${gamma}", "${seed}", "${oc.env:A_VARIABLE}", "${oc.env:NOT_SET}", "${oc.env:NOT_SET,x}"]
        + [
            "${oc.decode:'[1]'}",
            "${oc.create:{a: 1}}",
            "${oc.dict.keys:rule}",
            "${oc.select:gamma}",
            "${oc.deprecated:seed}",
        ]
        + ["${name}", "${.id}", "${..seed}", "${rule}", "${", "\\${gamma}", "\\\\${gamma}", "${${name}}", "a${seed}b"]
        + ["disabled", "offline", "cem", "vine", "population", "exact", "relu", "gymnasium", "cpu", "Hopper-v5", "max"]
        + [
            "\x00",
            "\x85",
            "\u2028",
            "\ufeff",
            "\ud800",
            "🦘",
            "e\u0301",
            "../..",
            "/etc/passwd",
            "a" * 300,
            "#",
            "a: b",
        ]
    ),
    st.text(max_size=12),
)
LEAVES = st.one_of(NUMBERS, WORDS, st.booleans(), st.none())
VALUES = st.one_of(
    LEAVES,
    st.recursive(
        LEAVES,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.one_of(WORDS, st.integers()), inner, max_size=3)
        ),
        max_leaves=6,
    ),
)
FITTING = {
    float: st.floats(1e-6, 0.9),
    int: st.integers(1, 64),
    bool: st.booleans(),
    str: st.text(string.ascii_letters, min_size=1, max_size=5),
}


def fitting(key: str) -> st.SearchStrategy:
    """Values that this key may well take."""
    item = keys()[key]
    if item.metadata["choices"] is not None:
        return st.sampled_from(item.metadata["choices"])
    name = str(item.type)
    for kind, values in FITTING.items():
        if name.startswith(kind.__name__):
            return values | st.none() if "None" in name else values
    return st.lists(FITTING[int], max_size=3) if "list[int]" in name else VALUES


KNOWN = st.sampled_from(list(keys()))
STRANGE = st.one_of(
    st.sampled_from(
        [
            "env",
            "rule",
            "rule.",
            ".rule",
            "rule..delta",
            "rule.delta.x",
            "env.kwargs.a",
            "env.kwargs.a.b",
            "env.kwargs.",
        ]
        + [
            "delta",
            "rule.dleta",
            "__class__",
            "rule.__init__",
            "a/b",
            "-",
            "seed ",
            "sEEd",
            "env.kwargs.\u00e9",
            "<<",
            "1",
        ]
    ),
    st.text(string.ascii_letters + "._[]{}$@!*& ", max_size=8),
)
PAIRS = st.one_of(
    KNOWN.flatmap(lambda key: st.tuples(st.just(key), fitting(key))),
    KNOWN.flatmap(lambda key: st.tuples(st.just(key), VALUES)),
    st.tuples(STRANGE, VALUES),
)
MAPPINGS = st.lists(PAIRS, max_size=5).map(dict)


def nested(pairs: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys as groups; where two are in each other's way, one of them as it is."""
    made: dict[str, Any] = {}
    for key, value in pairs.items():
        *groups, leaf = key.split(".")
        node = made
        for group in groups:
            node = node.setdefault(group, {}) if isinstance(node.get(group, {}), dict) else made
        node[leaf] = value
    return made


def dumped(value: Any) -> str:
    try:
        return yaml.safe_dump(value, allow_unicode=True, default_flow_style=None)
    except (yaml.YAMLError, ValueError):
        return repr(value)


def override(pair: tuple[str, Any]) -> str:
    key, value = pair
    text = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return f"{key}={text.removesuffix('...' + chr(10)).strip()}"


LINES = st.sampled_from(
    ["gamma: 0.5", "gamma: 0.25", "seed: 3", "rule: {delta: 0.1}", "rule:", "  delta: 0.1", "  damping: 0.2", "env: {}"]
    + ["env: {kwargs: {a: 1, a: 2}}", "env:", "  kwargs: {1: 2}", "  kwargs: &k {a: *k}", "  kwargs: {b: !!set {x}}"]
    + [
        "base: &base {delta: 0.1}",
        "rule: *base",
        "rule: {<<: {delta: 0.1}}",
        "<<: {gamma: 0.5}",
        "<<: [{seed: 1}, {x: 2}]",
    ]
    + [
        "<<: *nothing",
        "rule: &r {delta: 0.1, <<: *r}",
        "rule.delta: 0.3",
        "? [1, 2]\n: 3",
        "? {a: 1}",
        "- 1",
        "--- ",
        "...",
    ]
    + ["%YAML 1.2", "%TAG ! tag:x,2000:", "name: !!binary aGk=", "name: !!python/name:os.system", "seed: !!int '7'"]
    + ["name: !!python/object/apply:os.mkdir [MARK]", "name: !!python/object/new:os.mkdir [MARK]", "seed: !!float 7"]
    + [
        "name: !!python/object/apply:os.system ['mkdir MARK']",
        "!!python/object/apply:os.mkdir [MARK]: 1",
        "tracking: 1",
    ]
    + ["name: !custom x", "name: !!str 5", "seed: !!null", "name: !!timestamp 2001-01-01", "env: !!omap [a: 1]", "\t"]
    + [
        "name: |\n  two\n  lines",
        "name: >-\n  folded",
        "name: 'it''s'",
        'name: "\\u2028"',
        'name: "\\ud800"',
        "name: \x07",
    ]
    + [
        "policy: {hidden_sizes: [4, 4]}",
        "policy: {hidden_sizes: {0: 4}}",
        "policy: {hidden_sizes: '[4]'}",
        "# x",
        "'': 1",
    ]
    + [
        "tracking: {tags: [1, a, 0.5]}",
        "tracking: {tags: [[a]]}",
        "null: 1",
        "true: 1",
        "1.5: 1",
        "~: ~",
        "evaluation: ~",
    ]
)
TEXTS = st.one_of(
    st.lists(LINES, max_size=6).map("\n".join),
    st.lists(st.one_of(LINES, st.text(max_size=10)), max_size=5).map("\n".join),
    st.tuples(MAPPINGS.map(dumped), LINES).map("".join),
)


# ---- what must hold


@contextlib.contextmanager
def in_time():
    """Raises in what takes too much processor time."""

    def late(*_):
        raise AssertionError(f"more than {SECONDS} seconds")

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def judged(load) -> Any:
    """What `load` returns, or None after one line of error."""
    try:
        with in_time():
            return load()
    except UserError as error:
        message = str(error)
        assert message and "\n" not in message and len(message) < 20_000
        return None
    finally:
        assert not Path("mark").exists(), "code was run"


def leaves(node: yaml.Node | None, prefix: str = "") -> list[str]:
    """Dotted keys that a YAML text gives, merged ones included."""
    if not isinstance(node, yaml.MappingNode):
        return [prefix.removesuffix(".")]
    found = []
    for name, value in node.value:
        if name.value == "<<" and name.tag.endswith("merge"):
            parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
            found += [key for part in parts if part.value for key in leaves(part, prefix)]
        elif not isinstance(value, yaml.MappingNode) or value.value:
            found += leaves(value, f"{prefix}{name.value}.")
    return found


def assert_nothing_is_ignored(text: str) -> None:
    for key in filter(None, leaves(yaml.compose(text, Loader=yaml.SafeLoader))):
        assert key in keys() or key.startswith("env.kwargs."), f"{key!r} is silently ignored"


def assert_round_trip(found: RunSettings, folder: Path) -> None:
    assert repr(check(found)) == repr(found)
    write_config(found, folder / "config.yaml")
    assert repr(load_settings([], folder / "config.yaml")) == repr(found)  # repr: a NaN in env.kwargs equals itself


def same(given: Any, found: Any) -> bool:
    """Whether a value arrived: as it is, or as its text converted to the type of its key."""
    if isinstance(given, str) and "$" in given:
        return True
    if isinstance(given, list) and isinstance(found, list):
        return len(given) == len(found) and all(map(same, given, found))
    if isinstance(found, list) and isinstance(given, bool | float):  # as YAML writes it: false, 5.0e-324
        return len(found) == 1 and (found[0] == str(given).lower() or repr(float(found[0])) == repr(given))
    if isinstance(found, list):  # a list of texts may be typed with commas
        return found == str(given).split(",")
    if isinstance(found, bool) and not isinstance(given, str):
        return bool(given) == found  # OmegaConf takes any number for a truth value
    if isinstance(found, bool):
        return str(given).lower() in (("true", "yes", "y", "on", "1") if found else ("false", "no", "n", "off", "0"))
    if isinstance(found, int | float) and isinstance(given, str):
        return float(given.replace("_", "")) == found if not given.startswith("0") else True
    if isinstance(found, float) and isinstance(given, int):
        return found == float(given)  # rounded beyond 2^53
    if isinstance(given, bool) and isinstance(found, str):
        return found == str(given).lower()  # as YAML writes it
    return found == given or str(found) == str(given) or repr(found) == repr(given)


def assert_arrived(pairs: dict[str, Any], found: RunSettings) -> None:
    for key, value in pairs.items():
        if key in keys() and key != "env.kwargs":
            assert same(value, get(found, key)), f"{key}: {value!r} was given, {get(found, key)!r} arrived"
        else:
            assert key.startswith("env.kwargs") or key in ("env", "rule", "tracking", "evaluation"), f"{key} is ignored"


def judge_file(pairs: dict[str, Any], folder: Path) -> None:
    text = dumped(nested(pairs))
    found = judged_file(text, folder)
    if found is not None:
        assert_arrived({key: value for key, value in pairs.items() if isinstance(value, int | float | bool)}, found)


def judged_file(text: str, folder: Path) -> RunSettings | None:
    file = folder / "my.yaml"
    file.write_bytes(text.replace("MARK", "mark").encode(errors="surrogatepass"))
    found = judged(lambda: load_settings([], file))
    if found is not None:
        assert_nothing_is_ignored(file.read_text(encoding="utf-8"))
        assert_round_trip(found, folder)
    return found


def judge_overrides(pairs: dict[str, Any], folder: Path) -> None:
    given = [override(pair) for pair in pairs.items()]
    found = judged(lambda: load_settings(given))
    if found is not None:
        assert_round_trip(found, folder)
        assert_arrived({key: value for key, value in pairs.items() if isinstance(value, int | float | bool)}, found)


def judge_both(first: dict[str, Any], second: dict[str, Any], folder: Path) -> None:
    file = folder / "my.yaml"
    file.write_bytes(dumped(nested(first)).encode(errors="surrogatepass"))
    found = judged(lambda: load_settings([override(pair) for pair in second.items()], file))
    if found is not None:
        assert_round_trip(found, folder)
        assert_arrived({key: value for key, value in second.items() if isinstance(value, int | float | bool)}, found)


PARTS = {
    "title": st.just("A title"),
    "hypothesis": st.just("One."),
    "minutes": st.floats(0.1, 5),
    "bases": st.lists(st.just("base"), max_size=1),
    "overrides": KNOWN.flatmap(lambda key: st.dictionaries(st.just(key), fitting(key), max_size=1)),
    "axes": KNOWN.flatmap(lambda key: st.dictionaries(st.just(key), st.lists(fitting(key), min_size=1, max_size=3))),
    "variants": st.dictionaries(st.sampled_from(["a", "b"]), MAPPINGS, max_size=2),
    "environments": st.lists(st.sampled_from(["Hopper-v5", "CartPole-v1"]), max_size=2),
    "seeds": st.lists(st.integers(0, 5), max_size=3),
    "scales": st.dictionaries(st.sampled_from(["quick", "full"]), MAPPINGS, max_size=1),
    "search": st.fixed_dictionaries(
        {"method": st.sampled_from(["random", "bayes"]), "runs": st.one_of(st.integers(-1, 5), st.just(10**9))},
        optional={
            "ranges": st.dictionaries(
                KNOWN, st.dictionaries(st.sampled_from(["min", "max", "distribution"]), LEAVES), max_size=2
            )
        },
    ),
    "claims": st.lists(
        st.dictionaries(st.sampled_from(["says", "statistic", "of", "seeds", "above"]), LEAVES), max_size=2
    ),
}
EXPERIMENTS = st.tuples(
    st.fixed_dictionaries({}, optional={key: PARTS.get(key, VALUES) for key in EXPERIMENT_KEYS}),
    st.dictionaries(st.one_of(st.sampled_from(list(EXPERIMENT_KEYS)), WORDS), VALUES, max_size=1),
).map(lambda both: {"title": "A title", "hypothesis": "One.", "minutes": 1, **both[0], **both[1]})


def judge_experiment(values: dict[str, Any], overrides: dict[str, Any], folder: Path) -> None:
    text = dumped(values)
    (folder / "experiments" / "mine.yaml").write_bytes(text.encode(errors="surrogatepass"))
    given = [override(pair) for pair in overrides.items()]
    cells = judged(lambda: load_experiment("mine").cells(given))
    if cells is None:
        return
    experiment = load_experiment("mine")
    for key, value in (yaml.safe_load(text) or {}).items():
        assert key in EXPERIMENT_KEYS, f"{key} is ignored"
        if key in ("title", "hypothesis", "minutes", "seeds", "environments", "bases") and value is not None:
            assert getattr(experiment, key) == value
    for cell in cells[:3]:
        assert_round_trip(cell.settings, folder)
        for key, value in experiment.overrides.items():
            if not (experiment.variants or experiment.axes or experiment.search or overrides) and key in keys():
                assert same(value, get(cell.settings, key)) or key in ("env.id", "tracking.group", "env.kwargs")


def run_files(number: int, folder: Path) -> None:
    examples(number)(given(MAPPINGS)(lambda pairs: judge_file(pairs, folder)))()


def run_overrides(number: int, folder: Path) -> None:
    examples(number)(given(MAPPINGS)(lambda pairs: judge_overrides(pairs, folder)))()


def run_both(number: int, folder: Path) -> None:
    examples(number)(given(MAPPINGS, MAPPINGS)(lambda first, second: judge_both(first, second, folder)))()


def run_texts(number: int, folder: Path) -> None:
    examples(number)(given(TEXTS)(lambda text: judged_file(text, folder) and None))()


def run_experiments(number: int, folder: Path) -> None:
    examples(number)(given(EXPERIMENTS, MAPPINGS)(lambda values, more: judge_experiment(values, more, folder)))()


KINDS = [run_files, run_overrides, run_both, run_texts, run_experiments]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_hundred_inputs_of_each_kind(kind, folder):
    kind(100, folder)


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_two_thousand_inputs_of_each_kind(kind, folder):
    kind(2000, folder)


# ---- single traps

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        "env: {kwargs: &k {again: *k}}",
        "env: {kwargs: {a: &a [*a]}}",
        "env: {kwargs: " + "{a: " * 2000 + "1" + "}" * 2001,
        "name: " + "[" * 5000,
        "env: {kwargs: {a: " + "[" * 200 + "]" * 200 + "}}",
    ],
    ids=["billion laughs", "a mapping in itself", "a list in itself", "deep", "deeper", "deep enough"],
)
def test_a_small_text_cannot_take_all_memory(folder, text):
    judged_file(text, folder)
    (folder / "experiments" / "mine.yaml").write_text(f"title: T\nhypothesis: H\nminutes: 1\noverrides:\n  {text[:9]}")
    judged(lambda: load_settings([f"env.kwargs.a={text.replace(chr(10), ' ')}"]))


def test_aliases_within_reason_are_fine(folder):
    found = judged_file("value: &v {hidden_sizes: [3]}\npolicy: *v\nenv: {kwargs: {a: *v}}\n", folder)
    assert found is not None and found.policy.hidden_sizes == found.value.hidden_sizes == [3]


def test_an_experiment_has_a_size_that_can_be_listed(folder):
    head = "title: T\nhypothesis: H\nminutes: 1\n"
    axes = "".join(f"  {key}: [{', '.join(str(i / 10) for i in range(1, 10))}]\n" for key in FLOATS[:9])
    search = "search: {method: random, runs: 1000000000, ranges: {gamma: {min: 0.1, max: 0.9}}}\n"
    for text in (f"axes:\n{axes}", search, f"environments: [a, b]\nseeds: [{', '.join(map(str, range(6000)))}]\n"):
        (folder / "experiments" / "mine.yaml").write_text(head + text)
        with pytest.raises(UserError, match="runs"):
            with in_time():
                load_experiment("mine").cells()


FLOATS = [key for key, item in keys().items() if str(item.type) == "float"]


def test_the_environment_is_read_only_where_it_is_asked_for(folder):
    found = load_settings(["name=${oc.env:A_VARIABLE}"])
    assert found.name == SECRET
    write_config(found, folder / "config.yaml")
    assert load_settings([], folder / "config.yaml").name == SECRET


@pytest.mark.parametrize("group", ["env=", "env=null", "env=[]", "env=1", "env=x"])
def test_a_group_given_as_a_value_does_not_drop_its_keys(folder, group):
    with pytest.raises(UserError, match="env is a group of keys"):
        load_settings(["env.max_episode_steps=1", group, "env.id=A"])


def test_a_list_over_a_mapping_is_refused_wherever_it_stands(folder):
    (folder / "my.yaml").write_text("env: {kwargs: {a: {b: 1}}}\n")
    for each in (["env.kwargs=[1]"], ["env.kwargs.a=[1]"], ["env.kwargs.a.b=1", "env.kwargs.a=[1]"]):
        judged(lambda each=each: load_settings(each, folder / "my.yaml"))
        judged(lambda each=each: load_settings(each))


COMMANDS = [
    ["rule.delta=!!python/object/apply:os.mkdir [mark]"],
    ["name=!!python/object/apply:os.system ['mkdir mark']"],
    ["name=${oc.env:NOT_SET}"],
    ["__class__=1"],
    ["rule.__init__=1"],
    ["seed=" + "9" * 30],
    ["gamma=.nan"],
    ["rule.delta=-1"],
    ["rule=1"],
    ["a.b.c=1"],
    ["=1"],
    ["env.num_envs=[1]"],
    ["policy.hidden_sizes=[1, x]"],
    ["name=\u2028", "seed=x"],
    ["env.kwargs.a=&a [*a]"],
    ["--config", "laughs.yaml"],
    ["--config", "mark.yaml"],
    ["--config", "list.yaml"],
    ["--config", "."],
    ["--config", "/dev/null", "seed=x"],
]


@pytest.mark.faults
@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_the_command_line_refuses_in_one_line(folder, number):
    (folder / "laughs.yaml").write_text(LAUGHS)
    (folder / "mark.yaml").write_text("name: !!python/object/apply:os.mkdir [mark]\n")
    (folder / "list.yaml").write_text("- 1\n")
    done = command_line("train", *COMMANDS[number], cwd=folder)
    assert done.returncode == 2 and done.stdout == ""
    assert one_line_of(done.stderr)
    assert sorted(os.listdir(folder)) == ["experiments", "laughs.yaml", "list.yaml", "mark.yaml"]
