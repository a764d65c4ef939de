"""The weights of the batches that a rule learns from, as its settings describe them."""

from trpo_lightning.numerics.mixture import mean_age, optimal_weights, uniform_weights
from trpo_lightning.settings import reuses


def mixture_weights(settings: object) -> list[float]:
    """The positive weights of the last batches, newest first; they sum to 1."""
    if not reuses(settings):
        return [1.0]
    if settings.reuse == "uniform":
        return uniform_weights(settings.reuse_batches)
    return optimal_weights(settings.reuse_batches, size=settings.reuse_size, tradeoff=settings.reuse_tradeoff)


def shortening(settings: object) -> float:
    """The mean age of the samples, by which steps are divided, and a radius by its square (Queeney et al. 2022).

    Each update moves the policy by at most epsilon / m in total variation, delta = epsilon^2 / 2. The next policy is
    then at most i epsilon / m away from the policy of batch i, and in the mean over batches at most epsilon, as without
    reuse. That holds from the first iteration on: fewer batches are younger ones.
    """
    return mean_age(mixture_weights(settings))
