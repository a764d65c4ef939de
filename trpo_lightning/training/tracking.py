"""Weights & Biases on top of the local files: it never stops or slows a run, and its absence loses nothing."""

import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pytorch_lightning.loggers import WandbLogger

from trpo_lightning.errors import UserError
from trpo_lightning.settings import RunSettings, from_dict, keys, to_dict

INIT_TIMEOUT = 30
"""Seconds until a server that does not answer is given up and the run is recorded offline."""


class RunTracker(WandbLogger):
    """Lightning's W&B logger over a run of ours: whole rows, `env_steps` as x axis, each iteration once."""

    accepts_text = True

    def __init__(self, run: Any, skip_iterations: int = 0) -> None:
        super().__init__(experiment=run)
        self.run, self._skip, self._warned = run, skip_iterations, False
        run.define_metric("env_steps")
        run.define_metric("*", step_metric="env_steps")

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The whole config went to `wandb.init`."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """One row; rows up to `skip_iterations` were sent before the run was interrupted."""
        if metrics["iteration"] <= self._skip:
            return
        try:
            self.run.log({name: value for name, value in metrics.items() if value is not None and value == value})
        except Exception as error:  # a broken connection must not end training; the row is in metrics.csv
            if not self._warned:
                print(f"warning: W&B does not take metrics any more ({error}); metrics.csv has them all")
                self._warned = True

    def log_policies(self, files: dict[str, Path], metadata: dict[str, Any]) -> None:
        """Upload exported policies as one artifact with an alias for each file that is there."""
        import wandb

        try:
            for alias, path in files.items():
                if path.is_file():
                    artifact = wandb.Artifact(f"policy-{self.run.id}", type="policy", metadata=metadata)
                    artifact.add_file(str(path), name="policy.pt")
                    self.run.log_artifact(artifact, aliases=[alias])
        except Exception as error:
            print(f"warning: W&B did not take the policies ({error}); they are in {next(iter(files.values())).parent}")

    def finish(self, exit_code: int, *, preempting: bool = False) -> None:
        """End the run in W&B; `preempting` asks for it to be queued again."""
        try:
            if preempting:
                self.run.mark_preempting()
            self.run.finish(exit_code=exit_code)
        except Exception as error:
            print(f"warning: W&B did not finish ({error}); wandb sync {self.run.dir} sends what is missing")


def resolve_mode(mode: str) -> str:
    """`auto` is WANDB_MODE if set, online where a key is configured, otherwise offline; never a prompt."""
    if mode != "auto":
        return mode
    chosen = os.environ.get("WANDB_MODE", "")
    if chosen in ("online", "offline", "disabled"):
        return chosen
    if chosen == "dryrun":
        return "offline"
    return "online" if _has_key() else "offline"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import wandb

    host = urlsplit(wandb.Settings().base_url).netloc
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def start_tracking(
    settings: RunSettings,
    run_dir: Path,
    *,
    run_id: str | None = None,
    name: str,
    job_type: str,
    tags: list[str],
    skip_iterations: int = 0,
    resume: bool = False,
) -> tuple[RunTracker | None, RunSettings]:
    """Start (or continue) the W&B run; returns the settings that W&B's config says, the run's only truth.

    A server that does not answer, or refuses the key, makes the run an offline one, with a line that says how to send it later.
    """
    mode = resolve_mode(settings.tracking.wandb)
    if mode == "disabled":
        return None, settings
    import wandb

    arguments: dict[str, Any] = {
        "project": settings.tracking.project,
        "entity": settings.tracking.entity,
        "group": settings.tracking.group,
        "job_type": job_type,
        "name": name,
        "tags": [tag[:64] for tag in [*tags, *settings.tracking.tags] if tag],
        "dir": str(run_dir),
        "id": run_id,
        "resume": "allow" if resume else None,
        "config": to_dict(settings),
    }
    try:
        run = wandb.init(mode=mode, settings=_client_settings(), **arguments)  # type: ignore[arg-type]
    except wandb.Error as error:
        if mode == "offline":
            print(f"warning: no W&B records: {' '.join(str(error).split())}")
            return None, settings
        wandb.teardown()
        run = wandb.init(mode="offline", settings=_client_settings(), **arguments)
        print(f"warning: W&B is out of reach ({_first_line(error)}); later: wandb sync {Path(run.dir).parent}")
    if mode == "online" and resume and not run.offline:
        skip_iterations = int(run.summary.get("iteration") or 0)
    return RunTracker(run, skip_iterations), read_back(run.config)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _client_settings() -> Any:
    """Silent, and sure to end: the defaults hang for ever at finish when the server is gone, and lose 15 s when killed."""
    import wandb

    return wandb.Settings(
        silent=True,
        console="off",
        init_timeout=INIT_TIMEOUT,
        finish_timeout=60,
        x_transaction_log_flush_interval=1,
    )


def read_back(config: Mapping[str, Any]) -> RunSettings:
    """Settings from W&B's config: nested groups, with a sweep's dotted keys (`rule.delta`) folded over them.

    Keys that begin with an underscore are W&B's own. Raises `UserError` for any other unknown key.
    """
    values = {name: value for name, value in dict(config).items() if not name.startswith("_")}
    nested = {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items() if "." not in name
    }
    for name, value in values.items():
        if "." not in name:
            continue
        if name not in keys():
            raise UserError(f"W&B's config has an unknown key {name}")
        group, _, leaf = name.partition(".")
        nested.setdefault(group, {})[leaf] = value
    return from_dict(nested)


def log_evaluation(run_dir: Path, settings: RunSettings, summary: dict[str, Any], video: Path | None) -> None:
    """A W&B run of its own (job type `evaluation`) with the returns, the video and, online, the policy's lineage."""
    mode = resolve_mode(settings.tracking.wandb)
    if mode == "disabled":
        return
    import json

    import wandb

    status = run_dir / "status.json"
    source = json.loads(status.read_text(encoding="utf-8")).get("wandb_run_id") if status.is_file() else None
    try:
        run = wandb.init(
            mode=mode,  # type: ignore[arg-type]
            settings=_client_settings(),
            project=settings.tracking.project,
            entity=settings.tracking.entity,
            group=settings.tracking.group,
            job_type="evaluation",
            name=f"{settings.env.id} {settings.name} seed {settings.seed} evaluation",
            dir=str(run_dir),
            config={**to_dict(settings), "evaluation_of": source},
        )
        if source and mode == "online":
            run.use_artifact(f"policy-{source}:{summary['policy']}")
        rows = [
            [name, i, value]
            for name in ("deterministic", "stochastic")
            for i, value in enumerate(summary[name]["returns"])
        ]
        record: dict[str, Any] = {
            "env_steps": summary["env_steps"],
            "evaluation/return_mean": summary["deterministic"]["mean"],
            "evaluation/return_mean_stochastic": summary["stochastic"]["mean"],
            "evaluation/returns": wandb.Table(columns=["policy", "episode", "return"], data=rows),
        }
        if video is not None:
            record["evaluation/video"] = wandb.Video(str(video), format="mp4")
        run.log(record)
        run.finish()
    except Exception as error:
        print(
            f"warning: W&B did not take the evaluation ({_first_line(error)}); it is in {run_dir / 'evaluation.json'}"
        )
