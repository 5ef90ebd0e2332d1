"""The file of the cluster launcher satisfies the schema of Ray and has the intended effect."""

from typing import Any

import pytest
import yaml
from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer, get_nodes_for
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.support.paths import PROJECT_ROOT

PATH = PROJECT_ROOT / "cluster.yaml"


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    """Return the file as the launcher of Ray reads it."""
    config = prepare_config(yaml.safe_load(PATH.read_text()))
    validate_config(config)
    return config


def test_the_head_does_no_work(cluster: dict[str, Any]) -> None:
    assert cluster["available_node_types"][cluster["head_node_type"]]["resources"] == {"CPU": 0}


def test_gpu_workers_scale_from_zero_with_an_on_demand_fallback(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    gpu = {name: kind for name, kind in types.items() if kind["resources"].get("GPU")}
    assert all(kind["min_workers"] == 0 < kind["max_workers"] for kind in gpu.values())
    markets = {name: "InstanceMarketOptions" in kind["node_config"] for name, kind in gpu.items()}
    assert set(markets.values()) == {True, False}
    assert sum(kind["max_workers"] for name, kind in types.items() if name != "head") <= cluster["max_workers"]


def test_preemptible_workers_come_first_and_the_rest_on_demand(cluster: dict[str, Any]) -> None:
    def score(*arguments: Any) -> Any:
        summary: Any = None
        return _default_utilization_scorer(*arguments, node_availability_summary=summary)

    demand: list[Any] = [{"GPU": 1, "CPU": 1}] * 18
    nodes, unmet = get_nodes_for(cluster["available_node_types"], {"head": 1}, "head", 24, demand, score)
    assert dict(nodes) == {"gpu_preemptible": 16, "gpu_on_demand": 2} and not unmet


def test_mounted_files_exist(cluster: dict[str, Any]) -> None:
    assert all((PATH.parent / source).exists() for source in cluster["file_mounts"].values())
