"""The versions that decide a run's bits, compared between machines."""

import hashlib
import platform
from functools import cache
from pathlib import Path

from trpo_lightning.errors import UserError
from trpo_lightning.runs.provenance import package_versions


@cache
def versions() -> dict[str, str | None]:
    """Python, this package's code and the packages that a run records."""
    package, digest = Path(__file__).parents[2], hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    code = {"trpo_lightning's code": digest.hexdigest()[:8]}
    return {"python": platform.python_version(), **code, **package_versions()}


def check_versions(here: dict[str, str | None], there: dict[str, str | None], node: str) -> None:
    """Raise a `UserError` that names what differs on a node."""
    different = [
        f"{name} {there.get(name) or 'is missing'} instead of {here[name] or 'none'}"
        for name in here
        if there.get(name) != here[name]
    ]
    if different:
        raise UserError(f"{node} has other versions: {', '.join(different)}: install the same on all nodes")
