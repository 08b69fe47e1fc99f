"""The same numbers wherever a run happens; what a lost worker costs. One Ray cluster for the module."""

import csv
import io
import json
import os
import signal
import threading
import time
from dataclasses import replace

import pytest
from processes import descendants

import workloads
from cluster.folder import Folder
from cluster.placement import Placement
from cluster.ray_train import TrainSession
from cluster.runs import Run
from cluster.sweep import parse, tune
from cluster.train import place, train
from cluster.watchdog import Watchdog
from cluster.worker import Job

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(280),
    # Ray leaves sockets and log files to the garbage collector when it shuts down.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # Ray 2.60 announces changes of its own defaults.
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    import ray

    before = {key: os.environ.pop(key) for key in list(os.environ) if key in ("RAY_ADDRESS", "RAY_TMPDIR")}
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
    os.environ.update(before)


def job(directory, **overrides):
    workload = workloads.load("mlp")
    config = workload.config({"trainer.max_epochs": 3, "data.source": "breast_cancer", "model.dropout": 0.2}, overrides)
    placement = Placement(cpus_per_worker=1)
    return Job(workload="mlp", config=config, directory=str(directory), placement=placement, baselines=False)


def sweep(folder, *flags):
    data = ("--data.source", "breast_cancer", "--max-epochs", "3")
    return parse(["mlp", "--name", "sweep", "--storage", str(folder), *data, *flags])[0]


def validation(directory):
    """The val/* columns of every epoch, as text: digit for digit."""
    rows = csv.DictReader(io.StringIO((directory / "metrics.csv").read_text()))
    return [{key: value for key, value in row.items() if key.startswith("val/")} for row in rows]


def test_local_run_ray_worker_and_trial_agree_digit_for_digit(tmp_path):
    train(job(tmp_path / "local"))
    by_ray = train(replace(job(tmp_path / "ray"), placement=Placement(cpus_per_worker=1, address="local")))
    tune(sweep(tmp_path, "--trials", "1", "--scheduler", "fifo"))
    (trial,) = (tmp_path / "sweep" / "trials").iterdir()

    assert len(validation(tmp_path / "local")) == 3
    assert validation(tmp_path / "ray") == validation(tmp_path / "local")
    assert by_ray["world_size"] == 1 and by_ray["status"] == "finished"
    # The trial sampled other settings; the same settings here give its numbers.
    _, config = Run(Folder(str(trial))).stored()
    train(replace(job(tmp_path / "again"), config=config))
    assert validation(trial) == validation(tmp_path / "again")


def kill_a_worker(process_id):
    """SIGKILL one Ray Train worker below a process."""
    workers = [pid for pid, command in descendants(process_id).items() if "RayTrainWorker" in command]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)


def test_two_workers_and_one_of_them_killed(tmp_path):
    placement = Placement(workers=2, cpus_per_worker=1, address="local", max_failures=1)
    two = replace(job(tmp_path / "two", **{"data.batch_size": 2, "trainer.max_epochs": 12}), placement=placement)
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(train(two)))
    thread.start()
    deadline = time.monotonic() + 120
    while not (tmp_path / "two" / "metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    kill_a_worker(os.getpid())
    thread.join(150)
    assert outcome and outcome[0]["status"] == "finished"
    assert (outcome[0]["world_size"], outcome[0]["epochs"]) == (2, 12)
    epochs = [row.split(",")[0] for row in (tmp_path / "two" / "metrics.csv").read_text().splitlines()[1:]]
    assert epochs == [str(k) for k in range(1, 13)]  # none twice, none missing
    assert not (tmp_path / "two" / ".ray").exists()


def test_a_fault_in_the_data_is_told_in_one_line_and_nothing_is_left(tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b,label\n1,2,x\n3,inf,y\n" + "5,6,x\n7,8,y\n" * 20)
    placement = Placement(cpus_per_worker=1, address="local", max_failures=3)
    with pytest.raises(ValueError, match=r"bad\.csv.*row 2"):
        train(replace(job(tmp_path / "bad", **{"data.source": str(bad), "data.target": "label"}), placement=placement))
    assert not (tmp_path / "bad").exists()


def test_what_the_cluster_cannot_hold_is_refused_before_it_starts(tmp_path):
    for asked, fault in (
        (Placement(workers=3, cpus_per_worker=1, address="local"), "3 workers .* this machine has CPUs for 2"),
        (Placement(workers=1, gpus_per_worker=1, address="local"), "1 GPUs .* the cluster has 0"),
    ):
        with pytest.raises(ValueError, match=fault):
            train(replace(job(tmp_path / "none"), placement=asked))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("asked", "resources", "expected"),
    [
        (Placement(workers=2), {"CPU": 8}, (4, 0, "cpu")),
        (Placement(workers=2), {"CPU": 8, "GPU": 2}, (4, 1, "gpu")),
        (Placement(workers=4), {"CPU": 8, "GPU": 2}, (2, 0, "cpu")),
        (Placement(workers=2, accelerator="cpu"), {"CPU": 8, "GPU": 2}, (4, 0, "cpu")),
        (Placement(workers=4, gpus_per_worker=0.5), {"CPU": 8, "GPU": 2}, (2, 0.5, "gpu")),
        (Placement(workers="2-4"), {"CPU": 8, "GPU": 2}, (2, 1, "gpu")),
        (Placement(workers="1-4"), {"CPU": 2}, (1, 0, "cpu")),
    ],
)
def test_placement_is_decided_from_the_cluster(asked, resources, expected):
    placement = place(asked, resources)
    assert (placement.cpus_per_worker, placement.gpus_per_worker, placement.accelerator) == expected


def test_the_stop_file_reaches_rank_0(tmp_path):
    run = Run(Folder(str(tmp_path)))
    session = TrainSession(run, Watchdog(run.folder, 0, 60))
    with session.watching(rank=0, local_rank=0):
        assert session.asked_to_stop() == 0
        run.folder.write(".stop", b"15")
        deadline = time.monotonic() + 10
        while session.asked_to_stop() == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert session.asked_to_stop() == 15


def test_a_sweep_is_a_directory_of_runs_with_a_best_that_can_be_repeated(tmp_path):
    result = tune(sweep(tmp_path, "--trials", "4", "--scheduler", "asha"))
    assert (result["status"], result["num_trials"], result["num_failed"]) == ("finished", 4, 0)
    trials = list(csv.DictReader((tmp_path / "sweep" / "trials.csv").read_text().splitlines()))
    assert len(trials) == 4
    assert float(trials[0]["best"]) == result["monitor"]["best"] == min(float(t["best"]) for t in trials)
    assert len({t["model.lr"] for t in trials}) == 4

    workload = workloads.load("mlp")
    best = workload.config(workload.read(str(tmp_path / "sweep" / "best.yaml")))
    epochs = int(trials[0]["epochs"])
    train(replace(job(tmp_path / "best"), config=best))
    scores = [float(row["val/loss"]) for row in validation(tmp_path / "best")]
    assert min(scores[:epochs]) == result["monitor"]["best"]
    stored = json.loads((tmp_path / "sweep" / "trials" / trials[0]["trial"] / "result.json").read_text())
    assert "test" not in stored  # choosing must not look at the test split
