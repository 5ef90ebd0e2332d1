"""Settings for all tests: no network, no telemetry, one Ray instance per session."""

import os
import sys
from collections.abc import Iterator

import pytest

from tests.support.paths import PROJECT_ROOT

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

ROOT = str(PROJECT_ROOT)
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)


def pytest_configure(config: pytest.Config) -> None:
    """Do not turn the warnings that Ray raises about itself into errors; all other warnings are errors."""
    for warning in ("ignore::DeprecationWarning:ray.*", "ignore::FutureWarning:ray.*", "ignore::ResourceWarning"):
        config.addinivalue_line("filterwarnings", warning)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Start a real local Ray once, with two CPUs and one GPU that exists only in Ray's accounting."""
    import ray

    from pipelines.engine.cluster import start_local

    start_local(num_cpus=2, num_gpus=1)
    yield
    ray.shutdown()
