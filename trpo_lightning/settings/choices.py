"""Methods by name: built-in ones, and custom ones as `module:Class`, each with its settings.

A name such as `trust_region` stands for a class of this package; nothing else sets built-in methods apart. Their
settings are listed here, not taken from the classes, so that the command line can answer without importing torch.
"""

import dataclasses
import inspect
from dataclasses import dataclass
from typing import Any

from trpo_lightning.errors import UserError
from trpo_lightning.settings.models import (
    AdamValueSettings,
    LBFGSValueSettings,
    LinearValueSettings,
    MLPPolicySettings,
    PolicySettings,
    RecurrentPolicySettings,
    RecurrentValueSettings,
    TrustRegionValueSettings,
    ValueSettings,
)
from trpo_lightning.settings.rule import (
    Algorithm1Settings,
    CMAESSettings,
    CrossEntropySettings,
    RewardWeightedRegressionSettings,
    RuleSettings,
    TrustRegionSettings,
    VanillaPolicyGradientSettings,
)
from trpo_lightning.settings.sampling import (
    ExactSettings,
    PopulationSettings,
    RolloutSettings,
    SinglePathSettings,
    VineSettings,
)
from trpo_lightning.user_modules import import_user_module


@dataclass(frozen=True)
class Method:
    """A class that a key can choose, as `module:Class`, and the dataclass of its settings."""

    target: str
    settings: type


@dataclass(frozen=True)
class Choice:
    """A key that chooses a class, and the bases that custom classes and their settings must derive from."""

    base: str
    settings: type
    methods: dict[str, Method]


CHOICES: dict[str, Choice] = {
    "rollout.scheme": Choice(
        "trpo_lightning.rollouts.scheme:SamplingScheme",
        RolloutSettings,
        {
            "single_path": Method("trpo_lightning.rollouts.single_path:SinglePathScheme", SinglePathSettings),
            "vine": Method("trpo_lightning.rollouts.vine:VineScheme", VineSettings),
            "population": Method("trpo_lightning.rollouts.population:PopulationScheme", PopulationSettings),
            "exact": Method("trpo_lightning.rollouts.exact:ExactScheme", ExactSettings),
        },
    ),
    "policy.name": Choice(
        "trpo_lightning.policies.policy:Policy",
        PolicySettings,
        {
            "mlp": Method("trpo_lightning.policies.policy:MLPPolicy", MLPPolicySettings),
            "gru": Method("trpo_lightning.policies.recurrent:GRUPolicy", RecurrentPolicySettings),
            "lstm": Method("trpo_lightning.policies.recurrent:LSTMPolicy", RecurrentPolicySettings),
        },
    ),
    "rule.name": Choice(
        "trpo_lightning.rules.rule:UpdateRule",
        RuleSettings,
        {
            "trust_region": Method("trpo_lightning.rules.trust_region:TrustRegionRule", TrustRegionSettings),
            "vanilla_policy_gradient": Method(
                "trpo_lightning.rules.vanilla:VanillaPolicyGradient", VanillaPolicyGradientSettings
            ),
            "reward_weighted_regression": Method(
                "trpo_lightning.rules.reward_weighted_regression:RewardWeightedRegression",
                RewardWeightedRegressionSettings,
            ),
            "cem": Method("trpo_lightning.rules.cem:CrossEntropyMethod", CrossEntropySettings),
            "cma_es": Method("trpo_lightning.rules.cma_es:CMAES", CMAESSettings),
            "algorithm_1": Method("trpo_lightning.rules.algorithm_1:Algorithm1", Algorithm1Settings),
        },
    ),
    "value.name": Choice(
        "trpo_lightning.values.value_function:ValueFunction",
        ValueSettings,
        {
            "adam": Method("trpo_lightning.values.network:NetworkValueFunction", AdamValueSettings),
            "lbfgs": Method("trpo_lightning.values.full_batch:LBFGSValueFunction", LBFGSValueSettings),
            "trust_region": Method(
                "trpo_lightning.values.full_batch:TrustRegionValueFunction", TrustRegionValueSettings
            ),
            "linear": Method("trpo_lightning.values.linear:LinearValueFunction", LinearValueSettings),
            "gru": Method("trpo_lightning.values.recurrent:GRUValueFunction", RecurrentValueSettings),
            "lstm": Method("trpo_lightning.values.recurrent:LSTMValueFunction", RecurrentValueSettings),
            "none": Method("trpo_lightning.values.value_function:NoValueFunction", ValueSettings),
        },
    ),
}
"""Keys that choose a class, with the built-in classes of each."""

_OWN: dict[tuple[str, str], Method] = {}
"""Custom classes that the user's own configuration has named in this process."""


def is_own(name: object) -> bool:
    """Whether a name is that of a custom class, `module:Class`."""
    return isinstance(name, str) and ":" in name


def find_method(key: str, name: str) -> Method:
    """The method that `key=name` chooses; imports a custom class, so `name` must come from the user.

    Raises:
        UserError: There is no such method, it cannot be imported, or it is not what the key needs.
    """
    choice = CHOICES[key]
    if name in choice.methods:
        return choice.methods[name]
    if not is_own(name):
        raise UserError(f"{key}={name!r} is not one of {', '.join(choice.methods)}, or `module:Class` of your own")
    if (key, name) not in _OWN:
        found = load_class(key, name)
        _OWN[key, name] = Method(name, _settings_of(key, name, found, choice.settings))
    return _OWN[key, name]


def find_known_method(key: str, name: str) -> Method:
    """As `find_method`, for a name found in a file: imports only what the user has named in this process.

    Raises:
        UserError: The file names code to run.
    """
    if is_own(name) and (key, name) not in _OWN:
        raise UserError(
            f"{key}={name} names code to run: that is done only for a run directory whose config.yaml names the same, "
            "or where your own configuration has named it before"
        )
    return find_method(key, name)


def load_class(key: str, name: str) -> type:
    """The class that `key=name` chooses, built-in or custom. Raises `UserError` as `find_method` does."""
    choice = CHOICES[key]
    target = choice.methods[name].target if name in choice.methods else name
    found, base = _imported(f"{key}={name}", target), _imported(key, choice.base)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{key}={name} is not a subclass of {choice.base.replace(':', '.')}")
    return found


def built_in_classes(key: str) -> list[type]:
    """The built-in classes that a key can choose."""
    return [load_class(key, name) for name in CHOICES[key].methods]


def _imported(what: str, target: str) -> type:
    module, _, qualname = target.partition(":")
    if not module or not qualname:
        raise UserError(f"{what}: write module:Class")
    found: Any = import_user_module(module, what)
    for part in qualname.split("."):
        if not hasattr(found, part):
            raise UserError(f"{what}: module {module} has no {qualname}")
        found = getattr(found, part)
    return found


def _settings_of(key: str, name: str, found: type, base: type) -> type:
    """The dataclass `Settings` of a custom class: its own, or inherited from a built-in class."""
    settings = getattr(found, "Settings", None)
    if not (isinstance(settings, type) and issubclass(settings, base) and "__dataclass_fields__" in vars(settings)):
        raise UserError(
            f"{key}={name}: its Settings must be a dataclass derived from {base.__module__}.{base.__name__}, with each "
            "key declared by trpo_lightning.settings.option"
        )
    inherited = {item.name for item in dataclasses.fields(base)} if settings is not base else set()
    for item in dataclasses.fields(settings):
        if item.name in inherited and item.name in inspect.get_annotations(settings):
            raise UserError(f"{key}={name}: Settings.{item.name} clashes with a key that every class here has")
        if "meaning" not in item.metadata:
            raise UserError(f"{key}={name}: Settings.{item.name}: declare it with trpo_lightning.settings.option")
    return settings
