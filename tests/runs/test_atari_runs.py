"""Runs on Atari: resumed to the bit with both backends and by vine, evaluated, filmed, and acting from a file."""

import json

import imageio.v3 as iio
import numpy as np
import pytest
from test_barriers import assert_same_bits, newest

from trpo_lightning import load
from trpo_lightning.__main__ import main
from trpo_lightning.runs.config import load_settings
from trpo_lightning.runs.run import train_run

pytest.importorskip("ale_py")
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # imageio's pipes to ffmpeg
NETWORK = ["image_network=sizes", "convolutions=[4x4/4]", "hidden_sizes=[8]"]
BASE = [
    *("env.id=ALE/Breakout-v5", "env.num_envs=2", "env.frame_size=[24,24]", "env.max_episode_steps=25"),
    *("env.noop_max=4", "env.sticky_actions=0.25", "rollout.steps_per_iteration=60", "checkpoint.every=2"),
    *("evaluation.every=0", "normalize.reward_signs=true", "tracking.wandb=disabled", "threads=1"),
    *(f"policy.{key}" for key in NETWORK),
]
VALUE = ["value.epochs=1", *(f"value.{key}" for key in NETWORK)]
VINE = ["value.name=none", "rollout.scheme=vine", "rollout.rollout_set_size=5", "rollout.branches=2"]
VINE += ["rollout.branch_length=6", "rollout.branch_actions=uniform"]
VARIANTS = {
    "envpool": ["env.backend=envpool", *VALUE],
    "gymnasium": ["env.backend=gymnasium", "env.episodic_life=true", *VALUE],
    "vine": VINE,
    "memory": ["policy.name=gru", "value.name=lstm", "env.frame_stack=1", *VALUE],
}


def train(run_dir, variant, iterations, resume=False):
    keys = [*BASE, *VARIANTS[variant], f"total_iterations={iterations}"]
    train_run(load_settings(keys), run_dir, resume=resume, quiet=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, variant):
    if variant == "envpool":
        pytest.importorskip("envpool")
    train(tmp_path / "whole", variant, 4)
    train(tmp_path / "parts", variant, 2)
    train(tmp_path / "parts", variant, 4, resume=True)
    whole, parts = newest(tmp_path / "whole"), newest(tmp_path / "parts")
    assert_same_bits(whole["policy"], parts["policy"])
    assert whole["env_steps"] == parts["env_steps"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(folder, "gymnasium", 1)
    return folder


def test_a_run_is_evaluated_and_filmed(run_dir, capsys):
    assert main(["evaluate", str(run_dir), "--episodes", "1", "--video", "--policy", "last"]) == 0
    record = json.loads((run_dir / "evaluation.json").read_text())
    assert len(record["stochastic"]["returns"]) == 1
    frames = iio.imread(run_dir / "video_last.mp4")
    assert frames.shape[1:] == (210, 160, 3) and 1 < len(frames) <= 25 and frames.std() > 0


def test_a_policy_file_acts_on_what_the_environment_shows(run_dir):
    policy = load(run_dir, "last")
    env = policy.make_env()
    seen, _ = env.reset(seed=0)
    action = policy.act(seen)
    assert isinstance(action, int) and action in env.action_space
    batch = policy.act(np.stack([seen, seen]), deterministic=False)
    assert batch.shape == (2,)
    env.step(action)
    env.close()
    with pytest.raises(ValueError, match="images must be uint8"):
        policy.act(seen.astype(np.float32))
    with pytest.raises(ValueError, match="observations must be one of Box"):
        policy.act(seen[:, :-1])
