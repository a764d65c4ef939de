"""Values mean what the user typed: YAML without YAML 1.1's surprises in names and numbers.

YAML 1.1 reads `name: 1e3` as 1000.0, `group: no` as false, `seed: 010` as 8 and `12:30` as 750. Here keys whose values
are strings keep them letter by letter, zero-padded numbers are decimal, and anything with a colon is not a number.
"""

import functools
import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from trpo_lightning.settings import all_keys

STRING, INTEGER = "tag:yaml.org,2002:str", "tag:yaml.org,2002:int"
NULLS = ("", "~", "null", "Null", "NULL")
READ_AS_YAML = ("'", '"', "[", "{", "!")
"""First characters of command-line strings that are parsed as YAML: quotes, lists, mappings, tags.

Without brackets, which shells take for patterns, a list of texts is typed with commas: `tracking.tags=pilot,laptop`.
"""
TEXTS_OF_CLAIMS = ("of", "than", "environment")
PADDED = re.compile(r"([-+]?)0[0-9_]*[0-9]")
SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")


def typed_value(key: str, text: str) -> Any:
    """The value of `key=text` on the command line. Errors of OmegaConf and YAML pass through."""
    kind = _text_keys().get(key, "")
    if kind.startswith("str") and not text.lstrip().startswith(READ_AS_YAML):
        yaml.reader.Reader(text)  # raises for characters that YAML could not write
        return None if "None" in kind and text.strip() in NULLS else text.strip()
    if kind == "list[str]" and text.strip() not in NULLS and not text.lstrip().startswith(READ_AS_YAML):
        yaml.reader.Reader(text)
        return [part.strip() for part in text.split(",")]
    if text == "None" and _takes_null(key):  # as W&B's agents write Python's null
        return None
    whole = (*READ_AS_YAML, "${")
    if _kind_of(key).startswith("list[") and text.strip() not in NULLS and not text.lstrip().startswith(whole):
        text = f"[{text}]"
    value = _plain(OmegaConf.from_dotlist([f"x={text}"]))["x"]
    if isinstance(value, float) and value.is_integer() and key != "seed" and _kind_of(key) in ("int", "int | None"):
        return int(value)  # total_env_steps=1e6; a seed is a name, not a size
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not _mend(node, tuple(key.split("."))):
        return value
    name = yaml.ScalarNode(STRING, "x")
    return _plain(OmegaConf.create(_text_of(yaml.MappingNode("tag:yaml.org,2002:map", [(name, node)]))))["x"]


def load_yaml(file: Path) -> Any:
    """Load a file with OmegaConf. Errors of OmegaConf, YAML and the operating system pass through."""
    config = OmegaConf.load(file)
    node = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    return OmegaConf.create(_text_of(node)) if _mend(node, ()) else config


def _plain(config: Any) -> Any:
    return OmegaConf.to_container(config, resolve=False)


def _text_of(node: yaml.Node) -> str:
    return yaml.serialize(node, Dumper=yaml.SafeDumper, allow_unicode=True)


def _mend(node: yaml.Node | None, path: tuple[str, ...], seen: set[int] | None = None) -> bool:
    """Rewrite the scalars below a node so that YAML reads them as they were typed; returns whether any changed."""
    seen = set() if seen is None else seen
    if node is None or id(node) in seen:  # an alias is mended at its anchor
        return False
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        return _mend_scalar(node, _kind(path))
    if isinstance(node, yaml.SequenceNode):
        return any([_mend(item, path, seen) for item in node.value])
    assert isinstance(node, yaml.MappingNode)
    names = [_mend_scalar(name, "str") for name, _ in node.value if path[-1:] == ("variants",)]
    return any(names + [_mend(value, (*path, str(name.value)), seen) for name, value in node.value])


def _mend_scalar(node: yaml.Node, kind: str) -> bool:
    if not isinstance(node, yaml.ScalarNode) or node.style is not None:
        return False
    value = node.value
    if kind and not ("None" in kind and value in NULLS):
        if node.tag == STRING and value[:1] not in set("+-.0123456789"):
            return False
        node.tag, node.style = STRING, '"'
    elif padded := PADDED.fullmatch(value):
        node.tag, node.value = INTEGER, padded[1] + (value.lstrip("+-0_") or "0")
    elif SEXAGESIMAL.fullmatch(value):
        node.tag, node.style = STRING, '"'
    else:
        return False
    return True


def _kind(path: tuple[str, ...]) -> str:
    """The declared type of the setting at a path in a file; empty if it is not a string.

    In an experiment's file, settings are below `overrides`, `axes`, and names of variants, scales and environments.
    """
    if path[:1] == ("scales",):
        path = path[2:]
    if path[:1] == ("claims",):
        return "str" if path[1:2] and path[1] in TEXTS_OF_CLAIMS else ""
    if path[:1] in (("overrides",), ("axes",)):
        path = path[1:]
    elif path[:1] == ("variants",):
        path = path[4:] if path[2:3] == ("environments",) else path[2:]
    return _text_keys().get(".".join(path), "")


@functools.cache
def _text_keys() -> dict[str, str]:
    """Keys whose values are strings or lists of strings, with their declared types."""
    types = {key: _kind_of(key) for key in all_keys()}
    return {key: kind for key, kind in types.items() if kind in ("str", "str | None", "list[str]")}


def _kind_of(key: str) -> str:
    """The declared type of a setting; empty for other keys."""
    item = all_keys().get(key)
    return str(getattr(item.type, "__name__", item.type)) if item else ""


def _takes_null(key: str) -> bool:
    return key in all_keys() and key not in _text_keys() and "None" in str(all_keys()[key].type)
