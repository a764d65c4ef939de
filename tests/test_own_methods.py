"""`module:Class` for each choosing key: its keys are keys like all others, and what does not fit is one line."""

import csv
import re

import pytest
import torch

from trpo_lightning import TRPO, UserError, load
from trpo_lightning.__main__ import main
from trpo_lightning.runs.config import load_settings, recorded_settings, write_config
from trpo_lightning.runs.records import read_status
from trpo_lightning.settings import (
    CHOICES,
    counting_keys,
    from_keywords,
    from_record,
    get,
    keys,
    load_class,
    to_dict,
    updated,
)
from trpo_lightning.storage import checksummed_file
from trpo_lightning.training.batches import make_batch
from trpo_lightning.user_modules import own_line, users_failure

SMALL = [
    *("env.id=CartPole-v1", "env.num_envs=4", "env.backend=gymnasium", "rollout.steps_per_iteration=32"),
    *("policy.hidden_sizes=[4]", "checkpoint.every=2", "evaluation.every=0", "tracking.wandb=disabled", "threads=1"),
]
OWN = ["rule.name=own_methods:Drift", "rule.drift=0.02", "policy.name=own_methods:WideStart"]
OWN += ["value.name=own_methods:Constant", "value.level=0.25", "rollout.scheme=own_methods:ShyPath"]


def rows(run_dir):
    with open(run_dir / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_all_four_together_train_resume_exactly_and_act(tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(["train", *SMALL, *OWN, "total_iterations=6", "--run-dir", str(whole), "--quiet"]) == 0
    assert main(["train", *SMALL, *OWN, "total_iterations=4", "--run-dir", str(parts), "--quiet"]) == 0
    assert main(["train", "--resume", str(parts), "total_iterations=6", "--quiet"]) == 0
    capsys.readouterr()
    states = [checksummed_file.read(path / "checkpoints" / "barrier_00000006.ckpt") for path in (whole, parts)]
    assert states[0]["rule"] == states[1]["rule"] == {"updates": 6}
    assert all(torch.equal(a, states[1]["policy"][name]) for name, a in states[0]["policy"].items())
    assert load(whole).act([0.0, 0.0, 0.0, 0.0]) in (0, 1)
    settings = recorded_settings(whole)
    assert settings.rule.drift == 0.02 and settings.value.level == 0.25 and settings.rollout.skipped == 0


@pytest.mark.parametrize("key", CHOICES)
def test_a_built_in_class_named_as_if_it_were_from_outside_is_the_same_method(key):
    for name, method in CHOICES[key].methods.items():
        assert load_class(key, method.target) is load_class(key, name)
        settings = method.settings
        assert settings is load_class(key, name).Settings or issubclass(settings, load_class(key, name).Settings)


def test_a_built_in_rule_named_by_its_class_computes_the_same_bits():
    thetas = []
    for name in ("trust_region", "trpo_lightning.rules.trust_region:TrustRegionRule"):
        module = TRPO(settings=load_settings([*SMALL, f"rule.name={name}", "rule.delta=0.5"]))
        batch = make_batch(module.collect(), module.value_function, module.settings, module.device).batch
        thetas.append(module.update(batch).theta)
    assert torch.equal(*thetas)


def test_its_keys_have_help_types_ranges_and_errors(capsys):
    with pytest.raises(SystemExit):
        main(["train", "rule.name=own_methods:Drift", "--help"])
    line = next(line for line in capsys.readouterr().out.splitlines() if "rule.drift" in line)
    assert "rule.drift=0.01" in line and "what is added to each parameter [made up]" in line
    for override, said in [
        ("rule.drift=-1", "rule.drift=-1.0 is too small"),
        ("rule.drift=x", "rule.drift"),
        ("rule.drfit=1", "unknown key rule.drfit (did you mean rule.drift?)"),
        ("rule.delta=1", "rule.delta does not count with rule.name=own_methods:Drift"),
    ]:
        with pytest.raises(UserError) as error:
            load_settings([*SMALL, "rule.name=own_methods:Drift", override])
        assert said in str(error.value)


def test_keywords_and_records_know_them():
    settings = from_keywords(rule={"name": "own_methods:Drift"}, drift=0.5)
    assert get(settings, "rule.drift") == 0.5 and "rule.delta" not in keys(settings)
    assert from_record(to_dict(settings)) == settings and "rule.drift" in counting_keys(settings)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("rule.name=no_such_module:Rule", "module no_such_module cannot be imported"),
        ("rule.name=own_methods:NoSuch", "module own_methods has no NoSuch"),
        ("rule.name=:Rule", "write module:Class"),
        ("rule.name='own_methods:'", "write module:Class"),
        ("rule.name=own_methods:NotAMethod", "is not a subclass of trpo_lightning.rules.rule.UpdateRule"),
        ("rule.name=own_methods:ShyPath", "is not a subclass of"),
        ("policy.name=own_methods:Drift", "is not a subclass of trpo_lightning.policies.policy.Policy"),
        ("rule.name=own_methods:NoDataclass", "must be a dataclass derived from"),
        ("rule.name=own_methods:Undeclared", "Settings.plain: declare it with"),
        ("rule.name=own_methods:Clashing", "Settings.max_rejections clashes"),
        ("rule.name=trust_regoin", "rule.name='trust_regoin' is not one of trust_region"),
    ],
)
def test_what_is_no_method_is_one_line(override, said, tmp_path, capsys):
    assert main(["train", *SMALL, override, "--run-dir", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and override.partition("=")[0] in line and said in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("rule.name=own_methods:WrongShape", "parameters of shape"),
        ("rule.name=own_methods:Writes", "wrote to the policy"),
        ("rule.name=own_methods:ReturnsNothing", "update returned a NoneType, not a RuleResult"),
        ("rule.name=own_methods:NoTheta", "update returned a NoneType for theta, not a Tensor"),
        ("rule.name=own_methods:NoMetrics", "update returned a NoneType for metrics, not a dict"),
        ("value.name=own_methods:ShortValues", "ShortValues.predict returned shape [3] for"),
        ("value.name=own_methods:ArrayOfValues", "ArrayOfValues.predict returned a ndarray for"),
        ("value.name=own_methods:MeasuresNothing", "MeasuresNothing.measure returned a NoneType, not a dict"),
    ],
)
def test_a_method_that_breaks_its_contract_is_one_line(method, said, tmp_path, capsys):
    assert main(["train", *SMALL, method, "--run-dir", str(tmp_path / "run"), "--quiet"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert said in line and (method in line or method.startswith("value"))


def test_an_exception_in_a_method_is_one_line_with_its_file_and_line(tmp_path, capsys, monkeypatch):
    command = ["train", *SMALL, "rule.name=own_methods:Fails", "--quiet", "--run-dir"]
    assert main([*command, str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert re.search(r"^error: .*own_methods\.py:\d+: RuntimeError: .*the traceback is in", said, re.M)
    assert "Traceback" not in said and read_status(tmp_path / "run")["state"] == "failed"
    assert "own_methods.py" in (tmp_path / "run" / "traceback.txt").read_text(encoding="utf-8")
    assert f"the traceback is in {tmp_path / 'run' / 'traceback.txt'}" in said
    monkeypatch.setenv("TRPO_FULL_ERROR", "1")
    with pytest.raises(RuntimeError):
        main([*command, str(tmp_path / "again")])


def test_a_file_alone_has_no_code_run(tmp_path, capsys, monkeypatch):
    assert main(["train", *SMALL, *OWN, "total_iterations=2", "--run-dir", str(tmp_path / "run"), "--quiet"]) == 0
    capsys.readouterr()
    policy = tmp_path / "policy.pt"
    policy.write_bytes((tmp_path / "run" / "checkpoints" / "last.pt").read_bytes())
    monkeypatch.setattr("trpo_lightning.settings.choices._OWN", {})
    with pytest.raises(UserError, match="names code to run"):
        load(policy)
    assert load(tmp_path / "run").act([0.0] * 4) in (0, 1)  # whose config.yaml is the user's own
    write_config(load_settings(SMALL), tmp_path / "run" / "config.yaml")
    monkeypatch.setattr("trpo_lightning.settings.choices._OWN", {})
    with pytest.raises(UserError, match="names code to run"):
        load(tmp_path / "run")


def test_a_method_s_own_defaults_count_unless_a_value_was_given(tmp_path):
    longer = "rule.name=own_methods:Longer"
    assert load_settings([longer]).rule.delta == 0.05
    assert from_keywords(rule={"name": "own_methods:Longer"}).rule.delta == 0.05
    (tmp_path / "base.yaml").write_text("rule: {delta: 0.01}\n", encoding="utf-8")
    assert load_settings([longer], tmp_path / "base.yaml").rule.delta == 0.01
    given = load_settings(["rule.delta=0.02", "value.epochs=3"])
    assert updated(given, {"rule.name": "own_methods:Longer"}).rule.delta == 0.02
    clash = {"value.name": "own_methods:Clash", "gae_lambda": 1.0}
    assert updated(given, clash).value.epochs == load_settings(["value.name=own_methods:Clash"]).value.epochs == "many"


def test_a_value_function_with_the_documented_signatures_stands_on_the_policy_s_features():
    trpo = TRPO(
        "CartPole-v1",
        num_envs=2,
        steps_per_iteration=32,
        value={"name": "own_methods:Documented", "features": "policy"},
    )
    estimated = make_batch(trpo.collect(), trpo.value_function, trpo.settings, trpo.device)
    trpo.fit_values(estimated.value_data).finish()
    trpo.scheme.close()


def test_failures_of_installed_packages_are_not_taken_for_the_user_s(tmp_path, monkeypatch):
    package = tmp_path / "elsewhere" / "site-packages"
    package.mkdir(parents=True)
    (package / "a_library.py").write_text("def fail():\n    raise RuntimeError('a bug of its own')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(package)
    import a_library

    with pytest.raises(RuntimeError) as caught:
        exec(compile("a_library.fail()", "<none>", "exec"), {"a_library": a_library})
    assert own_line(caught.value).partition(":")[0] == __file__  # this test, which called it
    error = RuntimeError("x").with_traceback(caught.value.__traceback__.tb_next.tb_next.tb_next)
    assert users_failure(error) is None
