"""`ray job submit --working-dir .` uploads the program and nothing else."""

import subprocess
import zipfile
from pathlib import Path

from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

from tests.support.paths import PROJECT_ROOT


def test_the_upload_excludes_runs_tests_and_the_environment(tmp_path: Path) -> None:
    project = tmp_path / "project"
    wanted = ["jobs/estimate_depth.py", "pipelines/runs/runner.py", "unicon/models/mini/unet/weights.safetensors"]
    unwanted = [".venv/bin/python", ".git/HEAD", "runs/mini/last.pt", "out/depth/data/0.parquet"]
    unwanted += ["tests/golden/case.npz", "docs/images/mini-depth.png", "unicon/__pycache__/model.pyc"]
    for name in [*wanted, *unwanted]:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("x")
    for name in (".gitignore", ".rayignore"):
        (project / name).write_text((PROJECT_ROOT / name).read_text())
    assert {*package(project, tmp_path / "project.zip")} - {".gitignore", ".rayignore"} == {*wanted}


def test_the_working_directory_of_this_project_is_small(tmp_path: Path) -> None:
    sizes = package(PROJECT_ROOT, tmp_path / "project.zip")
    tracked = subprocess.run(
        ["git", "ls-files", "jobs", "pipelines", "engines", "unicon"], cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    assert {name for name in tracked.stdout.split() if (PROJECT_ROOT / name).exists()} <= {*sizes}
    assert sum(sizes.values()) < 40e6


def package(folder: Path, target: Path) -> dict[str, int]:
    """Return the files in the archive that Ray uploads, with their sizes."""
    create_package(str(folder), target, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    with zipfile.ZipFile(target) as archive:
        return {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}
