"""Every key of a run: its default, its range, its meaning, and where the default comes from.

These are plain dataclasses, so that every package can import them and none has to know how a configuration is read.
`runs/config.py` reads YAML and the command line into them; `check` alone judges values.
"""

from trpo_lightning.settings.budget import BUDGET, covers, depends_on_budget, is_over, progress
from trpo_lightning.settings.check import check, conform
from trpo_lightning.settings.choices import (
    CHOICES,
    built_in_classes,
    find_known_method,
    find_method,
    is_own,
    load_class,
)
from trpo_lightning.settings.combinations import check_ranks
from trpo_lightning.settings.conversions import (
    completed,
    flat,
    from_dict,
    from_keywords,
    from_record,
    to_dict,
    updated,
    why_refused,
)
from trpo_lightning.settings.described import described_keys
from trpo_lightning.settings.keys import (
    FREE_FORM,
    all_keys,
    assign,
    counting_keys,
    does_not_count,
    get,
    group_of,
    is_free_form,
    keys,
)
from trpo_lightning.settings.models import (
    AdamValueSettings,
    DescentValueSettings,
    FeatureValueSettings,
    FittedValueSettings,
    LBFGSValueSettings,
    LinearValueSettings,
    MLPPolicySettings,
    NetworkValueSettings,
    PolicySettings,
    RecurrentPolicySettings,
    RecurrentValueSettings,
    TrustRegionValueSettings,
    ValueSettings,
)
from trpo_lightning.settings.option import is_atari, option
from trpo_lightning.settings.resuming import RESUMABLE, changed_bits, changed_keys, different_keys, what_may_change
from trpo_lightning.settings.reuse import ReuseSettings, reuses
from trpo_lightning.settings.rule import (
    AdvantageRuleSettings,
    Algorithm1Settings,
    CMAESSettings,
    CrossEntropySettings,
    PopulationRuleSettings,
    RewardWeightedRegressionSettings,
    RuleSettings,
    TrustRegionSettings,
    VanillaPolicyGradientSettings,
)
from trpo_lightning.settings.run import (
    LOGGERS,
    CheckpointSettings,
    EvaluationSettings,
    RunSettings,
    TrackingSettings,
)
from trpo_lightning.settings.sampling import (
    EnvSettings,
    ExactSettings,
    NormalizeSettings,
    PathSettings,
    PopulationSettings,
    RolloutSettings,
    SinglePathSettings,
    VineSettings,
)

SWEEP_CELL = "cell"
"""The sweep parameter that names a whole run if the runs are not a full product of axes; it is not a setting."""

__all__ = [
    "BUDGET",
    "CHOICES",
    "FREE_FORM",
    "LOGGERS",
    "RESUMABLE",
    "SWEEP_CELL",
    "AdamValueSettings",
    "AdvantageRuleSettings",
    "Algorithm1Settings",
    "CMAESSettings",
    "CheckpointSettings",
    "CrossEntropySettings",
    "DescentValueSettings",
    "EnvSettings",
    "EvaluationSettings",
    "ExactSettings",
    "FeatureValueSettings",
    "FittedValueSettings",
    "LBFGSValueSettings",
    "LinearValueSettings",
    "MLPPolicySettings",
    "NetworkValueSettings",
    "NormalizeSettings",
    "PathSettings",
    "PolicySettings",
    "PopulationRuleSettings",
    "PopulationSettings",
    "RecurrentPolicySettings",
    "RecurrentValueSettings",
    "ReuseSettings",
    "RewardWeightedRegressionSettings",
    "RolloutSettings",
    "RuleSettings",
    "RunSettings",
    "SinglePathSettings",
    "TrackingSettings",
    "TrustRegionSettings",
    "TrustRegionValueSettings",
    "ValueSettings",
    "VanillaPolicyGradientSettings",
    "VineSettings",
    "all_keys",
    "assign",
    "built_in_classes",
    "changed_bits",
    "changed_keys",
    "check",
    "check_ranks",
    "completed",
    "conform",
    "counting_keys",
    "covers",
    "depends_on_budget",
    "described_keys",
    "different_keys",
    "does_not_count",
    "find_known_method",
    "find_method",
    "flat",
    "from_dict",
    "from_keywords",
    "from_record",
    "get",
    "group_of",
    "is_atari",
    "is_free_form",
    "is_over",
    "is_own",
    "keys",
    "load_class",
    "option",
    "progress",
    "reuses",
    "to_dict",
    "updated",
    "what_may_change",
    "why_refused",
]
