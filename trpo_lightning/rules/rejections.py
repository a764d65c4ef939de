"""Why updates are rejected: the reasons that built-in rules give."""

from enum import StrEnum

from trpo_lightning.numerics.line_search import SearchFailure
from trpo_lightning.numerics.trust_region import StepRejection, TrustRegionStep


class Rejection(StrEnum):
    """A reason; its value is the text in records, by which files of older versions are read: do not change it."""

    NO_TRANSITION = "the rollout has no transition"
    PARAMETERS_NOT_FINITE = "the new parameters are not finite"

    GRADIENT_NOT_FINITE = "the gradient is not finite"
    SOLUTION_NOT_FINITE = "the conjugate-gradient solution is not finite"
    NO_ASCENT_DIRECTION = "there is no ascent direction with positive curvature"
    START_NOT_FINITE = "the line search found no step: the surrogate is not finite at the old policy"
    CANDIDATE_NOT_FINITE = "the line search found no step: surrogate or KL is not finite"
    CONSTRAINT_EXCEEDED = "the line search found no step: the KL is beyond delta"
    NO_IMPROVEMENT = "the line search found no step: the surrogate does not improve"
    TOO_LITTLE_IMPROVEMENT = "the line search found no step: the surrogate does not improve enough"

    SQUARE_NOT_FINITE = "the gradient's square is not finite"

    RETURN_NOT_FINITE = "a return is not finite"
    TRANSITION_NOT_FINITE = "an observation or action is not finite"
    RETURNS_EQUAL = "all returns are equal"
    FIT_NOT_FINITE = "the fit is not finite"

    CANDIDATE_RETURN_NOT_FINITE = "a candidate's return or observation is not finite"
    NO_DECOMPOSITION = "the search distribution's covariance has no decomposition"
    DISTRIBUTION_NOT_FINITE = "the search distribution is not finite"

    OPTIMAL = "no policy has a higher bound: the policy is optimal"
    BELOW_RESOLUTION = "the step is below the resolution of the parameters"


def of_step(step: TrustRegionStep) -> Rejection | None:
    """Why a trust-region step was rejected; None if it was taken."""
    found: StepRejection | SearchFailure | None = step.rejection
    if found is StepRejection.SEARCH_FAILED and step.search is not None:
        found = step.search.failure
    return None if found is None else Rejection[found.name]


def recorded(text: str) -> str:
    """The reason named in a record: a `Rejection`, or the text of a custom rule."""
    return Rejection(text) if text in list(Rejection) else text
