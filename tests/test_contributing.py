"""The code blocks of CONTRIBUTING.md and docs/engines.md work as they say, applied to a copy of the project."""

import re
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

from tests.support.paths import PROJECT_ROOT

CHECK = """
import zipfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from engines import parse_engine
from jobs import _cli, estimate, estimate_albedo
from pipelines.runs.environment import Environment
from pipelines.runs.runner import run_job
from pipelines.storage.store import FILES
from pipelines.tasks.engine_model import resolve_engine
from tests.support.fake_depth import FakeDepth
from tests.support.inputs import encoded_image
from tests.support.in_process import InProcess
from tests.support.run_fake_job import identity
from unicon.conditions import CONDITIONS

albedo = CONDITIONS["albedo"]
maps = np.random.default_rng(0).random((8, 6, 3), np.float32)
assert np.abs(albedo.decode(albedo.encode(maps)) - maps).max() <= 0.5 / 255 + 1e-6
assert np.abs(albedo.from_model(albedo.to_model(maps)) - maps).max() < 1e-6


class FakeAlbedo(FakeDepth):
    def estimate(self, *arguments, **options):
        return [np.repeat(each[..., None], 3, axis=2) for each in super().estimate(*arguments, **options)]


with zipfile.ZipFile("in/photos.zip", "w") as archive:
    for name in ("b.jpg", "a.jpg", "broken.jpg", "notes.txt"):
        archive.writestr(name, b"no image" if name in ("broken.jpg", "notes.txt") else encoded_image(3))
options = estimate_albedo.parse(["--input", "in", "--output", "out", "--chunk-size", "2", "--max-error-rate", "1"])
job = estimate.task_run(options, identity("albedo"), FakeAlbedo()).as_job()
environment = Environment(store=FILES, executor=InProcess(), heartbeat=lambda beat: nullcontext())
assert run_job(job, _cli.request_of(options), environment) == 0
rows = {name: [row for path in sorted(Path("out", name).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
        for name in ("data", "errors")}
assert [row["key"] for row in rows["data"]] == ["a.jpg", "b.jpg"]
assert all(row["albedo"]["bytes"].startswith(b"\\x89PNG") for row in rows["data"])
assert [row["key"] for row in rows["errors"]] == ["broken.jpg"]

spec = parse_engine("brightness:new", ["gain=0.5"])
maps = spec.load(None, "cpu").estimate([Image.new("RGB", (8, 6), "white")], "depth", seeds=[0])
assert maps[0].shape == (6, 8) and (maps[0] == 0.5).all()
assert resolve_engine(spec)[1].provenance["engine"] == "brightness:new"
"""
"""Runs the new job on a new shard, with the new condition, without Ray; and the new engine."""


def pages() -> str:
    """Return the text of the pages whose code is run."""
    return "\n".join((PROJECT_ROOT / name).read_text() for name in ("CONTRIBUTING.md", "docs/engines.md"))


def blocks() -> list[tuple[str, str, str]]:
    """Return (file, how it changes, code) for every block of Python code on the pages."""
    return re.findall(r"^```python\n# (\S+), ([^\n]*)\n(.*?)^```$", pages(), re.MULTILINE | re.DOTALL)


def apply(project: Path, name: str, change: str, code: str) -> None:
    """Change a file of the copy as the first line of a block says."""
    path = project / name
    if change == "new file":
        assert not path.exists()
        path.write_text(code)
        return
    lines = path.read_text().splitlines(keepends=True)
    imports = change == "added to the imports"
    start = f"from {name.split('/')[0]}" if imports else change.rsplit(" ", 1)[-1]
    at = next(at for at, line in enumerate(lines) if line.startswith(start))
    if change.startswith("instead of "):
        lines[at] = code
    else:
        lines.insert(at if imports else at + 1, code)
    path.write_text("".join(lines))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with all blocks applied."""
    copy = tmp_path_factory.mktemp("project")
    for package in ("unicon", "engines", "pipelines", "jobs"):
        copytree(PROJECT_ROOT / package, copy / package, ignore=ignore_patterns("__pycache__", "models"))
    (copy / "unicon" / "models").symlink_to(PROJECT_ROOT / "unicon" / "models")
    (copy / "tests").symlink_to(PROJECT_ROOT / "tests")
    (copy / "pyproject.toml").symlink_to(PROJECT_ROOT / "pyproject.toml")
    (copy / "in").mkdir()
    for name, change, code in blocks():
        apply(copy, name, change, code)
    return copy


def run(project: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_block_says_where_it_belongs() -> None:
    assert len(blocks()) == pages().count("```python") == 8


def test_a_new_condition_in_a_new_format_by_a_new_job(project: Path) -> None:
    run(project, "-c", CHECK)


def test_the_new_job_has_a_help(project: Path) -> None:
    text = run(project, "jobs/estimate_albedo.py", "--help")
    assert "Estimate the albedo" in text and "python jobs/estimate_albedo.py" in text and "exit codes:" in text


def test_the_code_passes_the_checks(project: Path) -> None:
    files = sorted({name for name, _, _ in blocks()})
    run(project, "-m", "ruff", "check", "--ignore", "I001", *files)  # imports are added at the top of their block
    run(project, "-m", "ruff", "format", "--check", *files)


def test_the_files_that_the_page_names_exist() -> None:
    new = {name for name, change, _ in blocks() if change == "new file"}
    named = set(re.findall(r"`((?:unicon|engines|pipelines|jobs|tests|docs)/[\w/.]+)`", pages())) - new
    assert named and [name for name in sorted(named) if not (PROJECT_ROOT / name).exists()] == []
