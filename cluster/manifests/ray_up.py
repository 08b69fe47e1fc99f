"""A cluster file of Ray's own launcher, ``ray up``: machines of AWS or GCP, or ones that stand there already."""

import shlex
from collections.abc import Sequence
from typing import Any

import yaml

from cluster.manifests import command as commands
from cluster.manifests.command import Command
from cluster.manifests.kuberay import is_inside
from cluster.manifests.options import Common, RayUp

TOKEN_FOLDER = "/run/raydeck"
"""Where a container sees the folder ``.raydeck`` of its machine, which holds the token's file."""

HEAD_START = (
    "ulimit -n 65536; ray start --head --port=6379 --num-cpus=0 --num-gpus=0 --dashboard-host=127.0.0.1 "
    "--autoscaling-config=~/ray_bootstrap_config.yaml"
)
"""The head takes no work, and its dashboard is reached through ``ray dashboard``, over SSH, alone."""

IDLE_MINUTES = 15


def render(common: Common, options: RayUp, command: Command, made_by: Sequence[str]) -> str:
    """The cluster file as YAML.

    Args:
        common: What is asked of any cluster.
        options: What is asked of this one.
        command: To run once the cluster is up.
        made_by: The words of the command line that asks for it.

    Raises:
        ValueError: The image is not pinned, the machines would not share the run's storage, or they are too few.
    """
    commands.check_image(common.image)
    _check_storage(options, command)
    if options.provider == "local" and len(_addresses(options)) != common.workers:
        given = len(_addresses(options))
        raise ValueError(f"--worker-ips: {given} addresses for --workers {common.workers}; name one each")
    text = yaml.safe_dump(build(common, options, command), sort_keys=False, width=110)
    return "\n".join([*commands.header(made_by, _use(common, options, command)), text])


def _use(common: Common, options: RayUp, command: Command) -> list[str]:
    """What to do with the file."""
    file, secret = shlex.quote(common.output or "FILE"), options.token_secret
    token = {
        "aws": f"aws secretsmanager create-secret --name {secret} --secret-string file://TOKEN",
        "gcp": f"gcloud secrets create {secret} --data-file=TOKEN",
        "local": "on each machine a file ~/.raydeck/auth_token, mode 0600, with the same token",
    }[options.provider]
    return [
        f"Once before:    {token}",
        "                (TOKEN is a file of one word, e.g. from `openssl rand -hex 32`)",
        f"Start it with:  ray up -y {file}",
        f"                ray exec {file} 'ray status'    until it shows {common.workers + 1} active nodes",
        f"Run with:       ray exec --tmux {file} {shlex.quote(str(command))}",
        f"Watch it with:  ray attach --tmux {file}, or ray dashboard {file}",
        f"End it with:    ray down -y {file}    the run stays in its storage; a new cluster goes on with it",
    ]


def build(common: Common, options: RayUp, command: Command) -> dict[str, Any]:
    """The cluster's configuration."""
    config: dict[str, Any] = {
        "cluster_name": commands.object_name(command.name, 40),
        "max_workers": common.workers,
        "idle_timeout_minutes": IDLE_MINUTES,
        "provider": _provider(options),
        "auth": {"ssh_user": options.ssh_user} | ({"ssh_private_key": options.ssh_key} if options.ssh_key else {}),
        "docker": _docker(common, options),
        "initialization_commands": _fetch_token(options),
        "file_mounts": {},
        "head_start_ray_commands": ["ray stop", HEAD_START],
        "worker_start_ray_commands": [
            "ray stop",
            "ulimit -n 65536; ray start --address=$RAY_HEAD_IP:6379 "
            f"--num-cpus={common.cpus_per_worker} --num-gpus={common.gpus_per_worker}",
        ],
        "metadata": {"raydeck": {"command": str(command)}},
    }
    if options.provider != "local":  # there the launcher makes the one kind of node itself
        config["head_node_type"] = "head"
        config["available_node_types"] = _node_types(common, options)
    else:
        del config["idle_timeout_minutes"]
    return config


def _check_storage(options: RayUp, command: Command) -> None:
    """Raise ValueError unless all machines see the storage."""
    if command.path is None:
        return
    if options.provider != "local":
        raise ValueError(
            f"--storage {command.storage}: new machines share no folder; give a URI such as s3://bucket/runs"
        )
    if options.mount is None or not is_inside(command.path, options.mount):
        raise ValueError(f"--storage {command.storage}: add --mount PATH, a folder above it that all machines share")


def _addresses(options: RayUp) -> list[str]:
    return [address.strip() for address in (options.worker_ips or "").split(",") if address.strip()]


def _provider(options: RayUp) -> dict[str, Any]:
    if options.provider == "local":
        return {"type": "local", "head_ip": options.head_ip, "worker_ips": _addresses(options)}
    if options.provider == "aws":
        region = options.region or "us-west-2"
        zone = options.zone or f"{region}a"
        return {"type": "aws", "region": region, "availability_zone": zone, "cache_stopped_nodes": False}
    region = options.region or "us-west1"
    zone = options.zone or f"{region}-a"
    return {"type": "gcp", "region": region, "availability_zone": zone, "project_id": options.project}


def _docker(common: Common, options: RayUp) -> dict[str, Any]:
    run = [
        "--env RAY_AUTH_MODE=token",
        f"--env RAY_AUTH_TOKEN_PATH={TOKEN_FOLDER}/auth_token",
        "--env RAY_USAGE_STATS_ENABLED=0",
        f'--volume "$HOME/.raydeck:{TOKEN_FOLDER}:ro"',
        "--ulimit nofile=65536:65536",
    ]
    run += [f"--volume {options.mount}:{options.mount}"] if options.mount else []
    return {"image": common.image, "container_name": "raydeck", "pull_before_run": True, "run_options": run}


def _fetch_token(options: RayUp) -> list[str]:
    """Commands that put the token on a machine, by what the machine itself may read; this file never holds it."""
    target = '"$HOME/.raydeck/auth_token"'
    if options.provider == "local":
        return [
            f"test -s {target} || {{ echo 'no token in ~/.raydeck/auth_token' >&2; exit 1; }}",
            f"chmod 0600 {target}",
        ]
    region = options.region or "us-west-2"
    fetch = {
        "aws": f"aws secretsmanager get-secret-value --region {region} --secret-id {options.token_secret} "
        "--query SecretString --output text",
        "gcp": f"gcloud secrets versions access latest --project {options.project} --secret {options.token_secret}",
    }[options.provider]
    return [f'umask 077; mkdir -p "$HOME/.raydeck" && {fetch} > {target} && test -s {target}']


def _node_types(common: Common, options: RayUp) -> dict[str, Any]:
    node = _aws_node if options.provider == "aws" else _gcp_node
    head_type = options.head_type or {"aws": "m5.large", "gcp": "n2-standard-2"}[options.provider]
    gpus = {"GPU": common.gpus_per_worker} if common.gpus_per_worker else {}
    return {
        "head": {"resources": {"CPU": 0, "GPU": 0}, "node_config": node(options, head_type, False), "max_workers": 0},
        "worker": {
            "resources": {"CPU": common.cpus_per_worker} | gpus,
            "min_workers": common.workers,
            "max_workers": common.workers,
            "node_config": node(options, str(options.worker_type), bool(gpus)),
        },
    }


def _aws_node(options: RayUp, kind: str, has_gpu: bool) -> dict[str, Any]:
    node: dict[str, Any] = {
        "InstanceType": kind,
        "IamInstanceProfile": {"Arn": options.identity},
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},  # the second hop is the container
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 200, "VolumeType": "gp3", "Encrypted": True}}
        ],
    }
    return node | ({"ImageId": options.node_image} if options.node_image else {})


def _gcp_node(options: RayUp, kind: str, has_gpu: bool) -> dict[str, Any]:
    node: dict[str, Any] = {
        "machineType": kind,
        "disks": [
            {
                "boot": True,
                "autoDelete": True,
                "type": "PERSISTENT",
                "initializeParams": {"diskSizeGb": 200, "sourceImage": options.node_image},
            }
        ],
        "serviceAccounts": [{"email": options.identity, "scopes": ["https://www.googleapis.com/auth/cloud-platform"]}],
    }
    # A machine with GPUs cannot be moved while it runs, and GCP refuses one that does not say so.
    return node | ({"scheduling": {"onHostMaintenance": "TERMINATE"}} if has_gpu else {})
