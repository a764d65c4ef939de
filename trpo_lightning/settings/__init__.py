"""Every key of a run: its default, its range, its meaning, and where the default comes from.

Plain dataclasses from the standard library, so that every package can import them and none has to know how a
configuration is read. `runs/config.py` reads YAML and the command line into them; `check` is the one place that
judges values.
"""

from trpo_lightning.settings.budget import BUDGET, covers, depends_on_budget, is_over, progress
from trpo_lightning.settings.check import check
from trpo_lightning.settings.conversions import completed, from_dict, from_keywords, from_record, to_dict, updated
from trpo_lightning.settings.keys import FREE_FORM, get, is_free_form, keys
from trpo_lightning.settings.models import PolicySettings, ValueSettings
from trpo_lightning.settings.resuming import RESUMABLE, changed_bits, changed_keys, what_may_change
from trpo_lightning.settings.rule import RuleSettings
from trpo_lightning.settings.run import (
    CheckpointSettings,
    EvaluationSettings,
    RunSettings,
    TrackingSettings,
)
from trpo_lightning.settings.sampling import EnvSettings, NormalizeSettings, RolloutSettings

SWEEP_CELL = "cell"
"""A sweep's parameter that names a run as a whole, where the runs are no full product of axes; it is no setting."""

__all__ = [
    "BUDGET",
    "FREE_FORM",
    "RESUMABLE",
    "SWEEP_CELL",
    "CheckpointSettings",
    "EnvSettings",
    "EvaluationSettings",
    "NormalizeSettings",
    "PolicySettings",
    "RolloutSettings",
    "RuleSettings",
    "RunSettings",
    "TrackingSettings",
    "ValueSettings",
    "changed_bits",
    "changed_keys",
    "check",
    "completed",
    "covers",
    "depends_on_budget",
    "from_dict",
    "from_keywords",
    "from_record",
    "get",
    "is_free_form",
    "is_over",
    "keys",
    "progress",
    "to_dict",
    "updated",
    "what_may_change",
]
