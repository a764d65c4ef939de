"""Configuration: OmegaConf merges defaults, files and `key=value`; each error is one line naming key and source."""

import copy
import functools
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from trpo_lightning.errors import UserError
from trpo_lightning.runs.typed_text import load_yaml, typed_value
from trpo_lightning.settings import (
    CHOICES,
    FREE_FORM,
    RunSettings,
    all_keys,
    assign,
    check,
    completed,
    conform,
    does_not_count,
    find_method,
    flat,
    is_free_form,
    is_own,
    keys,
    to_dict,
    why_refused,
)
from trpo_lightning.threads import available_cores, thread_environment

NOT_YAML = (YAMLError, OmegaConfBaseException, ValueError, LookupError, AttributeError, RecursionError)
"""What parsing YAML can raise: the constructors of `!!int`, `!!bool` and `!!timestamp` let Python's errors through."""

NOT_MERGED = (OmegaConfBaseException, OverflowError, TypeError)
"""What merging can raise, such as a `TypeError` where a list meets a mapping."""


EXPECTED = {
    "could not be converted to Integer": "a whole number",
    "could not be converted to Float": "a number",
    "is not a valid bool": "true or false",
    "is not a ListConfig": "a list, such as [64,64]",
    "to string": "one text",
}
"""Parts of OmegaConf's messages, and what they ask for."""

ONE_OF_A_RUN = {
    "seed": ": a run has one; an experiment's file lists several (seeds: [0, 1])",
    "env.id": ": a run has one environment; an experiment's file lists several (environments: [...])",
}
"""Keys of which people give several, and where those belong."""


class Source(NamedTuple):
    """Settings from one place; if `lenient`, keys that do not apply are dropped instead of refused."""

    name: str
    config: DictConfig
    lenient: bool = False


def load_settings(overrides: list[str], file: Path | None = None) -> RunSettings:
    """Merge the defaults, `file` and `key=value` overrides, in this order. Raises `UserError` if they are invalid."""
    sources = []
    if file is not None:
        config = read_yaml(file)
        sources.append(Source(str(file), config, lenient=_is_old_record(config)))
    sources.append(Source("command line", parse_overrides(overrides)))
    return merge(sources)


def _is_old_record(config: DictConfig) -> bool:
    """Whether a file is the `config.yaml` of a run from before 0.2, which holds the keys of all rules."""
    rule = config._get_node("rule")  # as it stands: it may be missing, or refer to what is not there
    return isinstance(rule, DictConfig) and {"delta", "learning_rate", "elite_fraction"} <= set(map(str, rule))


def overridden(settings: RunSettings, source: str, overrides: list[str]) -> RunSettings:
    """Apply `key=value` overrides to settings that come from `source`."""
    base = OmegaConf.create(_escaped(to_dict(settings)))
    return merge([Source(source, base, lenient=True), Source("command line", parse_overrides(overrides))])


def merge(sources: list[Source]) -> RunSettings:
    """Merge named sources, later ones over earlier ones, and check them key by key.

    The methods that the sources together select determine which keys exist. Raises `UserError`.
    """
    defaults = _chosen_methods(sources)
    sources = [_without_what_does_not_count(source, defaults) for source in sources]
    config: Any = OmegaConf.structured(defaults)
    try:
        config = _over(config, functools.reduce(_over, (s.config for s in sources), OmegaConf.create({})))
    except NOT_MERGED:
        config = _merge_one_by_one(config, sources)
    try:
        settings = check(OmegaConf.to_object(config))  # type: ignore[arg-type]
    except OmegaConfBaseException as error:
        raise UserError(_explain(error)) from error
    for source in sources:
        for key, _ in [] if source.lenient else _leaves(source.config):
            if reason := does_not_count(settings, key):
                raise UserError(f"{source.name}: {key} {reason}")
    return settings


def _chosen_methods(sources: list[Source]) -> RunSettings:
    """Default settings of the methods that the sources select; custom classes are imported."""
    for source in sources:
        _refuse_groups(source.name, source.config)
    values = {key: None for key in CHOICES}
    threads = None
    for source in sources:
        try:
            threads = OmegaConf.select(source.config, "threads") or threads
            for key in CHOICES:
                value = OmegaConf.select(source.config, key)
                values[key] = values[key] if value is None else value
        except OmegaConfBaseException as error:
            raise UserError(f"{source.name}: {_explain(error)}") from error
    if any(map(is_own, values.values())):  # the module may import torch, which reads its thread count on import
        os.environ.update(thread_environment(threads if isinstance(threads, int) else available_cores()))
    defaults = RunSettings()
    for key, value in values.items():
        if value is not None:
            assign(defaults, key, value)
    conform(defaults)
    return defaults


def _without_what_does_not_count(source: Source, settings: RunSettings) -> Source:
    """Drop keys of other methods from a lenient source; refuse them in any other, and unknown keys in all."""
    known, elsewhere, dropped = keys(settings), all_keys(), []
    for key, _ in _leaves(source.config):
        if key in known or is_free_form(key):
            continue
        if not (source.lenient and key in elsewhere):
            raise UserError(f"{source.name}: {why_refused(settings, key)}")
        dropped.append(key)
    if not dropped:
        return source
    config = copy.deepcopy(source.config)
    for key in dropped:
        group, _, leaf = key.rpartition(".")
        del config[group][leaf]
    return source._replace(config=config)


def _merge_one_by_one(config: Any, sources: list[Source]) -> Any:
    """Merge source by source: slower, but the error can name the source at fault."""
    for source in sources:
        try:
            config = _over(config, source.config)
        except NOT_MERGED as error:
            raise UserError(f"{source.name}: {_explain(error)}") from error
    return config


def _over(below: Any, source: DictConfig) -> Any:
    """Merge a source over those below: groups are merged, `env.kwargs` is replaced, `env.kwargs.x` joins the rest."""
    joining = [str(key) for key in source if is_free_form(str(key))]
    groups = OmegaConf.masked_copy(source, [str(key) for key in source if key not in joining])
    for free in FREE_FORM:
        if OmegaConf.select(groups, free, throw_on_missing=False) is not None:
            OmegaConf.update(below, free, {}, merge=False)
    config = OmegaConf.merge(below, groups)
    for key in joining:
        OmegaConf.update(config, key, source._get_node(key), merge=False, force_add=True)
    return config


def read_yaml(file: Path) -> DictConfig:
    """Read a YAML file whose top level is a mapping. Raises `UserError` naming the file."""
    try:
        config = load_yaml(file)
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from error
    except NOT_YAML as error:
        raise UserError(f"{file}: is not valid YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(config, DictConfig):
        raise UserError(f"{file}: must be a mapping from keys to values")
    return config


def parse_overrides(overrides: list[str]) -> DictConfig:
    """Parse `["rule.delta=0.02", ...]`; values are YAML. Raises `UserError` for anything but `key=value`."""
    config = OmegaConf.create({})
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w.\-/]*", key):
            raise UserError(f"command line: {item!r} is not key=value")
        try:
            config = _joined(config, "command line", key, typed_value(key, text))
        except (*NOT_YAML, *NOT_MERGED) as error:
            raise UserError(f"command line: {item!r} cannot be read: {' '.join(str(error).split())[:200]}") from error
    assert isinstance(config, DictConfig)
    return config


def _joined(config: Any, source: str, key: str, value: Any) -> Any:
    """Add one dotted key to a source. Keys below `env.kwargs` stay dotted, so that they join those of other sources."""
    for earlier in [name for name in config if name == key or str(name).startswith(f"{key}.")]:
        del config[earlier]
    one = OmegaConf.create({key: value} if is_free_form(key) else {})
    if not is_free_form(key):
        OmegaConf.update(one, key, value)
    _refuse_groups(source, one)  # before the merge: a later key would hide `env=null`
    return _over(config, one) if key in FREE_FORM else OmegaConf.merge(config, one)


def from_flat(values: dict[str, Any], source: str, *, lenient: bool = False) -> Source:
    """Make a named source from dotted keys, such as `{"rule.delta": 0.02}`."""
    config = OmegaConf.create({})
    for key, value in values.items():
        try:
            config = _joined(config, source, key, value)
        except NOT_MERGED as error:
            raise UserError(f"{source}: {key}: {_explain(error)}") from error
    assert isinstance(config, DictConfig)
    return Source(source, config, lenient)


def write_config(settings: RunSettings, path: Path) -> None:
    """Write every key with its value, as YAML that `train --config` can read back."""
    from trpo_lightning.storage.files import write_atomically

    write_atomically(path, config_text(settings).encode())


def config_text(settings: RunSettings) -> str:
    """What `write_config` writes."""
    return OmegaConf.to_yaml(OmegaConf.create(_escaped(to_dict(settings))))


def _escaped(value: Any) -> Any:
    """Escape `${` in the value's strings: what has been resolved once must not be resolved again."""
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def recorded_settings(run_dir: Path) -> RunSettings:
    """The settings of a run, even of an older version. Raises `UserError` if the directory holds no run."""
    file = run_dir / "config.yaml"
    if not file.is_file():
        raise UserError(f"{run_dir}: is not a run directory: it has no config.yaml")
    record: Any = OmegaConf.to_container(read_yaml(file), resolve=False)
    return merge([Source(str(file), OmegaConf.create(completed(record)), lenient=True)])


def find_named_methods(run_dir: Path) -> None:
    """Import the custom classes that a directory's config.yaml names: the user wrote it, so it may name code to run.

    Raises `UserError` for a class that cannot be imported. Without a readable config nothing is imported.
    """
    record: Any = {}
    with suppress(UserError):
        record = OmegaConf.to_container(read_yaml(run_dir / "config.yaml"), resolve=False)
    for key in CHOICES:
        name = flat(record).get(key)
        if isinstance(name, str) and is_own(name):
            find_method(key, name)


def _refuse_groups(source: str, config: DictConfig) -> None:
    groups = {key.partition(".")[0] for key in keys() if "." in key}
    for key, value in _leaves(config):
        if key in groups:
            known = f"{key}.name" in keys() and isinstance(value, str)
            raise UserError(
                f"{source}: {key} is a group of keys, not a value: write {key}.{'name' if known else 'KEY'}={value}"
            )


def _leaves(config: DictConfig, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)

    def walk(node: dict, prefix: str) -> None:
        for name, value in node.items():
            key = f"{prefix}{name}"
            if isinstance(value, dict) and key not in FREE_FORM and (value or key not in all_keys()):
                walk(value, f"{key}.")
            else:
                found.append((key, value))

    walk(plain, prefix)
    return found


def _as_typed(value: Any) -> str:
    text = str(OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _explain(error: Exception) -> str:
    """What a key expects and did not get, or the first half of OmegaConf's message, with the key in front."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    key = getattr(error, "full_key", None)
    for sign, expected in EXPECTED.items():
        if key and sign in text:
            return f"{key}={_as_typed(getattr(error, 'value', None))} is not {expected}{ONE_OF_A_RUN.get(key, '')}"
    return f"{key}: {text}" if key and key not in text else text
