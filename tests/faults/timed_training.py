"""`python timed_training.py FILE train ...` is `python -m trpo_lightning train ...`; FILE gets W&B's seconds."""

import json
import sys
import time
from collections import defaultdict
from pathlib import Path

from trpo_lightning.__main__ import main
from trpo_lightning.tracking import wandb_client, wandb_logger
from trpo_lightning.tracking.wandb_logger import RunTracker

wandb_logger.FINISH_TIMEOUT = wandb_client.FINISH_TIMEOUT = 20  # of 60
SECONDS: dict[str, list[float]] = defaultdict(list)


def timed(name: str) -> None:
    method = getattr(RunTracker, name)

    def wrapper(*args, **kwargs):
        began = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            SECONDS[name].append(time.perf_counter() - began)

    setattr(RunTracker, name, wrapper)


if __name__ == "__main__":
    for method in ("log_metrics", "finish"):
        timed(method)
    code = main(sys.argv[2:])
    Path(sys.argv[1]).write_text(json.dumps(SECONDS))
    sys.exit(code)
