"""The autoscaler of Ray scales the cluster of deploy/kuberay/ as intended; Ray itself reads the file and schedules."""

from typing import Any

import pytest
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil


@pytest.fixture(scope="module")
def scaling(job: dict[str, Any]) -> AutoscalingConfig:
    """The configuration of the autoscaler, derived and validated by Ray."""
    resource = {"metadata": {"name": "x", "namespace": "default"}, "spec": job["spec"]["rayClusterSpec"]}
    return AutoscalingConfig(_derive_autoscaling_config_from_ray_cr(resource), skip_content_hash=True)


def launched(scaling: AutoscalingConfig, gpus: int, availability: dict[str, float] | None = None) -> dict[str, int]:
    """Return which workers the scheduler of Ray starts for this number of actors with one GPU each."""
    actors = [ResourceRequestUtil.make({"GPU": 1, "CPU": 1})] * gpus
    types = {name: kind for name, kind in scaling.get_node_type_configs().items() if name != "headgroup"}
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=types,
            resource_requests=ResourceRequestUtil.group_by_count(actors),
            recoverable_resource_availabilities=availability or {},
        )
    )
    assert not reply.infeasible_resource_requests
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def test_the_head_does_no_work_and_gpu_workers_have_a_gpu(scaling: AutoscalingConfig) -> None:
    resources = {name: kind.resources for name, kind in scaling.get_node_type_configs().items()}
    assert resources.pop("headgroup")["CPU"] == 0
    assert [(kind["GPU"], kind["CPU"]) for kind in resources.values()] == [(1, 7), (1, 7)]


def test_preemptible_workers_come_first_and_others_if_these_are_unavailable(scaling: AutoscalingConfig) -> None:
    assert launched(scaling, 10) == {"gpu-preemptible": 8, "gpu-on-demand": 2}
    assert launched(scaling, 3) == {"gpu-preemptible": 3}
    assert launched(scaling, 3, {"gpu-preemptible": 0.0}) == {"gpu-on-demand": 3}


def test_idle_workers_outlast_the_wait_for_new_ones(job: dict[str, Any]) -> None:
    options = job["spec"]["rayClusterSpec"]["autoscalerOptions"]
    environment = {variable["name"]: variable["value"] for variable in options["env"]}
    assert options["idleTimeoutSeconds"] > int(environment["RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S"])
