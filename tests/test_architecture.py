"""Dependencies point one way, without circles, and heavy libraries are imported where they belong."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "trpo_lightning"
ORDER = [
    *("numerics", "policies", "values", "environments", "rollouts", "rules"),
    *("training", "tracking", "runs", "experiment", "report", "export", "benchmark"),
]
SHARED = {
    "errors",
    "extras",
    "output",
    "randomness",
    "ranks",
    "settings",
    "stopping",
    "storage",
    "threads",
    "user_modules",
}
"""What everything may import."""
FACADES = {"experiment/__init__.py"}
"""Public entry points that stand above all rooms, as the command line does."""
OWNERS = {
    "gymnasium": ["environments", "rollouts/memory.py", "rollouts/video.py", "export/onnx_policy.py"],
    "envpool": ["environments", "benchmark/peer_scripts"],
    "pytorch_lightning": ["training", "runs", "tracking"],
    "omegaconf": ["runs/config.py", "runs/typed_text.py", "experiment"],
    "matplotlib": ["report", "benchmark"],
    "plotly": ["report"],
    "wandb": ["tracking", "runs/evaluate.py", "experiment", "report"],
    "tensorboard": ["tracking", "report"],
    "mlflow": ["tracking"],
    "trackio": ["tracking"],
    "safetensors": ["storage/portable.py"],
    "onnx": ["export"],
    "huggingface_hub": ["export"],
    "ray": ["experiment/launchers"],
    "submitit": ["experiment/launchers"],
}
MOST_FILES = 14
"""Of one folder, `__init__.py` not counted: more is no room but a store."""


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


def module_of(name: str) -> str | None:
    """The module of this package that `a.b.c` names, or is a name of."""
    path = Path(PACKAGE.parent, *name.split("."))
    for candidate in (path, path.parent):
        for file in (candidate.with_suffix(".py"), candidate / "__init__.py"):
            if file.is_file():
                return str(file.relative_to(PACKAGE))
    return None


@pytest.mark.parametrize("package", ORDER)
def test_a_package_imports_only_what_stands_to_its_left(package):
    allowed = SHARED | set(ORDER[: ORDER.index(package) + 1])
    for file in (PACKAGE / package).rglob("*.py"):
        for name, _ in imports(file):
            if name.startswith("trpo_lightning.") and str(file.relative_to(PACKAGE)) not in FACADES:
                assert name.split(".")[1] in allowed, f"{file.relative_to(PACKAGE)} imports {name}"


@pytest.mark.parametrize("package", sorted(SHARED))
def test_what_is_shared_imports_nothing_else(package):
    path = PACKAGE / package
    for file in path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
        for name, _ in imports(file):
            if name.startswith("trpo_lightning."):
                assert name.split(".")[1] in SHARED, f"{file.relative_to(PACKAGE)} imports {name}"


def test_there_is_no_circle_of_imports():
    graph = {}
    for file in files():
        path = str(file.relative_to(PACKAGE))
        if path in FACADES or path == "__init__.py":
            continue
        found = {module_of(name) for name, _ in imports(file) if name.startswith("trpo_lightning.")}
        graph[path] = {other for other in found if other not in (None, path, "__init__.py", *FACADES)}
    while leaves := [path for path, needs in graph.items() if not needs & graph.keys()]:
        for leaf in leaves:
            del graph[leaf]
    assert not graph, f"each of these needs another: {sorted(graph)}"


def test_a_folder_holds_what_one_can_survey():
    for folder in {file.parent for file in files()}:
        count = len([file for file in folder.glob("*.py") if file.name != "__init__.py"])
        assert count <= MOST_FILES or folder.name == "benchmark", f"{folder.relative_to(PACKAGE)} has {count} files"


@pytest.mark.parametrize("library", OWNERS)
def test_a_heavy_library_is_imported_by_its_owner_only(library):
    users = [file for file in files() if any(n.split(".")[0] == library for n, _ in imports(file))]
    assert users
    for file in users:
        path = str(file.relative_to(PACKAGE))
        assert any(path.startswith(owner) for owner in OWNERS[library]), f"{path} imports {library}"


@pytest.mark.parametrize("library", ["wandb", "envpool", "tensorboard", "mlflow", "trackio", "safetensors", "onnx"])
def test_optional_and_slow_libraries_are_imported_late(library):
    for file in files():
        assert (library, True) not in imports(file), file


def test_the_mathematics_needs_torch_only():
    for file in (PACKAGE / "numerics").rglob("*.py"):
        for name, _ in imports(file):
            root = name.split(".")[0]
            assert root in {"torch", "trpo_lightning", "collections", "dataclasses", "enum", "typing", "math"}
