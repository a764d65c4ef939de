"""TRPO in your own Trainer, with Lightning's logger and callbacks.

python examples/lightning_native.py
"""

from pathlib import Path

import gymnasium as gym
import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from trpo_lightning import TRPO, load

FOLDER = Path("runs/lightning_native")


def train() -> TRPO:
    """Balance a pole, for at most 40 iterations or until the mean return is 400."""
    module = TRPO("InvertedPendulum-v5", num_envs=16, steps_per_iteration=1024, delta=0.05)
    metric = {"monitor": "episode/return_mean", "mode": "max"}
    best = ModelCheckpoint(FOLDER / "checkpoints", filename="best", **metric)
    solved = EarlyStopping(**metric, stopping_threshold=400.0, patience=40)
    trainer = pl.Trainer(
        max_epochs=40,  # an epoch is an iteration
        logger=CSVLogger(FOLDER, name="logs"),
        callbacks=[best, solved],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module)
    print(f"{module.iteration} iterations, mean return {best.best_model_score:.0f}")
    return module


def play(file: Path) -> float:
    """The return of one episode of the policy in a file, without noise."""
    policy, env = load(file), gym.make("InvertedPendulum-v5")
    observation, _ = env.reset(seed=0)
    total, over = 0.0, False
    while not over:
        observation, reward, terminated, truncated, _ = env.step(policy.act(observation))
        total, over = total + float(reward), terminated or truncated
    return total


if __name__ == "__main__":
    train().save(FOLDER / "policy.pt")
    print(f"one episode without noise: {play(FOLDER / 'policy.pt'):.0f}")
