"""Silences third-party messages that do not concern users of this package."""

import logging
import warnings

MESSAGES = (
    ".*isinstance\\(treespec, LeafSpec\\).*",  # Lightning 2.6 with torch 2.13, about its own code
    ".*smaller than the logging interval.*",  # every iteration's row is logged, whatever log_every_n_steps says
    ".*`srun` command is available.*",  # a run on a cluster's login node is a choice, too
    ".*GPU available but not used.*",  # device=cpu is a choice
)


def quiet_warnings() -> None:
    """Ignore the warnings that match `MESSAGES`, and no others."""
    for message in MESSAGES:
        warnings.filterwarnings("ignore", message=message)


def quiet_lightning() -> None:
    """Also keep Lightning's adverts and hardware notes off the console."""
    quiet_warnings()
    for name in ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
