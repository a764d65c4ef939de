"""Checkable claims: what an experiment must show, with its statistic and threshold fixed before the runs."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trpo_lightning.errors import UserError, nearest

STATISTICS = {
    "score": "score of the experiment",
    "last_evaluation": "mean return of the last evaluation (deterministic policy)",
    "best_evaluation": "MAXIMUM over training of the evaluations' means (deterministic policy)",
    "area": "mean of the metric along the learning curve, where all these runs have data",
    "first": "where on the x axis the learning curve first reaches `level`",
    "final_over_best": "last evaluation over the best one of the same run (best over last where returns are negative)",
    "worst_stretch": "least mean return of 50,000 env steps in a row, over the best one before them in the same run",
    "improvement": "probability that a run of `of` scores higher than one of `than`, ties counting half",
    "share_of_steps": "share of its env steps after which a run of `of` has as high a mean over 100 episodes as `than` "
    "at the end (a run that never has counts as just above 1), the interquartile mean over all runs and environments",
    "least_score_ratio": "score of `of` over that of `than`, in the environment where it is least",
}
COMPARISONS = ("improvement", "share_of_steps", "least_score_ratio")
"""Statistics of one variant beside one other, over all environments unless one is named."""
DIRECTIONS = ("above", "below", "within")
KEYS = ("says", "statistic", "of", "than", "environment", "level", *DIRECTIONS, "seeds", "confidence", "every_run")


@dataclass(frozen=True)
class Claim:
    """A sentence and the comparison that decides it.

    The statistic of `of` (interquartile mean over runs; the best one's if there are several variants), minus that of
    `than` if given, must lie `above` or `below` the threshold, or `within` it of 0. `environment` is None if there is
    only one, or for one of `COMPARISONS` over all. Each variant needs at least `seeds` runs. With
    `every_run`, each run must meet the threshold: the worst one decides, and there is no interval.
    """

    says: str
    statistic: str
    of: tuple[str, ...]
    than: tuple[str, ...]
    environment: str | None
    level: float | None
    direction: str
    threshold: float
    seeds: int
    confidence: float
    every_run: bool = False


def read_claims(file: Path, claims: list[Any]) -> list[Claim]:
    """Parse the claims of an experiment's file. Raises `UserError` naming the file and the claim."""
    found = [_claim(f"{file}: claim {number}", values) for number, values in enumerate(claims, start=1)]
    for number, claim in enumerate(found, start=1):
        if any(claim.says == other.says for other in found[: number - 1]):
            raise UserError(f"{file}: claim {number} says the same as one before: {claim.says}")
    return found


def check_names(claims: list[Claim], file: Path, cells: list[tuple[str, str]]) -> None:
    """Raise `UserError` if a claim names an environment or variant that is not among `cells` of (env id, variant)."""
    env_ids = list(dict.fromkeys(env_id for env_id, _ in cells))
    for number, claim in enumerate(claims, start=1):
        where = f"{file}: claim {number}"
        if claim.environment is None and len(env_ids) > 1 and claim.statistic not in COMPARISONS:
            raise UserError(f"{where}: environment is missing: it is one of {', '.join(env_ids)}")
        chosen = env_ids if claim.environment is None else [claim.environment]
        for env_id in chosen:
            if env_id not in env_ids:
                raise UserError(f"{where}: there is no environment {env_id}{nearest(env_id, env_ids)}")
            names = list(dict.fromkeys(name for other, name in cells if other == env_id))
            for name in (*claim.of, *claim.than):
                if name not in names:
                    raise UserError(f"{where}: there is no variant {name} in {env_id}{nearest(name, names)}")


def _claim(where: str, values: Any) -> Claim:
    if not isinstance(values, dict):
        raise UserError(f"{where}: {values!r} is not a mapping from keys to values")
    for key in values:
        if key not in KEYS:
            raise UserError(f"{where}: unknown key {key}{nearest(str(key), list(KEYS))}")
    for key in ("says", "statistic", "of", "seeds"):
        if values.get(key) is None:
            raise UserError(f"{where}: the key {key} is missing")
    statistic = values["statistic"]
    if not isinstance(statistic, str) or statistic not in STATISTICS:
        raise UserError(f"{where}: statistic={statistic} is not one of {', '.join(STATISTICS)}")
    directions = [key for key in DIRECTIONS if values.get(key) is not None]
    if len(directions) != 1:
        raise UserError(f"{where}: give the threshold as one of {', '.join(DIRECTIONS)}")
    claim = Claim(
        says=str(values["says"]).strip(),
        statistic=statistic,
        of=_names(where, "of", values["of"]),
        than=_names(where, "than", values.get("than", [])),
        environment=None if values.get("environment") is None else str(values["environment"]),
        level=None if values.get("level") is None else _number(where, "level", values["level"]),
        direction=directions[0],
        threshold=_number(where, directions[0], values[directions[0]]),
        seeds=values["seeds"],
        confidence=_number(where, "confidence", values.get("confidence", 0.95)),
        every_run=values.get("every_run", False),
    )
    _check(where, claim)
    return claim


def _check(where: str, claim: Claim) -> None:
    if not claim.says:
        raise UserError(f"{where}: says is empty")
    if not claim.of:
        raise UserError(f"{where}: of names no variant")
    if type(claim.seeds) is not int or claim.seeds < 2:
        raise UserError(f"{where}: seeds={claim.seeds} is too small: an interval needs at least 2")
    if not 0 < claim.confidence < 1:
        raise UserError(f"{where}: confidence={claim.confidence:g} is not between 0 and 1")
    if (claim.level is None) == (claim.statistic == "first"):
        raise UserError(f"{where}: level goes with statistic=first, and only with it")
    if claim.statistic in COMPARISONS and not len(claim.of) == len(claim.than) == 1:
        raise UserError(f"{where}: statistic={claim.statistic} compares one variant (of) with one other (than)")
    if not isinstance(claim.every_run, bool):
        raise UserError(f"{where}: every_run={claim.every_run!r} is not true or false")
    if claim.every_run and (claim.than or len(claim.of) > 1 or claim.statistic in COMPARISONS):
        raise UserError(f"{where}: every_run goes with one variant (of) and none to compare it with (than)")
    if claim.direction == "within" and claim.threshold <= 0:
        raise UserError(f"{where}: within={claim.threshold:g} is too small: it must be above 0")
    if set(claim.of) & set(claim.than):
        raise UserError(f"{where}: {sorted(set(claim.of) & set(claim.than))[0]} is in both of and than")


def _names(where: str, key: str, value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, str | int) for name in names) or len(set(map(str, names))) < len(names):
        raise UserError(f"{where}: {key}={value!r} is not a variant's name or a list of different ones")
    return tuple(map(str, names))


def _number(where: str, key: str, value: Any) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{where}: {key}={value!r} is not a number")
        return float(value)
    except OverflowError as error:
        raise UserError(f"{where}: {key} is too large for a float") from error
