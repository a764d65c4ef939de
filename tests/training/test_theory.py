"""Whole runs with a known model: the records of the theory, and exact resume."""

import itertools
from pathlib import Path

import pytest
from methods import on_top_of

from trpo_lightning.errors import UserError
from trpo_lightning.runs import checkpoint
from trpo_lightning.runs.config import load_settings
from trpo_lightning.runs.metrics_file import read_rows
from trpo_lightning.runs.run import train_run
from trpo_lightning.training.module import TRPO

RUN = [
    "env.id=FrozenLake-v1",
    "rollout.scheme=exact",
    "value.name=none",
    "policy.hidden_sizes=[]",
    "rule.fisher_fraction=1.0",
    "gamma=0.9",
    "checkpoint.every=3",
    "evaluation.every=0",
    "tracking.wandb=disabled",
    "threads=1",
]
RULES = {"algorithm_1": ["rule.name=algorithm_1"], "trust_region": ["rule.name=trust_region", "rule.damping=0.001"]}


def train(run_dir: Path, rule: str, iterations: int, resume: bool = False) -> list[dict]:
    settings = on_top_of(RUN, [*RULES[rule], f"total_env_steps={64 * iterations}"])
    train_run(settings, run_dir, resume=resume, quiet=True)
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_rows(run_dir / "metrics.csv")]


@pytest.mark.parametrize("rule", RULES)
def test_the_records_are_those_of_the_theory_and_a_resumed_run_has_the_same(tmp_path, rule):
    rows = train(tmp_path / "whole", rule, 6)
    assert [row["env_steps"] for row in rows] == [str(64 * k) for k in range(1, 7)]
    values = [[float(row[f"theory/{name}"]) for name in ("return", "improvement", "bound", "max_kl")] for row in rows]
    for (before, *_), (after, improvement, bound, kl) in itertools.pairwise(values):
        assert after - before == pytest.approx(improvement, abs=1e-15)
        assert improvement > 0.0 and kl > 0.0 and bound < after
        assert (bound > before) == (rule == "algorithm_1")
    for row in rows:  # KL(old || new): far apart policies tell the order of the arguments
        assert float(row["theory/max_kl"]) == pytest.approx(float(row["trust_region/kl_max"]), rel=1e-3)
    train(tmp_path / "parts", rule, 3)
    assert train(tmp_path / "parts", rule, 6, resume=True) == rows
    first, second = (
        checkpoint.read(checkpoint.checkpoint_files(tmp_path / name / "checkpoints")[0]) for name in ("whole", "parts")
    )
    assert all((first["policy"][k] == second["policy"][k]).all() for k in first["policy"])


def test_the_practical_step_is_far_larger(tmp_path):
    exact, practical = (train(tmp_path / rule, rule, 1)[0] for rule in ("algorithm_1", "trust_region"))
    assert float(practical["theory/max_kl"]) > 1e4 * float(exact["theory/max_kl"])
    assert float(practical["theory/improvement"]) > 50 * float(exact["theory/improvement"])


def test_an_environment_without_a_table_is_one_line():
    with pytest.raises(UserError, match=r"CartPole-v1.*no table"):
        TRPO(settings=load_settings([*RUN, "env.id=CartPole-v1"]))
