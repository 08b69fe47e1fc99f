"""A RayJob of KubeRay, ``ray.io/v1``: a cluster for one command, made anew when it is lost, gone when it is done."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import yaml

from cluster.manifests import command as commands
from cluster.manifests.command import Command
from cluster.manifests.options import HEAD_CPUS, HEAD_MEMORY, Common, KubeRay

LONGEST_NAME = 47
"""KubeRay appends six characters for the cluster, and suffixes for its services, to at most 63."""

SAVE_SECONDS = 60
"""Time that a stopped command has for a checkpoint; Ray's own 3 s are too short."""


def render(common: Common, options: KubeRay, command: Command, made_by: Sequence[str]) -> str:
    """The manifest as YAML.

    Args:
        common: What is asked of any cluster.
        options: What is asked of this one.
        command: To run.
        made_by: The words of the command line that asks for it.

    Raises:
        ValueError: The image is not pinned, or the pods would not share the run's storage.
    """
    commands.check_image(common.image)
    _check_storage(options, command)
    manifest = build(common, options, command)
    named = manifest["metadata"]["name"]
    where = f" -n {options.namespace}" if options.namespace else ""
    use = [
        f"Start it with:   kubectl apply -f {shlex.quote(common.output or 'FILE')}",
        f"Follow it with:  kubectl get rayjob {named}{where} -w",
        f"                 kubectl logs -f -l job-name={named}{where}",
        "A retry is a new cluster: it finds the run by its name in the storage and goes on from the last checkpoint.",
    ]
    if options.token_secret:
        secret = f"kubectl create secret generic {options.token_secret}{where} --from-file=auth_token=TOKEN"
        use.insert(0, f"Once before:     {secret}")
    text = yaml.safe_dump(manifest, sort_keys=False, width=110)
    return "\n".join([*commands.header(made_by, use), text])


def build(common: Common, options: KubeRay, command: Command) -> dict[str, Any]:
    """The RayJob."""
    labels = {"app.kubernetes.io/name": "raydeck", "app.kubernetes.io/component": command.verb}
    metadata: dict[str, Any] = {"name": commands.object_name(command.name, LONGEST_NAME)}
    if options.namespace:
        metadata["namespace"] = options.namespace
    metadata["labels"] = labels | ({"kueue.x-k8s.io/queue-name": options.queue} if options.queue else {})
    spec: dict[str, Any] = {"submissionMode": "K8sJobMode", "entrypoint": str(command)}
    # Kueue resumes what it admits. Without it a job that cannot be placed gives up at a deadline.
    spec |= {"suspend": True} if options.queue else {"preRunningDeadlineSeconds": 60 * options.start_minutes}
    spec |= {
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 60 * options.keep_minutes,
        "backoffLimit": options.retries,
        "runtimeEnvYAML": yaml.safe_dump({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(SAVE_SECONDS)}}),
        "submitterConfig": {"backoffLimit": 2},
        "submitterPodTemplate": _submitter(common, options),
        "rayClusterSpec": _cluster(common, options),
    }
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}


def _check_storage(options: KubeRay, command: Command) -> None:
    """Raise ValueError unless all pods see the storage."""
    if command.path is None:
        return
    if options.mount is None:
        raise ValueError(
            f"--storage {command.storage}: pods share no such folder; add --pvc CLAIM --mount PATH, or give a URI such "
            "as s3://bucket/runs"
        )
    if not is_inside(command.path, options.mount):
        raise ValueError(f"--storage {command.storage} is not in --mount {options.mount}, which is what pods share")


def is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _cluster(common: Common, options: KubeRay) -> dict[str, Any]:
    import ray

    token = {"mode": "token"} | ({"secretName": options.token_secret} if options.token_secret else {})
    head = _pod(common, options, "ray-head", _resources(HEAD_CPUS, HEAD_MEMORY))
    gpus = {options.gpu_resource: common.gpus_per_worker} if common.gpus_per_worker else {}
    worker = _pod(common, options, "ray-worker", _resources(common.cpus_per_worker, common.memory, gpus))
    if options.labels():
        worker["spec"]["nodeSelector"] = options.labels()
    if gpus:  # nodes with GPUs mostly repel pods that do not say this
        worker["spec"]["tolerations"] = [{"key": options.gpu_resource, "operator": "Exists", "effect": "NoSchedule"}]
    return {
        "rayVersion": ray.__version__,
        "authOptions": token,
        "headGroupSpec": {
            "serviceType": "ClusterIP",
            "rayStartParams": {"num-cpus": "0", "num-gpus": "0", "dashboard-host": "0.0.0.0"},
            "template": head,
        },
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": common.workers,
                "minReplicas": common.workers,
                "maxReplicas": common.workers,
                "rayStartParams": {"num-cpus": str(common.cpus_per_worker), "num-gpus": str(common.gpus_per_worker)},
                "template": worker,
            }
        ],
    }


def _resources(cpus: int, memory: str, gpus: dict[str, int] | None = None) -> dict[str, Any]:
    """Requests equal to limits: what a pod is promised is what it may use, so that neighbours cannot evict it."""
    amounts = {"cpu": cpus, "memory": memory, **(gpus or {})}
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _pod(common: Common, options: KubeRay, name: str, resources: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": name,
        "image": common.image,
        "imagePullPolicy": "IfNotPresent",
        "resources": resources,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    user = {"runAsNonRoot": True, "runAsUser": options.user, "seccompProfile": {"type": "RuntimeDefault"}}
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,  # no pod of a run has any business with Kubernetes
        "terminationGracePeriodSeconds": 2 * SAVE_SECONDS,
        "securityContext": user,
        "containers": [container],
    }
    if options.service_account:
        spec["serviceAccountName"] = options.service_account
    if options.pull_secret:
        spec["imagePullSecrets"] = [{"name": options.pull_secret}]
    if options.pvc:
        spec["securityContext"] |= {"fsGroup": options.user, "fsGroupChangePolicy": "OnRootMismatch"}
        spec["volumes"] = [{"name": "storage", "persistentVolumeClaim": {"claimName": options.pvc}}]
        container["volumeMounts"] = [{"name": "storage", "mountPath": options.mount}]
    return {"spec": spec}


def _submitter(common: Common, options: KubeRay) -> dict[str, Any]:
    """The pod that hands the command to the cluster and follows its log."""
    template = _pod(common, replace(options, pvc=None, mount=None), "ray-job-submitter", _resources(1, "1Gi"))
    template["spec"]["restartPolicy"] = "Never"
    return template
