"""The flags of ``raydeck cluster render``: what is asked of a cluster, of any kind and of each."""

import re
from dataclasses import dataclass
from typing import Literal

QUANTITY = re.compile(r"[1-9][0-9]*(Mi|Gi|Ti)")
"""An amount of memory, as whole binary units."""

HEAD_MEMORY, HEAD_CPUS = "8Gi", 2
"""The head holds Ray's control store, its dashboard and the driver of the run, and no worker."""


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every manifest says.

    Args:
        workers: Processes that train together; of a sweep, how many trials run at a time if each takes one.
        gpus_per_worker: Whole GPUs of each worker.
        cpus_per_worker: CPUs, and so threads, of each worker.
        memory: Memory of each worker, e.g. 16Gi.
        image: Container image that holds Ray and raydeck, by exact tag or digest; only Slurm can do without.
        output: File to write; by default the manifest is printed.
    """

    workers: int = 1
    gpus_per_worker: int = 0
    cpus_per_worker: int = 4
    memory: str = "16Gi"
    image: str | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"--workers: expected at least 1, got {self.workers}")
        if self.gpus_per_worker < 0:
            raise ValueError(f"--gpus-per-worker: expected at least 0, got {self.gpus_per_worker}")
        if self.cpus_per_worker < 1:
            raise ValueError(f"--cpus-per-worker: expected at least 1, got {self.cpus_per_worker}")
        if not QUANTITY.fullmatch(self.memory):
            raise ValueError(f"--memory {self.memory}: expected a whole number of Mi, Gi or Ti, e.g. 16Gi")


@dataclass(frozen=True, kw_only=True)
class KubeRay:
    """What a RayJob says besides.

    Args:
        namespace: Namespace of the job; by default that of the kubectl context.
        service_account: Service account of its pods, by which they may reach object storage.
        pvc: Volume claim that all pods share (access mode ReadWriteMany), for a --storage that is a path.
        mount: Absolute path at which pods see the claim; --storage lies in it.
        queue: Local queue of Kueue that admits the job; by default it starts at once.
        node_selector: Labels of the nodes that workers run on, e.g. pool=gpu,zone=a.
        pull_secret: Secret by which to pull the image.
        token_secret: Secret whose key auth_token holds the cluster's token; by default KubeRay makes one for each.
        gpu_resource: Resource that stands for a GPU.
        user: Number of the image's user, not 0; 1000 in Ray's own images.
        retries: Clusters to start anew, each going on with the run, when one is lost.
        keep_minutes: Minutes that a finished job's object is kept, for its status.
        start_minutes: Minutes within which the job has to be running, unless it waits in a queue.
    """

    namespace: str | None = None
    service_account: str | None = None
    pvc: str | None = None
    mount: str | None = None
    queue: str | None = None
    node_selector: str | None = None
    pull_secret: str | None = None
    token_secret: str | None = None
    gpu_resource: str = "nvidia.com/gpu"
    user: int = 1000
    retries: int = 3
    keep_minutes: int = 60
    start_minutes: int = 30

    def __post_init__(self) -> None:
        if (self.pvc is None) != (self.mount is None):
            raise ValueError("--pvc and --mount go together: the claim, and the path at which pods see it")
        if self.mount is not None and not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", self.mount):
            raise ValueError(f"--mount {self.mount}: expected an absolute path, e.g. /shared")
        if self.user < 1:
            raise ValueError(f"--user: expected the number of a user that is not root, got {self.user}")
        if min(self.retries, self.keep_minutes) < 0 or self.start_minutes < 1:
            raise ValueError("--retries and --keep-minutes: expected at least 0, --start-minutes: at least 1")
        self.labels()

    def labels(self) -> dict[str, str]:
        """The node selector.

        Raises:
            ValueError: It is not a list of KEY=VALUE.
        """
        pairs = [pair.partition("=") for pair in (self.node_selector or "").split(",") if pair]
        if not all(key and value for key, _, value in pairs):
            raise ValueError(f"--node-selector {self.node_selector}: expected KEY=VALUE,KEY=VALUE")
        return {key: value for key, _, value in pairs}


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """What a batch script says besides.

    Args:
        workers_per_node: Workers on each node; --workers is a multiple of it.
        partition: Partition to run in; by default the site's.
        account: Account to charge; by default the user's.
        qos: Quality of service; by default the account's.
        time: Longest time of one start, as HH:MM:SS or DAYS-HH:MM:SS; the run goes on in the next.
        grace: Seconds before that at which the run is told to save and stop.
        requeues: Times that a stopped run is put back into the queue.
        container: What runs --image on the nodes: Pyxis, a plug-in of srun, or Apptainer.
        activate: Absolute path of an environment's bin/activate that all nodes see, where there is no image.
        scratch: Folder on each node's own disk for Ray's files and the token; short, as sockets lie below it.
    """

    workers_per_node: int = 1
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str = "24:00:00"
    grace: int = 300
    requeues: int = 20
    container: Literal["pyxis", "apptainer"] = "pyxis"
    activate: str | None = None
    scratch: str = "/tmp"

    def __post_init__(self) -> None:
        if self.workers_per_node < 1:
            raise ValueError(f"--workers-per-node: expected at least 1, got {self.workers_per_node}")
        if not re.fullmatch(r"([0-9]+-)?[0-9]{1,3}:[0-9]{2}:[0-9]{2}", self.time):
            raise ValueError(f"--time {self.time}: expected HH:MM:SS or DAYS-HH:MM:SS, e.g. 24:00:00")
        if not 30 <= self.grace <= 65535:
            raise ValueError(f"--grace: expected 30 to 65535 seconds, enough for a checkpoint, got {self.grace}")
        if self.requeues < 0:
            raise ValueError(f"--requeues: expected at least 0, got {self.requeues}")
        for flag, value in (("--partition", self.partition), ("--account", self.account), ("--qos", self.qos)):
            if value is not None and not re.fullmatch(r"[A-Za-z0-9._,-]+", value):
                raise ValueError(f"{flag} {value!r}: expected a name without spaces or quotes")
        if self.activate is not None and not self.activate.startswith("/"):
            raise ValueError(f"--activate {self.activate}: expected an absolute path that all nodes see")
        if not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", self.scratch) or len(self.scratch) > 30:
            raise ValueError(f"--scratch {self.scratch}: expected an absolute path of at most 30 characters, e.g. /tmp")


@dataclass(frozen=True, kw_only=True)
class RayUp:
    """What a cluster file of ``ray up`` says besides.

    Args:
        provider: Where the machines are: aws, gcp, or local for machines that stand there already.
        region: Region of a cloud; by default us-west-2 on AWS and us-west1 on GCP.
        zone: Zone of the region; by default its first, a.
        project: Project of GCP.
        head_type: Kind of machine of the head, without GPU; by default m5.large or n2-standard-2.
        worker_type: Kind of machine of each worker, e.g. g5.2xlarge or g2-standard-8.
        node_image: Image of the machines: an AMI, by default Ray's choice, or a GCP image family with Docker.
        identity: What nodes may do: the ARN of an instance profile on AWS, the e-mail of a service account on GCP.
        token_secret: Secret of AWS Secrets Manager or GCP Secret Manager that holds the cluster's token.
        head_ip: Address of the head, where the machines stand there already.
        worker_ips: Addresses of the workers' machines, with commas.
        ssh_user: User by which machines are reached; ubuntu unless given.
        ssh_key: Private key for it, a path on the machine that runs ray up; clouds make one.
        mount: Absolute path that all machines share, for a --storage in it; with --provider local only.
    """

    provider: Literal["aws", "gcp", "local"] = "aws"
    region: str | None = None
    zone: str | None = None
    project: str | None = None
    head_type: str | None = None
    worker_type: str | None = None
    node_image: str | None = None
    identity: str | None = None
    token_secret: str = "raydeck-ray-token"
    head_ip: str | None = None
    worker_ips: str | None = None
    ssh_user: str = "ubuntu"
    ssh_key: str | None = None
    mount: str | None = None

    def __post_init__(self) -> None:
        local = {"--head-ip": self.head_ip, "--worker-ips": self.worker_ips}
        cloud = {"--worker-type": self.worker_type, "--identity": self.identity}
        gcp = {"--project": self.project, "--node-image": self.node_image}
        needed = {"aws": cloud, "gcp": cloud | gcp, "local": local}[self.provider]
        for flag, value in needed.items():
            if not value:
                raise ValueError(f"--provider {self.provider} needs {flag}; --help says what it is")
        if self.provider != "local" and self.mount is not None:
            raise ValueError("--mount: machines of a cloud are new and share no folder; give --storage as a URI")
        if not re.fullmatch(r"[A-Za-z0-9/_+=.@-]+", self.token_secret):
            raise ValueError(f"--token-secret {self.token_secret!r}: expected the name of a secret")
        if self.mount is not None and not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", self.mount):
            raise ValueError(f"--mount {self.mount}: expected an absolute path, e.g. /shared")
