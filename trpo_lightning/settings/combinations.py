"""Values that are valid on their own but not together."""

from trpo_lightning.errors import UserError
from trpo_lightning.settings.models import (
    FeatureValueSettings,
    PolicySettings,
    RecurrentPolicySettings,
    RecurrentValueSettings,
)
from trpo_lightning.settings.reuse import reuses
from trpo_lightning.settings.rule import TrustRegionSettings
from trpo_lightning.settings.run import RunSettings, TrackingSettings
from trpo_lightning.settings.sampling import PathSettings, VineSettings


def check_combination(settings: RunSettings) -> None:
    """Raise a `UserError` that names the key to change if settings of several groups contradict each other."""
    rule, rollout = settings.rule, settings.rollout
    if rollout.kind not in rule.schemes:
        needed = " or ".join(rule.schemes)
        raise UserError(f"rule.name={rule.name} does not go with rollout.scheme={rollout.scheme}: it needs {needed}")
    if isinstance(rollout, PathSettings):
        _check_steps(rollout, settings.env.num_envs)
    if settings.env.instances is not None:
        _check_instances(settings.env.instances, settings)
    _check_memory(settings)
    if isinstance(settings.value, FeatureValueSettings) and settings.value.features == "policy":
        _check_features(settings.policy, settings.value)
    if rollout.kind == "exact":
        _check_exact(settings)
    if rollout.kind == "vine":
        _check_vine(settings)
    if reuses(rule) and isinstance(rule, TrustRegionSettings):
        _check_reuse(rule, settings)
    if settings.devices > 1:
        check_ranks(settings, settings.devices)
    _check_tracking(settings.tracking)


def check_ranks(settings: RunSettings, ranks: int) -> None:
    """Raise a `UserError` if this many ranks cannot train the run together."""
    envs, value = settings.env.num_envs, settings.value
    if envs % ranks:
        more = envs + ranks - envs % ranks
        fewer = f"{envs - envs % ranks} or " if envs > ranks else ""
        raise UserError(f"env.num_envs={envs} cannot be shared by devices={ranks}: use {fewer}{more}")
    if reuses(settings.rule):
        raise UserError(f"rule.reuse={settings.rule.reuse} does not go with devices={ranks}: use devices=1")
    if settings.env.instances is not None:
        raise UserError(f"env.instances does not go with devices={ranks}: each rank opens environments of its own")
    methods = [
        ("rollout.scheme", settings.rollout.scheme, settings.rollout.over_ranks),
        ("rule.name", settings.rule.name, settings.rule.over_ranks),
        ("policy.name", settings.policy.name, not settings.policy.has_memory),
        ("value.name", value.name, value.over_ranks or value.name == "none"),
    ]
    for key, name, works in methods:
        if not works:
            own = ", or over_ranks = True in its settings if it can" if ":" in name and key != "policy.name" else ""
            raise UserError(f"{key}={name} does not go with devices={ranks}: it works on one, use devices=1{own}")


def _check_tracking(tracking: TrackingSettings) -> None:
    twice = next((name for name in tracking.loggers if tracking.loggers.count(name) > 1), None)
    if twice:
        raise UserError(f"tracking.loggers={tracking.loggers} names {twice} twice")
    if tracking.mlflow and "@" in tracking.mlflow.partition("://")[2].partition("/")[0]:
        raise UserError(
            "tracking.mlflow has a password in it, which every record of the run would show: put the address into "
            "MLFLOW_TRACKING_URI, or the password into MLFLOW_TRACKING_PASSWORD"
        )


def _check_instances(instances: int, settings: RunSettings) -> None:
    envs = settings.env.num_envs
    if instances < envs:
        raise UserError(f"env.instances={instances} is smaller than env.num_envs={envs}: use {instances} of them")
    if settings.rollout.kind == "vine":
        raise UserError("env.instances does not go with rollout.scheme=vine: branches open environments of their own")


def _check_steps(rollout: PathSettings, envs: int) -> None:
    steps = rollout.steps_per_iteration
    if steps < envs:
        raise UserError(f"rollout.steps_per_iteration={steps} is smaller than env.num_envs={envs}: each needs a step")
    if steps % envs:
        low = steps - steps % envs
        raise UserError(
            f"rollout.steps_per_iteration={steps} is not a multiple of env.num_envs={envs}: use {low} or {low + envs}"
        )


def _check_reuse(rule: TrustRegionSettings, settings: RunSettings) -> None:
    """Refuse what does not go with batches of several policies."""
    if rule.reuse == "optimal" and rule.reuse_size > rule.reuse_batches:
        raise UserError(
            f"rule.reuse_size={rule.reuse_size:g} is larger than rule.reuse_batches={rule.reuse_batches}: so few "
            "batches do not have that many samples"
        )
    policy, value = settings.policy, settings.value
    refused = [
        (rule.curvature != "fisher", f"rule.curvature={rule.curvature}", "it needs actions of the current policy"),
        (policy.has_memory, f"policy.name={policy.name}", "old batches do not know what it would remember"),
        (isinstance(value, RecurrentValueSettings), f"value.name={value.name}", "old batches do not know its memory"),
    ]
    for wrong, key, reason in refused:
        if wrong:
            raise UserError(f"{key} does not go with rule.reuse={rule.reuse}: {reason}")


def _check_memory(settings: RunSettings) -> None:
    """Refuse networks with a memory that have no recurrent layer, and methods that cannot train them."""
    policy, value, scheme = settings.policy, settings.value, settings.rollout.kind
    for group, chosen in (("policy", policy), ("value", value)):
        if isinstance(chosen, RecurrentPolicySettings | RecurrentValueSettings) and not chosen.hidden_sizes:
            raise UserError(
                f"{group}.hidden_sizes=[] has no last layer to be recurrent: {group}.name={chosen.name} needs one"
            )
    reasons = {
        "population": "each candidate acts alone on single observations: use policy.name=mlp",
        "exact": "a table of states has no history: use policy.name=mlp",
    }
    _refuse([(policy.has_memory and scheme in reasons, f"policy.name={policy.name}", reasons.get(scheme, ""))], scheme)


def _check_features(policy: PolicySettings, value: FeatureValueSettings) -> None:
    """Refuse what does not go with a value function on the policy's features."""
    if policy.has_memory:
        raise UserError(
            f"value.features=policy does not go with policy.name={policy.name}, which has a memory: use "
            "value.features=own"
        )
    if value.image_network != type(value)().image_network:
        raise UserError(
            f"value.image_network={value.image_network} does not go with value.features=policy, which has the "
            "policy's convolutions: leave it out, value.hidden_sizes come on top"
        )


def _check_exact(settings: RunSettings) -> None:
    """Refuse what does not go with a known model."""
    rule, value, gamma = settings.rule, settings.value, settings.gamma
    table = rule.name == "algorithm_1"
    sizes = getattr(settings.policy, "hidden_sizes", None)
    refused = [
        (value.name != "none", f"value.name={value.name}", "values are exact: use none"),
        (gamma == 1.0 or (table and gamma == 0.0), f"gamma={gamma}", "use a value between 0 and 1"),
        (table and bool(sizes), f"policy.hidden_sizes={sizes}", "algorithm_1 needs a table of logits: use []"),
    ]
    if isinstance(rule, TrustRegionSettings):
        fraction, curvature = rule.fisher_fraction, rule.curvature
        refused += [
            (
                fraction < 1.0,
                f"rule.fisher_fraction={fraction}",
                "all states count, by their visitation: use 1.0",
            ),
            (curvature != "fisher", f"rule.curvature={curvature}", "it needs samples: use fisher"),
        ]
    _refuse(refused, "exact")


def _check_vine(settings: RunSettings) -> None:
    """Refuse what does not go with branching from states in the middle of episodes."""
    env, rollout, rule, value = settings.env, settings.rollout, settings.rule, settings.value
    assert isinstance(rollout, VineSettings)
    steps, states = rollout.steps_per_iteration, rollout.rollout_set_size
    curvature = getattr(rule, "curvature", "fisher")
    _refuse(
        [
            (env.backend == "envpool", "env.backend=envpool", "it cannot restore states: use gymnasium"),
            (env.asynchronous, "env.asynchronous=true", "processes cannot restore states: use false"),
            (value.name != "none", f"value.name={value.name}", "vine has no value function: use none"),
            (curvature != "fisher", f"rule.curvature={curvature}", "it needs single_path: use fisher"),
            (states > steps, f"rollout.rollout_set_size={states}", f"rollout.steps_per_iteration={steps} has fewer"),
        ],
        "vine",
    )


def _refuse(cases: list[tuple[bool, str, str]], scheme: str) -> None:
    for wrong, key, reason in cases:
        if wrong:
            raise UserError(f"{key} does not go with rollout.scheme={scheme}: {reason}")
