"""What a policy needs to know about an environment's spaces, in this package's own types.

The translation from gymnasium's spaces is in `environments/spaces.py`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ContinuousActions:
    """`size` unbounded real numbers; they are clipped to the environment's bounds just before a step, not here."""

    size: int


@dataclass(frozen=True)
class DiscreteActions:
    """One choice among `choices[i]` in each of `len(choices)` dimensions (Discrete and MultiDiscrete)."""

    choices: tuple[int, ...]


@dataclass(frozen=True)
class BinaryActions:
    """`size` independent bits (MultiBinary)."""

    size: int


ActionSpec = ContinuousActions | DiscreteActions | BinaryActions
