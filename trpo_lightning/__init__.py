"""Trust-region policy optimization as a research framework on PyTorch Lightning.

`TRPO` is the LightningModule; `load` reads a trained policy from a file. Both are imported on first use, so that the
command line responds before torch is loaded.
"""

from typing import TYPE_CHECKING, Any

from trpo_lightning.errors import UserError

if TYPE_CHECKING:
    from trpo_lightning.runs.trained import load
    from trpo_lightning.training.module import TRPO

__version__ = "0.2.0"
__all__ = ["TRPO", "UserError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "TRPO":
        from trpo_lightning.training.module import TRPO

        return TRPO
    if name == "load":
        from trpo_lightning.runs.trained import load

        return load
    raise AttributeError(f"module 'trpo_lightning' has no attribute {name!r}")
