"""For any key, settings with which it counts: found from the declarations, as a user finds them in the help."""

from trpo_lightning.settings import CHOICES, RunSettings, all_keys, assign, conform, get, group_of, keys
from trpo_lightning.settings.option import A_NUMBER

NEEDS = {
    "vine": {"value.name": "none", "rollout.rollout_set_size": 1},
    "exact": {"value.name": "none", "rule.fisher_fraction": 1.0},
    "algorithm_1": {"rollout.scheme": "exact", "value.name": "none", "policy.hidden_sizes": []},
}
"""What a scheme or a rule does not go without."""


def settings_where(key: str, value: object = None) -> RunSettings:
    """Settings in which `key` counts, and which are valid with `value` of it, if that is the name of a method."""
    settings = RunSettings()
    settings.env.num_envs = settings.rollout.steps_per_iteration = 1  # type: ignore[attr-defined]
    for other, values in all_keys()[key].metadata["when"].items():
        assign(settings, other, 1.0 if values[0] == A_NUMBER else values[0])
    for choosing, choice in CHOICES.items():
        if group_of(choosing) == group_of(key) and key not in keys(settings):
            owner = next(
                n for n, m in choice.methods.items() if key.partition(".")[2] in m.settings.__dataclass_fields__
            )
            assign(settings, choosing, owner)
    if key in CHOICES and isinstance(value, str) and value in CHOICES[key].methods:
        assign(settings, key, value)
    conform(settings)
    if settings.rollout.kind not in settings.rule.schemes:
        if key == "rollout.scheme":
            settings.rule.name = {"population": "cem", "exact": "trust_region"}[settings.rollout.scheme]
        else:
            settings.rollout.scheme = settings.rule.schemes[0]
        conform(settings)
    for method in (settings.rollout.scheme, settings.rule.name):
        for other, needed in NEEDS.get(method, {}).items():
            assign(settings, other, needed)
            conform(settings)
    assert key in keys(settings), key
    return settings


def changed(settings: RunSettings, key: str, value: object) -> RunSettings:
    """The same settings, unchecked, with another value."""
    assign(settings, key, value)
    assert get(settings, key) is value
    return settings
