import asyncio
import json
import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import ray_head
import requests

from cluster import _package
from cluster import submit as submitting
from cluster.cli import main
from cluster.dashboard import Where, connect
from cluster.following import _show_log, follow, tell_end
from cluster.submit import _describe, _send, read, submit

# Ray 2.60 opens its log's web socket in a way that aiohttp 3.14 calls deprecated; can go when it does not.
pytestmark = [
    pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning"),
    pytest.mark.usefixtures("no_cluster"),
]

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ["train", "mlp", "--storage", "/shared/runs"]


def job_in(notices):
    return next(line.split()[1] for line in notices.splitlines() if line.startswith("job "))


def test_its_own_flags_stay_here():
    options, sent = read([*TRAIN, "--address", "http://h:8265", "--no-wait", "--seed", "1", "--model.lr=-1"])
    assert (options.address, options.wait) == ("http://h:8265", False)
    assert sent == [*TRAIN, "--seed", "1", "--model.lr=-1"]
    assert vars(read(["predict", "--address=http://h:8265", "/r", "/a.png"])[0]) == {
        "address": "http://h:8265",
        "insecure": False,
        "wait": True,
    }
    with pytest.raises(ValueError, match=r"submit: argument --address: expected one argument"):
        read(["--address"])


def test_metadata_name_the_run():
    assert _describe(TRAIN, "/shared/runs/mlp-1") == {"verb": "train", "workload": "mlp", "run": "/shared/runs/mlp-1"}
    assert _describe(["predict", "/shared/runs/mlp-1", "/a.csv"], None) == {
        "verb": "predict",
        "run": "/shared/runs/mlp-1",
    }


def test_the_project_is_checked_before_any_cluster_is_asked(project, monkeypatch):
    monkeypatch.setattr(_package, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match=r"at most 0 MB are sent; .* largest first: cluster/__main__\.py"):
        submit(TRAIN, where=Where("http://127.0.0.1:1"), project=project)


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_help_of_a_verb_that_takes_a_run(verb, capsys):
    assert main(["submit", "--help"]) == 0
    assert f" {verb} RUN" in capsys.readouterr().out
    assert main(["submit", verb, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: raydeck {verb} RUN ")


@pytest.fixture(scope="module")
def finished(raydeck_in, tmp_path_factory):
    """The folder of a finished run."""
    raydeck = raydeck_in(tmp_path_factory.mktemp("finished"))
    raydeck("train", "mlp", "--smoke", "--baselines", "false", "--name", "r")
    return raydeck.folder / "runs" / "r"


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["train", "mlp", "--storage", "/s", "--model.lrr", "1"], "model.lrr"),
        (["tune", "mlp", "--storage", "/s", "--trails", "3"], "no flag --trails; did you mean --trials?"),
        (["tune", "mpl", "--storage", "/s"], "no workload 'mpl'"),
        (["evaluate", "RUN", "--data.sorce", "iris"], "data.sorce"),
        (["evaluate", "RUN", "--model.lr", "1"], "the model of a finished run cannot be changed"),
        (["predict", "RUN", "--outptu", "/a.csv", "/b.csv"], "no flag --outptu; did you mean --output?"),
        (["predict", "RUN"], "predict needs inputs"),
        (["evaluate", "RUN/checkpoints"], "is not a run directory"),
        (["show", "mlp"], "submit: no verb 'show'"),
        (["evaluate"], "submit evaluate: the RUN follows the verb, before any flag"),
    ],
)
def test_a_command_is_read_here_before_any_cluster_is_asked(arguments, fault, finished, capsys):
    command = [argument.replace("RUN", str(finished)) for argument in arguments]
    assert main(["submit", *command, "--address", "http://127.0.0.1:1"]) == 2
    told = capsys.readouterr().err
    assert fault in told and told.count("\n") == 1


def test_a_run_that_only_the_cluster_has_is_not_checked(monkeypatch, capsys):
    monkeypatch.setattr("cluster.dashboard.WAKE_SECONDS", 0)
    assert main(["submit", "evaluate", "/shared/runs/there", "--address", "http://127.0.0.1:1"]) == 2
    warned, *_, refused = capsys.readouterr().err.splitlines()
    assert warned == (
        "warning: RUN /shared/runs/there: not on this machine, so not checked; every node of the cluster must have it"
    )
    assert "no cluster answers at http://127.0.0.1:1" in refused


@pytest.mark.ray
@pytest.mark.slow
def test_an_open_cluster_takes_jobs_only_if_that_is_accepted(raydeck, tmp_path):
    with ray_head.running(guarded=False) as (address, _):
        command = ("train", "mlp", "--smoke", "--baselines", "false", "--name", "r", "--storage", str(tmp_path))
        for refused in (("submit", *command), ("jobs", "list")):
            _, err = raydeck(*refused, "--address", address, code=2)
            assert f"the cluster at {address} is open to everybody" in err and err.count("raydeck: ") == 1
        _, err = raydeck("submit", *command, "--address", address, "--insecure")
        assert f"warning: THE CLUSTER AT {address} IS OPEN TO EVERYBODY WHO REACHES IT" in err
        assert json.loads((tmp_path / "r" / "result.json").read_text())["status"] == "finished"
        out, _ = raydeck("jobs", "list", "--address", address, "--insecure")
        assert out.splitlines()[1].split("\t")[1:3] == ["succeeded", "mlp"]


class Client:
    """Answers ``submit_job`` by the given errors, one after the other, and then takes the job."""

    def __init__(self, *errors):
        self.errors = list(errors)

    def submit_job(self, **_):
        if self.errors:
            raise self.errors.pop(0)


AGENT = RuntimeError("Request failed with status code 500: No available agent to submit job, please try again later.")
PROXY = RuntimeError("Request failed with status code 503: Service Unavailable.")
LOST = requests.ConnectionError("Connection aborted.")
TWICE = RuntimeError("Request failed with status code 500: ...\nValueError: Job with submission_id j already exists.")


def test_asks_again_while_the_cluster_is_waking_up(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(submitting.time, "sleep", lambda _: None)
    client = Client(AGENT, PROXY, LOST)
    _send(client, "j", ["python"], tmp_path, {})
    assert client.errors == []
    assert capsys.readouterr().err == "the cluster is still starting; asking again until it takes the job\n"


def test_a_job_whose_answer_was_lost_is_not_sent_twice(monkeypatch, tmp_path):
    monkeypatch.setattr(submitting.time, "sleep", lambda _: None)
    client = Client(LOST, TWICE)
    _send(client, "j", ["python"], tmp_path, {})
    assert client.errors == []
    with pytest.raises(ValueError, match=r"did not take the job: .*already exists"):  # somebody else's
        _send(Client(TWICE), "j", ["python"], tmp_path, {})


@pytest.mark.parametrize("error", [AGENT, RuntimeError("Request failed with status code 400: no such thing.")])
def test_gives_up_in_one_line(monkeypatch, tmp_path, error):
    monkeypatch.setattr(submitting, "START_SECONDS", -1)
    with pytest.raises(ValueError, match=r"^the cluster did not take the job: Request failed") as told:
        _send(Client(error), "j", ["python"], tmp_path, {})
    assert "\n" not in str(told.value)


@pytest.mark.ray
def test_refuses_without_the_token_and_with_a_wrong_one(head, project, monkeypatch):
    address, _ = head
    with pytest.raises(ValueError, match=r"wants a token \(401\).*RAY_AUTH_TOKEN .*RAY_AUTH_TOKEN_PATH") as error:
        submit(TRAIN, where=Where(address), project=project)
    assert "\n" not in str(error.value)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    with pytest.raises(ValueError, match=r"refuses the token \(403\).*RAY_AUTH_TOKEN .*RAY_AUTH_TOKEN_PATH") as error:
        submit(TRAIN, where=Where(address), project=project)
    assert "aaaa" not in str(error.value)


@pytest.mark.ray
def test_job_runs_what_was_sent_and_its_log_is_followed(head, project, monkeypatch, tmp_path, capfd):
    address, token = head
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")  # the flag goes before it
    (tmp_path / "small.yaml").write_text("seed: 5")
    command = ["train", "mlp", "--storage", "/shared/my runs", "--config", str(tmp_path / "small.yaml")]
    assert submit(command, where=Where(address), run="/shared/my runs/mlp-1", project=project) == 2
    told = capfd.readouterr()
    sent = ["train", "mlp", "--storage=/shared/my runs", "--config=configs/0-small.yaml"]
    assert f"arguments {sent} folder True" in told.out
    assert "package sent" in told.out
    assert "config seed: 5" in told.out
    assert "address 127.0.0.1:1" not in told.out
    assert "sending 6 files, 0.0 MB\n" in told.err
    assert f"not sent, as they look private: {project / 'cluster' / '.env'}\n" in told.err
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:1"

    assert told.err.endswith("ended with exit code 2\n")
    client, job = connect(address, token.read_text()), job_in(told.err)
    assert asyncio.run(_show_log(client, job, 50)) == (len(told.out), True)  # as after a lost connection
    assert capfd.readouterr().out == told.out[50:]
    details = client.get_job_info(job)
    metadata = {
        "verb": "train",
        "workload": "mlp",
        "run": "/shared/my runs/mlp-1",
        "raydeck_version": version("raydeck"),
    }
    assert details.metadata.items() >= metadata.items()
    assert token.read_text() not in f"{details} {told}"
    assert str(token) not in f"{details}"


@pytest.mark.ray
def test_interrupt_leaves_the_job_and_a_stopped_one_says_so(head, project, monkeypatch, capfd):
    address, token = head
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    (project / "small.yaml").write_text("seed: 5")
    command = [*TRAIN, "--wait", "--config", str(project / "small.yaml")]
    program = (
        "import pathlib, sys; from cluster.submit import Where, submit; "
        f"sys.exit(submit({command!r}, where=Where({address!r}), project=pathlib.Path({str(project)!r})))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as following:
        try:
            assert any("tick" in line for line in following.stdout)
            following.send_signal(signal.SIGINT)
            told = following.communicate(timeout=20)[1]
        finally:
            following.kill()
    assert following.returncode == 130
    job = job_in(told)
    assert f"raydeck jobs logs {job} --follow --address {address}" in told
    assert "Traceback" not in told

    client = connect(address, token.read_text())
    assert str(client.get_job_status(job)) == "RUNNING"
    client.stop_job(job)
    details = follow(client, job)
    assert tell_end(details) == 143
    captured = capfd.readouterr()
    assert "tick" in captured.out
    assert captured.err.endswith(f"job {job} was stopped before it ended\n")


@pytest.mark.ray
@pytest.mark.slow
def test_trains_on_the_cluster(head, tmp_path):
    address, token = head
    environment = os.environ | {"RAY_AUTH_TOKEN_PATH": str(token), "RAY_ADDRESS": address}
    command = [sys.executable, "-m", "cluster", "submit", "train", "mlp", "--smoke", "--name", "job"]
    done = subprocess.run(
        [*command, "--storage", str(tmp_path)], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    result = json.loads((tmp_path / "job" / "result.json").read_text())
    assert result["workload"] == "mlp"
    assert result["status"] == "finished"
