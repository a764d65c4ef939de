"""What is typed is what is taken: names stay texts, padded numbers are decimal, arguments of environments add up."""

import numpy as np
import pytest
import torch

from trpo_lightning.errors import UserError
from trpo_lightning.runs.config import load_settings, recorded_settings, write_config
from trpo_lightning.settings import from_keywords, get

ODD = [
    *("1e3", "1.10", "2024-01-01", "2024_10_05", "010", "0010", "12:30", "1:30.5", "0x1F", "1_000", "+5", ".5", "-3"),
    *("no", "on", "Yes", "true", "NULL", "None", "nan", ".inf", "#3", "a #b", "a: b", "50%", "@me", "*", "1e3,seed=2"),
]


def in_file(tmp_path, text):
    file = tmp_path / "my.yaml"
    file.write_text(text, encoding="utf-8")
    return load_settings([], file)


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("key", ["name", "tracking.project", "tracking.group", "tracking.entity"])
def test_a_text_on_the_command_line_is_taken_letter_by_letter(tmp_path, key, text):
    found = load_settings([f"{key}={text}"])
    expected = None if text == "NULL" and key in ("tracking.group", "tracking.entity") else text
    assert get(found, key) == expected
    write_config(found, tmp_path / "config.yaml")
    assert get(recorded_settings(tmp_path), key) == expected


@pytest.mark.parametrize("text", [text for text in ODD if text not in ("#3", "a #b", "a: b", "@me", "*", "50%")])
def test_a_text_in_a_file_is_taken_letter_by_letter(tmp_path, text):
    found = in_file(tmp_path, f"name: {text}\ntracking:\n  group: {text}\n  tags: [{text.replace(',', ' ')}, plain]\n")
    assert found.name == text
    assert found.tracking.group == (None if text == "NULL" else text)
    assert found.tracking.tags == [text.replace(",", " "), "plain"]


def test_tags_on_the_command_line_are_texts():
    assert load_settings(["tracking.tags=[1.10, 010, no, 2024-01-01]"]).tracking.tags == [
        "1.10",
        "010",
        "no",
        "2024-01-01",
    ]


def test_a_list_of_texts_needs_no_brackets():
    assert load_settings(["tracking.tags=1.10, 010,no"]).tracking.tags == ["1.10", "010", "no"]
    assert load_settings(["tracking.loggers=mlflow"]).tracking.loggers == ["mlflow"]
    with pytest.raises(UserError, match=r"tracking\.tags\[1\] is empty"):
        load_settings(["tracking.tags=a,,b"])


@pytest.mark.parametrize(("text", "name"), [("'x y'", "x y"), ('"a\\tb"', "a\tb"), ("'1'", "1"), (" x ", "x")])
def test_quotes_are_those_of_yaml(text, name):
    assert load_settings([f"name={text}"]).name == name


@pytest.mark.parametrize(
    ("text", "seed"), [("010", 10), ("08", 8), ("0", 0), ("00", 0), ("1_000", 1000), ("'010'", 10), ("0x10", 16)]
)
def test_a_seed_with_zeros_before_it_is_decimal(tmp_path, text, seed):
    assert load_settings([f"seed={text}"]).seed == seed
    assert in_file(tmp_path, f"seed: {text}").seed == seed


@pytest.mark.parametrize("text", ["1:30", "2024-01-01", "1e3", "0o17"])
def test_what_is_no_whole_number_is_no_seed(tmp_path, text):
    for read in (lambda: load_settings([f"seed={text}"]), lambda: in_file(tmp_path, f"seed: {text}")):
        with pytest.raises(UserError, match="seed"):
            read()


def test_padded_numbers_in_lists_and_arguments_are_decimal(tmp_path):
    found = load_settings(["policy.hidden_sizes=[064, 032]", "env.kwargs.day=010", "env.kwargs.at=12:30"])
    assert found.policy.hidden_sizes == [64, 32]
    assert found.env.kwargs == {"day": 10, "at": "12:30"}
    assert in_file(tmp_path, "env: {kwargs: {day: 010, name: 1e3}}").env.kwargs == {"day": 10, "name": 1000.0}


@pytest.mark.parametrize("other", [[], ["total_env_steps=${oc.decode:'1000'}"]])
@pytest.mark.parametrize(
    ("overrides", "kwargs"),
    [
        (["env.kwargs.noise=0.5"], {"length": 3, "bonus": {"a": 1}, "noise": 0.5}),
        (["env.kwargs.length=4"], {"length": 4, "bonus": {"a": 1}}),
        (["env.kwargs.bonus.b=2"], {"length": 3, "bonus": {"a": 1, "b": 2}}),
        (["env.kwargs.bonus={b: 2}"], {"length": 3, "bonus": {"b": 2}}),
        (["env.kwargs={noise: 1}"], {"noise": 1}),
        (["env.kwargs={}"], {}),
        (["env.kwargs={a: 1}", "env.kwargs.b=2"], {"a": 1, "b": 2}),
        (["env.kwargs.b=2", "env.kwargs={a: 1}"], {"a": 1}),
        (["env.kwargs={a: 1}", "env.kwargs={b: 1}"], {"b": 1}),
    ],
)
def test_an_argument_on_the_command_line_joins_the_files_and_a_mapping_replaces_them(
    tmp_path, overrides, kwargs, other
):
    (tmp_path / "my.yaml").write_text("env: {kwargs: {length: 3, bonus: {a: 1}}}")
    assert load_settings([*overrides, *other], tmp_path / "my.yaml").env.kwargs == kwargs


def test_a_file_may_name_single_arguments(tmp_path):
    assert in_file(tmp_path, "env.kwargs.length: 3\nenv: {kwargs: {bonus: 1}}").env.kwargs == {"bonus": 1, "length": 3}


def test_numbers_of_numpy_and_torch_are_settings():
    found = from_keywords(
        seed=np.int64(3),
        delta=np.float32(0.25),
        gamma=torch.tensor(0.5),
        num_envs=np.array(4),
        asynchronous=np.bool_(True),
        policy={"hidden_sizes": [np.int32(8)]},
        env={"kwargs": {"mass": np.float64(2.0), "gaps": [np.int8(1)]}},
    )
    assert (found.seed, found.rule.delta, found.gamma, found.env.num_envs) == (3, 0.25, 0.5, 4)
    assert found.env.asynchronous is True and found.policy.hidden_sizes == [8]
    assert found.env.kwargs == {"mass": 2.0, "gaps": [1]}
    values = (found.seed, found.rule.delta, found.env.num_envs, *found.policy.hidden_sizes, found.env.kwargs["mass"])
    assert {type(value) for value in values} == {int, float}


@pytest.mark.parametrize("seed", [np.float64(3.0), np.array([3]), np.bool_(True)])
def test_what_is_no_whole_number_of_numpy_is_no_seed(seed):
    with pytest.raises(UserError, match="seed"):
        from_keywords(seed=seed)


def test_sizes_are_typed_as_people_write_them():
    settings = load_settings(["total_env_steps=1e6", "policy.hidden_sizes=64,32", "value.hidden_sizes=16"])
    assert settings.total_env_steps == 1_000_000 and type(settings.total_env_steps) is int
    assert settings.policy.hidden_sizes == [64, 32] and settings.value.hidden_sizes == [16]  # type: ignore[attr-defined]
    assert load_settings(["value.hidden_sizes=${policy.hidden_sizes}"]).value.hidden_sizes == [64, 64]  # type: ignore[attr-defined]
