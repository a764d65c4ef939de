"""Descriptions of keys for people."""

from trpo_lightning.errors import UserError
from trpo_lightning.settings.check import conform
from trpo_lightning.settings.choices import CHOICES
from trpo_lightning.settings.keys import assign, get, keys, text_of, unmet_condition
from trpo_lightning.settings.run import RunSettings


def described_keys(methods: dict[str, str]) -> list[tuple[str, str, str]]:
    """Describe each key that counts with the given methods.

    Args:
        methods: Method names by choosing key, such as `{"rule.name": "cem"}`; a rule implies a sampling scheme that
            it takes.

    Returns:
        For each key its name, its default, and its meaning with choices and source.

    Raises:
        UserError: There is no such method.
    """
    settings = RunSettings()
    for key, name in methods.items():
        assign(settings, key, name)
    conform(settings)
    if settings.rollout.kind not in settings.rule.schemes:
        if "rollout.scheme" in methods:
            needed = " or ".join(settings.rule.schemes)
            raise UserError(f"rule.name={settings.rule.name} needs rollout.scheme={needed}")
        settings.rollout.scheme = settings.rule.schemes[0]
        conform(settings)
    found = []
    for key, item in keys(settings).items():
        unmet = unmet_condition(settings, key)
        if unmet is not None and unmet[0] in CHOICES:
            continue
        meaning, source, choices = (item.metadata[name] for name in ("meaning", "source", "choices"))
        if choices:
            meaning += f" ({' | '.join(choices)})"
        if unmet is not None:
            meaning += f" (counts with {unmet[0]}={' or '.join(map(text_of, unmet[1]))})"
        found.append((key, text_of(get(settings, key)), meaning + (f" [{source}]" if source else "")))
    return found
