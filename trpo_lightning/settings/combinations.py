"""Values that are good in themselves and do not go together."""

from trpo_lightning.errors import UserError
from trpo_lightning.settings.run import RunSettings


def check_combination(settings: RunSettings) -> None:
    """Raise a `UserError` that names the key to change, where settings of several groups contradict each other."""
    population = settings.rollout.scheme == "population"
    if population != (settings.rule.name in ("cem", "cma_es")):
        raise UserError(
            f"rule.name={settings.rule.name} does not go with rollout.scheme={settings.rollout.scheme}: cem and cma_es "
            "need population, the others another scheme"
        )
    if settings.rule.name == "algorithm_1" and settings.rollout.scheme != "exact":
        raise UserError("rule.name=algorithm_1 computes with the exact model: set rollout.scheme=exact")
    if settings.rollout.scheme == "exact":
        _check_exact(settings)
    elif not population:
        _check_steps(settings)
    if settings.rollout.scheme == "vine":
        _check_vine(settings)


def _check_steps(settings: RunSettings) -> None:
    steps, envs = settings.rollout.steps_per_iteration, settings.env.num_envs
    if steps < envs:
        raise UserError(f"rollout.steps_per_iteration={steps} is smaller than env.num_envs={envs}: each needs a step")
    if steps % envs:
        low = steps - steps % envs
        raise UserError(
            f"rollout.steps_per_iteration={steps} is not a multiple of env.num_envs={envs}: use {low} or {low + envs}"
        )


def _check_exact(settings: RunSettings) -> None:
    """What does not go with a known model."""
    rule, gamma = settings.rule, settings.gamma
    table = rule.name == "algorithm_1"
    refused = {
        f"rule.name={rule.name}": (
            rule.name not in ("trust_region", "algorithm_1"),
            "it needs samples: use trust_region or algorithm_1",
        ),
        f"value.name={settings.value.name}": (settings.value.name != "none", "values are exact: use none"),
        f"gamma={gamma}": (gamma == 1.0 or (table and gamma == 0.0), "use a value between 0 and 1"),
        f"rule.fisher_fraction={rule.fisher_fraction}": (
            not table and rule.fisher_fraction < 1.0,
            "all states count, by their visitation: use 1.0",
        ),
        "rule.discounted_state_weights=true": (
            rule.discounted_state_weights,
            "visitations are discounted already: use false",
        ),
        f"rule.curvature={rule.curvature}": (not table and rule.curvature != "fisher", "it needs samples: use fisher"),
        f"policy.hidden_sizes={settings.policy.hidden_sizes}": (
            table and bool(settings.policy.hidden_sizes),
            "algorithm_1 needs a table of logits: use []",
        ),
    }
    for key, (wrong, reason) in refused.items():
        if wrong:
            raise UserError(f"{key} does not go with rollout.scheme=exact: {reason}")


def _check_vine(settings: RunSettings) -> None:
    """What does not go with branches from states in the middle of episodes."""
    env, rollout, rule, value = settings.env, settings.rollout, settings.rule, settings.value
    steps, states = rollout.steps_per_iteration, rollout.rollout_set_size
    refused = [
        (env.backend == "envpool", "env.backend=envpool", "it cannot restore states: use gymnasium"),
        (env.asynchronous, "env.asynchronous=true", "processes cannot restore states: use false"),
        (rollout.whole_episodes, "rollout.whole_episodes=true", "trunks go on from iteration to iteration: use false"),
        (value.name != "none", f"value.name={value.name}", "vine has no value function: use none"),
        (rule.name == "reward_weighted_regression", f"rule.name={rule.name}", "it needs single_path"),
        (rule.curvature != "fisher", f"rule.curvature={rule.curvature}", "it needs single_path: use fisher"),
        (rule.discounted_state_weights, "rule.discounted_state_weights=true", "it needs single_path: use false"),
        (states > steps, f"rollout.rollout_set_size={states}", f"rollout.steps_per_iteration={steps} has fewer states"),
    ]
    for wrong, key, reason in refused:
        if wrong:
            raise UserError(f"{key} does not go with rollout.scheme=vine: {reason}")
