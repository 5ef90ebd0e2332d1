"""The manifests of deploy/kuberay/, and JSON schemas of the custom resources of KubeRay."""

import copy
from typing import Any

import yaml

from tests.support.checkers import DEPLOY


class UniqueKeys(yaml.SafeLoader):
    """A YAML loader for which repeated keys are errors, as they are for kubectl."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key twice: {node.start_mark}"
        return super().construct_mapping(node, deep)


def load_manifest(name: str) -> dict[str, Any]:
    """Load a manifest in which YAML aliases are separate objects, as the server sees it."""
    return copy.deepcopy(yaml.load((DEPLOY / "kuberay" / name).read_text(), UniqueKeys))


def fields(required: str = "", /, **properties: Any) -> dict[str, Any]:
    """Return the JSON schema of an object that has these fields and no others."""
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
"""A pod template, which the schemas of Kubernetes check."""

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
