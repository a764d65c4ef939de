"""Where settings were read up to 0.1, for scripts that import it from here: now `trpo_lightning.runs.config`."""

from trpo_lightning.runs.config import load_settings, recorded_settings, write_config

__all__ = ["load_settings", "recorded_settings", "write_config"]
