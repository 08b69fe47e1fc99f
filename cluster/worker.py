"""The one training function: the same code trains here, in a Ray Train worker and in a trial."""

import logging
import os
import tempfile
import warnings
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytorch_lightning as L
from pytorch_lightning.callbacks import EarlyStopping

import workloads
from cluster import console
from cluster.checkpoints import WEIGHTS
from cluster.folder import Folder
from cluster.gradient_norms import GradientNorms
from cluster.placement import Placement, Saving
from cluster.recorder import Recorder
from cluster.runs import Run, provenance
from cluster.samples import Samples
from cluster.session import Session
from workloads._machine import Machine, inspect, prepare
from workloads._spec import Config, Workload


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run, as a value that can be sent to a worker.

    Args:
        workload: Its name.
        config: A checked config.
        directory: The run directory, absolute path or URI.
        placement: Where it runs; ``cpus_per_worker`` is decided by now.
        saving: When it is saved.
        baselines: Whether to measure the workload's baselines.
        seeds: Runs of which this is the first; see :mod:`cluster.seeds`.
        cwd: Where the command was typed: what the config names by a relative path is looked for from there.
    """

    workload: str
    config: Config
    directory: str
    placement: Placement = field(default_factory=Placement)
    saving: Saving = field(default_factory=Saving)
    baselines: bool = True
    seeds: int = 1
    cwd: str = field(default_factory=os.getcwd)

    @property
    def num_actors(self) -> int:
        """Ray actors of each worker, in which its environments are stepped."""
        return self.config["data"].get("actors", 0)

    def go_there(self) -> None:
        """Change to the run's ``cwd``, in a worker that Ray has started elsewhere, if this node has it."""
        if os.path.isdir(self.cwd):
            os.chdir(self.cwd)


def fit(job: Job, session: Session) -> dict[str, Any]:
    """Build model, data and Trainer, restore, train, report, and test what came of it.

    Args:
        job: What to run.
        session: Where it reports and restarts from.

    Returns:
        ``result.json`` as written.

    Raises:
        ValueError: The user's data or settings are at fault; nothing has been written.
        Stopped: The run was asked to stop and has saved.
    """
    quiet()
    workload = workloads.load(job.workload)
    config, options = job.config, job.config["trainer"]
    machine = inspect(job.placement.accelerator, options["precision"], job.placement.cpus_per_worker)
    prepare(machine)
    data = workload.build_data(config, machine)
    if job.num_actors:
        from cluster.actors import SpreadEnvironments

        data.spread = partial(SpreadEnvironments, job.num_actors)
    data.prepare_data()
    data.setup("fit")
    model = workload.build_model(config, workload.decided(data))
    data.attach(model)

    run = Run(Folder(job.directory))
    store = run.checkpoints(workload.mode, job.saving.keep, session.span)
    norms = GradientNorms() if options["log_gradient_norms"] else None
    recorder = Recorder(run.folder, store, workload.monitor, job.saving, session, config, norms)
    callbacks: list[L.Callback] = [recorder, norms] if norms else [recorder]
    if options["sample_every_n_steps"] and hasattr(model, "samples"):
        # Before the recorder, which may stop the run at this very step.
        callbacks.insert(0, Samples(run.folder, options["sample_every_n_steps"], recorder.writer))
    if options["early_stopping_patience"]:
        # Not strict: a phase that does not measure the monitored metric is not stopped by it.
        patience = options["early_stopping_patience"]
        stopping = EarlyStopping(workload.monitor, mode=workload.mode, patience=patience, strict=False)
        callbacks.insert(0, stopping)
    if options["compile"]:
        model.compile()
    with tempfile.TemporaryDirectory(prefix="raydeck-") as scratch:
        trainer = build_trainer(workload, model, options, machine, session, callbacks, scratch)
        data.trainer = trainer  # the batches below must know their rank before Lightning attaches it
        for split in ("train", "validation", "test"):
            data.batches(split, shuffle=split == "train")
        if trainer.is_global_zero:
            run.start(job.workload, config, workload.to_yaml(config))
            run.write_result(workload=job.workload, status="running", failure=None, seed=config["seed"], **provenance())
        with store.latest() as found:
            if found and session.shows_progress and trainer.is_global_zero:
                console.say(f"going on from epoch {found[0].epoch}, step {found[0].step} ({run.folder.short()})")
            trainer.fit(model, datamodule=data, ckpt_path=found and found[1] / WEIGHTS, weights_only=True)
        account = recorder.finish(trainer)
        if data.cost and session.shows_progress and trainer.is_global_zero:
            console.say(data.cost)
        values = summary(trainer, model, recorder, workload) | account
        if session.final:
            values |= examine(trainer, model, run, workload, job)
    if not trainer.is_global_zero:
        return values
    return run.write_result(status="finished", **values)


def build_trainer(
    workload: Workload,
    model: L.LightningModule,
    options: dict[str, Any],
    machine: Machine,
    session: Session,
    callbacks: list[L.Callback],
    scratch: str,
) -> L.Trainer:
    """The Trainer of a config's ``trainer`` part. Batches, checkpoints, metrics and progress are ours."""
    clip = options["gradient_clip_val"]
    if not model.automatic_optimization:  # Lightning refuses to clip for a module that moves by itself
        model.gradient_clip_val, clip = clip, 0.0
    return L.Trainer(
        max_epochs=options["max_epochs"],
        precision=machine.precision,
        gradient_clip_val=clip or None,
        accumulate_grad_batches=options["accumulate_grad_batches"],
        check_val_every_n_epoch=options["check_val_every_n_epoch"],
        deterministic=options["deterministic"],
        callbacks=callbacks,
        default_root_dir=scratch,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **session.trainer_arguments(machine.accelerator, workload.find_unused_parameters),
    )


def summary(trainer: L.Trainer, model: L.LightningModule, recorder: Recorder, workload: Workload) -> dict[str, Any]:
    """What training itself has to say for ``result.json``."""
    best = recorder.best()
    return {
        "monitor": {"name": workload.monitor, "mode": workload.mode, "best": best},
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seconds": round(recorder.seconds, 3),
        "examples_per_second": round(recorder.examples / recorder.seconds, 1) if recorder.seconds else 0.0,
        "world_size": trainer.world_size,
        **recorder.storage(),
    }


def examine(trainer: L.Trainer, model: L.LightningModule, run: Run, workload: Workload, job: Job) -> dict[str, Any]:
    """Test metrics of the best checkpoint, and the baselines on the same split."""
    data = trainer.datamodule
    with run.checkpoints(workload.mode).best() as found:
        assert found is not None, "a finished run has a checkpoint"
        trainer.test(model, datamodule=data, ckpt_path=found[1] / WEIGHTS, weights_only=True, verbose=False)
    test = {key.removeprefix("test/"): float(value) for key, value in trainer.callback_metrics.items() if "/" in key}
    values: dict[str, Any] = {"metric": data.metric or workload.metric, "test": test, "skipped_rows": data.skipped}
    if data.signatures:
        values["signatures"] = dict(data.signatures)
    if trainer.is_global_zero and job.baselines and workload.baselines:
        console.say("measuring the baselines")
        values["baselines"] = workload.baselines(data)
    return values


def quiet() -> None:
    """Keep to ourselves what Lightning and PyTorch say of choices that raydeck makes on purpose."""
    for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Our batches are whole tensors already: workers of a DataLoader would only copy them.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # PyTorch 2.13 has split this option; what is left to us (`ddp_options`) is what we mean by it.
    warnings.filterwarnings("ignore", ".*broadcast_buffers. is deprecated.*")
    # pytorch-lightning 2.6 asks PyTorch's pytree in a way that PyTorch deprecates; goes when it does not.
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    # Our metrics are torchmetrics: they are summed over the ranks before they are logged.
    warnings.filterwarnings("ignore", ".*sync_dist=True.*")
    # `log_every_n_steps` concerns Lightning's loggers, of which there are none.
    warnings.filterwarnings("ignore", ".*number of training batches.*smaller than the logging interval.*")
    # A phase of training need not measure what the last one is judged by.
    warnings.filterwarnings("ignore", ".*Early stopping conditioned on metric.*")
