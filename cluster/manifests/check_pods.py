"""What is wrong with the pods of a RayJob: images, memory, GPUs, shared storage, rights and secrets."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from cluster.manifests.findings import Finding, Parsed, at, check_image, check_variable, dicts, mapping
from cluster.manifests.kuberay import is_inside

ONE_NODE = ("emptyDir", "hostPath", "ephemeral", "configMap", "secret", "downwardAPI", "projected", "image")
"""Sources of a volume that only one pod, or one node, sees, or that cannot be written to."""

CLUSTER = "spec.rayClusterSpec"


def check(spec: Mapping[str, Any], parsed: Parsed | None) -> Iterator[Finding]:
    """Check every pod of a RayJob.

    Args:
        spec: Of the RayJob.
        parsed: Its command; None where it has none that can be read.
    """
    claims = {}
    for where, template in _pods(spec):
        pod = mapping(at(template, "spec"))
        if not dicts(pod.get("containers")):
            if where.startswith(CLUSTER) or template is not None:
                yield Finding(f"{where}.spec.containers", "no container, so nothing runs", "add one, with an image")
            continue
        head = where.startswith(f"{CLUSTER}.headGroupSpec")
        yield from _pod_security(f"{where}.spec", pod)
        for key in ("initContainers", "containers"):
            for k, container in enumerate(dicts(pod.get(key))):
                place = f"{where}.spec.{key}[{k}]"
                yield from check_image(f"{place}.image", container.get("image"))
                yield from _resources(f"{place}.resources", container.get("resources"), head)
                yield from _container_security(f"{place}.securityContext", container, pod)
                for variable in dicts(container.get("env")):
                    yield from check_variable(f"{place}.env", str(variable.get("name")), variable.get("value"))
        yield from _mounts(f"{where}.spec", pod)
        if parsed is not None and parsed.path is not None and where.startswith(CLUSTER):
            source, faults = _storage(f"{where}.spec", pod, parsed.path)
            yield from faults
            claims[where] = source
    if len({str(source) for source in claims.values() if source}) > 1:
        yield Finding(CLUSTER, "head and workers keep the run in different volumes", "mount the same claim in all pods")


def _pods(spec: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each pod's place and template."""
    cluster = at(spec, "rayClusterSpec")
    yield f"{CLUSTER}.headGroupSpec.template", at(cluster, "headGroupSpec", "template")
    for k, group in enumerate(dicts(at(cluster, "workerGroupSpecs"))):
        yield f"{CLUSTER}.workerGroupSpecs[{k}].template", group.get("template")
    yield "spec.submitterPodTemplate", spec.get("submitterPodTemplate")


def num_gpus(amounts: Any) -> int:
    """The GPUs among a container's requests or limits, of any maker."""
    return sum(
        int(value)
        for name, value in mapping(amounts).items()
        if re.search(r"/(gpu|mig-)", str(name)) and str(value).isdigit()
    )


def _resources(where: str, resources: Any, head: bool) -> Iterator[Finding]:
    limits, requests = at(resources, "limits"), at(resources, "requests")
    asked, allowed = at(requests, "memory"), at(limits, "memory")
    if allowed is None or asked is None:
        missing = "limits" if allowed is None else "requests"
        yield Finding(f"{where}.{missing}.memory", "is missing", "make requests and limits of memory equal")
    elif str(asked) != str(allowed):
        fault = f"requests {asked} and may use {allowed}, so that a full node kills the pod in mid-run"
        yield Finding(f"{where}.requests.memory", fault, "make requests and limits of memory equal")
    if head and (num_gpus(limits) or num_gpus(requests)):
        yield Finding(f"{where}.limits", "the head has GPUs, which would idle", "give them to workers alone")
    if num_gpus(requests) and num_gpus(requests) != num_gpus(limits):
        yield Finding(f"{where}.requests", "not the GPUs of limits, which is refused", "make them equal")


def _pod_security(where: str, pod: Mapping[str, Any]) -> Iterator[Finding]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield Finding(f"{where}.{field}", "shares the node's own, and so its neighbours'", "remove it")
    for k, volume in enumerate(dicts(pod.get("volumes"))):
        if "hostPath" in volume:
            fault = "a folder of the node: seen by no other node, and open to everything on it"
            yield Finding(f"{where}.volumes[{k}].hostPath", fault, "use a persistentVolumeClaim")


def _container_security(where: str, container: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[Finding]:
    own, shared = container.get("securityContext"), pod.get("securityContext")
    if at(own, "privileged"):
        yield Finding(f"{where}.privileged", "is root on the node", "remove it")
    if at(own, "allowPrivilegeEscalation") is not False:
        yield Finding(f"{where}.allowPrivilegeEscalation", "not false: a program may become root", "write false")
    if at(own, "capabilities", "add"):
        yield Finding(f"{where}.capabilities.add", "rights that training needs none of", "remove it")
    dropped = at(own, "capabilities", "drop")
    if not isinstance(dropped, list) or "ALL" not in dropped:
        yield Finding(f"{where}.capabilities.drop", "keeps rights that training needs none of", "write [ALL]")
    if not (at(own, "seccompProfile", "type") or at(shared, "seccompProfile", "type")):
        yield Finding(f"{where}.seccompProfile", "any system call may be made", "write type RuntimeDefault")
    root = at(own, "runAsNonRoot") if at(own, "runAsNonRoot") is not None else at(shared, "runAsNonRoot")
    user = at(own, "runAsUser") if at(own, "runAsUser") is not None else at(shared, "runAsUser")
    if root is not True or user == 0:
        yield Finding(f"{where}.runAsNonRoot", "runs as root, or may", "write runAsNonRoot true, runAsUser above 0")


def _mounts(where: str, pod: Mapping[str, Any]) -> Iterator[Finding]:
    """Mounts of volumes that there are not: no schema says so, and the pod is refused."""
    names = {str(volume.get("name")) for volume in dicts(pod.get("volumes"))}
    for k, container in enumerate(dicts(pod.get("containers"))):
        for mount in dicts(container.get("volumeMounts")):
            if str(mount.get("name")) not in names:
                fault = f"mounts {mount.get('name')!r}, and the pod has no such volume"
                yield Finding(f"{where}.containers[{k}].volumeMounts", fault, "add it to volumes")


def _storage(where: str, pod: Mapping[str, Any], path: str) -> tuple[Any, list[Finding]]:
    """The volume in which a pod keeps the run, and what is wrong with it."""
    mend = "mount a persistentVolumeClaim that all pods share at a folder above it, or give --storage as a URI"
    mounts = dicts(at(pod, "containers", 0, "volumeMounts"))
    holding = [mount for mount in mounts if is_inside(path, str(mount.get("mountPath")))]
    if not holding:
        return None, [Finding(where, f"--storage {path} lies in no volume, and vanishes with the pod", mend)]
    mount = max(holding, key=lambda mount: len(str(mount.get("mountPath"))))
    volumes = dicts(pod.get("volumes"))
    volume = next((volume for volume in volumes if volume.get("name") == mount.get("name")), None)
    if volume is None:
        return None, []  # said already
    local = [source for source in ONE_NODE if source in volume]
    if local:
        return None, [Finding(where, f"--storage {path} is a volume of {local[0]}, which other nodes do not see", mend)]
    if mount.get("readOnly"):
        return None, [Finding(where, f"--storage {path} lies in a volume that is mounted readOnly", "remove readOnly")]
    source = {key: value for key, value in volume.items() if key != "name"}
    return (source, mount.get("subPath")), []
