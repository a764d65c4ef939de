"""Batches of action distributions with closed-form log-probability, entropy, KL and Fisher matrix.

These replace `torch.distributions`, whose checks raise on NaN: for a bad candidate a line search needs a number that it
can refuse. Every quantity is joint over the action's dimensions and has shape `[B]`.
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional as F

LOG_2PI = math.log(2.0 * math.pi)


class Distribution(Protocol):
    """A batch of B distributions over actions `[B, A]`."""

    noise: str
    """The noise that `sample` takes: `"normal"` or `"uniform"`, one number per action dimension."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The parameters whose Fisher matrix `fisher_product` applies, each `[B, ...]`."""
        ...

    def sample(self, noise: Tensor) -> Tensor:
        """Actions `[B, A]`, a deterministic function of `noise` `[B, A]`."""
        ...

    def mode(self) -> Tensor:
        """The most probable actions `[B, A]`."""
        ...

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log-density or log-probability `[B]` of `actions` `[B, A]`."""
        ...

    def entropy(self) -> Tensor:
        """Entropy in nats, `[B]`."""
        ...

    def kl(self, other: Self) -> Tensor:
        """The KL divergence KL(self || other) in nats, `[B]`."""
        ...

    def fisher_product(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The Fisher matrix in `tensors`, applied row by row to tangents of the same shapes."""
        ...

    def detach(self) -> Self:
        """The same distributions, constant for autograd."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """Independent normal distributions: `mean` `[B, A]`, `log_std` `[B, A]`."""

    mean: Tensor
    log_std: Tensor
    noise = "normal"

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.mean, self.log_std

    def sample(self, noise: Tensor) -> Tensor:
        return torch.addcmul(self.mean, self.log_std.exp(), noise)

    def mode(self) -> Tensor:
        return self.mean

    def log_prob(self, actions: Tensor) -> Tensor:
        z = (actions - self.mean) * torch.exp(-self.log_std)
        return -(0.5 * z.square() + self.log_std + 0.5 * LOG_2PI).sum(-1)

    def entropy(self) -> Tensor:
        return (self.log_std + 0.5 * (1.0 + LOG_2PI)).sum(-1)

    def kl(self, other: Self) -> Tensor:
        log_ratio = self.log_std - other.log_std
        distance = (self.mean - other.mean) * torch.exp(-other.log_std)
        # expm1(x) - x, not exp(x) - 1 - x, which cancels near the old policy
        return 0.5 * (torch.expm1(2.0 * log_ratio) - 2.0 * log_ratio + distance.square()).sum(-1)

    def fisher_product(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        mean, log_std = tangents
        return mean * torch.exp(-2.0 * self.log_std), 2.0 * log_std

    def detach(self) -> Self:
        return replace(self, mean=self.mean.detach(), log_std=self.log_std.detach())


@dataclass(frozen=True)
class Categorical:
    """Independent categorical distributions: `logits` `[B, sum(choices)]`, actions `[B, len(choices)]` of integers."""

    logits: Tensor
    choices: tuple[int, ...]
    noise = "uniform"

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.logits,)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x,) if len(self.choices) == 1 else x.split(self.choices, dim=-1)

    def _log_probs(self) -> list[Tensor]:
        return [F.log_softmax(part, dim=-1) for part in self._split(self.logits)]

    def sample(self, noise: Tensor) -> Tensor:
        columns = []
        for i, part in enumerate(self._split(self.logits)):
            below = torch.softmax(part, dim=-1).cumsum(-1)[:, :-1]  # the last choice takes what rounding leaves
            columns.append((noise[:, i : i + 1] >= below).sum(-1))
        return torch.stack(columns, dim=-1)

    def mode(self) -> Tensor:
        return torch.stack([part.argmax(-1) for part in self._split(self.logits)], dim=-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        parts = [lp.gather(-1, actions[:, i : i + 1]) for i, lp in enumerate(self._log_probs())]
        return torch.cat(parts, dim=-1).sum(-1)

    def entropy(self) -> Tensor:
        return -torch.stack([_expectation(lp.exp(), lp) for lp in self._log_probs()]).sum(0)

    def kl(self, other: Self) -> Tensor:
        pairs = zip(self._log_probs(), other._log_probs(), strict=True)
        return torch.stack([_expectation(p.exp(), p - q) for p, q in pairs]).sum(0)

    def fisher_product(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        parts = []
        for logits, tangent in zip(self._split(self.logits), self._split(tangents[0]), strict=True):
            p = torch.softmax(logits, dim=-1)
            parts.append(p * (tangent - (p * tangent).sum(-1, keepdim=True)))  # (diag(p) - p p') t
        return (torch.cat(parts, dim=-1),)

    def detach(self) -> Self:
        return replace(self, logits=self.logits.detach())


@dataclass(frozen=True)
class Bernoulli:
    """Independent bits: `logits` `[B, A]` of the probability of a one."""

    logits: Tensor
    noise = "uniform"

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.logits,)

    def sample(self, noise: Tensor) -> Tensor:
        return (noise < torch.sigmoid(self.logits)).long()

    def mode(self) -> Tensor:
        return (self.logits > 0.0).long()

    def log_prob(self, actions: Tensor) -> Tensor:
        return F.logsigmoid(torch.where(actions > 0, self.logits, -self.logits)).sum(-1)

    def entropy(self) -> Tensor:
        p, log_p = self._outcomes()
        return -_expectation(p, log_p).sum(-1)

    def kl(self, other: Self) -> Tensor:
        p, log_p = self._outcomes()
        return _expectation(p, log_p - other._outcomes()[1]).sum(-1)

    def _outcomes(self) -> tuple[Tensor, Tensor]:
        """Probabilities of a one and a zero, and their logarithms, each `[B, A, 2]`."""
        logits = torch.stack([self.logits, -self.logits], dim=-1)
        return torch.sigmoid(logits), F.logsigmoid(logits)

    def fisher_product(self, tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        p = torch.sigmoid(self.logits)
        return (p * (1.0 - p) * tangents[0],)

    def detach(self) -> Self:
        return replace(self, logits=self.logits.detach())


def _expectation(p: Tensor, x: Tensor) -> Tensor:
    """sum_i p_i x_i over the last dimension, with 0 * inf = 0: an impossible choice contributes nothing."""
    return torch.where(p > 0.0, p * x, torch.where(p == 0.0, torch.zeros_like(p), p)).sum(-1)
