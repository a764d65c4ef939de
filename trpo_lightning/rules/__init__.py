"""Update rules: how a batch becomes new policy parameters."""

from trpo_lightning.rules.rule import RuleResult, UpdateRule
from trpo_lightning.settings import RuleSettings, load_class

__all__ = ["RuleResult", "UpdateRule", "build_rule"]


def build_rule(settings: RuleSettings) -> UpdateRule:
    """The rule named by `rule.name`."""
    cls = load_class("rule.name", settings.name)
    assert issubclass(cls, UpdateRule)
    return cls(settings)
