"""The folder tree is the import graph: rooms import downwards only, no file imports in a circle, Ray has one room."""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping

import pytest

from tests.support.paths import PROJECT_ROOT

LEVELS = (
    ("texts",),
    ("errors", "storage"),
    ("samples", "chunk_names", "damage"),
    ("images",),
    ("readers", "engine"),
    ("dataset",),
    ("planning", "stages"),
    ("tasks",),
    ("runs",),
    ("scenes",),
    ("evaluation",),
)
"""The rooms and files of `pipelines`, lowest first. Within a level, each may import those that stand before it."""
UNICON_ROOMS = {
    "files": set(),
    "sampling": set(),
    "metrics": set(),
    "scenes": set(),
    "adapters": {"files"},
    "training": {"adapters", "files", "metrics", "scenes"},
}
"""Each room of `unicon`, and those that it may import."""
FORBIDDEN = {
    "unicon": {"pipelines", "jobs", "tests", "ray", "pyarrow", "fsspec", "s3fs"},
    "pipelines": {"jobs", "tests", "torch", "diffusers"},
    "jobs": {"tests", "ray", "pyarrow", "fsspec"},
}
TORCH_FILES = {"pipelines/tasks/model.py"}
"""They import torch within a function that runs in the actor."""
FILES_IN_PIPELINES = 6
ROOMS_WITHOUT_TORCH = ("unicon.files", "unicon.options", "unicon.adapters.config", "unicon.limits")


def modules(package: str) -> Iterator[tuple[str, ast.Module]]:
    """Dotted name and syntax tree of every module of a package."""
    for path in sorted((PROJECT_ROOT / package).rglob("*.py")):
        parts = path.relative_to(PROJECT_ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), ast.parse(path.read_text())


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Dotted names of all imports of a module, those within functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph(package: str) -> dict[str, set[str]]:
    """Module -> modules of the same package that it imports."""
    trees = dict(modules(package))
    edges: dict[str, set[str]] = defaultdict(set)
    for module, tree in trees.items():
        for name in imported_names(tree):
            target = name if name in trees else name.rpartition(".")[0]
            if target in trees and target not in (package, module):
                edges[module].add(target)
    return edges


def circle(edges: Mapping[str, set[str]]) -> list[str]:
    """The modules of one import circle; empty where there is none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in sorted(edges.get(module, ())):
            if found := visit(target, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(edges) if (found := visit(module, []))), [])


def room_of(module: str) -> str:
    return f"{module}.".split(".")[1]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_import_downwards(package: str) -> None:
    wrong = []
    for module, tree in modules(package):
        name = module.replace(".", "/") + ".py"
        forbidden = FORBIDDEN[package] - ({"torch"} if name in TORCH_FILES else set())
        if package == "pipelines" and not module.startswith("pipelines.engine"):
            forbidden = forbidden | {"ray"}
        found = {imported.split(".")[0] for imported in imported_names(tree)}
        wrong += [f"{name} imports {other}" for other in found & forbidden]
    assert wrong == []


def test_rooms_of_pipelines_import_downwards() -> None:
    order = {room: (level, at) for level, rooms in enumerate(LEVELS) for at, room in enumerate(rooms)}
    wrong = [
        f"{module} imports {target}"
        for module, targets in graph("pipelines").items()
        for target in sorted(targets)
        if room_of(module) != room_of(target) and order[room_of(module)] <= order[room_of(target)]
    ]
    assert wrong == []


def test_rooms_of_unicon_import_downwards() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in graph("unicon").items()
        for target in sorted(targets)
        if (room := room_of(module)) in UNICON_ROOMS
        and (other := room_of(target)) in UNICON_ROOMS
        and other not in {room, *UNICON_ROOMS[room]}
    ]
    assert wrong == []


@pytest.mark.parametrize("package", FORBIDDEN)
def test_nothing_is_imported_in_a_circle(package: str) -> None:
    assert circle(graph(package)) == []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_rooms_are_folders() -> None:
    files = {path.name for path in (PROJECT_ROOT / "pipelines").glob("*.py")}
    assert len(files) <= FILES_IN_PIPELINES, f"these belong to rooms: {sorted(files)}"


@pytest.mark.parametrize("package", ["jobs", "files of unicon"])
def test_torch_waits_until_it_is_needed(package: str) -> None:
    """`--help` and what the driver checks before it starts take a second, not ten."""
    if package == "jobs":
        names = [module for module, _ in modules("jobs") if "train_mini" not in module]
    else:
        names = [module for module, _ in modules("unicon") if module.startswith(ROOMS_WITHOUT_TORCH)]
    code = f"import sys\nimport {', '.join(names)}\nassert not {{'torch', 'diffusers', 'ray'}} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=True)
