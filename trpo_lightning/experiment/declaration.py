"""An experiment is one YAML file: bases, overrides, axes or variants, environments, seeds, and how to judge runs."""

import functools
import itertools
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from trpo_lightning.errors import UserError, nearest
from trpo_lightning.experiment.claims import Claim, check_names
from trpo_lightning.experiment.experiment_file import (
    FULL,
    MOST_RUNS,
    VARIANT_KEYS,
    dotted,
    experiment_file,
    experiment_names,
    experiments_folders,
    laid_over,
    read_experiment_file,
)
from trpo_lightning.runs.config import Source, from_flat, merge, parse_overrides, read_yaml
from trpo_lightning.settings import RunSettings, does_not_count, get, is_free_form, keys, updated
from trpo_lightning.tracking.wandb_variables import with_variables

ONE_THREAD = OmegaConf.create({"threads": 1})
"""Runs of an experiment work in parallel: one thread each, unless the file says otherwise."""


@dataclass(frozen=True)
class Cell:
    """One run of an experiment: its settings, its levels of the axes, and its directory below the root folder."""

    settings: RunSettings
    levels: dict[str, Any]
    directory: Path


@dataclass(frozen=True)
class Experiment:
    """A declared comparison at one scale.

    `axes` map keys to levels (their Cartesian product is run), `variants` map a name to several keys. A variant may
    have its own `seeds`, `env.id`, budget, `bases` (applied after the experiment's and before its `overrides`), and
    settings for single `environments`. `search` draws the levels of the axes from ranges instead.
    """

    name: str
    scale: str
    file: Path
    title: str
    hypothesis: str
    minutes: float
    bases: list[str] = field(default_factory=list)
    overrides: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, list[Any]] = field(default_factory=dict)
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    environments: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0])
    search: dict[str, Any] = field(default_factory=dict)
    metric: str = "episode/return_mean"
    score: str = "last_episodes"
    x: str = "env_steps"
    claims: list[Claim] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    known_differences: list[str] = field(default_factory=list)
    scales: tuple[str, ...] = ()

    def cells(self, arguments: list[str] | None = None) -> list[Cell]:
        """All runs in the order in which they are done: seeds outermost, so that half an experiment has fewer seeds.

        Args:
            arguments: `key=value` texts. Those that name the seed, the environment, the variant (of these, one or a
                list) or an axis select runs; all others override settings.

        Raises:
            UserError: An argument is invalid, or no run is left.
        """
        chosen: dict[str, Any] = dotted(OmegaConf.to_container(parse_overrides(arguments or [])))  # type: ignore[arg-type]
        cells = [cell for one in _each(chosen) for cell in self._cells(one)]
        self._refuse_what_counts_nowhere(cells, [] if arguments else self.overrides, str(self.file))
        self._refuse_what_counts_nowhere(cells, chosen, "command line")
        if not cells:
            given = f" with {' '.join(arguments)}" if arguments else ""
            names = sorted({cell.settings.name for cell in self._cells({})}) if "name" in chosen else []
            hint = f": variants are {', '.join(names)}; several are 'name=[A,B]'" if names else ""
            raise UserError(f"{self.file}: no run is left of experiment {self.name}{given}{hint}")
        _refuse_duplicates(self.file, cells)
        self._refuse_variants_made_equal(cells, [key for key in chosen if key not in ("seed", "env.id", "name")])
        return cells

    def _cells(self, chosen: dict[str, Any]) -> list[Cell]:
        """The runs that arguments leave, which choose at most one seed, environment and variant."""
        variants = self.variants or {"": {}}
        self._refuse_too_many(variants, chosen)
        points = self._points(chosen)
        found: list[tuple[int, Cell]] = []
        for (name, variant), point in itertools.product(variants.items(), points):
            seeds = [chosen["seed"]] if "seed" in chosen else variant.get("seeds", self.seeds)
            for env_id in self._environments(variant, chosen):
                cell = None
                for order, seed in enumerate(seeds):
                    if cell is None or type(seed) is not int or seed < 0:  # else only the seed differs: no new merge
                        here = variant.get("environments", {}).get(env_id, {})
                        values = functools.reduce(laid_over, (here, point), variant)
                        cell = self.cell(values, name, env_id, seed, chosen)
                    found.append((order, self._with_seed(cell, seed)))
        cells = [cell for _, cell in sorted(found, key=lambda pair: pair[0])]
        if "name" in chosen:
            cells = [cell for cell in cells if cell.settings.name == str(chosen["name"])]
        return cells

    def cell(
        self, values: dict[str, Any], variant: str, env_id: str | None, seed: int, chosen: dict[str, Any] | None = None
    ) -> Cell:
        """The run with these levels; `values` holds dotted keys of the variant and of the axes, and perhaps `bases`."""
        axes = [*self.axes, *self.search.get("ranges", {})]
        env = {} if env_id is None else {"env.id": env_id}
        extra = {key: value for key, value in (chosen or {}).items() if key != "name"}
        shared = {key: value for key, value in self.overrides.items() if key not in extra}
        own = {key: value for key, value in {**env, **values, "seed": seed}.items() if key not in VARIANT_KEYS}
        own = {key: value for key, value in own.items() if key not in extra}
        settings = self._resolved(tuple(values.get("bases", ())), shared, own, extra)
        levels = {key: get(settings, key) for key in axes if key in values}
        settings = with_variables(settings)
        tracking = replace(settings.tracking, group=settings.tracking.group or self.name)
        settings = replace(settings, name=_name(variant, levels, axes), tracking=tracking)
        levels = {**({"variant": variant} if variant else {}), **levels}
        return Cell(settings, levels, self.directory / directory_of(settings))

    def directories(self) -> list[Path]:
        """The directories of all `cells`, without their settings: enough for a list of many experiments, and faster."""
        axes = [*self.axes, *self.search.get("ranges", {})]
        found = []
        for (variant, own), point in itertools.product((self.variants or {"": {}}).items(), self._points({})):
            name, bases = safe_name(_name(variant, point, axes)), tuple(own.get("bases", ()))
            for env_id in self._environments(own, {}):
                env_id = point.get("env.id") or env_id or self.overrides.get("env.id") or self._base(bases).env.id
                found += [self.directory / safe_name(env_id) / name / f"seed_{s}" for s in own.get("seeds", self.seeds)]
        return found

    def _with_seed(self, cell: Cell, seed: Any) -> Cell:
        if cell.settings.seed == seed:
            return cell
        settings = replace(cell.settings, seed=int(seed))
        return Cell(settings, cell.levels, self.directory / directory_of(settings))

    def _resolved(
        self, bases: tuple[str, ...], shared: dict[str, Any], own: dict[str, Any], extra: dict[str, Any]
    ) -> RunSettings:
        """Merge the bases, the experiment's keys, the run's own and those of the command line.

        Bases, the experiment and the command line apply to all runs: keys that a run's methods do not read are
        dropped from them. Plain values need no second pass through OmegaConf.
        """
        values = functools.reduce(laid_over, (own, extra), shared)
        if all("${" not in str(value) for value in values.values()):
            try:
                return updated(self._base(bases), values, lenient={*shared, *extra} - own.keys())
            except UserError:
                pass  # the merge below names the file in its error, and converts strings
        file = str(self.file)
        sources = [*self._base_sources(bases), from_flat(shared, file, lenient=True), from_flat(own, file)]
        return merge([*sources, from_flat(extra, "command line", lenient=True)])

    def _base(self, bases: tuple[str, ...] = ()) -> RunSettings:
        """The experiment's bases with a variant's on top; each combination is merged once."""
        if bases not in self._merged:
            self._merged[bases] = merge(self._base_sources(bases))
        return self._merged[bases]

    @functools.cached_property
    def _merged(self) -> dict[tuple[str, ...], RunSettings]:
        return {}

    @property
    def directory(self) -> Path:
        """`<experiment>/<scale>`, relative to the root of all runs."""
        return Path(self.name) / self.scale

    def default_name(self) -> str:
        """The variant that others are compared with: the one with the base's values on all axes, else the first."""
        cells = self.cells()
        for cell in cells:
            known = all(key in keys(self._base()) or is_free_form(key) for key in cell.levels)
            if cell.levels and known and all(get(self._base(), k) == v for k, v in cell.levels.items()):
                return cell.settings.name
        return cells[0].settings.name

    def _points(self, chosen: dict[str, Any]) -> list[dict[str, Any]]:
        """All points of the axes, each as a dict from dotted keys to levels."""
        if self.search:
            drawn = [{key: chosen.get(key, value) for key, value in point.items()} for point in sample(self.search)]
            return [point for index, point in enumerate(drawn) if point not in drawn[:index]]
        axes = {key: [chosen[key]] if key in chosen else levels for key, levels in self.axes.items()}
        return [dict(zip(axes, levels, strict=True)) for levels in itertools.product(*axes.values())]

    def _refuse_too_many(self, variants: dict[str, dict[str, Any]], chosen: dict[str, Any]) -> None:
        points = math.prod(len(levels) for key, levels in self.axes.items() if key not in chosen)
        seeds = sum(1 if "seed" in chosen else len(variant.get("seeds", self.seeds)) for variant in variants.values())
        runs = points * seeds * (1 if "env.id" in chosen else max(1, len(self.environments)))
        if runs > MOST_RUNS:
            raise UserError(f"{self.file}: {runs} runs are too many: an experiment has at most {MOST_RUNS} runs")

    def _refuse_what_counts_nowhere(self, cells: list[Cell], keys_given: Iterable[str], source: str) -> None:
        for key in keys_given:
            reasons = [does_not_count(cell.settings, key) for cell in cells]
            if reasons and all(reasons):
                raise UserError(f"{source}: {key} {reasons[0]}")

    def _refuse_variants_made_equal(self, cells: list[Cell], overridden: list[str]) -> None:
        """Refuse to override the key that variants differ in: under two names, the runs would be the same."""
        seen: dict[str, str] = {}
        for cell in cells if overridden else []:
            name = cell.settings.name
            first = seen.setdefault(_without_name(cell), name)
            if first != name and self._differ(first, name):
                raise UserError(
                    f"command line: {', '.join(overridden)} makes variants {first} and {name} the same: take one by "
                    f"name={name}, or change {self.file}"
                )

    def _differ(self, first: str, second: str) -> bool:
        """Whether the second variant has runs without arguments that the first one has not."""
        runs: dict[str, set[str]] = {first: set(), second: set()}
        for cell in self._cells({}):
            if cell.settings.name in runs:
                runs[cell.settings.name].add(_without_name(cell))
        return not runs[second] <= runs[first]

    def _environments(self, variant: dict[str, Any], chosen: dict[str, Any]) -> list[str | None]:
        own = variant.get("env.id")
        if "env.id" not in chosen:
            return [own] if own else [*self.environments] or [None]
        return [chosen["env.id"]] if own in (None, chosen["env.id"]) else []

    def _base_sources(self, bases: tuple[str, ...]) -> list[Source]:
        files = map(self._base_file, [*self.bases, *bases])
        return [Source("default", ONE_THREAD), *(Source(str(file), read_yaml(file), lenient=True) for file in files)]

    def _base_file(self, name: str) -> Path:
        folders = [self.file.parent, *experiments_folders()]
        for folder in folders:
            if (folder / f"{name}.yaml").is_file():
                return folder / f"{name}.yaml"
        valid = [str(p.relative_to(folder).with_suffix("")) for folder in folders for p in folder.glob("*/*.yaml")]
        raise UserError(f"{self.file}: there is no base {name}{nearest(str(name), valid)}")


def load_experiment(name: str, scale: str = FULL) -> Experiment:
    """Load an experiment at a scale.

    Args:
        name: The name of its file in `experiments/`, without the suffix.
        scale: One of the scales in the file, or `full`.

    Raises:
        UserError: There is no such experiment (the message names the nearest), or its file is invalid.
    """
    file = experiment_file(name)
    if file is None:
        names = experiment_names()
        if Path(name).stem in names and name.endswith((".yaml", ".yml")):
            raise UserError(f"there is no experiment {name}: write {Path(name).stem}")
        raise UserError(f"there is no experiment {name}{nearest(name, names)}: `list` shows {', '.join(names)}")
    values, scales = read_experiment_file(file, scale)
    experiment = Experiment(name=name, scale=scale, file=file, scales=tuple(scales), **values)
    if experiment.claims:  # at the full scale, because others may omit variants
        full = experiment if scale == FULL else Experiment(name, FULL, file, **read_experiment_file(file, FULL)[0])
        cells = full.cells(["seed=0"])
        check_names(experiment.claims, file, [(cell.settings.env.id, cell.settings.name) for cell in cells])
    return experiment


def _each(chosen: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Arguments with one seed, environment and variant for each of those that they list; seeds outermost."""
    listed = {key: _as_list(chosen[key]) for key in ("seed", "env.id", "name") if key in chosen}
    for key, values in listed.items():
        if any(isinstance(value, list | dict) for value in values):
            raise UserError(f"command line: {key} takes one value, or a list of them")
        if key != "name" and any("," in str(value) for value in values):  # names of variants have commas
            raise UserError(f"command line: {key}={values[0]}: several are written '{key}=[{values[0]}]'")
    for values in itertools.product(*listed.values()):
        yield {**chosen, **dict(zip(listed, values, strict=True))}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def sample(search: dict[str, Any]) -> list[dict[str, Any]]:
    """Distinct points of a random search, the same at each call: uniform, or uniform in the logarithm.

    There are fewer than `runs` if the integer ranges do not contain that many.
    """
    generator = random.Random(0)
    points: dict[tuple[int | float, ...], dict[str, Any]] = {}
    for _ in range(100 * search["runs"]):
        point = {key: _draw(generator, limits) for key, limits in search["ranges"].items()}
        points.setdefault(tuple(point.values()), point)
        if len(points) == search["runs"]:
            break
    return list(points.values())


def _draw(generator: random.Random, limits: dict[str, Any]) -> int | float:
    low, high = limits["min"], limits["max"]
    if isinstance(low, int):
        return generator.randint(low, high)
    if limits.get("distribution") == "log_uniform_values":
        value = math.exp(generator.uniform(math.log(low), math.log(high)))
    else:
        value = generator.uniform(low, high)
    return min(max(float(f"{value:.4g}"), low), high)  # four digits, because the number is part of the run's name


def _name(variant: str, levels: dict[str, Any], axes: list[str]) -> str:
    """The name of a run: its variant and its levels."""
    parts = [*([variant] if variant else []), *(f"{_leaf(k, axes)}={_text(v)}" for k, v in levels.items())]
    return ",".join(parts) or "default"


def _leaf(key: str, axes: list[str]) -> str:
    """The last part of a key, or the whole key if two axes share their last part."""
    leaf = key.rpartition(".")[2]
    return leaf if sum(axis.rpartition(".")[2] == leaf for axis in axes) == 1 else key


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "-".join(map(_text, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _without_name(cell: Cell) -> str:
    """A run's settings but for its name, as text: equal for runs that compute the same."""
    return repr(replace(cell.settings, name=""))


def _refuse_duplicates(file: Path, cells: list[Cell]) -> None:
    seen = set()
    for cell in cells:
        if cell.directory in seen:
            raise UserError(f"{file}: two runs are the same: {cell.directory}")
        seen.add(cell.directory)


def directory_of(settings: RunSettings) -> Path:
    """`<env>/<variant>/seed_<n>`, the last components of a run directory's path."""
    return Path(safe_name(settings.env.id)) / safe_name(settings.name) / f"seed_{settings.seed}"


def safe_name(name: str) -> str:
    """The name with unsafe characters replaced, as one path component."""
    text = "".join(c if c.isalnum() or c in "._-=," else "_" for c in name)
    return text if text.strip(".") else "_" * len(text)
