"""Keys of update rules: those that all rules have, and the settings of each rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trpo_lightning.settings.option import A_NUMBER, SAMPLED_PATH, option
from trpo_lightning.settings.reuse import ReuseSettings


@dataclass
class RuleSettings:
    """Keys of every update rule; a custom rule adds its own in a subclass, `MyRule.Settings`.

    `schemes` names the sampling schemes whose batches the rule takes. `over_ranks` says that the rule heeds the
    batch's `share`, and so works with several `devices`.
    """

    schemes: ClassVar[tuple[str, ...]] = ("single_path", "vine")
    over_ranks: ClassVar[bool] = False

    name: str = option(
        "trust_region",
        "update rule; cem and cma_es need rollout.scheme=population; or a subclass of UpdateRule as `module:Class`",
        choices=(
            "trust_region",
            "vanilla_policy_gradient",
            "reward_weighted_regression",
            "cem",
            "cma_es",
            "algorithm_1",
        ),
        extensible=True,
    )
    max_rejections: int | None = option(
        20,
        "rejected updates in a row after which the run stops as failed and leaves a file to replay; null is never",
        source="measured: no sampled run of 324 rejected two in a row of experiments",
        minimum=1,
    )


@dataclass
class AdvantageRuleSettings(RuleSettings):
    """Keys of rules that learn from the advantages of single transitions."""

    standardize_advantages: bool = option(True, "advantages of a batch get mean 0 and std 1", when=SAMPLED_PATH)
    discounted_state_weights: bool = option(
        False,
        "advantages are multiplied by gamma^t, t the step within its episode (as in the definition of the "
        "surrogate; nearly all implementations leave it out)",
        when=SAMPLED_PATH,
    )


@dataclass
class TrustRegionSettings(ReuseSettings, AdvantageRuleSettings):
    """TRPO and, with other parts, the natural gradient, the empirical Fisher matrix and max KL."""

    schemes: ClassVar[tuple[str, ...]] = ("single_path", "vine", "exact")
    over_ranks: ClassVar[bool] = True

    delta: float = option(
        0.01,
        "radius of the trust region: bound on the mean KL, per action dimension unless rule.kl_over_dimensions=sum",
        source="TRPO 2015, table 2",
        above=0.0,
    )
    final_delta: float | None = option(
        0.001,
        "radius after rule.annealing_steps, approached linearly from rule.delta (Engstrom 2020, TRPO+): a good policy "
        "needs small steps; null keeps delta constant",
        source="measured: experiments/results/defaults_search/exploration.csv",
        above=0.0,
    )
    annealing_steps: int | None = option(
        1_000_000,
        "env steps until the radius is rule.final_delta, where it stays; null: the budget of the run, which then "
        "cannot be extended",
        source="the usual budget on MuJoCo",
        minimum=1,
        when={"rule.final_delta": (A_NUMBER,)},
    )
    cg_iterations: int = option(10, "conjugate-gradient iterations at most", source="TRPO 2015, app. C", minimum=1)
    cg_tolerance: float = option(1e-10, "relative residual at which CG stops", minimum=0.0, maximum=1.0)
    damping: float = option(0.1, "CG solves with Fisher + damping * I", source="Henderson 2018", minimum=0.0)
    step_length: str = option(
        "damped",
        "length of the full step: to where the quadratic model of the KL is delta, its curvature that of Fisher + "
        "damping * I (what implementations do) or of the Fisher alone; fixed: rule.step_size (natural gradient)",
        choices=("damped", "undamped", "fixed"),
    )
    step_size: float = option(
        1.0,
        "the full step is this times the solution of (Fisher + damping * I) s = gradient "
        "(1 / lambda of TRPO 2015, section 8.1); delta then counts in the line search only",
        source="measured: about what rule.delta gives on Hopper-v5",
        above=0.0,
        when={"rule.step_length": ("fixed",)},
    )
    max_step_size: float | None = option(
        30.0,
        "the full step is at most this times the solution of (Fisher + damping * I) s = gradient, with advantages in "
        "units of the scaled rewards: in a solved task they are noise, and standardized noise would fill the trust "
        "region in every iteration; null: only the trust region limits steps",
        source="measured: experiments/results/defaults_search/exploration.csv",
        above=0.0,
        when={**SAMPLED_PATH, "rule.step_length": ("damped", "undamped")},
    )
    curvature: str = option(
        "fisher",
        "matrix of the natural gradient: fisher (expectation over actions, analytic) or empirical_fisher (mean of "
        "grad log pi grad log pi' over the batch's actions, uncentred; TRPO 2015, section 8.1)",
        source="TRPO 2015, app. C",
        choices=("fisher", "empirical_fisher"),
    )
    solve_dtype: str = option(
        "float32", "precision of conjugate gradients and Fisher products", choices=("float32", "float64")
    )
    kl_direction: str = option(
        "old_new",
        "the bounded KL: KL(old || new) or KL(new || old)",
        source="TRPO 2015, eq. 12",
        choices=("old_new", "new_old"),
    )
    kl_over_states: str = option(
        "mean",
        "the bounded KL: mean over the batch's states, or the largest of them (max KL, section 8.1)",
        source="TRPO 2015, eq. 12",
        choices=("mean", "max"),
    )
    kl_over_dimensions: str = option(
        "mean",
        "how the bounded KL of a state, and its curvature, combine action dimensions: sum is the joint KL (TRPO 2015, "
        "eq. 12); mean divides it by their number, so that one rule.delta and rule.damping suit few and many actions",
        source="as in SB3; measured: experiments/results/defaults_search/exploration.csv",
        choices=("sum", "mean"),
    )
    entropy_bonus: float = option(
        0.0,
        "this times the mean entropy is added to the surrogate, in its gradient and in the line search",
        minimum=0.0,
    )
    fisher_fraction: float = option(
        1.0,
        "share of the batch in Fisher-vector products (TRPO 2015, app. C: 0.1, of batches of 50,000 steps and more)",
        source="as in SB3; measured: experiments/results/defaults_search/exploration.csv",
        above=0.0,
        maximum=1.0,
    )
    backtrack_ratio: float = option(
        0.8, "factor by which the line search shrinks the step", source="Spinning Up", above=0.0, maximum=0.99
    )
    max_backtracks: int = option(
        10, "times the step is shrunk before the update is rejected", source="Spinning Up", minimum=0
    )
    kl_slack: float | None = option(
        1.0,
        "the line search accepts a KL up to kl_slack * delta; null does not check it (OpenAI Baselines: 1.5)",
        source="TRPO 2015, app. C",
        above=0.0,
    )
    kl_state_slack: float | None = option(
        20.0,
        "where the mean KL is bounded, each state of the batch may have at most this times delta: rare states, such as "
        "falls, hardly count in the mean, and that is where policies of solved tasks are lost; null: no such bound",
        source="TRPO 2015, theorem 1; measured: experiments/results/defaults_search/exploration.csv",
        above=0.0,
        when={"rule.kl_over_states": ("mean",), "rule.kl_slack": (A_NUMBER,)},
    )
    improvement_ratio: float | None = option(
        0.0,
        "the line search accepts a surrogate that rises by more than this share of its first-order prediction; null "
        "does not check it (modular_rl: 0.1)",
        source="TRPO 2015, app. C",
        minimum=0.0,
        maximum=0.99,
    )


@dataclass
class VanillaPolicyGradientSettings(AdvantageRuleSettings):
    """One Adam step along the policy gradient."""

    over_ranks: ClassVar[bool] = True

    entropy_bonus: float = option(
        0.0,
        "this times the mean entropy is added to the surrogate, in its gradient and in the line search",
        minimum=0.0,
    )
    learning_rate: float = option(3e-3, "Adam's step size (Spinning Up: 3e-4)", above=0.0)


@dataclass
class RewardWeightedRegressionSettings(AdvantageRuleSettings):
    """Weighted maximum likelihood of the actions taken."""

    schemes: ClassVar[tuple[str, ...]] = ("single_path",)

    effective_sample_fraction: float = option(
        0.1,
        "the temperature is such that (sum w)^2 / sum w^2 is this share of the batch",
        above=0.0,
        maximum=0.99,
    )
    least_log_std: float = option(
        -2.0, "floor of a Gaussian's log std in the fit; policy.least_log_std holds as well", minimum=-20.0
    )
    regression_iterations: int = option(
        20,
        "L-BFGS iterations of the fit, where it is not that of a linear Gaussian policy, which is solved for",
        minimum=1,
    )


@dataclass
class PopulationRuleSettings(RuleSettings):
    """Keys of methods that search over candidates, evaluated in whole episodes."""

    schemes: ClassVar[tuple[str, ...]] = ("population",)

    population: int | None = option(
        None,
        "candidates an iteration; null: 100 for cem (Szita & Lorincz 2006), 4 + floor(3 ln n) for cma_es "
        "with n searched parameters (Hansen 2016)",
        minimum=2,
    )
    episodes_per_candidate: int = option(
        1, "episodes that a candidate's return is the mean of", source="modular_rl", minimum=1
    )
    initial_std: float = option(1.0, "std of each parameter in the first population", source="modular_rl", above=0.0)


@dataclass
class CrossEntropySettings(PopulationRuleSettings):
    """The cross-entropy method."""

    elite_fraction: float = option(
        0.2, "share of the candidates that are kept (at least two)", source="modular_rl", above=0.0, maximum=1.0
    )
    extra_std: float = option(
        0.3,
        "the variance gets extra_std^2 more in the first generation, falling linearly to 0 (Szita & Lorincz 2006: "
        "sqrt(5); rllab: 1; modular_rl: 0)",
        source="measured: InvertedPendulum-v5, 3 seeds",
        minimum=0.0,
    )
    extra_std_generations: int = option(
        50, "generations until the extra variance reaches 0", source="Szita & Lorincz 2006", minimum=1
    )


@dataclass
class CMAESSettings(PopulationRuleSettings):
    """The evolution strategy with covariance matrix adaptation."""

    covariance: str = option(
        "auto",
        "a full matrix or a diagonal one (sep-CMA-ES, Ros & Hansen 2008); auto is full up to 1000 searched parameters",
        choices=("auto", "full", "diagonal"),
    )


@dataclass
class Algorithm1Settings(RuleSettings):
    """TRPO 2015's algorithm 1 on a known model: nothing to set."""

    schemes: ClassVar[tuple[str, ...]] = ("exact",)
