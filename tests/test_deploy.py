"""The files of deploy/ satisfy the strictest checkers that need no cluster, and say what they mean.

Pods: the JSON schemas of Kubernetes. Fields of KubeRay: its API reference, version 1.7. Scaling: Ray's own reading of
the file and Ray's own scheduler. Dockerfile: hadolint.
"""

import copy
import re
import shlex
import subprocess
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from jobs import estimate_depth
from tests.support.checkers import BIN, DEPLOY, PROJECT_ROOT, options_of, run_checker

GIB = 2**30


def load(name: str) -> dict[str, Any]:
    """A manifest; every node its own object, as the server sees it, not shared between YAML's aliases."""
    return copy.deepcopy(yaml.load((DEPLOY / "kuberay" / name).read_text(), UniqueKeys))


class UniqueKeys(yaml.SafeLoader):
    """YAML whose repeated keys are errors, as they are for kubectl."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key twice: {node.start_mark}"
        return super().construct_mapping(node, deep)


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    """The RayJob."""
    return load("rayjob.yaml")


@pytest.fixture(scope="module")
def groups(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Head and worker groups by name."""
    cluster = job["spec"]["rayClusterSpec"]
    return {"head": cluster["headGroupSpec"], **{group["groupName"]: group for group in cluster["workerGroupSpecs"]}}


# --- KubeRay's custom resources


def fields(required: str = "", /, **properties: Any) -> dict[str, Any]:
    """A JSON schema of an object that has these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


TEXT, FLAG, COUNT = {"type": "string", "minLength": 1}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
POSITIVE = {"type": "integer", "minimum": 1}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
NAME = {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 30}
POD: dict[str, Any] = {"type": "object", "required": ["spec"]}
"""Checked by the schemas of Kubernetes."""

AUTOSCALER = fields(
    version={"enum": ["v1", "v2"]},
    idleTimeoutSeconds=COUNT,
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    image=TEXT,
    imagePullPolicy=TEXT,
    resources={"type": "object"},
    securityContext={"type": "object"},
    env={"type": "array"},
    envFrom={"type": "array"},
    volumeMounts={"type": "array"},
    command={"type": "array"},
    args={"type": "array"},
)
HEAD = fields(
    "template",
    template=POD,
    rayStartParams=TEXTS,
    resources=TEXTS,
    labels=TEXTS,
    serviceType=TEXT,
    enableIngress=FLAG,
)
WORKERS = fields(
    "groupName template minReplicas maxReplicas",
    groupName=NAME,
    template=POD,
    rayStartParams=TEXTS,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    numOfHosts=POSITIVE,
    idleTimeoutSeconds=COUNT,
    priority={"type": "integer"},
    resources=TEXTS,
    labels=TEXTS,
)
CLUSTER = fields(
    "headGroupSpec rayVersion",
    headGroupSpec=HEAD,
    workerGroupSpecs={"type": "array", "items": WORKERS},
    rayVersion=TEXT,
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=AUTOSCALER,
    authOptions=fields(mode={"enum": ["disabled", "token"]}, secretName=TEXT),
    headServiceAnnotations=TEXTS,
    managedBy=TEXT,
)
RAY_JOB_SPEC = fields(
    "entrypoint rayClusterSpec",
    entrypoint=TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    backoffLimit=COUNT,
    activeDeadlineSeconds=POSITIVE,
    preRunningDeadlineSeconds=POSITIVE,
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    suspend=FLAG,
    rayClusterSpec=CLUSTER,
    submitterPodTemplate=POD,
    submitterConfig=fields(backoffLimit=COUNT),
    runtimeEnvYAML=TEXT,
    metadata=TEXTS,
    jobId=TEXT,
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    entrypointResources=TEXT,
)
METADATA = fields(name=NAME, generateName=TEXT, namespace=NAME, labels=TEXTS, annotations=TEXTS)
RESOURCES = {
    "rayjob.yaml": fields(
        "apiVersion kind metadata spec",
        apiVersion={"const": "ray.io/v1"},
        kind={"const": "RayJob"},
        metadata=METADATA,
        spec=RAY_JOB_SPEC,
    ),
    "raycronjob.yaml": fields(
        "apiVersion kind metadata spec",
        apiVersion={"const": "ray.io/v1"},
        kind={"const": "RayCronJob"},
        metadata=METADATA,
        spec=fields("schedule jobTemplate", schedule=TEXT, timeZone=TEXT, suspend=FLAG, jobTemplate=RAY_JOB_SPEC),
    ),
}
"""Field names and types of https://docs.ray.io/en/master/cluster/kubernetes/references/api.html, as of KubeRay 1.7."""


@pytest.mark.parametrize("name", RESOURCES)
def test_resources_have_only_fields_that_kuberay_knows(name: str) -> None:
    jsonschema.validate(load(name), RESOURCES[name])


def test_a_misspelt_field_would_be_found(job: dict[str, Any]) -> None:
    wrong = copy.deepcopy(job)
    wrong["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 0
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, RESOURCES["rayjob.yaml"])


def test_the_nightly_run_is_the_same_as_the_single_one(job: dict[str, Any]) -> None:
    assert load("raycronjob.yaml")["spec"]["jobTemplate"] == job["spec"]


def test_kuberays_rules_beyond_its_schema(job: dict[str, Any], groups: dict[str, dict[str, Any]]) -> None:
    spec = job["spec"]
    assert spec["ttlSecondsAfterFinished"] == 0 or spec["shutdownAfterJobFinishes"]
    cluster = spec["rayClusterSpec"]
    assert cluster["autoscalerOptions"]["version"] == "v2"  # priorities are its alone
    assert all(group["template"]["spec"].get("restartPolicy", "Never") == "Never" for group in groups.values())
    assert spec["activeDeadlineSeconds"] < 24 * 3600, "a night must end before the next"
    minute, hour, *rest = load("raycronjob.yaml")["spec"]["schedule"].split()
    assert 0 <= int(minute) < 60 and 0 <= int(hour) < 24 and rest == ["*"] * 3


# --- pods


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
        assert int(given) < spec["terminationGracePeriodSeconds"] <= 15  # what GKE's preemption leaves to a pod
    (head,) = groups["head"]["template"]["spec"]["containers"]
    wait_s = {variable["name"]: variable["value"] for variable in head["env"]}["RAY_JOB_STOP_WAIT_TIME_S"]
    assert 10 <= int(wait_s) <= groups["head"]["template"]["spec"].get("terminationGracePeriodSeconds", 30)


# --- scaling, as Ray understands the file


@pytest.fixture(scope="module")
def scaling(job: dict[str, Any]) -> AutoscalingConfig:
    """The autoscaler's view of the cluster, derived and validated by Ray."""
    resource = {"metadata": {"name": "x", "namespace": "default"}, "spec": job["spec"]["rayClusterSpec"]}
    return AutoscalingConfig(_derive_autoscaling_config_from_ray_cr(resource), skip_content_hash=True)


def launched(scaling: AutoscalingConfig, gpus: int, availability: dict[str, float] | None = None) -> dict[str, int]:
    """Which workers Ray's scheduler starts for so many actors with a GPU each."""
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


def test_preemptible_workers_come_first_and_others_where_these_are_not_to_be_had(scaling: AutoscalingConfig) -> None:
    assert launched(scaling, 10) == {"gpu-preemptible": 8, "gpu-on-demand": 2}
    assert launched(scaling, 3) == {"gpu-preemptible": 3}
    assert launched(scaling, 3, {"gpu-preemptible": 0.0}) == {"gpu-on-demand": 3}


def test_workers_that_are_up_outlast_the_wait_for_those_that_come(job: dict[str, Any]) -> None:
    options = job["spec"]["rayClusterSpec"]["autoscalerOptions"]
    environment = {variable["name"]: variable["value"] for variable in options["env"]}
    assert options["idleTimeoutSeconds"] > int(environment["RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S"])


# --- image


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


# --- ray job submit --working-dir .


def test_the_working_directory_travels_without_runs_tests_and_environment(tmp_path: Path) -> None:
    house = tmp_path / "house"
    wanted = ["jobs/estimate_depth.py", "pipelines/runs/runner.py", "unicon/models/mini/unet/weights.safetensors"]
    unwanted = [".venv/bin/python", ".git/HEAD", "runs/mini/last.pt", "out/depth/data/0.parquet"]
    unwanted += ["tests/golden/case.npz", "docs/images/mini-depth.png", "unicon/__pycache__/model.pyc"]
    for name in [*wanted, *unwanted]:
        (house / name).parent.mkdir(parents=True, exist_ok=True)
        (house / name).write_text("x")
    for name in (".gitignore", ".rayignore"):
        (house / name).write_text((PROJECT_ROOT / name).read_text())
    assert {*package(house, tmp_path / "house.zip")} - {".gitignore", ".rayignore"} == {*wanted}


def test_the_working_directory_of_this_house_is_small(tmp_path: Path) -> None:
    sizes = package(PROJECT_ROOT, tmp_path / "house.zip")
    tracked = subprocess.run(
        ["git", "ls-files", "jobs", "pipelines", "unicon"], cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    assert {name for name in tracked.stdout.split() if (PROJECT_ROOT / name).exists()} <= {*sizes}
    assert sum(sizes.values()) < 40e6


def package(folder: Path, target: Path) -> dict[str, int]:
    """Files in the archive that Ray uploads, with their sizes."""
    create_package(str(folder), target, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    with zipfile.ZipFile(target) as archive:
        return {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}
