import shutil
import subprocess
from pathlib import Path

import pytest

from cluster import _package
from cluster._package import PACKAGES, collect, commit, prepare

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ["train", "mlp", "--storage", "/shared/runs"]


@pytest.fixture
def project(tmp_path):
    """A project of the smallest kind: each package holds its ``__init__.py``."""
    folder = tmp_path / "project"
    for package in PACKAGES:
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text(f"NAME = {package!r}\n")
    (folder / "pyproject.toml").write_text("[project]\n")
    return folder


def names(project, **options):
    return set(collect(project, options.pop("extra", {}), **options).files)


def test_sends_the_packages_and_nothing_beside_them(project, tmp_path):
    (project / "photos").mkdir()
    (project / "photos" / "a.png").write_bytes(b"")
    (project / "workloads" / "data").mkdir()
    (project / "workloads" / "data" / "tables.py").write_text("x = 1\n")
    expected = {"pyproject.toml", "workloads/data/tables.py", *(f"{package}/__init__.py" for package in PACKAGES)}
    package = collect(project, {})
    assert set(package.files) == expected
    assert package.private == []

    (tmp_path / "staged").mkdir()
    package.write(tmp_path / "staged")
    written = {path.relative_to(tmp_path / "staged").as_posix() for path in tmp_path.glob("staged/**/*.*")}
    assert written == expected
    assert (tmp_path / "staged/workloads/data/tables.py").read_text() == "x = 1\n"


def test_this_project_is_sent_whole():
    sources = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert sources <= names(ROOT)


@pytest.mark.parametrize(
    "name",
    [".env", ".env.local", "prod.env", "server.pem", "TLS.KEY", "id_rsa", "id_ed25519.pub", ".netrc", "auth_token",
     "service-account.json", "my_credentials.json", "kubeconfig.yaml", ".aws/credentials", ".ssh/config",
     ".kube/config", "gcloud/access_tokens.db", "me_accessKeys.csv", "rootkey.csv", "rclone.conf", "prod.tfvars"],
)  # fmt: skip
def test_leaves_out_what_is_private_and_says_so(project, name):
    file = project / "cluster" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("secret")
    package = collect(project, {})
    assert all("secret" not in path.read_text() for path in package.files.values())
    assert package.private == [project / "cluster" / Path(name).parts[0]]


@pytest.mark.parametrize(
    ("name", "text"),
    [("deploy.txt", "-----BEGIN OPENSSH PRIVATE KEY-----\nabc"), ("robot.json", '{"type": "x", "private_key": "abc"}')],
)
def test_leaves_out_keys_by_what_is_in_them(project, name, text):
    (project / "workloads" / name).write_text(text)
    package = collect(project, {})
    assert f"workloads/{name}" not in package.files
    assert package.private == [project / "workloads" / name]


def test_leaves_out_a_named_file_whatever_it_is_called(project):
    (project / "cluster" / "notes.txt").write_text("the token")
    assert "cluster/notes.txt" in names(project)
    assert "cluster/notes.txt" not in names(project, never=[project / "cluster" / "notes.txt"])


@pytest.mark.parametrize(
    "name",
    ["__pycache__/a.cpython-311.pyc", ".git/HEAD", ".venv/pyvenv.cfg", "myenv/pyvenv.cfg", "runs/a/metrics.csv",
     "mlp-1/result.json", "mlp-1/checkpoints/a.ckpt", "raydeck.egg-info/PKG-INFO", ".ruff_cache/x", "a.pyc"],
)  # fmt: skip
def test_leaves_out_caches_environments_and_runs(project, name):
    before = names(project)
    file = project / "cluster" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("x")
    (file.parent / "beside.txt").write_text("x")
    assert {n for n in names(project) - before if n != "cluster/beside.txt"} == set()


def test_tokenizer_is_no_token(project):
    for name in ("tokenizer.py", "keys.py", "environment.py", "secrets.py"):
        (project / "workloads" / name).write_text("")
        assert f"workloads/{name}" in names(project)


@pytest.mark.parametrize("target", ["../../outside.py", "/etc/hostname", "nowhere.py", "../../outside"])
def test_refuses_links_that_leave(project, tmp_path, target):
    (tmp_path / "outside.py").write_text("")
    (tmp_path / "outside").mkdir()
    (project / "cluster" / "link").symlink_to(target)
    with pytest.raises(ValueError, match=r"cluster/link: a symbolic link that leads out of the project or nowhere"):
        collect(project, {})


def test_refuses_a_package_that_is_a_link_out(project, tmp_path):
    shutil.move(project / "workloads", tmp_path / "workloads")
    (project / "workloads").symlink_to(tmp_path / "workloads")
    with pytest.raises(ValueError, match="leads out of the project"):
        collect(project, {})


def test_links_inside_are_sent_as_what_they_lead_to(project, tmp_path):
    (project / "workloads" / "alias.py").symlink_to("../cluster/__init__.py")
    (project / "workloads" / "more").symlink_to("../tune_spaces")
    (project / "workloads" / ".#lock").symlink_to("nobody@nowhere.1")
    package = collect(project, {})
    assert package.files["workloads/alias.py"].read_text() == "NAME = 'cluster'\n"
    assert "workloads/more/__init__.py" in package.files


def test_a_link_does_not_uncover_what_is_private(project):
    (project / ".env").write_text("secret")
    (project / "workloads" / "settings.txt").symlink_to("../.env")
    package = collect(project, {})
    assert "workloads/settings.txt" not in package.files
    assert package.private == [project / "workloads" / "settings.txt"]


def test_refuses_a_circle_of_links(project):
    (project / "workloads" / "again").symlink_to(".")
    with pytest.raises(ValueError, match="again: a symbolic link to a folder that it is inside of"):
        collect(project, {})


def test_refuses_what_is_too_large_and_names_it(project):
    with (project / "workloads" / "faces.npy").open("wb") as file:
        file.truncate(_package.MAX_BYTES + 2**20)  # sparse: takes no room on the disk
    with pytest.raises(ValueError, match=r"project is 101 MB.*at most 100 MB.*workloads/faces\.npy \(101 MB\)"):
        collect(project, {})


def test_refuses_what_is_no_project(tmp_path):
    with pytest.raises(ValueError, match="has no package 'cluster'"):
        collect(tmp_path, {})


def test_refuses_a_private_extra_file(project, tmp_path):
    (tmp_path / ".env").write_text("A: 1")
    with pytest.raises(ValueError, match="looks like a key"):
        collect(project, {"configs/0-x": tmp_path / ".env"})


def test_commit_names_the_state_of_the_checkout(project):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        return subprocess.run(
            ["git", "-C", project, *who, *arguments], check=True, capture_output=True, text=True
        ).stdout

    assert commit(project) is None
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    head = git("rev-parse", "HEAD").strip()
    assert commit(project) == head[:12]
    (project / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert commit(project) == f"{head[:12]}-dirty"


def test_command_keeps_its_meaning():
    command, files = prepare(["train", "mlp", "--storage", "s3://bucket/runs", "--smoke", "--model.lr", "0.1"])
    assert command == ["train", "mlp", "--storage=s3://bucket/runs", "--smoke", "--model.lr", "0.1"]
    assert files == {}


def test_every_verb_that_runs_something_can_be_submitted():
    assert _package.JOBS.items() >= {"train": "NAME", "tune": "NAME", "evaluate": "RUN", "predict": "RUN"}.items()
    assert set(_package.JOBS).isdisjoint({"list", "show", "submit", "jobs"})


def test_config_travels(tmp_path, project):
    config = tmp_path / "my config.yaml"
    config.write_text("seed: 3\ndata: {source: mnist}\n")
    command, files = prepare([*TRAIN, f"--config={config}"])
    assert command[-1] == "--config=configs/0-my config.yaml"
    package = collect(project, files)
    assert package.files["configs/0-my config.yaml"].read_text() == config.read_text()


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ([], "no verb ''; one of train, tune, evaluate, predict"),
        (["trian", "mlp"], "no verb 'trian'; did you mean 'train'"),
        (["train", "--smoke"], "NAME of a workload follows the verb"),
        (["evaluate"], "RUN follows the verb"),
        (["train", "mlp"], "add --storage with an absolute path"),
        (["tune", "mlp", "--trials", "4"], "add --storage with an absolute path"),
        (["train", "mlp", "--storage", "runs"], "--storage runs: .* absolute path"),
        (["train", "mlp", "--storage"], "--storage: expected a value"),
        ([*TRAIN, "--config", "missing.yaml"], r"--config missing\.yaml: no such file"),
        ([*TRAIN, "--config", "/"], "--config /: not a file"),
        ([*TRAIN, "--data.source", "photos/"], "--data.source photos/: a job does not see this machine's files"),
        ([*TRAIN, "--data.source=./a.csv"], "--data.source ./a.csv: a job does not see"),
        ([*TRAIN, "--data.vectors", "glove.txt"], "--data.vectors glove.txt: a job runs in a folder of its own"),
        (["evaluate", "runs/mlp-1"], "RUN runs/mlp-1: .* absolute path"),
        (["predict", "/shared/runs/mlp-1", "a.png"], r"INPUT a\.png: .* absolute path"),
        (["predict", "/shared/runs/mlp-1", "/d/a.png", "--output", "a.csv"], r"--output a\.csv: .* absolute path"),
    ],
)
def test_refuses_what_only_this_machine_has(arguments, fault):
    with pytest.raises(ValueError, match=fault) as error:
        prepare(arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["mnist", "/", "hf://ylecun/mnist", "file:///"])
def test_takes_data_that_the_cluster_sees(source, capsys):
    assert prepare([*TRAIN, "--data.source", source])[0][-1] == f"--data.source={source}"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ([*TRAIN, "--data.source", "/shared/none"], "--data.source /shared/none"),
        ([*TRAIN, "--data.source", "file:///shared/none"], "--data.source file:///shared/none"),
        (["evaluate", "/shared/none"], "RUN /shared/none"),
        (["predict", "/", "/shared/none"], "INPUT /shared/none"),
    ],
)
def test_warns_of_data_that_is_not_here(arguments, place, capsys):
    assert prepare(arguments)
    said = "not on this machine, so not checked; every node of the cluster must have it"
    assert capsys.readouterr().err == f"warning: {place}: {said}\n"


@pytest.mark.parametrize("text", ["data: {source: photos/}", "data.source: photos/"])
def test_refuses_local_data_in_a_config(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    config = ["--config", str(tmp_path / "c.yaml")]
    with pytest.raises(ValueError, match=r"--data\.source photos/"):
        prepare([*TRAIN, *config])
    assert prepare([*TRAIN, *config, "--data.source", "mnist"])[0][-1] == "--data.source=mnist"


@pytest.mark.parametrize("text", ["a: [", "just words", "\xff"])
def test_refuses_a_config_that_is_none(tmp_path, text):
    (tmp_path / "c.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"--config .*c\.yaml: (cannot be read|expected a mapping)"):
        prepare([*TRAIN, "--config", str(tmp_path / "c.yaml")])


def test_refuses_a_password_without_showing_it():
    with pytest.raises(ValueError, match="--storage: a password") as error:
        prepare(["train", "mlp", "--storage", "s3://me:hunter2@bucket/runs"])
    assert "hunter2" not in str(error.value)
