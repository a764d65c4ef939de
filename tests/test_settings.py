"""Every key is judged: its type, its range, its choices, from its own declaration."""

import dataclasses
import math
import types
import typing

import pytest
from where_keys_count import changed, settings_where

from trpo_lightning.errors import UserError
from trpo_lightning.settings import (
    CHOICES,
    RunSettings,
    all_keys,
    check,
    counting_keys,
    depends_on_budget,
    from_dict,
    from_keywords,
    from_record,
    get,
    keys,
    progress,
    to_dict,
    updated,
)

KEYS = all_keys()


def hint(key):
    owner = settings_where(key)
    *groups, leaf = key.split(".")
    for part in groups:
        owner = getattr(owner, part)
    return typing.get_type_hints(type(owner))[leaf]


def number_type(key):
    """int or float, also of an optional value and of a list's items; None for other keys."""
    found = hint(key)
    parts = [found, *typing.get_args(found)]
    return next((kind for kind in (int, float) if kind in parts), None)


def with_value(key, value):
    """Settings in which one key has a value, and the others fit it."""
    return changed(settings_where(key, value), key, [value] if typing.get_origin(hint(key)) is list else value)


def refused(key, value):
    with pytest.raises(UserError) as error:
        check(with_value(key, value))
    assert str(error.value).startswith(key), error.value
    assert "\n" not in str(error.value)


def limits(name):
    return [key for key, item in KEYS.items() if item.metadata[name] is not None]


def next_below(key, value):
    return int(value) - 1 if number_type(key) is int else math.nextafter(value, -math.inf)


def next_above(key, value):
    return int(value) + 1 if number_type(key) is int else math.nextafter(value, math.inf)


def in_type(key, value):
    return number_type(key)(value)


@pytest.mark.parametrize("key", limits("minimum"))
def test_minimum_passes_and_just_below_fails(key):
    limit = KEYS[key].metadata["minimum"]
    check(with_value(key, in_type(key, limit)))
    refused(key, next_below(key, limit))


@pytest.mark.parametrize("key", limits("maximum"))
def test_maximum_passes_and_just_above_fails(key):
    limit = KEYS[key].metadata["maximum"]
    check(with_value(key, in_type(key, limit)))
    refused(key, next_above(key, limit))


@pytest.mark.parametrize("key", limits("above"))
def test_exclusive_limit_fails_and_just_above_passes(key):
    limit = KEYS[key].metadata["above"]
    refused(key, in_type(key, limit))
    check(with_value(key, next_above(key, limit)))


@pytest.mark.parametrize("key", limits("below"))
def test_exclusive_limit_fails_and_just_below_passes(key):
    limit = KEYS[key].metadata["below"]
    refused(key, in_type(key, limit))
    check(with_value(key, next_below(key, limit)))


@pytest.mark.parametrize("key", limits("choices"))
def test_choices_pass_and_another_word_fails(key):
    for choice in KEYS[key].metadata["choices"]:
        check(with_value(key, choice))
    refused(key, KEYS[key].metadata["choices"][0] + "x")


def test_every_number_has_a_limit():
    free = [
        key for key in KEYS if number_type(key) and all(KEYS[key].metadata[n] is None for n in ("minimum", "above"))
    ]
    assert free == []


WRONG = {
    int: [1.0, "1", True, None, [1], {}],
    float: ["0.5", True, None, [0.5], math.nan, math.inf, -math.inf, 10**400],
    str: [1, True, None, ["a"], "", "  "],
    bool: [0, 1, "true", None],
    list: [5, "ab", None, {}],
    dict: [5, "ab", None, [], {1: 2}],
}


def plain_type(key):
    found = hint(key)
    if isinstance(found, types.UnionType):
        found = next(part for part in typing.get_args(found) if part is not type(None))
    return typing.get_origin(found) or found


@pytest.mark.parametrize("key", KEYS)
def test_wrong_types_fail(key):
    optional = type(None) in typing.get_args(hint(key))
    for value in WRONG[plain_type(key)]:
        settings = changed(settings_where(key), key, value)
        if value is None and optional:
            assert get(check(settings), key) is None
            continue
        with pytest.raises(UserError) as error:
            check(settings)
        assert str(error.value).startswith(key) and "\n" not in str(error.value)


@pytest.mark.parametrize(("key", "bad"), [("policy.hidden_sizes", [64, 0]), ("value.hidden_sizes", [8, True])])
def test_the_message_names_the_item_of_a_list(key, bad):
    group, leaf = key.split(".")
    with pytest.raises(UserError, match=rf"{key}\[1\]"):
        from_keywords(**{group: {leaf: bad}})


def test_a_whole_number_is_a_float_and_a_tuple_is_a_list():
    settings = from_keywords(gamma=1, policy={"hidden_sizes": (3, 4)})
    assert settings.gamma == 1.0 and isinstance(settings.gamma, float)
    assert settings.policy.hidden_sizes == [3, 4]


def test_defaults_are_valid_and_each_key_has_a_meaning():
    check(RunSettings())
    assert all(item.metadata["meaning"] for item in KEYS.values())


def test_defaults_are_not_shared():
    one, two = RunSettings(), RunSettings()
    one.policy.hidden_sizes.append(1)
    one.env.kwargs["a"] = 1
    assert two.policy.hidden_sizes == [64, 64] and two.env.kwargs == {}


@pytest.mark.parametrize(
    ("num_envs", "steps", "hints"),
    [(8, 7, ["smaller", "env.num_envs=8"]), (8, 20, ["multiple", "16", "24"]), (3, 4, ["multiple", "3", "6"])],
)
def test_a_batch_must_be_a_multiple_of_the_environments(num_envs, steps, hints):
    with pytest.raises(UserError) as error:
        from_keywords(num_envs=num_envs, steps_per_iteration=steps)
    assert str(error.value).startswith(f"rollout.steps_per_iteration={steps}")
    assert all(hint in str(error.value) for hint in hints)


@pytest.mark.parametrize(
    ("rule", "scheme"), [("cem", "single_path"), ("cma_es", "vine"), ("trust_region", "population")]
)
def test_population_rules_and_the_population_scheme_need_each_other(rule, scheme):
    with pytest.raises(UserError, match=rf"rule\.name={rule} does not go with rollout\.scheme={scheme}"):
        from_keywords(rule={"name": rule}, rollout={"scheme": scheme})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("env.backend", "envpool"),
        ("env.asynchronous", True),
        ("value.name", "adam"),
        ("rule.name", "reward_weighted_regression"),
        ("rollout.rollout_set_size", 2049),
    ],
)
def test_what_does_not_go_with_vine_is_named(key, value):
    vine = {"rollout.scheme": "vine", "value.name": "none", "rollout.rollout_set_size": 2048}
    assert updated(RunSettings(), vine).rollout.scheme == "vine"
    with pytest.raises(UserError, match=rf"{key}={str(value).lower()} does not go with rollout\.scheme=vine: .*"):
        updated(RunSettings(), {**vine, key: value})


def test_a_population_needs_no_batch_that_is_a_multiple_of_the_environments():
    settings = from_keywords(rule={"name": "cem"}, rollout={"scheme": "population"}, num_envs=7)
    assert settings.env.num_envs == 7


def test_keywords_reach_their_keys():
    settings = from_keywords(
        delta=0.02,
        gamma=0.5,
        id="CartPole-v1",
        policy={"hidden_sizes": [32], "activation": "relu"},
        env={"num_envs": 4},
    )
    expected = RunSettings()
    expected.rule.delta, expected.gamma, expected.env.id, expected.env.num_envs = 0.02, 0.5, "CartPole-v1", 4
    expected.policy.hidden_sizes, expected.policy.activation = [32], "relu"
    assert settings == expected


def test_name_is_the_variant_and_not_the_rule():
    assert from_keywords(name="x").name == "x"
    assert from_keywords(name="x").rule.name == RunSettings().rule.name


@pytest.mark.parametrize(
    ("keywords", "parts"),
    [
        ({"hidden_sizes": [3]}, ["hidden_sizes is ambiguous", "policy.hidden_sizes", "value.hidden_sizes"]),
        ({"every": 1}, ["ambiguous", "evaluation.every", "checkpoint.every"]),
        ({"gama": 0.5}, ["unknown key gama", "did you mean gamma?"]),
        ({"rule": {"dleta": 0.5}}, ["unknown key rule.dleta", "did you mean rule.delta?"]),
        ({"xyzzy": 1}, ["unknown key xyzzy"]),
        ({"delta": -1.0}, ["rule.delta=-1.0"]),
        ({"rule": {"delta": "a"}}, ["rule.delta='a'"]),
        ({"rule": 5}, ["rule"]),
    ],
)
def test_keywords_that_do_not_fit(keywords, parts):
    with pytest.raises(UserError) as error:
        from_keywords(**keywords)
    assert all(part in str(error.value) for part in parts), error.value


def test_dicts_round_trip():
    settings = from_keywords(
        env={"kwargs": {"a": [1, {"b": None}]}}, max_episode_steps=5, tags=["x"], threads=2, seed=2**63 - 1, delta=1e-9
    )
    values = to_dict(settings)
    assert from_dict(values) == settings
    values["rule"]["delta"] = 0.5
    assert settings.rule.delta == 1e-9


def test_keys_are_all_leaves_in_order_of_declaration():
    flat = []
    for item in dataclasses.fields(RunSettings):
        value = getattr(RunSettings(), item.name)
        if dataclasses.is_dataclass(value):
            flat += [f"{item.name}.{inner.name}" for inner in dataclasses.fields(value)]
        else:
            flat.append(item.name)
    assert list(keys()) == flat and set(flat) < set(KEYS)


@pytest.mark.parametrize("scheme", ["vine", "exact"])
@pytest.mark.parametrize("key", ["rule.curvature=empirical_fisher", "rule.discounted_state_weights=true"])
def test_options_that_need_single_paths_are_refused_elsewhere(scheme, key):
    name, _, value = key.partition("=")
    base = {"rollout.scheme": scheme, "value.name": "none", "rule.fisher_fraction": 1.0}
    settings = updated(RunSettings(), base)
    refused = "does not count with|does not go with"
    with pytest.raises(UserError, match=f"^({key}|{name}) ({refused}) rollout.scheme={scheme}"):
        updated(settings, {name: True if value == "true" else value})


def test_progress_is_the_larger_share_of_both_budgets():
    settings = updated(RunSettings(), {"total_env_steps": 1000})
    assert [progress(settings, 7, steps) for steps in (0, 250, 1000, 1200)] == [0.0, 0.25, 1.0, 1.0]
    settings = updated(settings, {"total_iterations": 10})
    assert [progress(settings, i, 250) for i in (0, 2, 5, 10, 11)] == [0.25, 0.25, 0.5, 1.0, 1.0]


def test_a_key_of_another_method_is_refused_with_the_choice_that_it_belongs_to():
    for values, said in [
        ({"rule.learning_rate": 9.0}, "rule.name=trust_region: it belongs to rule.name=vanilla_policy_gradient"),
        ({"rule.elite_fraction": 0.5}, "rule.name=trust_region: it belongs to rule.name=cem"),
        ({"value.l2": 1.0}, "value.name=adam: it belongs to value.name=lbfgs or value.name=linear"),
        ({"rollout.branches": 3}, "rollout.scheme=single_path: it belongs to rollout.scheme=vine"),
        ({"rule.step_size": 1.0}, "rule.step_length=damped: it belongs to rule.step_length=fixed"),
        ({"normalize.rewards": False, "normalize.reward_clip": 5.0}, "normalize.rewards=false: it belongs to"),
        ({"rule.name": "vanilla_policy_gradient", "rule.delta": 0.1}, "it belongs to rule.name=trust_region"),
    ]:
        key = list(values)[-1]
        with pytest.raises(UserError) as error:
            updated(RunSettings(), values)
        assert str(error.value).startswith(f"{key} does not count with") and said in str(error.value)


def test_choosing_another_method_leaves_the_keys_of_the_one_before_behind():
    before = updated(RunSettings(), {"rule.delta": 0.5, "rule.max_rejections": 7})
    after = updated(before, {"rule.name": "vanilla_policy_gradient"})
    assert after.rule.max_rejections == 7 and "rule.delta" not in keys(after)
    assert get(updated(after, {"rule.name": "trust_region"}), "rule.delta") == 0.01


def test_keywords_are_those_of_the_chosen_methods():
    assert from_keywords(learning_rate=0.5).value.learning_rate == 0.5  # no rule here has one
    with pytest.raises(UserError, match="learning_rate is ambiguous"):
        from_keywords(learning_rate=0.5, rule={"name": "vanilla_policy_gradient"})
    with pytest.raises(UserError, match=r"rule\.elite_fraction does not count with rule\.name=trust_region"):
        from_keywords(elite_fraction=0.5)


@pytest.mark.parametrize("key", KEYS)
def test_a_record_of_what_counts_is_complete(key):
    settings = check(settings_where(key))
    assert from_record(to_dict(settings)) == from_dict(to_dict(settings)) == settings
    assert (key in counting_keys(settings)) and set(counting_keys(settings)) <= set(keys(settings))


def test_a_record_from_before_keys_belonged_to_methods_is_read():
    record = to_dict(RunSettings())
    record["rule"] |= {"learning_rate": 0.003, "elite_fraction": 0.2, "covariance": "auto", "step_size": 5.0}
    record["rollout"] |= {"branches": 9}
    record["value"] |= {"l2": 0.5}
    assert from_record(record) == RunSettings()
    with pytest.raises(UserError, match=r"unknown key rule\.no_such"):
        from_record({**record, "rule": {**record["rule"], "no_such": 1}})


def test_each_method_has_its_keys_in_the_help_and_no_key_is_without_a_method():
    owned = {
        f"{key.partition('.')[0]}.{item.name}"
        for key, choice in CHOICES.items()
        for method in choice.methods.values()
        for item in dataclasses.fields(method.settings)
    }
    groups = tuple(f"{key.partition('.')[0]}." for key in CHOICES)
    assert owned == {key for key in KEYS if key.startswith(groups)}


def test_an_annealed_run_is_the_beginning_of_a_longer_one():
    annealed = RunSettings()
    assert not depends_on_budget(annealed)
    assert depends_on_budget(updated(annealed, {"rule.annealing_steps": None}))
    assert not depends_on_budget(updated(annealed, {"rule.final_delta": None}))


def test_keys_of_what_is_off_do_not_count():
    for key, value, off in (
        ("rule.annealing_steps", 500, "rule.final_delta"),
        ("rule.kl_state_slack", 5.0, "rule.kl_slack"),
    ):
        with pytest.raises(UserError, match=f"^{key} does not count with {off}=null: it belongs to {off}=a number"):
            updated(RunSettings(), {off: None, key: value})
        assert key not in counting_keys(updated(RunSettings(), {off: None}))
