"""Manifests that ``raydeck cluster render`` makes: what they say, and what it refuses to make."""

import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from cluster.cli import main
from cluster.manifests import command as commands
from cluster.manifests.options import Common

IMAGE = "registry.example/ml/raydeck:0.1.0"
TRAIN = ["train", "mlp", "--storage", "/shared/runs", "--model.hidden_dims", "[64,64]"]
CLAIM = ["--pvc", "runs", "--mount", "/shared"]
AWS = ["--provider", "aws", "--worker-type", "g5.2xlarge", "--identity", "arn:aws:iam::1:instance-profile/raydeck"]
GCP = ["--provider", "gcp", "--worker-type", "g2-standard-8", "--identity", "raydeck@p.iam.gserviceaccount.com"]
GCP += ["--project", "p", "--node-image", "projects/deeplearning-platform-release/global/images/family/common-cu128"]
LOCAL = ["--provider", "local", "--head-ip", "10.0.0.1", "--worker-ips", "10.0.0.2,10.0.0.3", "--mount", "/shared"]


def rendered(capsys, *arguments):
    """What render prints."""
    capsys.readouterr()
    assert main(["cluster", "render", *arguments]) == 0
    return capsys.readouterr().out


def refused(capsys, *arguments):
    """The one line by which render refuses."""
    capsys.readouterr()
    assert main(["cluster", "render", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def kuberay(capsys, *flags, train=TRAIN):
    return yaml.safe_load(rendered(capsys, "kuberay", "--image", IMAGE, *flags, "--", *train))


def ray_up(capsys, *flags, storage="s3://bucket/runs"):
    train = ["train", "mlp", "--storage", storage]
    return yaml.safe_load(rendered(capsys, "ray-up", "--image", IMAGE, "--workers", "2", *flags, "--", *train))


def containers(manifest):
    """Every container of a RayJob."""
    cluster = manifest["spec"]["rayClusterSpec"]
    templates = [cluster["headGroupSpec"]["template"], manifest["spec"]["submitterPodTemplate"]]
    templates += [group["template"] for group in cluster["workerGroupSpecs"]]
    return [container for template in templates for container in template["spec"]["containers"]]


def test_the_help_names_the_verbs_and_the_kinds(capsys):
    assert main(["cluster", "--help"]) == 0
    out = capsys.readouterr().out
    assert "render" in out and "check" in out
    assert main(["cluster", "render", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(kind in out for kind in ("kuberay", "slurm", "ray-up"))
    assert main(["cluster", "render", "kuberay", "--help"]) == 0
    assert "--pvc" in capsys.readouterr().out
    assert main(["cluster", "check", "--help"]) == 0
    assert "--crds" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["cluster"], ["cluster", "--help"], ["cluster", "render", "-h"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys; from cluster.cli import main; main(sys.argv[1:]); "
        "print({'torch', 'ray', 'jsonargparse', 'yaml', 'jsonschema'} & set(sys.modules) or 'light')"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "light"


def test_a_rayjob_passes_review(capsys):
    manifest = kuberay(capsys, "--workers", "4", "--gpus-per-worker", "2", *CLAIM)
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    spec, cluster = manifest["spec"], manifest["spec"]["rayClusterSpec"]
    assert spec["submissionMode"] == "K8sJobMode" and spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0 and spec["backoffLimit"] == 3 and "suspend" not in spec
    assert cluster["rayVersion"] == version("ray") and cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (group,) = cluster["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == 4
    for container in containers(manifest):
        limits = container["resources"]["limits"]
        assert container["image"] == IMAGE and container["resources"]["requests"] == limits and "memory" in limits
        assert limits.get("nvidia.com/gpu") == (2 if container["name"] == "ray-worker" else None)
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
    for template in (cluster["headGroupSpec"]["template"], group["template"]):
        assert template["spec"]["volumes"] == [{"name": "storage", "persistentVolumeClaim": {"claimName": "runs"}}]
        assert template["spec"]["securityContext"]["runAsNonRoot"] is True


def test_the_entrypoint_says_what_the_manifest_asks_for_and_resumes_by_name(capsys):
    flags = ["--workers", "4", "--gpus-per-worker", "2", "--cpus-per-worker", "6", *CLAIM]
    words = shlex.split(kuberay(capsys, *flags)["spec"]["entrypoint"])
    assert words[:3] == ["raydeck", "train", "mlp"]
    told = dict(word[2:].split("=", 1) for word in words[3:])
    assert (told["workers"], told["gpus-per-worker"], told["cpus-per-worker"], told["address"]) == (
        "4",
        "2",
        "6",
        "auto",
    )
    assert (told["storage"], told["model.hidden_dims"]) == ("/shared/runs", "[64,64]")
    from cluster.cli import parse_train

    assert told["name"] == Path(parse_train("train", TRAIN[1:])[0].directory).name
    named = shlex.split(kuberay(capsys, *CLAIM, train=[*TRAIN, "--name", "Mine.1"])["spec"]["entrypoint"])
    assert "--name=Mine.1" in named


def test_a_name_becomes_one_that_kubernetes_takes(capsys):
    manifest = kuberay(capsys, *CLAIM, train=[*TRAIN, "--name", "7_Mine." + "x" * 80])
    name = manifest["metadata"]["name"]
    assert len(name) <= 47 and name.startswith("run-7-mine-xx")
    assert commands.object_name("a.b", 47) != commands.object_name("a_b", 47)
    assert commands.object_name("cnn-6e1ea953", 47) == "cnn-6e1ea953"


def test_kueue_and_the_rest_are_optional(capsys):
    flags = [
        "--queue",
        "team",
        "--namespace",
        "ml",
        "--service-account",
        "trainer",
        "--node-selector",
        "pool=gpu,zone=a",
    ]
    flags += ["--pull-secret", "pull", "--token-secret", "token", "--retries", "0"]
    train = ["train", "mlp", "--storage", "s3://bucket/runs"]
    manifest = kuberay(capsys, *flags, train=train)
    spec, cluster = manifest["spec"], manifest["spec"]["rayClusterSpec"]
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team" and spec["suspend"] is True
    assert manifest["metadata"]["namespace"] == "ml" and spec["backoffLimit"] == 0
    assert cluster["authOptions"] == {"mode": "token", "secretName": "token"}
    pod = cluster["workerGroupSpecs"][0]["template"]["spec"]
    assert pod["nodeSelector"] == {"pool": "gpu", "zone": "a"} and pod["serviceAccountName"] == "trainer"
    assert pod["imagePullSecrets"] == [{"name": "pull"}] and "volumes" not in pod
    assert "nodeSelector" not in cluster["headGroupSpec"]["template"]["spec"]


def test_a_sweep_s_trials_have_a_worker_each(capsys):
    manifest = kuberay(capsys, "--workers", "8", train=["tune", "mlp", "--trials", "4", "--storage", "gs://b/runs"])
    words = shlex.split(manifest["spec"]["entrypoint"])
    assert words[:3] == ["raydeck", "tune", "mlp"] and not any(word.startswith("--workers") for word in words)
    assert manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] == 8
    assert any(word.startswith("--name=tune-mlp-") for word in words)


def test_a_config_file_travels_as_flags(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("seed: 3\nmodel:\n  hidden_dims: [7, 9]\n  lr: 0.5\n")
    flags = ["--storage", "/shared/runs", "--config", str(config), "--model.lr", "0.25", "--checkpoint.keep", "2"]
    made = commands.prepare(["train", "mlp", *flags], Common(image=IMAGE))
    told = commands.flags_of(made.words[3:])
    assert (told["seed"], told["model.hidden_dims"], told["model.lr"], told["checkpoint.keep"]) == (
        "3",
        "[7, 9]",
        "0.25",
        "2",
    )
    assert "config" not in told and str(tmp_path) not in str(made)
    job, sent = commands.parse("train", ["mlp", *flags]), commands.parse("train", list(made.words[2:]))
    assert job.config == sent.config and job.directory.rpartition("/")[2] == made.name


def test_the_header_says_what_made_it_and_what_to_do(capsys, tmp_path):
    told = ["cluster", "render", "kuberay", "--image", IMAGE, *CLAIM, "--", *TRAIN]
    text = rendered(capsys, *told[2:])
    assert (
        text.startswith(f"# Made by: {shlex.join(['raydeck', *told])}\n") and "# Start it with:   kubectl apply" in text
    )
    file = tmp_path / "job.yaml"
    assert main([*told[:3], "--output", str(file), *told[3:]]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and f"raydeck cluster check {file}" in captured.err
    assert yaml.safe_load(file.read_text()) == yaml.safe_load(text)


def test_a_batch_script_asks_for_whole_nodes_and_packs_workers(capsys):
    flags = ["--workers", "8", "--workers-per-node", "4", "--gpus-per-worker", "1", "--memory", "32Gi"]
    text = rendered(capsys, "slurm", *flags, "--partition", "gpu", "--requeues", "7", "--", *TRAIN)
    told = dict(line[10:].partition("=")[::2] for line in text.splitlines() if line.startswith("#SBATCH "))
    assert (told["nodes"], told["gpus-per-node"], told["cpus-per-task"], told["mem"]) == ("2", "4", "16", "131072M")
    assert told["signal"] == "B:TERM@300" and told["partition"] == "gpu" and {"exclusive", "requeue"} <= set(told)
    assert "RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300" in text and "-lt 7" in text
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


@pytest.mark.parametrize("container", ["pyxis", "apptainer"])
def test_a_batch_script_runs_an_image(capsys, container):
    text = rendered(capsys, "slurm", "--image", IMAGE, "--container", container, "--gpus-per-worker", "1", "--", *TRAIN)
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    assert f"--container-image={IMAGE}" in text if container == "pyxis" else f"docker://{IMAGE}" in text
    assert "/shared/runs:/shared/runs" in text and "mkdir -p -- /shared/runs" in text


@pytest.mark.parametrize(("flags", "storage"), [(AWS, "s3://b/r"), (GCP, "gs://b/r"), (LOCAL, "/shared/runs")])
def test_ray_up_s_own_launcher_takes_the_file(capsys, flags, storage):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = ray_up(capsys, *flags, "--gpus-per-worker", "1", storage=storage)
    prepared = prepare_config(config)
    validate_config(prepared)
    types = prepared["available_node_types"]
    assert sum(kind["min_workers"] for kind in types.values()) == prepared["max_workers"] == 2
    assert config["docker"]["image"] == IMAGE and config["file_mounts"] == {}
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert any("--head" in text and "--num-cpus=0" in text for text in config["head_start_ray_commands"])
    assert f"--storage={storage}" in shlex.split(config["metadata"]["raydeck"]["command"])
    if config["provider"]["type"] != "local":
        assert types["head"]["resources"] == {"CPU": 0, "GPU": 0} and types["worker"]["resources"]["GPU"] == 1


STORED = ["--", "train", "mlp", "--storage", "s3://b/r"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["kuberai"], "did you mean 'kuberay'?"),
        (["kuberay", "--image", IMAGE, "--wokers", "2", *STORED], "did you mean --workers?"),
        (["kuberay", "--image", IMAGE, "--workers", "two", *STORED], "--workers: expected a whole number, got 'two'"),
        (["kuberay", "--image", IMAGE, "--workers", "0", *STORED], "--workers: expected at least 1"),
        (["kuberay", "--image", IMAGE], "expected `-- train NAME [flags]`"),
        (["kuberay", "--image", IMAGE, "train", "mlp"], "expected `-- train NAME [flags]`"),
        (["kuberay", "--image", IMAGE, "--", "predict", "mlp"], "expected `-- train NAME [flags]`"),
        (["kuberay", "--image", IMAGE, "--", "train", "mlpp"], "no workload 'mlpp'; did you mean 'mlp'?"),
        (["kuberay", "--image", IMAGE, *STORED, "--model.lrr", "1"], "did you mean 'model.lr'?"),
        (["kuberay", "--image", IMAGE, *STORED, "--model.lr", "fast"], "expected a number, got 'fast'"),
        (["kuberay", "--image", IMAGE, *STORED, "--name", "../x"], "--name '../x'"),
        (["kuberay", "--image", IMAGE, "--", "train", "mlp"], "--storage is missing"),
        (
            ["kuberay", "--image", IMAGE, "--", "train", "mlp", "--storage", "runs"],
            "--storage runs: the run would vanish",
        ),
        (["kuberay", "--image", IMAGE, "--", *TRAIN], "add --pvc CLAIM --mount PATH"),
        (["kuberay", "--image", IMAGE, "--pvc", "c", "--mount", "/share", "--", *TRAIN], "is not in --mount /share"),
        (["kuberay", "--image", IMAGE, "--pvc", "c", *STORED], "--pvc and --mount go together"),
        (["kuberay", *STORED], "--image: expected one that holds Ray and raydeck"),
        (["kuberay", "--image", "ray:latest", *STORED], "a tag that moves, latest"),
        (["kuberay", "--image", "host:5000/ray", *STORED], "neither tag nor digest"),
        (["kuberay", "--image", "ray:2@sha256:12", *STORED], "is no image reference"),
        (["kuberay", "--image", IMAGE, "--memory", "16GB", *STORED], "e.g. 16Gi"),
        (["kuberay", "--image", IMAGE, "--user", "0", *STORED], "not root"),
        (["kuberay", "--image", IMAGE, "--node-selector", "gpu", *STORED], "expected KEY=VALUE"),
        (
            ["kuberay", "--image", IMAGE, "--workers", "2", *STORED, "--workers", "4"],
            "--workers is 4 after -- and is 2",
        ),
        (["kuberay", "--image", IMAGE, *STORED, "--address", "h:6379"], "--address is h:6379 after -- and is auto"),
        (["kuberay", "--image", IMAGE, *STORED, "--data.source", "./t.csv"], "nodes do not see this machine's files"),
        (["kuberay", "--image", IMAGE, "--", "train", "mlp", "--storage", "s3://u:p@b/r"], "a password in it"),
        (["slurm", "--workers", "3", "--workers-per-node", "2", *STORED], "no multiple of --workers-per-node 2"),
        (["slurm", "--", "train", "mlp", "--storage", "/tmp/runs"], "lies on one node's own disk"),
        (["slurm", "--time", "1 day", *STORED], "--time 1 day"),
        (["slurm", "--image", "ray", *STORED], "neither tag nor digest"),
        (["slurm", "--image", IMAGE, "--activate", "/e/bin/activate", *STORED], "drop one"),
        (["ray-up", "--image", IMAGE, *STORED], "--provider aws needs --worker-type"),
        (["ray-up", "--image", IMAGE, *AWS, "--", *TRAIN], "new machines share no folder"),
        (["ray-up", "--image", IMAGE, *LOCAL, *STORED], "2 addresses for --workers 1"),
        (["ray-up", "--image", IMAGE, "--provider", "azure", *STORED], "expected one of aws, gcp, local, got 'azure'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_gets_one_line(capsys, monkeypatch, arguments, said):
    monkeypatch.delenv("RAYDECK_TRACEBACK", raising=False)
    assert said in refused(capsys, *arguments)
