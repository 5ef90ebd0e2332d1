"""Fixtures for the tests of deploy/."""

from typing import Any

import pytest

from tests.support.kuberay import load_manifest


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    """The RayJob."""
    return load_manifest("rayjob.yaml")


@pytest.fixture(scope="module")
def groups(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Head and worker groups by name."""
    cluster = job["spec"]["rayClusterSpec"]
    return {"head": cluster["headGroupSpec"], **{group["groupName"]: group for group in cluster["workerGroupSpecs"]}}
