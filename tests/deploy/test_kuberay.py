"""The manifests of deploy/kuberay/ satisfy the strictest checks that need no cluster, and have the intended effect.

The fields of KubeRay are those of its API reference, version 1.7; pods are checked by the JSON schemas of Kubernetes.
"""

import copy
import re
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from tests.support.checkers import DEPLOY, options_of
from tests.support.kuberay import RESOURCES, load_manifest

GIB = 2**30


@pytest.mark.parametrize("name", RESOURCES)
def test_resources_have_only_fields_that_kuberay_knows(name: str) -> None:
    jsonschema.validate(load_manifest(name), RESOURCES[name])


def test_a_misspelt_field_would_be_found(job: dict[str, Any]) -> None:
    wrong = copy.deepcopy(job)
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 0
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, RESOURCES["rayjob.yaml"])


def test_the_nightly_run_is_the_same_as_the_single_one(job: dict[str, Any]) -> None:
    assert load_manifest("raycronjob.yaml")["spec"]["jobTemplate"] == job["spec"]


def test_kuberays_rules_beyond_its_schema(job: dict[str, Any], groups: dict[str, dict[str, Any]]) -> None:
    spec = job["spec"]
    assert spec["ttlSecondsAfterFinished"] == 0 or spec["shutdownAfterJobFinishes"]
    cluster = spec["rayClusterSpec"]
    assert cluster["autoscalerOptions"]["version"] == "v2"  # only v2 supports priorities
    assert all(group["template"]["spec"].get("restartPolicy", "Never") == "Never" for group in groups.values())
    assert spec["activeDeadlineSeconds"] < 24 * 3600, "a night must end before the next"
    minute, hour, *rest = load_manifest("raycronjob.yaml")["spec"]["schedule"].split()
    assert 0 <= int(minute) < 60 and 0 <= int(hour) < 24 and rest == ["*"] * 3


@pytest.mark.parametrize("kubernetes", ["1.28", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("group", ["head", "gpu-preemptible", "gpu-on-demand"])
def test_pods_satisfy_kubernetes(groups: dict[str, dict[str, Any]], group: str, kubernetes: str) -> None:
    template = groups[group]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", **template.get("metadata", {})}}
    kubernetes_validate.validate({**pod, "spec": template["spec"]}, kubernetes, strict=True)


def test_the_autoscalers_container_satisfies_kubernetes(job: dict[str, Any]) -> None:
    options = job["spec"]["rayClusterSpec"]["autoscalerOptions"]
    container = {"name": "autoscaler", "image": "x", "env": options["env"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [container]}}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


def test_volumes_are_mounted_and_shared_memory_holds_the_object_store(groups: dict[str, dict[str, Any]]) -> None:
    for group in groups.values():
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        shared = mounts["/dev/shm"]["emptyDir"]
        assert shared["medium"] == "Memory"
        store, room = int(group["rayStartParams"]["object-store-memory"]), gibibytes(shared["sizeLimit"]) * GIB
        assert store < room < gibibytes(container["resources"]["limits"]["memory"]) * GIB / 2
        assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]


def gibibytes(quantity: str) -> int:
    match = re.fullmatch(r"(\d+)Gi", quantity)
    assert match
    return int(match[1])


def test_no_pod_is_root_and_credentials_come_from_a_secret(groups: dict[str, dict[str, Any]]) -> None:
    for group in groups.values():
        spec = group["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        for container in spec["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert [list(source) for source in container["envFrom"]] == [["secretRef"]]
    for path in [*DEPLOY.rglob("*.yaml"), DEPLOY / "Dockerfile", DEPLOY / "slurm/run.sbatch"]:
        assert not re.search(r"(SECRET|TOKEN|PASSWORD|KEY_ID)\w*\s*[:=]\s*[\"']?\w{8,}", path.read_text()), path


def test_a_preempted_worker_has_time_to_leave_and_a_stopped_driver_to_report(
    groups: dict[str, dict[str, Any]],
) -> None:
    for name in ("gpu-preemptible", "gpu-on-demand"):
        spec = groups[name]["template"]["spec"]
        shell, flag, line = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        ray, stop, option, given = line.split()
        assert (shell, flag, ray, stop) == ("/bin/sh", "-c", "ray", "stop") and option in options_of("stop")
        assert int(given) < spec["terminationGracePeriodSeconds"] <= 15  # what a preemption on GKE leaves
    (head,) = groups["head"]["template"]["spec"]["containers"]
    wait_s = {variable["name"]: variable["value"] for variable in head["env"]}["RAY_JOB_STOP_WAIT_TIME_S"]
    assert 10 <= int(wait_s) <= groups["head"]["template"]["spec"].get("terminationGracePeriodSeconds", 30)
