"""The `evaluate` command: returns of a trained policy, and a video of it."""

import json
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from trpo_lightning.environments.user_code import names_code
from trpo_lightning.errors import UserError, first_line
from trpo_lightning.rollouts.episodes import run_episodes
from trpo_lightning.rollouts.video import record_episode
from trpo_lightning.runs.config import recorded_settings
from trpo_lightning.runs.files import EVALUATIONS
from trpo_lightning.runs.trained import load
from trpo_lightning.settings import RunSettings, to_dict
from trpo_lightning.storage.files import write_atomically
from trpo_lightning.threads import available_cores
from trpo_lightning.tracking.wandb_client import mode_of, open_run
from trpo_lightning.training.trained_policy import TrainedPolicy


def evaluate_run(run_dir: Path, which: str, episodes: int, seed: int, video: bool) -> None:
    """Print the returns of the deterministic and the stochastic policy, write them to a file and log them to W&B.

    Args:
        run_dir: What `load` takes. Of a single policy file, the results lie beside it under its name.
        which: As in `load`.
        episodes: How many, of each of the two.
        seed: Of environments and actions.
        video: Whether to film an episode, too.
    """
    run_dir, which = _in_run(run_dir, which)
    trained = load(run_dir, which)
    _refuse_foreign_code(trained, run_dir)
    results = {
        name: _episodes(trained, episodes, seed, name == "deterministic") for name in ("deterministic", "stochastic")
    }
    _print(trained, which, results)
    folder = run_dir if run_dir.is_dir() else run_dir.parent
    written = folder / (EVALUATIONS[which] if run_dir.is_dir() else f"evaluation_{which}.json")
    summary = {
        "policy": which,
        "env_steps": trained.env_steps,
        "seed": seed,
        **{name: {"returns": result.tolist(), "mean": float(result.mean())} for name, result in results.items()},
    }
    write_atomically(written, json.dumps(summary, indent=2).encode() + b"\n")
    print(f"written: {written}")
    file = None
    if video:
        file = folder / f"video_{which}.mp4"
        mean = record_episode(trained, file, seed)
        print(f"written: {file} (one episode of the deterministic policy, return {mean:.1f})")
    log_evaluation(written, trained.settings, summary, file)


def _in_run(path: Path, which: str) -> tuple[Path, str]:
    """The run directory that a policy file is of, and which of its policies; or the file itself, and its name."""
    if not path.is_file():
        return path, which
    if which != "last" and path.stem != which:
        raise UserError(f"{path} is one policy: --policy {which} goes with a run directory")
    checkpoints = path.absolute().parent
    of_run = checkpoints.name == "checkpoints" and (checkpoints.parent / "config.yaml").is_file()
    if of_run and path.suffix == ".pt" and path.stem in EVALUATIONS:
        return checkpoints.parent, path.stem
    return path, path.stem


def _refuse_foreign_code(trained: TrainedPolicy, run_dir: Path) -> None:
    """Refuse a policy file that names code to import, unless the user's config.yaml names it too: the file is data."""
    env = trained.settings.env
    named = names_code(env)
    if named is None:
        return
    config = run_dir / "config.yaml"
    own = recorded_settings(run_dir).env if config.is_file() else None
    if own is None or (own.id, own.kwargs, own.wrappers) != (env.id, env.kwargs, env.wrappers):
        raise UserError(
            f"{run_dir}: its policy names code to run, {named}: that is done only for a run directory whose "
            "config.yaml names the same"
        )


def _episodes(trained: TrainedPolicy, episodes: int, seed: int, deterministic: bool) -> np.ndarray:
    return run_episodes(
        trained.policy,
        trained.normalizer,
        trained.settings.env,
        trained.spec,
        episodes=episodes,
        deterministic=deterministic,
        seed=seed,
        threads=available_cores(),
    ).returns


def _print(trained: TrainedPolicy, which: str, results: dict[str, np.ndarray]) -> None:
    from rich.console import Console
    from rich.table import Table

    settings = trained.settings
    title = f"{settings.env.id}, {which} policy after {trained.env_steps:,} env steps"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("policy")
    for column in ("episodes", "mean", "std", "median", "min", "max"):
        table.add_column(column, justify="right")
    for name, returns in results.items():
        numbers = (returns.mean(), returns.std(), np.median(returns), returns.min(), returns.max())
        table.add_row(name, str(len(returns)), *(f"{number:.1f}" for number in numbers))
    Console(highlight=False, soft_wrap=True).print(table)


def log_evaluation(written: Path, settings: RunSettings, summary: dict[str, Any], video: Path | None) -> None:
    """Log the returns, the video and, online, the policy's lineage to a separate W&B run (job type `evaluation`)."""
    mode, run_dir = mode_of(settings), written.parent
    if mode == "disabled":
        return
    status = run_dir / "status.json"
    source = json.loads(status.read_text(encoding="utf-8")).get("wandb_run_id") if status.is_file() else None
    run = open_run(
        mode,
        settings,
        run_dir,
        id=secrets.token_hex(4),  # never WANDB_RUN_ID, which names the training run
        job_type="evaluation",
        name=f"{settings.env.id} {settings.name} seed {settings.seed} evaluation",
        config={**to_dict(settings), "evaluation_of": source},
    )
    if run is None:
        return
    try:
        run.log(_evaluation_record(summary, video))
        if source and not run.offline:
            _use_policy(run, f"policy-{source}:{summary['policy']}")
        run.finish()
    except Exception as error:
        print(f"warning: W&B did not take the evaluation ({first_line(error)}); it is in {written}")


def _evaluation_record(summary: dict[str, Any], video: Path | None) -> dict[str, Any]:
    import wandb

    rows = [
        [name, episode, value]
        for name in ("deterministic", "stochastic")
        for episode, value in enumerate(summary[name]["returns"])
    ]
    record: dict[str, Any] = {
        "env_steps": summary["env_steps"],
        "evaluation/return_mean": summary["deterministic"]["mean"],
        "evaluation/return_mean_stochastic": summary["stochastic"]["mean"],
        "evaluation/returns": wandb.Table(columns=["policy", "episode", "return"], data=rows),
    }
    if video is not None:
        record["evaluation/video"] = wandb.Video(str(video), format="mp4")
    return record


def _use_policy(run: Any, artifact: str) -> None:
    """Record the policy as the evaluation's input if W&B has it: an interrupted run has not uploaded one."""
    try:
        run.use_artifact(artifact)
    except Exception as error:
        print(f"warning: the evaluation is not linked to {artifact} in W&B ({first_line(error)})")
