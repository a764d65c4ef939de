"""An experiment is one YAML file: bases, overrides, variants, seeds."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from trpo_lightning.errors import UserError, nearest
from trpo_lightning.experiment.config import from_flat, merge, parse_overrides, read_yaml
from trpo_lightning.settings import RunSettings

SCALE = "full"
KEYS = ("title", "question", "bases", "overrides", "variants", "seeds", "minutes")


@dataclass(frozen=True)
class Cell:
    """One run of an experiment: its settings and where it goes below the root of all runs."""

    settings: RunSettings
    directory: Path


@dataclass(frozen=True)
class Experiment:
    """A declared comparison. `variants` maps a name to dotted keys, with `seeds` of its own where it has any."""

    name: str
    file: Path
    title: str
    question: str
    minutes: float
    bases: list[str] = field(default_factory=list)
    overrides: dict[str, Any] = field(default_factory=dict)
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0])

    def cells(self, arguments: list[str] | None = None) -> list[Cell]:
        """All runs in the order to do them: seeds outermost, so that half an experiment is one with fewer seeds."""
        extra = ("command line", parse_overrides(arguments or []))
        sources = [(str(base), read_yaml(base)) for base in (self._base_file(name) for name in self.bases)]
        sources.append(from_flat(self.overrides, str(self.file)))
        found: list[tuple[int, Cell]] = []
        for name, variant in self.variants.items() or {"default": {}}.items():
            values = {key: value for key, value in variant.items() if key != "seeds"}
            for order, seed in enumerate(variant.get("seeds", self.seeds)):
                own = from_flat({**values, "name": name, "seed": seed}, f"{self.file}, variant {name}")
                found.append((order, self._cell(merge([*sources, own, extra]))))
        ordered = [cell for _, cell in sorted(found, key=lambda pair: pair[0])]
        return list({cell.directory: cell for cell in ordered}.values())  # `seed=0` makes all seeds one

    def _cell(self, settings: RunSettings) -> Cell:
        settings = replace(settings, tracking=replace(settings.tracking, group=settings.tracking.group or self.name))
        return Cell(settings, Path(self.name) / SCALE / directory_of(settings))

    def _base_file(self, name: str) -> Path:
        file = self.file.parent / f"{name}.yaml"
        if not file.is_file():
            valid = [str(p.relative_to(self.file.parent).with_suffix("")) for p in self.file.parent.glob("*/*.yaml")]
            raise UserError(f"{self.file}: there is no base {name}{nearest(name, valid)}")
        return file


def directory_of(settings: RunSettings) -> Path:
    """`<env>/<variant>/seed_<n>`, the end of a run directory's path."""
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in settings.env.id)
    return Path(safe) / settings.name / f"seed_{settings.seed}"


def experiments_folder() -> Path:
    """Where experiment files are: `experiments/` of the working directory, else of the checkout of this code."""
    for folder in (Path.cwd() / "experiments", Path(__file__).resolve().parents[2] / "experiments"):
        if folder.is_dir():
            return folder
    raise UserError("there is no folder named experiments here: run this in a checkout of the project")


def list_experiments() -> list[Experiment]:
    """All declared experiments, by name."""
    return [load_experiment(file.stem) for file in sorted(experiments_folder().glob("*.yaml"))]


def load_experiment(name: str) -> Experiment:
    """The experiment of a name. Raises `UserError` for an unknown one (with the nearest) or a file that does not fit."""
    folder = experiments_folder()
    file = folder / f"{name}.yaml"
    names = [path.stem for path in sorted(folder.glob("*.yaml"))]
    if name not in names:
        raise UserError(f"there is no experiment {name}{nearest(name, names)}: `list` shows {', '.join(names)}")
    values = OmegaConf.to_container(read_yaml(file))
    assert isinstance(values, dict)
    for key in values:
        if key not in KEYS:
            raise UserError(f"{file}: unknown key {key}{nearest(str(key), list(KEYS))}")
    for key in ("title", "question", "minutes"):
        if key not in values:
            raise UserError(f"{file}: the key {key} is missing")
    variants = values.get("variants") or {}
    if not isinstance(variants, dict) or not all(isinstance(value, dict) for value in variants.values()):
        raise UserError(f"{file}: variants must map names to keys and values")
    return Experiment(name=name, file=file, **{str(key): value for key, value in values.items()})
