"""Reads an experiment's YAML file and checks its keys, types, scales, axes and ranges; each error is one line."""

import math
import re
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import OmegaConf

from trpo_lightning.errors import UserError, nearest
from trpo_lightning.experiment.claims import read_claims
from trpo_lightning.runs.config import read_yaml
from trpo_lightning.settings import CHOICES, FREE_FORM, all_keys, group_of, is_free_form, is_own

KEYS: dict[str, tuple[type, ...]] = {
    "title": (str,),
    "hypothesis": (str,),
    "minutes": (int, float),
    "bases": (list,),
    "overrides": (dict,),
    "axes": (dict,),
    "variants": (dict,),
    "environments": (list,),
    "seeds": (list,),
    "search": (dict,),
    "metric": (str,),
    "score": (str,),
    "x": (str,),
    "claims": (list,),
    "references": (list,),
    "known_differences": (list,),
    "scales": (dict,),
}
"""Keys of an experiment's file, with their types."""
SCALE_KEYS = ("minutes", "overrides", "axes", "variants", "environments", "seeds", "search")
"""Keys that a scale replaces (`overrides`, `axes` and each of `variants` key by key)."""
SCORES = ("last_episodes", "last_iteration", "lifetime", "last_evaluation", "best_evaluation")
X_AXES = ("env_steps", "iteration")
"""Choices for the x axis of learning curves, along which claims are measured too."""
VARIANT_KEYS = ("seeds", "bases", "environments")
"""Keys of a variant that are not settings: its own seeds and bases, and its settings in single environments."""
OURS = re.compile(r"""^["']?(title|hypothesis)["']?\s*:""", re.MULTILINE)
FULL = "full"
NAMED_ELSEWHERE = {"seed": "seeds", "name": "variants"}
"""Settings that the experiment determines for each run, and the key of the file that they come from."""
MOST_RUNS = 10_000
"""Most runs of an experiment: more are a mistake, and would fill the memory before the first one starts."""
OPEN_GROUPS = tuple(f"{group_of(key)}." for key in CHOICES)
"""Groups whose keys depend on the method, perhaps a custom class: unknown keys are found when runs are made."""
SEARCH_KEYS = ("method", "runs", "ranges", "early_terminate")
RANGE_KEYS = ("min", "max", "distribution")
DISTRIBUTIONS = ("uniform", "log_uniform_values")


def experiments_folders() -> list[Path]:
    """Folders with experiment files: `experiments/` in the working directory, then in the checkout of this code.

    The first may be the user's own folder. Its files hide only those of the second that have the same name.
    """
    here, shipped = Path.cwd() / "experiments", Path(__file__).resolve().parents[2] / "experiments"
    folders = [folder for folder in (here, shipped) if folder.is_dir()]
    if not folders:
        raise UserError("there is no folder named experiments here: run this in a checkout of the project")
    return folders[:1] if here.resolve() == shipped else folders


def experiment_files() -> dict[str, Path]:
    """The files of all declared experiments, by name."""
    found = {}
    for folder in reversed(experiments_folders()):
        found |= {file.stem: file for file in folder.glob("*.yaml") if _is_experiment(file)}
    return dict(sorted(found.items()))


def experiment_names() -> list[str]:
    """The names of all declared experiments."""
    return list(experiment_files())


def experiment_file(name: str) -> Path | None:
    """An experiment's file. If only another program's file has the name, that one: reading it says what is wrong."""
    others = {file.stem: file for file in foreign_files()}
    return {**others, **experiment_files()}.get(name)


def foreign_files() -> list[Path]:
    """YAML files in the experiment folders that belong to other programs."""
    return [
        file for folder in experiments_folders() for file in sorted(folder.glob("*.yaml")) if not _is_experiment(file)
    ]


def _is_experiment(file: Path) -> bool:
    """Whether a file has a key that every experiment must have: one with only some of them is ours, but incomplete.

    The keys are searched for as text, because a file of another program need not be valid YAML.
    """
    try:
        return OURS.search(file.read_text(encoding="utf-8", errors="replace")) is not None
    except OSError:
        return True  # so that reading it reports the error


def read_experiment_file(file: Path, scale: str) -> tuple[dict[str, Any], list[str]]:
    """The file's values at a scale, with dotted keys in overrides and variants, and the names of its scales.

    Raises `UserError` if the file is invalid or has no such scale.
    """
    return values_at(file, OmegaConf.to_container(read_yaml(file)), scale)


def values_at(file: Path, read: Any, scale: str) -> tuple[dict[str, Any], list[str]]:
    """Like `read_experiment_file`, for content that has been read already; the content is not modified."""
    _refuse_unknown(read, file)
    values = {str(key): value for key, value in read.items() if value is not None}
    _check(values, file)
    _check_environments_of_variants(values, file)
    scales = {str(name): _scale(file, str(name), changes) for name, changes in values.pop("scales", {}).items()}
    if scale != FULL and scale not in scales:
        raise UserError(f"{file}: there is no scale {scale}: it has {', '.join([FULL, *scales])}")
    values["overrides"] = dotted(values.get("overrides", {}))
    values["variants"] = {str(name): _variant(variant or {}) for name, variant in values.get("variants", {}).items()}
    for key, value in scales.get(scale, {}).items():
        values[key] = _scaled(file, scale, key, values.get(key, {}), value)
    _check(values, file)
    values["claims"] = read_claims(file, values.get("claims", []))
    return values, list(scales)


def dotted(config: dict[str, Any]) -> dict[str, Any]:
    """Flatten groups to dotted keys: `{"rule": {"delta": 1}}` becomes `{"rule.delta": 1}`."""
    found = {}
    for name, value in config.items():
        if isinstance(value, dict) and value and name not in all_keys() and not is_free_form(str(name)):
            found |= {f"{name}.{inner}": item for inner, item in value.items()}
        else:
            found[str(name)] = value
    return found


def laid_over(below: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Lay dotted keys over others: `env.kwargs` replaces all arguments of the environment, `env.kwargs.x` adds one."""
    kept = {key: value for key, value in below.items() if not any(f"{key}.".startswith(f"{name}.") for name in values)}
    return {**kept, **values}


def _scaled(file: Path, scale: str, key: str, before: Any, value: Any) -> Any:
    """The value of a top-level key after the scale's change is applied."""
    if key == "overrides":
        return laid_over(before, dotted(value))
    if key == "axes":
        return {**before, **value}
    if key != "variants":
        return value
    for name in value:
        if str(name) not in before:
            hint = nearest(str(name), list(before))
            raise UserError(f"{file}: scales.{scale}.variants: there is no variant {name}{hint}")
    changes = {str(name): _variant(variant or {}) for name, variant in value.items()}
    return {name: laid_over(variant, changes.get(name, {})) for name, variant in before.items()}


def _variant(variant: dict[str, Any]) -> dict[str, Any]:
    """The variant with dotted keys, also in its `environments`."""
    own = {key: variant[key] for key in VARIANT_KEYS if key in variant}
    if "environments" in own:
        own["environments"] = {env_id: dotted(values or {}) for env_id, values in own["environments"].items()}
    return {**dotted({key: value for key, value in variant.items() if key not in own}), **own}


def _scale(file: Path, name: str, changes: Any) -> dict[str, Any]:
    if name == FULL:
        raise UserError(f"{file}: scales.{FULL}: that is the name of the file without a scale")
    if not isinstance(changes or {}, dict):
        raise UserError(f"{file}: scales.{name}={changes!r} is not a mapping from keys to values")
    for key, value in (changes or {}).items():
        if key not in SCALE_KEYS:
            raise UserError(f"{file}: scales.{name}.{key} is not one of {', '.join(SCALE_KEYS)}")
        _check_type(file, f"scales.{name}.{key}", value, KEYS[key])
    return changes or {}


def _refuse_unknown(values: dict[Any, Any], file: Path) -> None:
    for key in values:
        if key not in KEYS:
            raise UserError(f"{file}: unknown key {key}{nearest(str(key), list(KEYS))}")


def _check(values: dict[str, Any], file: Path) -> None:
    for key, value in values.items():
        _check_type(file, key, value, KEYS[key])
    for key in ("title", "hypothesis", "minutes"):
        if key not in values:
            raise UserError(f"{file}: the key {key} is missing")
    for key, choices in (("score", SCORES), ("x", X_AXES)):
        if values.get(key, choices[0]) not in choices:
            raise UserError(f"{file}: {key}={values[key]} is not one of {', '.join(choices)}")
    _refuse_named_elsewhere(file, "overrides", values.get("overrides", {}))
    axes, own = values.get("axes", {}), _uses_a_class_from_outside(values, file)
    for key, levels in axes.items():
        _check_axis_key(file, "axis ", key, own)
        if not isinstance(levels, list) or not levels:
            raise UserError(f"{file}: axis {key} has no levels: give a list")
    _check_search(file, values.get("search", {}), own)
    if values.get("search") and axes:
        raise UserError(f"{file}: axes and search exclude each other")
    for name, variant in values.get("variants", {}).items():
        _check_variant(file, str(name), variant, [*axes, *values.get("search", {}).get("ranges", {})])


def _uses_a_class_from_outside(values: dict[str, Any], file: Path) -> bool:
    """Whether the file or one of its bases names a custom method, which may have keys that only it knows."""
    bases = (file.parent / f"{name}.yaml" for name in values.get("bases", []))
    parts = [OmegaConf.to_container(read_yaml(base), resolve=False) for base in bases if base.is_file()]
    return _names_a_class([*parts, *(values.get(key) for key in ("overrides", "axes", "variants"))])


def _names_a_class(values: Any) -> bool:
    if isinstance(values, dict):
        return any(_names_a_class(value) for name, value in values.items() if name not in ("env", "env.id"))
    return any(map(_names_a_class, values)) if isinstance(values, list) else is_own(values)


def _check_type(file: Path, key: str, value: Any, types: tuple[type, ...]) -> None:
    if not isinstance(value, types):
        raise UserError(f"{file}: {key}={value!r} is not of type {types[-1].__name__}")


def _check_variant(file: Path, name: str, variant: Any, axes: list[str]) -> None:
    if variant is None:
        return
    if not isinstance(variant, dict) or not all(isinstance(variant.get(key, []), list) for key in ("seeds", "bases")):
        raise UserError(f"{file}: variants must map names to keys and values, seeds and bases to a list")
    environments = variant.get("environments", {})
    if not isinstance(environments, dict) or not all(isinstance(own or {}, dict) for own in environments.values()):
        raise UserError(f"{file}: variant {name}: environments must map environments to keys and values")
    for values in (variant, *(own or {} for own in environments.values())):
        _refuse_named_elsewhere(file, f"variant {name}", values)
        for key in axes:
            if _sets(_variant(values), key):
                raise UserError(f"{file}: variant {name} sets {key}, which is an axis: its value would have no effect")
    for env_id, values in environments.items():
        for key in (*VARIANT_KEYS, "env.id"):
            if key in _variant(values or {}):
                raise UserError(f"{file}: variant {name}: {key} has no place in its settings for {env_id}")


def _sets(values: dict[str, Any], key: str) -> bool:
    """Whether the dotted keys set this key, perhaps as part of `env.kwargs`."""
    parts = [f"{free}.{name}" for free in FREE_FORM for name in values.get(free) or {}]
    return key in values or key in parts


def _check_environments_of_variants(values: dict[str, Any], file: Path) -> None:
    scales = [scale for scale in values.get("scales", {}).values() if isinstance(scale, dict)]
    known = [env_id for part in (values, *scales) for env_id in part.get("environments") or []]
    for name, variant in values.get("variants", {}).items():
        for env_id in (variant or {}).get("environments", {}):
            if env_id not in known:
                raise UserError(f"{file}: variant {name}: {env_id} is not one of environments{nearest(env_id, known)}")


def _refuse_named_elsewhere(file: Path, where: str, values: dict[str, Any]) -> None:
    for key, owner in NAMED_ELSEWHERE.items():
        if key in values:
            raise UserError(f"{file}: {where}: {key} would have no effect: use {owner}")


def _check_axis_key(file: Path, where: str, key: Any, own: bool) -> None:
    if key in NAMED_ELSEWHERE:
        raise UserError(f"{file}: {where}{key} would have no effect: use {NAMED_ELSEWHERE[key]}")
    known = key in all_keys() or is_free_form(str(key))
    if not known and not (own and str(key).startswith(OPEN_GROUPS)):
        raise UserError(f"{file}: {where}{key} is not a key{nearest(str(key), list(all_keys()))}")


def _check_search(file: Path, search: dict[str, Any], own: bool) -> None:
    if not search:
        return
    for key in search:
        if key not in SEARCH_KEYS:
            raise UserError(f"{file}: unknown key search.{key}{nearest(str(key), list(SEARCH_KEYS))}")
    if search.get("method") not in ("random", "bayes"):
        raise UserError(f"{file}: search.method={search.get('method')} is not one of random, bayes")
    if type(search.get("runs")) is not int or search["runs"] < 1:
        raise UserError(f"{file}: search.runs={search.get('runs')} is not a positive number of runs")
    if search["runs"] > MOST_RUNS:
        raise UserError(f"{file}: search.runs={search['runs']} is too large: it must be at most {MOST_RUNS} runs")
    if not isinstance(search.get("ranges"), dict) or not search["ranges"]:
        raise UserError(f"{file}: search.ranges is missing: give min and max for a key")
    for key, limits in search["ranges"].items():
        _check_axis_key(file, "search.ranges: ", key, own)
        _check_range(f"{file}: search.ranges.{key}", limits)


def _check_range(where: str, limits: Any) -> None:
    def refuse(what: str) -> NoReturn:
        raise UserError(f"{where}: {what}")

    limits = limits if isinstance(limits, dict) else {}
    for key in limits:
        if key not in RANGE_KEYS:
            refuse(f"unknown key {key}{nearest(str(key), list(RANGE_KEYS))}")
    low, high, distribution = limits.get("min"), limits.get("max"), limits.get("distribution", DISTRIBUTIONS[0])
    rising = type(low) in (int, float) and type(low) is type(high) and math.isfinite(low) and math.isfinite(high)
    if not rising or low >= high:
        refuse("min must be a number below max, and both must be integers or both floats")
    if distribution not in DISTRIBUTIONS:
        refuse(f"distribution={distribution} is not one of {', '.join(DISTRIBUTIONS)}")
    if distribution == "log_uniform_values" and (isinstance(low, int) or low <= 0):
        refuse("log_uniform_values needs numbers above 0, written with a decimal point")
