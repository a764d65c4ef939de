"""Dependencies point one way, and heavy libraries are imported where they belong."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "trpo_lightning"
ORDER = ["numerics", "policies", "values", "rollouts", "rules", "training", "experiment", "benchmark"]
SHARED = {"errors", "output", "settings", "randomness", "stopping", "threads"}
"""Top-level modules that everything may import."""
OWNERS = {
    "gymnasium": ["rollouts"],
    "envpool": ["rollouts", "benchmark/peer_scripts"],
    "pytorch_lightning": ["training"],
    "omegaconf": ["experiment"],
    "matplotlib": ["experiment", "benchmark"],
    "plotly": ["experiment"],
    "wandb": ["training/tracking.py", "training/wandb_client.py", "experiment"],
}


def imports(file: Path) -> list[tuple[str, bool]]:
    """Imported modules, each with whether the import stands at the top level of the file."""
    tree = ast.parse(file.read_text())
    top = set(tree.body)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(name, node in top) for name in names]
    return found


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("package", ORDER)
def test_a_package_imports_only_what_stands_to_its_left(package):
    allowed = SHARED | set(ORDER[: ORDER.index(package) + 1])
    for file in (PACKAGE / package).rglob("*.py"):
        for name, _ in imports(file):
            if name.startswith("trpo_lightning."):
                assert name.split(".")[1] in allowed, f"{file.relative_to(PACKAGE)} imports {name}"


@pytest.mark.parametrize("library", OWNERS)
def test_a_heavy_library_is_imported_by_its_owner_only(library):
    users = [file for file in files() if any(n.split(".")[0] == library for n, _ in imports(file))]
    assert users
    for file in users:
        path = str(file.relative_to(PACKAGE))
        assert any(path.startswith(owner) for owner in OWNERS[library]), f"{path} imports {library}"


@pytest.mark.parametrize("library", ["wandb", "envpool"])
def test_optional_and_slow_libraries_are_imported_late(library):
    for file in files():
        assert (library, True) not in imports(file), file


def test_the_mathematics_needs_torch_only():
    for file in (PACKAGE / "numerics").rglob("*.py"):
        for name, _ in imports(file):
            assert name.split(".")[0] in {"torch", "trpo_lightning", "collections", "dataclasses", "typing", "math"}
