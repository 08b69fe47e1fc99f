"""What is wrong with a RayJob: KubeRay's schema, where it is given, and what no schema says."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster.manifests import check_pods
from cluster.manifests.findings import (
    Finding,
    Parsed,
    Report,
    at,
    check_same,
    check_variable,
    dicts,
    mapping,
    read_command,
)
from cluster.manifests.kuberay import LONGEST_NAME
from cluster.manifests.schema import check_custom_resource

MODES = ("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode")

GATES = {
    "tlsOptions": "RayClusterMTLS",
    "networkPolicy": "RayClusterNetworkPolicy",
    "historyServerOptions": "RayClusterHistoryServer",
}
"""Fields of a cluster that KubeRay 1.7 reads only where its operator has a gate on that is off by default."""

CLUSTER = "spec.rayClusterSpec"


def check(manifest: Mapping[str, Any], crds: Path | None, gates: frozenset[str]) -> Report:
    """Check a RayJob.

    Args:
        manifest: As YAML has it.
        crds: Folder of KubeRay's definitions; None leaves the schema out.
        gates: Feature gates that the operator has on.

    Raises:
        ValueError: ``crds`` holds no definitions.
    """
    report = Report(unchecked=["whether the image, claim, secrets, queue and nodes that it names exist"])
    if manifest.get("kind") != "RayJob" or manifest.get("apiVersion") != "ray.io/v1":
        given = f"{manifest.get('apiVersion')} {manifest.get('kind')}"
        report.findings.append(Finding("kind", f"{given} is not ray.io/v1 RayJob", "only those are run and checked"))
        return report
    if crds is None:
        report.unchecked.insert(0, "KubeRay's schema, so that a misspelt field may pass; give --crds DIR")
    else:
        report.findings += check_custom_resource(manifest, crds)
        report.unchecked.insert(0, "rules in CEL, which only a server evaluates")
    spec = mapping(manifest.get("spec"))
    parsed, faults = read_command("spec.entrypoint", spec.get("entrypoint"))
    report.findings += faults
    cluster = mapping(spec.get("rayClusterSpec"))
    report.findings += [
        *_metadata(manifest),
        *_job(spec, parsed),
        *_runtime_environment(spec),
        *_cluster(cluster, gates),
        *_head(mapping(cluster.get("headGroupSpec"))),
        *_workers(dicts(cluster.get("workerGroupSpecs")), parsed),
        *check_pods.check(spec, parsed),
    ]
    return report


def _metadata(manifest: Mapping[str, Any]) -> Iterator[Finding]:
    name = at(manifest, "metadata", "name")
    if not re.fullmatch(rf"(?=.{{1,{LONGEST_NAME}}}$)[a-z]([a-z0-9-]*[a-z0-9])?", str(name or "")):
        fault = f"{name!r} is no name that KubeRay takes"
        yield Finding("metadata.name", fault, f"at most {LONGEST_NAME} of a-z, 0-9 and -, beginning with a letter")
    queue = at(manifest, "metadata", "labels", "kueue.x-k8s.io/queue-name")
    if at(manifest, "spec", "suspend") and not queue:
        mend = "remove it, or name a queue in the label kueue.x-k8s.io/queue-name"
        yield Finding("spec.suspend", "true without a queue: nothing would ever start the job", mend)


def _job(spec: Mapping[str, Any], parsed: Parsed | None) -> Iterator[Finding]:
    mode = spec.get("submissionMode", "K8sJobMode")
    if mode not in MODES:
        fault = f"{mode!r} is none that KubeRay knows, though its schema takes any word"
        yield Finding("spec.submissionMode", fault, f"write {MODES[0]}")
    elif mode == "InteractiveMode":
        yield Finding("spec.submissionMode", "InteractiveMode waits for a person to submit a job", f"write {MODES[0]}")
    elif mode != "K8sJobMode" and "submitterPodTemplate" in spec:
        yield Finding("spec.submitterPodTemplate", f"{mode} has no such pod", "remove it, or write K8sJobMode")
    if spec.get("shutdownAfterJobFinishes") is not True:
        fault = "not true: the cluster keeps its machines when the job is done"
        yield Finding("spec.shutdownAfterJobFinishes", fault, "write true")
    if spec.get("clusterSelector"):
        yield Finding("spec.clusterSelector", "a cluster of somebody else's would run the job", "remove it")
    if "backoffLimit" not in spec:
        yield Finding("spec.backoffLimit", "no retry: a lost head ends the run", "write 3, or 0 if that is meant")
    retries = spec.get("backoffLimit", 0)
    if isinstance(retries, int) and retries < 0:
        yield Finding("spec.backoffLimit", f"{retries} is less than 0", "write how often to start anew, e.g. 3")
    if retries and parsed is not None and "name" not in parsed.flags:
        fault = f"{retries} retries, each a new cluster, and no run name by which they would go on"
        yield Finding("spec.backoffLimit", fault, "add --name to the entrypoint")
    for field in ("entrypointNumCpus", "entrypointNumGpus", "entrypointResources"):
        if spec.get(field):
            fault = "the driver would take a worker's place, as the head has none to give"
            yield Finding(f"spec.{field}", fault, "remove it")
    for field in ("activeDeadlineSeconds", "ttlSecondsAfterFinished"):
        if isinstance(spec.get(field), int) and spec[field] < (field == "activeDeadlineSeconds"):
            yield Finding(f"spec.{field}", f"{spec[field]} s end the job at once", "write seconds, or remove it")


def _runtime_environment(spec: Mapping[str, Any]) -> Iterator[Finding]:
    import yaml

    where, text = "spec.runtimeEnvYAML", spec.get("runtimeEnvYAML")
    if text is None:
        return
    try:
        environment = yaml.safe_load(text) if isinstance(text, str) else None
    except yaml.YAMLError:
        environment = None
    if not isinstance(environment, Mapping):
        yield Finding(where, "is no YAML mapping", "write it as text, e.g. |- with env_vars: below")
        return
    for name, value in mapping(environment.get("env_vars")).items():
        yield from check_variable(f"{where}.env_vars", str(name), value)
    if {"pip", "uv", "conda"} & set(environment):
        yield Finding(where, "installs packages at each start", "put them into the image, which is pinned")


def _cluster(cluster: Mapping[str, Any], gates: frozenset[str]) -> Iterator[Finding]:
    import ray

    version = cluster.get("rayVersion")
    if version != ray.__version__:
        yield Finding(
            f"{CLUSTER}.rayVersion", f"{version}, and here it is {ray.__version__}", "use the same on both sides"
        )
    if at(cluster, "authOptions", "mode") != "token":
        fault = "no token: anybody who reaches the pods runs code on them"
        yield Finding(f"{CLUSTER}.authOptions.mode", fault, "write token")
    if at(cluster, "authOptions", "enableK8sTokenAuth"):
        yield Finding(f"{CLUSTER}.authOptions.enableK8sTokenAuth", "is not for RayJobs", "remove it")
    used = {f"{CLUSTER}.{field}": gate for field, gate in GATES.items() if field in cluster}
    if at(cluster, "gcsFaultToleranceOptions", "backend") == "rocksdb":
        used[f"{CLUSTER}.gcsFaultToleranceOptions.backend"] = "GCSFaultToleranceEmbeddedStorage"
    for where, gate in used.items():
        if gate not in gates:
            fault = f"does nothing while the operator's feature gate {gate} is off, as it is by default"
            yield Finding(where, fault, f"remove it, or switch the gate on and check with --gates {gate}")


def _head(head: Mapping[str, Any]) -> Iterator[Finding]:
    where = f"{CLUSTER}.headGroupSpec"
    if str(at(head, "rayStartParams", "num-cpus")) != "0":
        fault = "the head takes work, and the run dies with whatever that does to it"
        yield Finding(f"{where}.rayStartParams.num-cpus", fault, 'write "0"')
    if str(at(head, "rayStartParams", "num-gpus") or 0) != "0":
        yield Finding(f"{where}.rayStartParams.num-gpus", "the head offers GPUs", 'write "0"')
    if head.get("serviceType", "ClusterIP") not in ("ClusterIP", None):
        yield Finding(f"{where}.serviceType", f"{head['serviceType']} opens the dashboard to all", "write ClusterIP")
    if head.get("enableIngress"):
        yield Finding(f"{where}.enableIngress", "opens the dashboard to outside", "remove it; use kubectl port-forward")


def _workers(groups: list[Mapping[str, Any]], parsed: Parsed | None) -> Iterator[Finding]:
    where = f"{CLUSTER}.workerGroupSpecs"
    if not groups:
        yield Finding(where, "no workers, and the head takes no work", "add a group")
        return
    pods = 0
    for k, group in enumerate(groups):
        replicas, low, high = (group.get(key, 0) for key in ("replicas", "minReplicas", "maxReplicas"))
        hosts = group.get("numOfHosts", 1)
        if not all(isinstance(number, int) for number in (replicas, low, high, hosts)):
            continue  # the schema says so
        pods += replicas * hosts
        if not low <= replicas <= high:
            fault = f"{replicas} is not between minReplicas {low} and maxReplicas {high}"
            yield Finding(f"{where}[{k}].replicas", fault, "make all three equal")
        if group.get("suspend"):
            yield Finding(f"{where}[{k}].suspend", "its workers never start", "remove it")
        cpus = str(at(group, "rayStartParams", "num-cpus") or at(group, *_LIMITS, "cpu") or "")
        if cpus.isdigit() and parsed and int(cpus) < (parsed.number("cpus-per-worker") or 1):
            fault = f"{cpus} CPUs, and the command has --cpus-per-worker {parsed.number('cpus-per-worker')}"
            yield Finding(f"{where}[{k}].rayStartParams.num-cpus", fault, "make them equal")
        yield from _gpus(f"{where}[{k}]", group, parsed)
    if parsed is not None:
        yield from check_same(f"{where}.replicas", "workers in all", pods, parsed.number("workers"), "--workers")


_LIMITS = ("template", "spec", "containers", 0, "resources", "limits")


def _gpus(where: str, group: Mapping[str, Any], parsed: Parsed | None) -> Iterator[Finding]:
    """Whether a worker's pod, Ray and the command agree on its GPUs."""
    gpus = check_pods.num_gpus(at(group, *_LIMITS))
    if parsed is not None:
        place = f"{where}.template.spec.containers[0].resources.limits"
        yield from check_same(place, "GPUs a pod", gpus, parsed.number("gpus-per-worker"), "--gpus-per-worker")
    told = at(group, "rayStartParams", "num-gpus")
    if told is not None and str(told) != str(gpus):
        yield Finding(f"{where}.rayStartParams.num-gpus", f"{told}, and the pod has {gpus}", "make them equal")
