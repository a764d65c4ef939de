from pathlib import Path

import pytest

from trpo_lightning.errors import UserError
from trpo_lightning.experiment.claims import Claim, check_names, read_claims
from trpo_lightning.experiment.declaration import load_experiment

FILE = Path("experiments/some.yaml")
GOOD = {"says": "It learns.", "statistic": "score", "of": "a", "above": 3, "seeds": 5}
CELLS = [("Hopper-v5", "a"), ("Hopper-v5", "b"), ("Ant-v5", "a")]


def refused(changes):
    values = {key: value for key, value in {**GOOD, **changes}.items() if value is not ...}
    with pytest.raises(UserError) as error:
        read_claims(FILE, [GOOD, {**values, "says": values.get("says", "x") + "!"} if "says" in values else values])
    assert str(error.value).startswith(f"{FILE}: claim 2") and "\n" not in str(error.value)
    return str(error.value)


def test_a_claim_is_read():
    values = {"says": "a before b", "statistic": "first", "level": 2, "of": ["a", 3], "than": "b", "below": -1.5}
    (claim,) = read_claims(FILE, [{**values, "seeds": 7, "environment": "Ant-v5", "confidence": 0.9}])
    assert claim == Claim("a before b", "first", ("a", "3"), ("b",), "Ant-v5", 2.0, "below", -1.5, 7, 0.9)
    assert read_claims(FILE, [GOOD])[0].confidence == 0.95 and read_claims(FILE, []) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"thrseshold": 3}, "unknown key thrseshold"),
        ({"statistik": "score"}, "did you mean statistic?"),
        ({"says": ...}, "the key says is missing"),
        ({"of": ...}, "the key of is missing"),
        ({"seeds": ...}, "the key seeds is missing"),
        (
            {"statistic": "median"},
            "statistic=median is not one of score, last_evaluation, best_evaluation, area, first",
        ),
        ({"above": ...}, "give the threshold as one of above, below, within"),
        ({"below": 4}, "give the threshold as one of above, below, within"),
        ({"above": "high"}, "above='high' is not a number"),
        ({"above": True}, "above=True is not a number"),
        ({"above": float("inf")}, "above=inf is not a number"),
        ({"above": 10**400}, "above is too large for a float"),
        ({"above": 16**9999}, "above is too large for a float"),
        ({"statistic": ["score"]}, "statistic=['score'] is not one of"),
        ({"above": ..., "within": 0}, "within=0 is too small"),
        ({"every_run": 1}, "every_run=1 is not true or false"),
        ({"every_run": True, "than": "b"}, "every_run goes with one variant"),
        ({"every_run": True, "of": ["a", "b"], "than": ...}, "every_run goes with one variant"),
        ({"seeds": 1}, "seeds=1 is too small"),
        ({"seeds": 2.5}, "seeds=2.5"),
        ({"confidence": 1}, "confidence=1 is not between"),
        ({"confidence": 95}, "confidence=95 is not between"),
        ({"level": 3}, "level goes with statistic=first"),
        ({"statistic": "first"}, "level goes with statistic=first"),
        ({"of": []}, "of names no variant"),
        ({"of": ["b", "b"]}, "of=['b', 'b'] is not a variant's name or a list"),
        ({"of": [1, "1"]}, "is not a variant's name or a list of different ones"),
        ({"of": {"b": 1}}, "is not a variant's name"),
        ({"than": "a"}, "a is in both of and than"),
        ({"statistic": "improvement"}, "compares one variant (of) with one other (than)"),
        ({"statistic": "improvement", "than": ["b", "c"]}, "compares one variant"),
    ],
)
def test_a_bad_claim_is_one_line_that_names_file_and_claim(changes, told):
    assert told in refused(changes)


def test_the_same_sentence_twice_is_refused():
    with pytest.raises(UserError, match=r"claim 2 says the same as one before: It learns\."):
        read_claims(FILE, [GOOD, {**GOOD, "above": 4}])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"environment": "Hopper-v5", "of": "bb"}, "there is no variant bb in Hopper-v5"),
        ({"environment": "Ant-v5", "than": "b"}, "there is no variant b in Ant-v5"),
        ({"environment": "Hopper-v4"}, "there is no environment Hopper-v4 (did you mean Hopper-v5?)"),
        ({}, "environment is missing: it is one of Hopper-v5, Ant-v5"),
        ({"statistic": "improvement", "than": "b"}, "there is no variant b in Ant-v5"),
    ],
)
def test_names_must_be_of_the_experiment(changes, told):
    claims = read_claims(FILE, [{**GOOD, "environment": "Hopper-v5"}, {**GOOD, "says": "x", **changes}])
    with pytest.raises(UserError) as error:
        check_names(claims, FILE, CELLS)
    assert f"{FILE}: claim 2: {told}" in str(error.value)


def test_names_are_those_of_the_full_scale(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    monkeypatch.chdir(tmp_path)
    head = "title: T\nhypothesis: H\nminutes: 1\naxes: {gamma: [0.5, 0.75]}\nscales: {quick: {axes: {gamma: [0.5]}}}\n"
    for name, fits in (("gamma=0.75", True), ("gamma=0.25", False)):
        claim = f"claims: [{{says: it is, statistic: score, of: gamma=0.5, than: {name}, above: 0, seeds: 3}}]"
        (tmp_path / "experiments" / "small.yaml").write_text(head + claim)
        for scale in ("full", "quick"):
            if fits:
                assert load_experiment("small", scale).claims[0].than == (name,)
            else:
                with pytest.raises(UserError, match=r"small\.yaml: claim 1: there is no variant gamma=0\.25"):
                    load_experiment("small", scale)
