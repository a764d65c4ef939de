"""Running statistics of observations and returns: frozen during an iteration, merged after it, part of checkpoints."""

import numpy as np
import torch
from torch import Tensor, nn

from trpo_lightning.policies.observations import Layout, Shape
from trpo_lightning.ranks import ONE, Ranks
from trpo_lightning.settings import NormalizeSettings

EPSILON = 1e-12
"""A feature counts as constant if its variance is at most this, or at most the rounding error of its mean."""


class RunningMoments(nn.Module):
    """Mean and population variance of all rows seen, merged batch by batch in float64 (Chan et al. 1979)."""

    count: Tensor
    mean: Tensor
    sum_of_squares: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("sum_of_squares", torch.zeros(shape, dtype=torch.float64))

    def merge(self, rows: np.ndarray, ranks: Ranks = ONE) -> None:
        """Merge all ranks' rows `[B, *shape]`.

        Rows that are not finite are left out, and all rows if their squares overflow.
        """
        if not self.mean.numel():  # images without a vector beside them
            return
        finite = np.isfinite(rows)
        if not finite.all():
            rows = rows[finite.all(axis=tuple(range(1, rows.ndim)))]
        number, mean, squares = _pooled(_moments(rows, self.mean), ranks)
        if not number:
            return
        total = self.count + number
        difference = mean - self.mean
        sum_of_squares = self.sum_of_squares + (squares + difference.square() * (self.count * number / total))
        if not torch.isfinite(sum_of_squares).all():
            return
        self.sum_of_squares.copy_(sum_of_squares)
        self.mean += difference * (number / total)
        self.count.copy_(total)

    def std(self) -> Tensor:
        """Standard deviation; 1 before any data, and for features that do not vary."""
        variance = self.sum_of_squares / self.count.clamp(min=1.0)
        constant = variance <= torch.clamp(1e-20 * self.mean.square(), min=EPSILON)
        return torch.where(constant, torch.ones_like(variance), variance.sqrt())

    def _apply(self, fn, recurse=True):
        return self  # statistics stay on the CPU and in float64, where the collector uses them


def _moments(rows: np.ndarray, like: Tensor) -> Tensor:
    """Number, mean and sum of squared deviations of rows `[B, *shape]`: `[3, *shape]`, zeros without rows."""
    if not len(rows):
        return torch.zeros((3, *like.shape), dtype=torch.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        average = np.asarray(rows.mean(0, dtype=np.float64))
        differences = rows - average
        squares = torch.from_numpy(np.asarray(np.square(differences, out=differences).sum(0)))
    return torch.stack([torch.full_like(like, len(rows)), torch.from_numpy(average), squares])


def _pooled(own: Tensor, ranks: Ranks) -> tuple[int, Tensor, Tensor]:
    """The `_moments` of all ranks' rows together; those of one rank, bit for bit, if it is the only one."""
    found = [part for part in ranks.gather(own) if float(part[0].reshape(-1)[0])]
    if len(found) < 2:
        number, mean, squares = found[0] if found else own
        return int(number.reshape(-1)[0]), mean, squares
    number = sum(part[0] for part in found)
    mean = sum(part[0] / number * part[1] for part in found)
    squares = sum(part[2] + part[0] * (part[1] - mean).square() for part in found)
    return int(number.reshape(-1)[0]), mean, squares  # pyright: ignore[reportReturnType, reportAttributeAccessIssue]


class Normalizer(nn.Module):
    """Turns raw observations into what the policy sees, and raw rewards into what the update sees.

    Observations become (o - mean) / std, clipped; images stay what they are. Rewards become r / std of the running
    discounted return, not centred, clipped (Engstrom et al. 2020, code-level optimizations). Both use the statistics
    from the last `merge`; the first rewards use those of their own rollout (`first_scale`).

    With several `ranks`, statistics are those of all: `merge` and `first_scale` are called by each of them.

    Args:
        observation_shape: `*O`, the shape of one observation.
        settings: What is normalized, and the clipping bounds.
    """

    def __init__(self, observation_shape: Shape, settings: NormalizeSettings) -> None:
        super().__init__()
        self.settings, self.ranks = settings, ONE
        self.layout = Layout.of(observation_shape)
        shape = (self.layout.vector,) if self.layout.images else tuple(observation_shape)
        self.observations = RunningMoments(shape)  # pyright: ignore[reportArgumentType]  # without images all are integers
        self.returns = RunningMoments(())
        self.register_load_state_dict_post_hook(_freeze)
        self.freeze()

    def freeze(self) -> None:
        """Make `normalize` and `scale_rewards` use the current statistics."""
        self._mean = self.observations.mean.numpy().copy()
        self._inverse_std = (1.0 / self.observations.std()).numpy()
        self._reward_scale = 1.0 / float(self.returns.std())

    def normalize(self, observations: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return raw observations `[..., *O]` as the policy sees them: float32, or bytes where there are images.

        Args:
            observations: Raw observations.
            out: A float32 array of the same shape to write to; None allocates one. Not for images.
        """
        if self.layout.images:
            return self._beside_images(observations)
        seen = np.empty(observations.shape, dtype=np.float32) if out is None else out
        if not self.settings.observations:
            seen[...] = observations
            return seen
        x = observations - self._mean
        x *= self._inverse_std
        clip = self.settings.observation_clip
        np.minimum(x, clip, out=x)
        return np.maximum(x, -clip, out=seen, casting="same_kind")

    def _beside_images(self, rows: np.ndarray) -> np.ndarray:
        """Rows of bytes whose vectors are normalized; numbers that are not finite become NaN there."""
        if not self.layout.vector:
            return rows
        raw = self.layout.vectors(rows)
        seen = raw
        if self.settings.observations:
            clip = self.settings.observation_clip
            seen = np.clip((raw - self._mean) * self._inverse_std, -clip, clip).astype(np.float32)
            seen[~np.isfinite(raw)] = np.nan
        return np.concatenate([rows[..., : self.layout.image_bytes], seen.view(np.uint8)], axis=-1)

    def first_scale(self, returns: np.ndarray) -> None:
        """Set the scale of the first rollout's rewards from its own running discounted returns `[B]`.

        Later calls do nothing. Raw first rewards, many times larger than all that follow, set the value function back
        by as many iterations, and the policy's std falls more slowly (experiments/ablation_first_rewards.yaml).
        """
        if self.settings.rewards and self.settings.first_rewards == "own_scale" and not self.returns.count:
            first = RunningMoments(())
            first.merge(returns, self.ranks)
            self._reward_scale = 1.0 / float(first.std())

    @property
    def reward_scale(self) -> float:
        """What rewards are multiplied by before they are clipped; 1 if they are not scaled."""
        return self._reward_scale if self.settings.rewards else 1.0

    def scale_rewards(self, rewards: np.ndarray) -> np.ndarray:
        """Return rewards of any shape as the update sees them, float64; infinite ones are faults and not clipped."""
        rewards = signed(rewards, self.settings)
        if not self.settings.rewards:
            return rewards
        clipped = np.clip(rewards * self._reward_scale, -self.settings.reward_clip, self.settings.reward_clip)
        return np.where(np.isfinite(rewards), clipped, rewards)

    def merge(self, observations: np.ndarray, returns: np.ndarray) -> None:
        """After an iteration, merge raw observations `[B, *O]` and running discounted returns `[B]`, then freeze."""
        if self.settings.observations:
            self.observations.merge(observations, self.ranks)
        if self.settings.rewards:
            self.returns.merge(returns, self.ranks)
        self.freeze()


def signed(rewards: np.ndarray, settings: NormalizeSettings) -> np.ndarray:
    """Rewards of any shape, or their signs with `reward_signs`; those that are not finite stay what they are."""
    if not settings.reward_signs:
        return rewards
    return np.where(np.isfinite(rewards), np.sign(rewards), rewards)


def _freeze(normalizer: Normalizer, _: object) -> None:  # no lambda: modules are pickled
    normalizer.freeze()
