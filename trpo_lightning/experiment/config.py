"""Old location (up to 0.1) of `trpo_lightning.runs.config`, kept for scripts that import from here."""

from trpo_lightning.runs.config import load_settings, recorded_settings, write_config

__all__ = ["load_settings", "recorded_settings", "write_config"]
