"""Update rules: how a batch becomes new policy parameters."""

from trpo_lightning.rules.rule import RuleResult, UpdateRule
from trpo_lightning.rules.trust_region import TrustRegionRule
from trpo_lightning.rules.vanilla import VanillaPolicyGradient
from trpo_lightning.settings import RuleSettings

RULES: dict[str, type[UpdateRule]] = {
    "trust_region": TrustRegionRule,
    "vanilla_policy_gradient": VanillaPolicyGradient,
}

__all__ = ["RULES", "RuleResult", "UpdateRule", "build_rule"]


def build_rule(settings: RuleSettings) -> UpdateRule:
    """The rule that `rule.name` names."""
    return RULES[settings.name](settings)
