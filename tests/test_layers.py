"""The folder tree is the import graph: packages import only downward, without cycles, and one package imports Ray."""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping

import pytest

from tests.support.paths import PROJECT_ROOT

LEVELS = (
    ("errors", "storage"),
    ("samples", "images"),
    ("readers", "engine"),
    ("dataset",),
    ("planning", "stages", "quality"),
    ("tasks", "runs"),
    ("scenes",),
    ("evaluation",),
    ("training",),
)
"""The packages and files of `pipelines`, lowest first; within a level, each may import those listed before it."""
UNICON_PACKAGES = {
    "files": set(),
    "sampling": set(),
    "metrics": set(),
    "scenes": set(),
    "adapters": {"files"},
    "compilation": {"files"},
    "training": {"adapters", "files", "metrics", "sampling", "scenes"},
}
"""The packages of `unicon`, and those that each may import."""
FORBIDDEN = {
    "unicon": {"engines", "pipelines", "jobs", "tests", "ray", "pyarrow", "fsspec", "s3fs"},
    "engines": {"pipelines", "jobs", "tests", "ray", "pyarrow", "fsspec", "s3fs"},
    "pipelines": {"jobs", "tests", "torch", "diffusers"},
    "jobs": {"tests", "ray", "pyarrow", "fsspec"},
}
TORCH_FILES = {"pipelines/tasks/model.py", "pipelines/training/work.py"}
"""Files that import torch within a function that runs in the actor."""
FILES_IN_PIPELINES = 6
PACKAGES_WITHOUT_TORCH = ("unicon.files", "unicon.options", "unicon.adapters.config", "unicon.limits",
                          "unicon.compilation.policy", "unicon.working_sizes", "unicon.training.views",
                          "unicon.training.batch_plan")  # fmt: skip


def modules(package: str) -> Iterator[tuple[str, ast.Module]]:
    """Yield the dotted name and syntax tree of every module of a package."""
    for path in sorted((PROJECT_ROOT / package).rglob("*.py")):
        parts = path.relative_to(PROJECT_ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), ast.parse(path.read_text())


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names of all imports of a module, including those within functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def graph(package: str) -> dict[str, set[str]]:
    """Return the modules of the same package that each module imports."""
    trees = dict(modules(package))
    edges: dict[str, set[str]] = defaultdict(set)
    for module, tree in trees.items():
        for name in imported_names(tree):
            target = name if name in trees else name.rpartition(".")[0]
            if target in trees and target not in (package, module):
                edges[module].add(target)
    return edges


def find_cycle(edges: Mapping[str, set[str]]) -> list[str]:
    """Return the modules of one import cycle, or nothing if there is none."""
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


def package_of(module: str) -> str:
    return f"{module}.".split(".")[1]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_top_level_packages_import_downward(package: str) -> None:
    wrong = []
    for module, tree in modules(package):
        name = module.replace(".", "/") + ".py"
        forbidden = FORBIDDEN[package] - ({"torch"} if name in TORCH_FILES else set())
        if package == "pipelines" and not module.startswith("pipelines.engine"):
            forbidden = forbidden | {"ray"}
        found = {imported.split(".")[0] for imported in imported_names(tree)}
        wrong += [f"{name} imports {other}" for other in found & forbidden]
    assert wrong == []


def test_packages_of_pipelines_import_downward() -> None:
    order = {package: (level, at) for level, packages in enumerate(LEVELS) for at, package in enumerate(packages)}
    wrong = [
        f"{module} imports {target}"
        for module, targets in graph("pipelines").items()
        for target in sorted(targets)
        if package_of(module) != package_of(target) and order[package_of(module)] <= order[package_of(target)]
    ]
    assert wrong == []


def test_packages_of_unicon_import_downward() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in graph("unicon").items()
        for target in sorted(targets)
        if (package := package_of(module)) in UNICON_PACKAGES
        and (other := package_of(target)) in UNICON_PACKAGES
        and other not in {package, *UNICON_PACKAGES[package]}
    ]
    assert wrong == []


@pytest.mark.parametrize("package", FORBIDDEN)
def test_there_are_no_import_cycles(package: str) -> None:
    assert find_cycle(graph(package)) == []


def test_an_import_cycle_is_found() -> None:
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_modules_of_pipelines_are_in_packages() -> None:
    files = {path.name for path in (PROJECT_ROOT / "pipelines").glob("*.py")}
    assert len(files) <= FILES_IN_PIPELINES, f"move these into packages: {sorted(files)}"


@pytest.mark.parametrize("package", ["jobs", "files of unicon"])
def test_torch_waits_until_it_is_needed(package: str) -> None:
    """`--help` and the checks of the driver before its start take one second, not ten."""
    if package == "jobs":
        names = [module for module, _ in modules("jobs") if "train_mini" not in module]
    else:
        names = [module for module, _ in modules("unicon") if module.startswith(PACKAGES_WITHOUT_TORCH)]
    code = f"import sys\nimport {', '.join(names)}\nassert not {{'torch', 'diffusers', 'ray'}} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, check=True)
