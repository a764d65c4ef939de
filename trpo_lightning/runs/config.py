"""Configuration: OmegaConf merges defaults, files and `key=value`; errors are one line that names key and source."""

import functools
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from trpo_lightning.errors import UserError, nearest
from trpo_lightning.runs.typed_text import load_yaml, typed_value
from trpo_lightning.settings import FREE_FORM, RunSettings, check, completed, is_free_form, keys, to_dict

NOT_YAML = (YAMLError, OmegaConfBaseException, ValueError, LookupError, AttributeError, RecursionError)
"""What reading a text as YAML can raise: the constructors of `!!int`, `!!bool`, `!!timestamp` let Python's through."""

NOT_MERGED = (OmegaConfBaseException, OverflowError, TypeError)
"""What merging can raise: a `TypeError` where a list meets a mapping."""


def load_settings(overrides: list[str], file: Path | None = None) -> RunSettings:
    """Defaults, then `file`, then `key=value` overrides. Raises `UserError` for anything that does not fit."""
    sources = []
    if file is not None:
        sources.append((str(file), read_yaml(file)))
    sources.append(("command line", parse_overrides(overrides)))
    return merge(sources)


def overridden(settings: RunSettings, source: str, overrides: list[str]) -> RunSettings:
    """`key=value` overrides on top of settings that come from `source`."""
    base = OmegaConf.create(_escaped(to_dict(settings)))
    return merge([(source, base), ("command line", parse_overrides(overrides))])


def merge(sources: list[tuple[str, DictConfig]]) -> RunSettings:
    """Settings from named sources, later ones over earlier ones, checked key by key."""
    for name, source in sources:
        _refuse_unknown(name, source)
    config: Any = OmegaConf.structured(RunSettings)
    try:
        config = _over(config, functools.reduce(_over, (source for _, source in sources), OmegaConf.create({})))
    except NOT_MERGED:
        config = _merge_one_by_one(config, sources)
    try:
        return check(OmegaConf.to_object(config))  # type: ignore[arg-type]
    except OmegaConfBaseException as error:
        raise UserError(_explain(error)) from error


def _merge_one_by_one(config: Any, sources: list[tuple[str, DictConfig]]) -> Any:
    """Slower, and able to name the source that does not fit."""
    for name, source in sources:
        try:
            config = _over(config, source)
        except NOT_MERGED as error:
            raise UserError(f"{name}: {_explain(error)}") from error
    return config


def _over(below: Any, source: DictConfig) -> Any:
    """A source over what is below it: groups are merged, `env.kwargs` is replaced, `env.kwargs.x` joins the others."""
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
    """A YAML file whose top level is a mapping. Raises `UserError` naming the file."""
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
    """`["rule.delta=0.02", ...]`; values are YAML. Raises `UserError` for what is not `key=value`."""
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
    """A source with one more dotted key. Those below `env.kwargs` stay dotted: they are to join what others say."""
    for earlier in [name for name in config if name == key or str(name).startswith(f"{key}.")]:
        del config[earlier]
    one = OmegaConf.create({key: value} if is_free_form(key) else {})
    if not is_free_form(key):
        OmegaConf.update(one, key, value)
    _refuse_groups(source, one)  # before the merge: a later key would cover `env=null`
    return _over(config, one) if key in FREE_FORM else OmegaConf.merge(config, one)


def from_flat(values: dict[str, Any], source: str) -> tuple[str, DictConfig]:
    """A named source from dotted keys, `{"rule.delta": 0.02}`."""
    config = OmegaConf.create({})
    for key, value in values.items():
        try:
            config = _joined(config, source, key, value)
        except NOT_MERGED as error:
            raise UserError(f"{source}: {key}: {_explain(error)}") from error
    assert isinstance(config, DictConfig)
    return source, config


def write_config(settings: RunSettings, path: Path) -> None:
    """Every key with its value, as YAML that `train --config` reads back."""
    from trpo_lightning.storage.files import write_atomically

    write_atomically(path, OmegaConf.to_yaml(OmegaConf.create(_escaped(to_dict(settings)))).encode())


def _escaped(value: Any) -> Any:
    """The value with `${` in its texts escaped: what was resolved once is not to be resolved again."""
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def recorded_settings(run_dir: Path) -> RunSettings:
    """What a run was started with, also by an older version. Raises `UserError` if the directory holds no run."""
    file = run_dir / "config.yaml"
    if not file.is_file():
        raise UserError(f"{run_dir}: is not a run directory: it has no config.yaml")
    record: Any = OmegaConf.to_container(read_yaml(file), resolve=False)
    return merge([(str(file), OmegaConf.create(completed(record)))])


def _refuse_groups(source: str, config: DictConfig) -> None:
    groups = {key.partition(".")[0] for key in keys() if "." in key}
    for key, value in _leaves(config):
        if key in groups:
            raise UserError(f"{source}: {key} is a group of keys, not a value: write {key}.KEY={value}")


def _refuse_unknown(source: str, config: DictConfig) -> None:
    _refuse_groups(source, config)
    valid = keys()
    for key, _ in _leaves(config):
        if key not in valid and not is_free_form(key):
            raise UserError(f"{source}: unknown key {key}{nearest(key, list(valid))}")


def _leaves(config: DictConfig, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)

    def walk(node: dict, prefix: str) -> None:
        for name, value in node.items():
            key = f"{prefix}{name}"
            if isinstance(value, dict) and key not in FREE_FORM and (value or key not in keys()):
                walk(value, f"{key}.")
            else:
                found.append((key, value))

    walk(plain, prefix)
    return found


def _explain(error: Exception) -> str:
    """OmegaConf's message without its second half, with the key in front."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    key = getattr(error, "full_key", None)
    return f"{key}: {text}" if key and key not in text else text
