"""What a run leaves is what the documentation says."""

from fnmatch import fnmatch

from trpo_lightning.__main__ import main
from trpo_lightning.runs.files import FILES

SMALL = """env.id=CartPole-v1 env.backend=gymnasium env.num_envs=2 env.max_episode_steps=20
    rollout.steps_per_iteration=32 policy.hidden_sizes=[4] value.hidden_sizes=[4] value.epochs=1 checkpoint.every=1
    evaluation.every=1 evaluation.episodes=1 tracking.wandb=offline tracking.loggers=wandb,tensorboard threads=1
    total_iterations=2""".split()


def test_every_file_of_a_run_is_described(tmp_path):
    assert main(["train", *SMALL, "--run-dir", str(tmp_path), "--quiet"]) == 0
    for policy in ("last", "best"):
        assert main(["evaluate", str(tmp_path), "--episodes", "1", "--policy", policy]) == 0
    left = [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()]
    assert all(any(fnmatch(file, pattern) for pattern in FILES) for file in left), left
    others = {"failed_update_*.pt", "traceback.txt", "log.txt", "video_*.mp4", "trackers.json"}  # of failures and so on
    for pattern in set(FILES) - others:
        assert any(fnmatch(file, pattern) for file in left), pattern
