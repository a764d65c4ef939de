"""What a run leaves in its directory, by the names of the files; the documentation's page is made of this."""

FILES: dict[str, str] = {
    "config.yaml": "every setting; `train --config` repeats the run",
    "metrics.csv": "one row an iteration; its columns are the [metrics](metrics.md)",
    "provenance.json": "an entry for each start: commit and hash of the diff, versions, machine, command",
    "status.json": "running, finished, interrupted or failed",
    ".lock": "held by the process that is at the run",
    "checkpoints/barrier_*.ckpt": "the last two barriers, to resume from",
    "checkpoints/best.pt": "the policy of the best evaluation with its normalizers, for `load` and `evaluate`",
    "checkpoints/last.pt": "the last policy with its normalizers",
    "failed_update_*.pt": "the rejected update that stopped the run, for `replay`",
    "log.txt": "what a run printed that an experiment started",
    "evaluation.json": "what `evaluate` found",
    "video_*.mp4": "an episode, of `evaluate --video`",
    "wandb/*": "W&B's files; `wandb sync` sends an offline run later",
}
