"""Runs that are stopped after some batches, what they leave, and two ranks whose weights are kept."""

import csv
import io
import signal

import torch

import workloads
from cluster.checkpoints import WEIGHTS
from cluster.folder import Folder
from cluster.runs import Run
from cluster.session import LocalSession


class StopsAfter(LocalSession):
    """Asks to stop after so many batches."""

    def __init__(self, batches):
        super().__init__()
        self.left = batches

    def asked_to_stop(self):
        self.left -= 1
        return signal.SIGTERM if self.left == 0 else 0


def newest(job):
    """The newest checkpoint of a job."""
    with Run(Folder(job.directory)).checkpoints(workloads.load(job.workload).mode).latest() as (_, path):
        return torch.load(path / WEIGHTS, weights_only=True)


def rows(job):
    """The lines of its ``metrics.csv``, without the seconds."""
    text = Run(Folder(job.directory)).folder.read("metrics.csv").decode()
    return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(io.StringIO(text))]


def assert_equal_checkpoints(job, expected):
    """Check that two jobs have come to the same weights, moments and schedules."""
    ours, theirs = newest(job), newest(expected)
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    assert all(torch.equal(ours["state_dict"][key], value) for key, value in theirs["state_dict"].items())
    for one, other in zip(ours["optimizer_states"], theirs["optimizer_states"], strict=True):
        for key, state in other["state"].items():
            assert all(torch.equal(one["state"][key][part], value) for part, value in state.items())
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]


RANKS = """
kept = {}
summary = worker.summary
def keeping(trainer, model, recorder, workload):
    kept.update({k: v.clone() for k, v in model.state_dict().items()})
    return summary(trainer, model, recorder, workload)
worker.summary = keeping

class Stops(Gloo):
    asked = 0
    def asked_to_stop(self):
        self.asked += 1
        return 15 if self.asked == int(sys.argv[3]) else 0

for name, config in json.loads(sys.argv[2]).items():
    workload, _, stopped = name.partition("-")
    job = worker.Job(workload=workload, config=config, directory=f"{sys.argv[1]}/{name}", baselines=False,
                     placement=Placement(cpus_per_worker=1))
    kept.clear()
    if stopped:
        try:
            worker.fit(job, Stops())
        except Stopped:
            pass
        assert not kept
    worker.fit(job, Gloo())
    torch.save(kept, f"{sys.argv[1]}/{name}-{os.environ['RANK']}.pt")
"""
"""For ``two_ranks.run`` with a folder, workloads' configs as JSON, and the agreement at which to stop those whose name
ends in -stopped: trains each and keeps every rank's weights."""
