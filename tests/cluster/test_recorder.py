"""Going on from a checkpoint of other settings: the weights are the checkpoint's, the settings the config's."""

from dataclasses import replace

import pytest
import torch

import workloads
from cluster.checkpoints import WEIGHTS
from cluster.folder import Folder
from cluster.placement import Placement
from cluster.runs import Run
from cluster.session import LocalSession
from cluster.worker import Job, fit

BASE = {
    "model.hidden_dims": [8], "model.lr": 0.01, "model.weight_decay": 0.1, "trainer.max_epochs": 2,
    "model.schedule": "cosine",
}  # fmt: skip


def job(folder, **settings):
    config = workloads.load("mlp").config(BASE, settings)
    return Job(
        workload="mlp", config=config, directory=str(folder), placement=Placement(cpus_per_worker=1), baselines=False
    )


def newest(folder):
    with Run(Folder(str(folder))).checkpoints("min").latest() as (_, path):
        return torch.load(path / WEIGHTS, weights_only=True)


def rates(folder):
    return [row["train/lr"] for row in Run(Folder(str(folder))).history()]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_other_settings_are_put_in_force_and_the_moments_and_the_place_in_the_schedule_kept(tmp_path, optimizer):
    first = job(tmp_path / "first", **{"model.optimizer": optimizer})
    fit(replace(first, config=first.config | {"trainer": first.config["trainer"] | {"max_epochs": 4}}), LocalSession())
    altered = {"model.optimizer": optimizer, "model.lr": 0.001, "model.weight_decay": 0.7, "trainer.max_epochs": 4}
    second = job(tmp_path / "second", **altered)
    source, target = (Run(Folder(str(tmp_path / name))).checkpoints("min") for name in ("first", "second"))
    steps = [checkpoint.step for checkpoint in source.committed()]
    target.take_over(source, steps[0])
    fit(second, LocalSession())
    # The same part of the largest rate at each step, of which there is now a tenth.
    went_on = newest(tmp_path / "second")
    assert rates(tmp_path / "second")[-1] == pytest.approx(rates(tmp_path / "first")[-1] / 10)
    groups = went_on["optimizer_states"][0]["param_groups"]
    assert [group["initial_lr"] for group in groups] == [0.001] * len(groups)
    assert groups[0]["weight_decay"] == 0.7 and groups[-1]["weight_decay"] == 0.0
    assert went_on["lr_schedulers"][0]["base_lrs"] == [0.001] * len(groups)


def test_more_epochs_alone_change_nothing_that_a_checkpoint_brings(tmp_path):
    constant = {"model.schedule": "constant", "model.warmup": 0.0}
    fit(job(tmp_path / "run", **constant), LocalSession())
    longer = job(tmp_path / "run", **constant, **{"trainer.max_epochs": 4})
    fit(longer, LocalSession())
    fit(replace(longer, directory=str(tmp_path / "whole")), LocalSession())
    ours, theirs = newest(tmp_path / "run")["state_dict"], newest(tmp_path / "whole")["state_dict"]
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert rates(tmp_path / "run") == rates(tmp_path / "whole") == [0.01] * 4
