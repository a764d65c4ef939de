"""The files in a run directory, by name; the documentation page is generated from this table."""

from pathlib import Path

TRACEBACK = "traceback.txt"
FILES: dict[str, str] = {
    "config.yaml": "every setting; `train --config` repeats the run",
    "metrics.csv": "one row an iteration; its columns are the [metrics](metrics.md)",
    "provenance.json": "an entry for each start: commit and hash of the diff, versions, machine, command",
    "status.json": "running, finished, interrupted or failed",
    ".lock": "locked by the process that is working on the run",
    "checkpoints/barrier_*.ckpt": "the last two barriers, to resume from",
    "checkpoints/best.pt": "the policy with the best evaluation and its normalizers, for `load` and `evaluate`",
    "checkpoints/last.pt": "the latest policy and its normalizers",
    "failed_update_*.pt": "the rejected update that stopped the run, for `replay`",
    TRACEBACK: "of an exception that was not foreseen, such as one in your own code",
    "log.txt": "the console output, if an experiment started the run",
    "evaluation.json": "the returns that `evaluate` measured",
    "evaluation_best.json": "those of `evaluate --policy best`",
    "video_*.mp4": "one episode, from `evaluate --video`",
    "trackers.json": "the run's ids in other trackers, and which rows they have",
    "tensorboard/*": "TensorBoard's event files, with `tracking.loggers=tensorboard`",
    "wandb/*": "W&B's files; `wandb sync` uploads an offline run later",
}

EVALUATIONS = {"last": "evaluation.json", "best": "evaluation_best.json"}
"""The file that `evaluate` writes, by the policy it takes."""


def checkpoint_files(folder: Path) -> list[Path]:
    """Barrier files in a `checkpoints` folder, newest first."""
    return sorted(folder.glob("barrier_*.ckpt"), reverse=True)
