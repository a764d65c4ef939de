"""What a policy has to know of an environment's spaces, in this package's own words.

The translation from gymnasium's spaces is in `environments/spaces.py`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ContinuousActions:
    """`size` unbounded real numbers; the environment's bounds are applied at its door, not here."""

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
