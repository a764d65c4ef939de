"""Rollouts that do not fit into memory are refused before they are allocated."""

import re

import numpy as np
import pytest
from environments import OneStep
from gymnasium import spaces

from trpo_lightning import TRPO, UserError
from trpo_lightning.rollouts import memory


class Big(OneStep):
    def __init__(self, numbers=1_000_000):
        super().__init__(spaces.Box(0, 255, (numbers,), np.uint8), spaces.Discrete(2))


SMALL = dict(num_envs=4, policy={"hidden_sizes": [4]}, value={"hidden_sizes": [4]}, threads=1)


def test_a_million_numbers_are_told_with_what_to_reduce(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 10_000_000_000)
    with pytest.raises(
        UserError, match=r"observations of 1,000,000 numbers: rollout\.steps_per_iteration=4096"
    ) as told:
        TRPO(Big, steps_per_iteration=4096, **SMALL)
    fitting = int(re.search(r"use (\d+) or fewer", str(told.value))[1])
    assert fitting == 200  # half of the memory, 25 bytes a number
    TRPO(Big, steps_per_iteration=fitting, **SMALL)


def test_what_fits_narrowly_is_said(monkeypatch, capsys):
    monkeypatch.setattr(memory, "available_memory", lambda: 10_000_000_000)
    TRPO(Big, steps_per_iteration=300, **SMALL)
    assert "warning: env.id=" in capsys.readouterr().out


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    whole = memory.available_memory()
    assert whole > 10_000_000
    (tmp_path / "memory.current").write_text("1000000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_memory() > 10_000_000
    (tmp_path / "memory.max").write_text("3000000\n")
    assert memory.available_memory() == 2_000_000
