"""Settings of every test: no network, no telemetry, one Ray for the session."""

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
    """Warnings are errors here, but Ray's about itself are not ours to mend."""
    for warning in ("ignore::DeprecationWarning:ray.*", "ignore::FutureWarning:ray.*", "ignore::ResourceWarning"):
        config.addinivalue_line("filterwarnings", warning)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A real local Ray of two CPUs, and a GPU that only Ray believes in; started once."""
    import ray

    from pipelines.engine.cluster import start_local

    start_local(num_cpus=2, num_gpus=1)
    yield
    ray.shutdown()
