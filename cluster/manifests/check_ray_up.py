"""What is wrong with a cluster file of ``ray up``: the launcher's own schema, and what it does not say."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster import _package
from cluster.manifests.findings import (
    Finding,
    Parsed,
    Report,
    at,
    check_image,
    check_same,
    check_variable,
    mapping,
    read_command,
)
from cluster.manifests.kuberay import is_inside
from cluster.manifests.schema import check_launcher

PROVIDERS = ("aws", "gcp", "local")


def check(config: Mapping[str, Any]) -> Report:
    """Check a cluster file as YAML has it."""
    parsed, faults = read_command("metadata.raydeck.command", at(config, "metadata", "raydeck", "command"))
    findings = [
        *check_launcher(config),
        *faults,
        *_provider(config),
        *_docker(config),
        *_commands(config),
        *_files(config),
        *(_standing(config, parsed) if at(config, "provider", "type") == "local" else _node_types(config, parsed)),
        *_storage(config, parsed),
    ]
    return Report(findings, ["node_config, which only the cloud knows, and whether images, secrets and keys exist"])


def _texts(config: Mapping[str, Any], *keys: str) -> list[tuple[str, str]]:
    """Each command, or option, of some lists, with its place."""
    lists = {key: config[key] for key in keys if isinstance(config.get(key), list)}
    return [(f"{key}[{k}]", str(text)) for key, texts in lists.items() for k, text in enumerate(texts)]


def _provider(config: Mapping[str, Any]) -> Iterator[Finding]:
    kind = at(config, "provider", "type")
    needed = {
        "aws": ["region"],
        "gcp": ["region", "availability_zone", "project_id"],
        "local": ["head_ip", "worker_ips"],
    }
    if kind not in PROVIDERS:
        yield Finding("provider.type", f"{kind!r} is none of {', '.join(PROVIDERS)}", "take one")
    for key in needed.get(str(kind), []):
        if not at(config, "provider", key):
            yield Finding(f"provider.{key}", "is missing, and the launcher would guess or stop", "add it")


def _docker(config: Mapping[str, Any]) -> Iterator[Finding]:
    docker = mapping(config.get("docker"))
    images = [key for key in ("image", "head_image", "worker_image") if key in docker] or ["image"]
    for key in images:
        yield from check_image(f"docker.{key}", docker.get(key))
    options = _texts(docker, "run_options", "head_run_options", "worker_run_options")
    everything = " ".join(text for _, text in options)
    if not re.search(r"RAY_AUTH_MODE=token\b", everything):
        fault = "no RAY_AUTH_MODE=token: anybody who reaches the machines runs code on them"
        yield Finding("docker.run_options", fault, "add --env RAY_AUTH_MODE=token")
    elif "RAY_AUTH_TOKEN_PATH=" not in everything:
        fault = "no RAY_AUTH_TOKEN_PATH, so that nodes would not find one token"
        yield Finding("docker.run_options", fault, "add --env RAY_AUTH_TOKEN_PATH=PATH, and a volume that holds it")
    else:
        yield from _token_file(config, everything)
    for where, text in options:
        for name, value in re.findall(r"(?:--env|-e)[ =]['\"]?(\w+)=(\S+)", text):
            yield from check_variable(f"docker.{where}", name, value)
        if re.search(r"--privileged|--cap-add|--pid[ =]host|docker\.sock", text):
            yield Finding(f"docker.{where}", f"{text!r} makes the container root on its machine", "remove it")


def _token_file(config: Mapping[str, Any], options: str) -> Iterator[Finding]:
    """Whether something puts the token where the container looks for it."""
    path = re.findall(r"RAY_AUTH_TOKEN_PATH=([^\s'\"]+)", options)[-1]
    if not any(is_inside(path, target) for target in _volumes(options)):
        yield Finding("docker.run_options", f"no volume of the container holds {path}", "add --volume FOLDER:FOLDER:ro")
    if not any(Path(path).name in text for _, text in _texts(config, "initialization_commands")):
        fault = f"nothing puts {Path(path).name} on a new machine, or looks whether it is there"
        yield Finding("initialization_commands", fault, "fetch it from a secret's store")


def _volumes(options: str) -> list[str]:
    """Where a container sees its volumes."""
    return re.findall(r"(?:--volume|-v)[ =]['\"]?[^:\s]+:([^:\s'\"]+)", options)


def _commands(config: Mapping[str, Any]) -> Iterator[Finding]:
    import ray

    heads = _texts(config, "head_start_ray_commands")
    starts = [(where, text) for where, text in heads if "ray start" in text]
    if not any(re.search(r"--num-cpus[ =]0\b", text) for _, text in starts):
        yield Finding("head_start_ray_commands", "the head takes work", "add --num-cpus=0 to its ray start")
    if not any("--head" in text and "--autoscaling-config" in text for _, text in starts):
        fault = "no ray start with --head and --autoscaling-config, so that no worker is started"
        yield Finding("head_start_ray_commands", fault, "add --autoscaling-config=~/ray_bootstrap_config.yaml")
    for where, text in starts:
        if re.search(r"--dashboard-host[ =](?!127\.0\.0\.1|localhost)", text):
            yield Finding(where, "the dashboard listens to everybody", "write --dashboard-host=127.0.0.1")
        if re.search(r"--num-gpus[ =][1-9]", text):
            yield Finding(where, "the head offers GPUs", "write --num-gpus=0")
    workers = _texts(config, "worker_start_ray_commands")
    if not any("$RAY_HEAD_IP" in text for _, text in workers):
        fault = "no ray start with --address=$RAY_HEAD_IP:6379, so that no worker joins"
        yield Finding("worker_start_ray_commands", fault, "add it")
    setup = _texts(config, "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
    for where, text in setup + heads + workers:
        for name, value in re.findall(r"\b(\w+)=([^\s;$\"']+)", text):
            yield from check_variable(where, name, value)
        found = re.search(r"\bray(?:\[[\w,-]+\])?==([0-9.]+[0-9])", text)
        if found and found[1] != ray.__version__:
            yield Finding(where, f"Ray {found[1]}, and the one here is {ray.__version__}", "use the same on both sides")


def _files(config: Mapping[str, Any]) -> Iterator[Finding]:
    mounts = config.get("file_mounts")
    for target, source in mounts.items() if isinstance(mounts, Mapping) else ():
        parts = [*Path(str(source)).parts, *Path(str(target)).parts]
        if any(_package.is_secret(Path(part)) for part in parts if part not in ("/", "~", ".", "..")):
            fault = f"{source} looks like a key, a token or credentials"
            yield Finding(f"file_mounts.{target}", fault, "let nodes fetch it by their own identity")


def _node_types(config: Mapping[str, Any], parsed: Parsed | None) -> Iterator[Finding]:
    types, head = mapping(config.get("available_node_types")), str(config.get("head_node_type"))
    if head not in types:
        yield Finding("head_node_type", f"{head!r} is none of available_node_types", "name one of them")
        return
    where = f"available_node_types.{head}.resources"
    if at(types, head, "resources", "GPU"):
        yield Finding(f"{where}.GPU", "the head offers GPUs", "write 0")
    if at(types, head, "resources", "CPU") != 0:
        yield Finding(f"{where}.CPU", "the head takes work", "write 0")
    workers = {name: kind for name, kind in types.items() if name != head and isinstance(kind, Mapping)}
    counts = [kind.get("min_workers", 0) for kind in workers.values()]
    lowest = sum(count for count in counts if isinstance(count, int))
    if isinstance(config.get("max_workers"), int) and config["max_workers"] < lowest:
        fault = f"{config['max_workers']} is less than all min_workers together, {lowest}"
        yield Finding("max_workers", fault, "make them equal")
    if "max_workers" not in config:
        yield Finding("max_workers", "is missing, and the launcher takes 2", f"write {lowest}")
    if lowest == 0:
        yield Finding("available_node_types", "no worker is started, and the head takes no work", "set min_workers")
    if parsed is None:
        return
    yield from check_same("available_node_types", "workers at least", lowest, parsed.number("workers"), "--workers")
    for name, kind in workers.items():
        for resource, flag in (("GPU", "gpus-per-worker"), ("CPU", "cpus-per-worker")):
            found = at(kind, "resources", resource) or 0
            place = f"available_node_types.{name}.resources.{resource}"
            yield from check_same(place, f"{resource}s a node", found, parsed.number(flag), f"--{flag}")


def _standing(config: Mapping[str, Any], parsed: Parsed | None) -> Iterator[Finding]:
    """Machines that stand there already."""
    if config.get("available_node_types"):
        yield Finding("available_node_types", "is not for machines that stand there already", "remove it")
    addresses = at(config, "provider", "worker_ips")
    addresses = addresses if isinstance(addresses, list) else []
    if at(config, "provider", "head_ip") in addresses:
        yield Finding("provider.worker_ips", "the head is among the workers", "remove it there")
    if len(set(map(str, addresses))) < len(addresses):
        yield Finding("provider.worker_ips", "an address stands twice", "name each once")
    if parsed is not None:
        wanted = parsed.number("workers")
        yield from check_same("provider.worker_ips", "machines for workers", len(addresses), wanted, "--workers")


def _storage(config: Mapping[str, Any], parsed: Parsed | None) -> Iterator[Finding]:
    path = None if parsed is None else parsed.path
    if path is None:
        return
    if at(config, "provider", "type") != "local":
        fault = f"--storage {path}: new machines share no folder"
        yield Finding("metadata.raydeck.command", fault, "give a URI such as s3://bucket/runs")
        return
    options = " ".join(text for _, text in _texts(mapping(config.get("docker")), "run_options"))
    if not any(is_inside(path, target) for target in _volumes(options)):
        fault = f"--storage {path} lies in no volume of the container, and vanishes with it"
        yield Finding("docker.run_options", fault, "add --volume PATH:PATH for a folder that all machines share")
