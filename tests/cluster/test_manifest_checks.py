"""``raydeck cluster check``: good manifests pass, and each way of breaking one is caught and named."""

import copy
import functools
import json
from pathlib import Path

import pytest
import yaml

from cluster.cli import main
from cluster.manifests import check_kuberay, check_ray_up
from cluster.manifests.check import check

CRDS = Path(__file__).parents[3] / "shared" / "kuberay-crds-v1.7.0"
"""KubeRay's definitions, beside a checkout in the house; they are no part of the project."""

needs_crds = pytest.mark.skipif(not CRDS.is_dir(), reason=f"KubeRay's definitions are not at {CRDS.name}")

TRAIN = ["--", "train", "mlp", "--storage", "/shared/runs"]
COMMON = ["--image", "registry.example/ml/raydeck:0.1.0", "--workers", "2", "--gpus-per-worker", "1"]
AWS = ["--worker-type", "g5.2xlarge", "--identity", "arn:aws:iam::1:instance-profile/raydeck"]
STANDING = ["--provider", "local", "--head-ip", "10.0.0.1", "--worker-ips", "10.0.0.2,10.0.0.3", "--mount", "/shared"]

CLUSTER = "spec.rayClusterSpec"
HEAD, WORKERS = f"{CLUSTER}.headGroupSpec", f"{CLUSTER}.workerGroupSpecs.0"
HEAD_POD, WORKER_POD = f"{HEAD}.template.spec", f"{WORKERS}.template.spec"
WORKER = f"{WORKER_POD}.containers.0"
ENTRYPOINT = "raydeck train mlp --storage=/shared/runs --workers=2 --gpus-per-worker=1 --address=auto"


def rendered(tmp_path_factory, kind, *arguments):
    """A good manifest, in a file."""
    file = tmp_path_factory.mktemp("manifests") / kind
    assert main(["cluster", "render", kind, "--output", str(file), *arguments]) == 0
    return file


@pytest.fixture(scope="module")
def rayjob(tmp_path_factory):
    return rendered(tmp_path_factory, "kuberay", *COMMON, "--pvc", "runs", "--mount", "/shared", *TRAIN)


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    return rendered(tmp_path_factory, "slurm", *COMMON, *TRAIN)


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    return rendered(tmp_path_factory, "ray-up", *COMMON, *AWS, "--", "train", "mlp", "--storage", "s3://b/runs")


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    return rendered(tmp_path_factory, "ray-up", *COMMON, *STANDING, *TRAIN)


DELETED = object()


def changed(manifest, changes):
    """A copy with values put at dotted paths, or removed from there; a NUL stands for a dot inside a key."""
    manifest = copy.deepcopy(manifest)
    for path, value in changes.items():
        keys = [key.replace("\0", ".") for key in path.split(".")]
        *parents, last = [int(key) if key.isdigit() else key for key in keys]
        place = manifest
        for key in parents:
            place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
        if value is DELETED:
            del place[last]
        else:
            place[last] = value
    return manifest


@functools.cache
def loaded(file):
    return yaml.safe_load(file.read_text())


def found(tmp_path, text, **options):
    """The findings on a manifest's text, as printed."""
    file = tmp_path / "manifest"
    file.write_text(text if isinstance(text, str) else json.dumps(text))  # which is YAML too, and faster
    return [str(finding) for finding in check(file, **options).findings]


# Ways to break a RayJob that need KubeRay's schema, and below those that are caught without it, as no schema says so.
SCHEMA_ALONE = {
    "a misspelt field": ({"spec.shutdownAfterJobFinish": True}, "did you mean shutdownAfterJobFinishes?"),
    "a field of a container": ({f"{WORKER}.resource": {}}, "did you mean resources?"),
    "text for a number": ({f"{WORKERS}.replicas": "2"}, "'2' is not of type 'integer'"),
    "a number for text": ({f"{HEAD}.rayStartParams.num-cpus": 0}, "0 is not of type 'string'"),
    "no group name": ({f"{WORKERS}.groupName": DELETED}, "'groupName' is a required property"),
    "an auth mode that there is not": ({f"{CLUSTER}.authOptions.mode": "tokens"}, "none of disabled, token"),
    "no containers": ({f"{WORKER_POD}.containers": DELETED}, "'containers' is a required property"),
    "memory in a unit that there is not": ({f"{WORKER}.resources.limits.memory": "16GB"}, "pattern"),
}

RAYJOB = {
    "an old version": ({"apiVersion": "ray.io/v1alpha1"}, "is not ray.io/v1 RayJob"),
    "another kind": ({"kind": "RayCluster"}, "is not ray.io/v1 RayJob"),
    "a long name": ({"metadata.name": "x" * 48}, "metadata.name"),
    "submissionMode misspelt": ({"spec.submissionMode": "K8SJobMode"}, "spec.submissionMode: 'K8SJobMode'"),
    "a mode that waits for a person": ({"spec.submissionMode": "InteractiveMode"}, "waits for a person"),
    "a pod that its mode has not": ({"spec.submissionMode": "HTTPMode"}, "HTTPMode has no such pod"),
    "gated TLS": ({f"{CLUSTER}.tlsOptions": {"enabled": True}}, "RayClusterMTLS is off"),
    "gated network policy": ({f"{CLUSTER}.networkPolicy": {"mode": "DenyAll"}}, "RayClusterNetworkPolicy is off"),
    "gated history": ({f"{CLUSTER}.historyServerOptions": {}}, "RayClusterHistoryServer is off"),
    "gated storage": ({f"{CLUSTER}.gcsFaultToleranceOptions": {"backend": "rocksdb"}}, "EmbeddedStorage is off"),
    "no token": ({f"{CLUSTER}.authOptions": DELETED}, "authOptions.mode: no token"),
    "tokens switched off": ({f"{CLUSTER}.authOptions.mode": "disabled"}, "authOptions.mode: no token"),
    "tokens of Kubernetes": ({f"{CLUSTER}.authOptions.enableK8sTokenAuth": True}, "is not for RayJobs"),
    "tokens switched off by a variable": (
        {f"{WORKER}.env": [{"name": "RAY_AUTH_MODE", "value": "disabled"}]},
        "RAY_AUTH_MODE=disabled",
    ),
    "latest": ({f"{WORKER}.image": "registry.example/ml/raydeck:latest"}, "a tag that moves, latest"),
    "no tag": ({f"{HEAD_POD}.containers.0.image": "registry.example/ml/raydeck"}, "neither tag nor digest"),
    "no tag on the submitter": (
        {"spec.submitterPodTemplate.spec.containers.0.image": "raydeck"},
        "spec.submitterPodTemplate.spec.containers[0].image",
    ),
    "GPUs on the head": ({f"{HEAD_POD}.containers.0.resources.limits.nvidia\0com/gpu": 1}, "the head has GPUs"),
    "a head that works": ({f"{HEAD}.rayStartParams.num-cpus": "2"}, "the head takes work"),
    "a head that says nothing": ({f"{HEAD}.rayStartParams": DELETED}, "the head takes work"),
    "emptyDir": (
        {f"{WORKER_POD}.volumes.0": {"name": "storage", "emptyDir": {}}},
        "is a volume of emptyDir, which other nodes do not see",
    ),
    "hostPath": ({f"{HEAD_POD}.volumes.0": {"name": "storage", "hostPath": {"path": "/shared"}}}, "hostPath"),
    "no volume": ({f"{WORKER}.volumeMounts": DELETED}, "lies in no volume, and vanishes with the pod"),
    "a mount elsewhere": ({f"{WORKER}.volumeMounts.0.mountPath": "/share"}, "lies in no volume"),
    "a mount of nothing": ({f"{WORKER}.volumeMounts.0.name": "storages"}, "the pod has no such volume"),
    "a mount to read": ({f"{WORKER}.volumeMounts.0.readOnly": True}, "mounted readOnly"),
    "two claims": ({f"{WORKER_POD}.volumes.0.persistentVolumeClaim.claimName": "other"}, "in different volumes"),
    "another Ray": ({f"{CLUSTER}.rayVersion": "2.9.0"}, "rayVersion: 2.9.0"),
    "an image of another Ray": ({f"{WORKER}.image": "rayproject/ray:2.9.0-py311"}, "Ray 2.9.0, and the one here"),
    "memory that may grow": ({f"{WORKER}.resources.limits.memory": "64Gi"}, "requests 16Gi and may use 64Gi"),
    "memory without a limit": ({f"{WORKER}.resources.limits.memory": DELETED}, "limits.memory: is missing"),
    "machines kept for ever": ({"spec.shutdownAfterJobFinishes": DELETED}, "keeps its machines"),
    "retries that begin anew": ({"spec.entrypoint": ENTRYPOINT}, "no run name by which they would go on"),
    "fewer than no retries": ({"spec.backoffLimit": -1}, "less than 0"),
    "another program": ({"spec.entrypoint": "python train.py"}, "is no raydeck command"),
    "a flag that there is not": (
        {"spec.entrypoint": f"{ENTRYPOINT} --name=x --model.lrr=1"},
        "did you mean 'model.lr'?",
    ),
    "a storage in the pod": (
        {"spec.entrypoint": "raydeck train mlp --name=x --storage=runs --address=auto"},
        "--storage runs: the run would vanish",
    ),
    "a command that joins no cluster": (
        {"spec.entrypoint": "raydeck train mlp --name=x --storage=/shared/runs --workers=2"},
        "would not join the cluster",
    ),
    "a secret in a variable": (
        {f"{WORKER}.env": [{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}]},
        "AWS_SECRET_ACCESS_KEY holds a secret",
    ),
    "a secret for all": ({"spec.runtimeEnvYAML": "env_vars: {HF_TOKEN: x}"}, "HF_TOKEN holds a secret"),
    "packages at each start": ({"spec.runtimeEnvYAML": "pip: [torch]"}, "installs packages"),
    "an environment that is none": ({"spec.runtimeEnvYAML": "a: [b"}, "is no YAML mapping"),
    "privileged": ({f"{WORKER}.securityContext.privileged": True}, "is root on the node"),
    "root": ({f"{WORKER_POD}.securityContext.runAsNonRoot": DELETED}, "runs as root, or may"),
    "a way to root": ({f"{WORKER}.securityContext": DELETED}, "may become root"),
    "rights that it keeps": ({f"{WORKER}.securityContext.capabilities": DELETED}, "keeps rights"),
    "any system call": ({f"{WORKER_POD}.securityContext.seccompProfile": DELETED}, "any system call"),
    "no retry": ({"spec.backoffLimit": DELETED}, "a lost head ends the run"),
    "a pod of nothing": ({WORKER_POD: DELETED}, "no container, so nothing runs"),
    "more rights": ({f"{WORKER}.securityContext.capabilities": {"add": ["SYS_ADMIN"]}}, "rights that training"),
    "the node's network": ({f"{WORKER_POD}.hostNetwork": True}, "shares the node's own"),
    "too few workers": ({f"{WORKERS}.replicas": 1, f"{WORKERS}.minReplicas": 1}, "1 workers in all"),
    "no workers": ({f"{CLUSTER}.workerGroupSpecs": []}, "no workers"),
    "replicas out of range": ({f"{WORKERS}.maxReplicas": 1}, "is not between minReplicas 2 and maxReplicas 1"),
    "other GPUs": ({f"{WORKER}.resources.limits.nvidia\0com/gpu": 2}, "2 GPUs a pod"),
    "fewer CPUs": ({f"{WORKERS}.rayStartParams.num-cpus": "1"}, "1 CPUs, and the command has --cpus-per-worker 4"),
    "a driver on a worker": ({"spec.entrypointNumGpus": 1}, "take a worker's place"),
    "an open dashboard": ({f"{HEAD}.serviceType": "LoadBalancer"}, "opens the dashboard"),
    "waiting for nobody": ({"spec.suspend": True}, "nothing would ever start the job"),
    "somebody else's cluster": ({"spec.clusterSelector": {"a": "b"}}, "a cluster of somebody else's"),
}


def broken(rayjob, changes):
    return changed(loaded(rayjob), changes)


def test_good_manifests_pass(rayjob, script, launched, standing, capsys):
    for file in (rayjob, script, launched, standing):
        assert main(["cluster", "check", str(file)]) == 0
        captured = capsys.readouterr()
        assert captured.out == f"{file}: no fault found\n" and "not checked: " in captured.err
    assert main(["cluster", "check", str(rayjob)]) == 0
    assert "KubeRay's schema" in capsys.readouterr().err


@needs_crds
def test_a_good_rayjob_passes_the_strict_schema(rayjob, tmp_path_factory, capsys):
    queued = rendered(
        tmp_path_factory, "kuberay", *COMMON, "--queue", "team", "--namespace", "ml", "--service-account", "s",
        "--node-selector", "pool=gpu", "--pull-secret", "p", "--token-secret", "t", "--", "tune", "mlp", "--storage",
        "s3://b/runs",
    )  # fmt: skip
    for file in (rayjob, queued):
        assert main(["cluster", "check", str(file), "--crds", str(CRDS)]) == 0
        assert "KubeRay's schema" not in capsys.readouterr().err


@pytest.mark.parametrize("way", RAYJOB)
def test_a_broken_rayjob_is_caught_without_the_schema(rayjob, tmp_path, way):
    changes, said = RAYJOB[way]
    findings = found(tmp_path, broken(rayjob, changes))
    assert any(said in finding for finding in findings), findings


@needs_crds
@pytest.mark.parametrize("way", SCHEMA_ALONE)
def test_the_schema_catches_the_rest(rayjob, tmp_path, way):
    changes, said = SCHEMA_ALONE[way]
    findings = found(tmp_path, broken(rayjob, changes), crds=str(CRDS))
    assert any(said in finding for finding in findings), findings


def test_gates_that_the_operator_has_on_are_no_fault(rayjob, tmp_path):
    manifest = broken(rayjob, RAYJOB["gated TLS"][0])
    assert found(tmp_path, manifest, gates="RayClusterNetworkPolicy, RayClusterMTLS") == []


def test_findings_are_one_line_each_and_exit_with_2(rayjob, tmp_path, capsys):
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump(broken(rayjob, RAYJOB["no token"][0] | RAYJOB["latest"][0])))
    assert main(["cluster", "check", str(file)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.startswith(f"{file}: spec.rayClusterSpec.") and "; " in line for line in lines)


def test_a_key_that_stands_twice_is_caught(rayjob, tmp_path):
    text = rayjob.read_text().replace("  backoffLimit: 3\n", "  backoffLimit: 3\n  backoffLimit: 4\n")
    assert "'backoffLimit' stands twice" in found(tmp_path, text)[0]


SCRIPT = {
    "broken bash": (('case "$code" in', 'case "$code" on'), "bash cannot read it"),
    "no first line": (("#!/bin/bash", "# bash"), "without a first line"),
    "no whole nodes": (("#SBATCH --exclusive\n", ""), "#SBATCH --exclusive"),
    "no requeue": (("#SBATCH --requeue\n", ""), "#SBATCH --requeue"),
    "no time limit": (("#SBATCH --time=24:00:00\n", ""), "#SBATCH --time"),
    "directives too late": (("#SBATCH --requeue", "true\n#SBATCH --requeue"), "after the first command"),
    "no notice": (("#SBATCH --signal=B:TERM@300\n", ""), "#SBATCH --signal"),
    "a notice to Ray too": (("B:TERM@300", "TERM@300"), "for this shell alone"),
    "a notice too late": (("B:TERM@300", "B:TERM@5"), "#SBATCH --signal"),
    "several starts a node": (("--ntasks-per-node=1\n", "--ntasks-per-node=4\n"), "once on each node"),
    "too few GPUs": (("#SBATCH --gpus-per-node=1\n", ""), "#SBATCH --gpus-per-node"),
    "too few CPUs": (("#SBATCH --cpus-per-task=4", "#SBATCH --cpus-per-task=2"), "#SBATCH --cpus-per-task"),
    "nodes that do not fit": (("#SBATCH --nodes=2", "#SBATCH --nodes=3"), "3 nodes for --workers 2"),
    "no Ray": (("  symmetric-run\n", "  start\n"), "no `ray symmetric-run`"),
    "no waiting": (('  --min-nodes "$SLURM_JOB_NUM_NODES"\n', ""), "no --min-nodes"),
    "a short wait": (("WAIT_TIMEOUT=300", "WAIT_TIMEOUT=30"), "nodes wait for each other for 30 s"),
    "no token": (("export RAY_AUTH_MODE=token\n", ""), "RAY_AUTH_MODE: no token"),
    "no path of the token": (("export RAY_AUTH_TOKEN_PATH=", "export TOKEN_AT="), "RAY_AUTH_TOKEN_PATH"),
    "a token in the script": (
        ("export RAY_AUTH_MODE", "export RAY_AUTH_TOKEN=abc\nexport RAY_AUTH_MODE"),
        "holds a secret",
    ),
    "a token for all": (("umask 077; ", ""), "others may read the token's file"),
    "a token in the log": (("stopped=\n", 'cat "$scratch/auth_token"\n'), "prints the token"),
    "no folder of its own": (('export RAY_TMPDIR="$scratch"\n', ""), "RAY_TMPDIR"),
    "no token made": (("head -c 32 /dev/urandom", "true"), "nothing makes a token"),
    "no trap": (("trap stop TERM\n", ""), "trap: Slurm's notice"),
    "nothing goes on": (('scontrol requeue "$SLURM_JOB_ID"', "true"), "a stopped run stays stopped"),
    "mistakes go on": (("130 | 143)", "2 | 130 | 143)"), "also on 2"),
    "everything goes on": (("130 | 143)", "*)"), "requeue"),
    "half goes on": (("130 | 143)", "130)"), "not on both"),
    "another command": (("command=(raydeck train", "command=(python train"), "is no raydeck command"),
    "a storage of one node": (("--storage=/shared/runs", "--storage=/tmp/runs"), "one node's own disk"),
    "latest": (("raydeck:0.1.0\n", "raydeck:latest\n"), "a tag that moves"),
    "one log": (("-%j.log\n#SBATCH --open", ".log\n#SBATCH --open"), "put %j into it"),
}


@pytest.mark.parametrize("way", SCRIPT)
def test_a_broken_batch_script_is_caught(script, tmp_path, way):
    (before, after), said = SCRIPT[way]
    text = script.read_text()
    assert before in text
    findings = found(tmp_path, text.replace(before, after))
    assert any(said in finding for finding in findings), findings


LAUNCHED = {
    "a field that there is not": ({"max_worker": 2}, "did you mean max_workers?"),
    "text for a number": ({"max_workers": "2"}, "is not of type 'integer'"),
    "half a CPU": ({"available_node_types.worker.resources.CPU": 0.5}, "is not of type 'integer'"),
    "another cloud": ({"provider.type": "awz"}, "'awz' is none of aws, gcp, local"),
    "no region": ({"provider.region": DELETED}, "provider.region"),
    "latest": ({"docker.image": "raydeck:latest"}, "a tag that moves"),
    "an image for workers": ({"docker.worker_image": "raydeck"}, "docker.worker_image"),
    "no image": ({"docker": DELETED}, "docker.image: is missing"),
    "no token": ({"docker.run_options": []}, "no RAY_AUTH_MODE=token"),
    "tokens off": ({"docker.run_options.0": "--env RAY_AUTH_MODE=disabled"}, "RAY_AUTH_MODE=disabled"),
    "a token here": ({"docker.run_options.1": "--env RAY_AUTH_TOKEN=abc"}, "RAY_AUTH_TOKEN holds a secret"),
    "root": ({"docker.run_options.2": "--privileged"}, "makes the container root"),
    "a head that works": ({"head_start_ray_commands.1": "ray start --head --autoscaling-config=x"}, "takes work"),
    "a head with work to offer": ({"available_node_types.head.resources": {}}, "the head takes work"),
    "GPUs on the head": ({"available_node_types.head.resources.GPU": 1}, "the head offers GPUs"),
    "no autoscaler": ({"head_start_ray_commands.1": "ray start --head --num-cpus=0"}, "no worker is started"),
    "an open dashboard": (
        {"head_start_ray_commands.1": "ray start --head --num-cpus=0 --autoscaling-config=x --dashboard-host=0.0.0.0"},
        "listens to everybody",
    ),
    "workers that join nothing": ({"worker_start_ray_commands.1": "ray start"}, "no worker joins"),
    "another Ray": ({"setup_commands": ["pip install 'ray[default]==2.9.0'"]}, "Ray 2.9.0"),
    "a secret in a command": ({"setup_commands": ["export HF_TOKEN=abc"]}, "HF_TOKEN holds a secret"),
    "a key among the files": ({"file_mounts": {"~/.ssh/id_rsa": "~/.ssh/id_rsa"}}, "looks like a key"),
    "no such head": ({"head_node_type": "heads"}, "none of available_node_types"),
    "too few workers": ({"available_node_types.worker.min_workers": 1}, "1 workers at least"),
    "no word on the most": ({"max_workers": DELETED}, "the launcher takes 2"),
    "workers that never start": ({"available_node_types.worker": DELETED}, "no worker is started"),
    "a token that nobody fetches": ({"initialization_commands": []}, "nothing puts auth_token on a new machine"),
    "a token out of sight": ({"docker.run_options.3": "--tty"}, "no volume of the container holds"),
    "no room": ({"max_workers": 1}, "less than all min_workers"),
    "other GPUs": ({"available_node_types.worker.resources.GPU": 4}, "4 GPUs a node"),
    "no command": ({"metadata": DELETED}, "is no raydeck command"),
    "a storage of one machine": (
        {"metadata.raydeck.command": "raydeck train mlp --name=x --storage=/data --address=auto"},
        "new machines share no folder",
    ),
}

STANDS = {
    "node types": ({"available_node_types": {"a": {"resources": {}, "node_config": {}}}}, "stand there already"),
    "no head": ({"provider.head_ip": DELETED}, "provider.head_ip"),
    "the head among workers": ({"provider.head_ip": "10.0.0.2"}, "the head is among the workers"),
    "a worker twice": ({"provider.worker_ips.0": "10.0.0.3"}, "an address stands twice"),
    "too few": ({"provider.worker_ips": ["10.0.0.2"]}, "1 machines for workers"),
    "no shared folder": ({"docker.run_options.5": "--volume /srv:/srv"}, "lies in no volume of the container"),
}


@pytest.mark.parametrize(("kind", "way"), [*(("launched", w) for w in LAUNCHED), *(("standing", w) for w in STANDS)])
def test_a_broken_cluster_file_is_caught(request, tmp_path, kind, way):
    changes, said = (LAUNCHED if kind == "launched" else STANDS)[way]
    manifest = changed(loaded(request.getfixturevalue(kind)), changes)
    findings = found(tmp_path, manifest)
    assert any(said in finding for finding in findings), findings


def paths(value, above=()):
    """The path of everything in a manifest."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*above, key)
        yield from paths(inner, (*above, key))


@pytest.mark.parametrize("kind", ["rayjob", "launched", "standing"])
@pytest.mark.parametrize("value", [5, []], ids=str)
def test_no_nonsense_breaks_the_check_itself(request, monkeypatch, kind, value):
    manifest = loaded(request.getfixturevalue(kind))
    # The command is of no interest here, and slow.
    monkeypatch.setattr("cluster.manifests.command.parse", lambda verb, arguments: None)
    for path in paths(manifest):
        nonsense = changed(manifest, {".".join(str(key).replace(".", "\0") for key in path): value})
        if kind == "rayjob":
            check_kuberay.check(nonsense, None, frozenset())
        else:
            check_ray_up.check(nonsense)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.yaml"], "none.yaml: cannot be read"),
        (["other.yaml"], "neither a RayJob alone"),
        (["--crds", "x"], "expected the FILE first"),
        (["other.yaml", "--crd", "x"], "did you mean --crds?"),
        (["job.yaml", "--crds", "nowhere"], "holds no definition"),
        (["job.yaml", "--crds", "torn"], "holds no definition"),
    ],
)
def test_a_mistake_in_the_question_gets_one_line(tmp_path, monkeypatch, capsys, rayjob, arguments, said):
    monkeypatch.chdir(tmp_path)
    Path("other.yaml").write_text("a: 1\n")
    Path("job.yaml").write_text(rayjob.read_text())
    Path("torn").mkdir()
    Path("torn/ray.io_rayjobs.yaml").write_text("spec: [")
    assert main(["cluster", "check", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
