"""The folder tree is the import graph: unicon <- pipelines <- jobs, and Ray stays in the files that need it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RAY_FILES = {"pipelines/flow.py", "pipelines/cluster.py", "pipelines/metrics.py"}
FORBIDDEN = {
    "unicon": {"pipelines", "jobs", "tests", "ray", "pyarrow", "fsspec", "s3fs"},
    "pipelines": {"jobs", "tests", "ray", "torch", "diffusers"},
    "jobs": {"tests", "ray", "pyarrow", "fsspec"},
}
TORCH_FILES = {"pipelines/predictors.py"}
"""Imports torch inside the actor only."""


def imported(path: Path) -> Iterator[str]:
    """Top-level package names of all imports of a file, nested ones included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_imports_point_downwards(layer: str) -> None:
    wrong = []
    for path in sorted((ROOT / layer).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        allowed = {"ray"} if name in RAY_FILES else {"torch"} if name in TORCH_FILES else set()
        wrong += [f"{name} imports {package}" for package in {*imported(path)} & (FORBIDDEN[layer] - allowed)]
    assert wrong == []
