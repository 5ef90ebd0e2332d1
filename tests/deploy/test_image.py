"""The Dockerfile satisfies hadolint, and the image contains what the manifests use."""

import re
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from jobs import estimate_depth
from tests.support.checkers import BIN, DEPLOY, run_checker
from tests.support.paths import PROJECT_ROOT


@pytest.fixture(scope="module")
def dockerfile() -> str:
    """The Dockerfile."""
    return (DEPLOY / "Dockerfile").read_text()


def test_hadolint_accepts_the_dockerfile() -> None:
    run_checker(BIN / "hadolint", "--failure-threshold", "style", DEPLOY / "Dockerfile")


def test_the_entrypoint_is_in_the_image_and_its_options_exist(job: dict[str, Any], dockerfile: str) -> None:
    python, script, *options = shlex.split(job["spec"]["entrypoint"])
    (home,) = re.findall(r"^WORKDIR (\S+)$", dockerfile, re.MULTILINE)
    assert python == "python" and f"PYTHONPATH={home} " in dockerfile
    path = Path(script).relative_to(home)
    assert (PROJECT_ROOT / path).is_file() and f"COPY {path.parts[0]} {path.parts[0]}\n" in dockerfile
    assert (
        estimate_depth.parse(options).num_gpus_per_actor == 1
    )  # else a cluster without workers would use the head's CPU


def test_image_and_cluster_have_the_pinned_ray(job: dict[str, Any], dockerfile: str) -> None:
    pinned = re.search(r"^ray==(\S+)", (PROJECT_ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned and pinned[1] == version("ray") == job["spec"]["rayClusterSpec"]["rayVersion"]
    assert "--require-hashes" in dockerfile and "USER 1000" in dockerfile


def test_the_image_gets_what_it_copies_and_nothing_else(dockerfile: str) -> None:
    rules = [
        rule for rule in (PROJECT_ROOT / ".dockerignore").read_text().split("\n") if rule and not rule.startswith("#")
    ]
    assert rules[0] == "*" and rules[-1] == "**/__pycache__"
    copied = set(re.findall(r"^COPY (\S+) ", dockerfile, re.MULTILINE))
    bound = set(re.findall(r"type=bind,source=([^,\s]+)", dockerfile))
    assert {rule.removeprefix("!") for rule in rules[1:-1]} == copied | bound
    assert all((PROJECT_ROOT / name).exists() for name in copied | bound)
