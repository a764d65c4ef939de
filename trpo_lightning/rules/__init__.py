"""Update rules: how a batch becomes new policy parameters."""

from trpo_lightning.rules.algorithm_1 import Algorithm1
from trpo_lightning.rules.cem import CrossEntropyMethod
from trpo_lightning.rules.cma_es import CMAES
from trpo_lightning.rules.reward_weighted_regression import RewardWeightedRegression
from trpo_lightning.rules.rule import RuleResult, UpdateRule
from trpo_lightning.rules.trust_region import TrustRegionRule
from trpo_lightning.rules.vanilla import VanillaPolicyGradient
from trpo_lightning.settings import RuleSettings

RULES: dict[str, type[UpdateRule]] = {
    "trust_region": TrustRegionRule,
    "vanilla_policy_gradient": VanillaPolicyGradient,
    "reward_weighted_regression": RewardWeightedRegression,
    "cem": CrossEntropyMethod,
    "cma_es": CMAES,
    "algorithm_1": Algorithm1,
}

__all__ = ["RULES", "RuleResult", "UpdateRule", "build_rule"]


def build_rule(settings: RuleSettings) -> UpdateRule:
    """The rule that `rule.name` names."""
    return RULES[settings.name](settings)
