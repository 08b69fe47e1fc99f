"""What a run writes down while it trains: metrics, checkpoints, progress; and where it notices that it should stop."""

import csv
import io
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytorch_lightning as L
import torch

from cluster import console
from cluster.attempts import FACTOR, Account
from cluster.checkpoints import WEIGHTS, Checkpoints
from cluster.folder import Folder
from cluster.gradient_norms import GradientNorms
from cluster.placement import Saving
from cluster.retrying import retries
from cluster.session import Session, Stopped
from cluster.writing import Writer
from workloads._spec import Config

CHECKPOINT, METRICS = "checkpoint", "metrics.csv"
"""Kinds of what is saved, without the last of which a run has not ended well."""
Sums = dict[str, tuple[torch.Tensor | float, int]]
"""Of each value that training steps return: its sum over examples, and their number."""
AGREE_EVERY = 10
"""Batches between the ranks' agreement on saving or stopping: it is a collective operation, so not for every batch."""


class Recorder(L.Callback):
    """Records a run; its own state is in the run's checkpoints.

    Args:
        folder: The run directory.
        checkpoints: The run's checkpoints.
        monitor: Validation metric that ranks checkpoints.
        saving: When to save in the middle of an epoch.
        session: Where to report, and who may ask to stop.
        config: The run's config.
        norms: What keeps the norms of gradients, if they are asked for.
    """

    def __init__(
        self,
        folder: Folder,
        checkpoints: Checkpoints,
        monitor: str,
        saving: Saving,
        session: Session,
        config: Config,
        norms: GradientNorms | None = None,
    ) -> None:
        self.folder, self.checkpoints, self.monitor = folder, checkpoints, monitor
        self.saving, self.session, self.config = saving, session, config
        self.norms = norms
        self.writer = Writer(background=not folder.is_local)
        self.retries_before = retries()
        self.altered = False
        self.history: list[dict[str, float | int]] = []
        self.seconds, self.examples = 0.0, 0
        self.sums: Sums = {}
        self.totals: Sums = {}
        self.validated = False
        self.resume_batches: dict[str, int] | None = None
        self.account, self.rollbacks = Account(folder), 0
        self.progress: console.Progress | None = None
        self.told: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        return {
            "history": self.history,
            "seconds": self._elapsed(),
            "examples": self.examples,
            "sums": self.totals,
            "batches": self.batches.state_dict(),
            "config": self.config,
            "rollbacks": self.account.rollbacks,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history, self.examples = state_dict["history"], state_dict["examples"]
        if "sums" in state_dict:
            self.sums = state_dict["sums"]
        else:  # version 0.2 kept that of the loss alone
            self.sums = {"loss": (state_dict["loss_sum"], state_dict["loss_count"])}
        self.seconds, self.resume_batches = state_dict["seconds"], state_dict["batches"]
        self.altered = state_dict.get("config", self.config) != self.config  # version 0.1 did not keep it
        self.rollbacks = state_dict.get("rollbacks", 0)

    def best(self) -> float | None:
        """The best value of the monitored metric so far."""
        row = self.best_row()
        return row[self.monitor] if row else None

    def best_row(self) -> dict[str, float | int] | None:
        """The epoch with the best value of the monitored metric so far, the first of equals."""
        scored = [row for row in self.history if math.isfinite(row.get(self.monitor, math.nan))]
        better = min if self.checkpoints.mode == "min" else max
        return better(scored, key=lambda row: row[self.monitor]) if scored else None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Between building the optimizers from the config and restoring them from a checkpoint.
        self.configured = hyperparameters(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.session.begin()
        if self.altered:
            put_in_force(trainer, self.configured)
            self.rollbacks = 0
        if self.account.rollbacks > self.rollbacks:
            scale_rates(trainer, FACTOR ** (self.account.rollbacks - self.rollbacks))
        if trainer.is_global_zero:
            self.account.begin(trainer.global_step, self.seconds)
        self.batches = trainer.train_dataloader
        if self.resume_batches:
            # Lightning restores a loader only if nobody asked for the number of steps before, as every learning-rate
            # schedule does; so the place in the epoch is our own to restore.
            self.batches.load_state_dict(self.resume_batches)
        if not trainer.is_global_zero:
            # Rank 0 goes on with the sums of all; the names are the same on every rank, or they could not be summed up.
            self.sums = {name: (0.0, 0) for name in self.sums}
        self.began = self.saved = time.monotonic()
        self.began_with, self.began_examples = self.seconds, self.examples
        total = trainer.max_epochs * trainer.num_training_batches
        done = trainer.current_epoch * trainer.num_training_batches
        self.progress = self.session.progress(total, done, self.session.shows_progress and trainer.is_global_zero)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.session.beat()
        size = trainer.datamodule.weight(batch)
        self.examples += size * trainer.world_size
        for name, value in outputs.items():
            # Lightning divides the loss by the batches of an optimizer step.
            weight = size * (trainer.accumulate_grad_batches if name == "loss" else 1)
            total, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (total + value.detach() * weight, count + size)
        if self.progress.due():
            done = trainer.current_epoch * trainer.num_training_batches + batch_idx + 1
            self.progress.step(done, self._describe(trainer, pl_module))
        last = batch_idx + 1 >= trainer.num_training_batches
        if last:  # validation and the epoch's own checkpoint follow at once
            return
        if trainer.world_size == 1 or batch_idx % AGREE_EVERY == AGREE_EVERY - 1:
            due, signum = self._agree(trainer)
            if due or signum:
                self._refuse_nan(trainer)
                self._save(trainer, trainer.current_epoch, score=None)
                self._stop_if(signum)
        if trainer.is_global_zero and self.account.due() and not self.writer.busy:
            self.writer.put(("account", partial(self.account.note, trainer.global_step)))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate rank 0's batch statistics, which are those that a checkpoint keeps, on every rank."""
        trainer.callback_metrics.clear()  # else those of a phase that is over would be recorded for ever
        if trainer.world_size > 1:
            for buffer in pl_module.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def on_validation_batch_end(self, *arguments: Any) -> None:
        self.session.beat()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._refuse_nan(trainer)
        row = self._row(trainer, pl_module)
        self.history.append(row)
        self.sums, self.validated = {}, False
        score = row.get(self.monitor)
        table = as_csv(self.history).encode()
        self._save(trainer, trainer.current_epoch + 1, score, (METRICS, partial(self.folder.write, METRICS, table)))
        phase = getattr(pl_module, "phase", "")
        self.progress.epoch(f"{console.epoch(row)}  {self._speed(trainer)}{phase and f'  ({phase})'}")
        self._tell(trainer.datamodule.concerns if trainer.is_global_zero else [])
        num_parameters = sum(p.numel() for p in pl_module.parameters())
        if not self.session.final:
            self.writer.wait()  # a sweep may take this epoch's checkpoint over as soon as it hears of it
        self.session.report(row, {**(self.best_row() or {}), "num_parameters": num_parameters})
        self._stop_if(self._agree(trainer)[1])

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if self.progress is not None and trainer.is_global_zero:
            self.account.note(trainer.global_step)
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self.progress is not None:
            self.session.rest()
            self.seconds = self._elapsed()
            self.progress.close()
            self.progress = None
        self.writer.close()

    def finish(self, trainer: L.Trainer) -> dict[str, Any]:
        """See to it that the final state is stored; on every rank, as none reads it before.

        Returns:
            The run's account.

        Raises:
            OSError: It cannot be stored.
        """
        self.writer.finish(CHECKPOINT, METRICS)
        told = self.account.end(trainer.global_step, self.seconds) if trainer.is_global_zero else {}
        trainer.strategy.barrier()
        return told

    def storage(self) -> dict[str, int]:
        """What ``result.json`` says of the storage: saves that failed, and operations that were tried again."""
        return {"storage_errors": self.writer.errors.total(), "storage_retries": retries() - self.retries_before}

    def _speed(self, trainer: L.Trainer) -> str:
        return f"{self.rate():,.0f} {trainer.datamodule.unit}/s"

    def rate(self) -> float:
        """Examples, or what else is counted, per second since this start, validation and saving included."""
        elapsed = self._elapsed() - self.began_with
        return (self.examples - self.began_examples) / elapsed if elapsed > 0 else 0.0

    def _elapsed(self) -> float:
        return self.seconds if self.progress is None else self.began_with + time.monotonic() - self.began

    def _totals(self, trainer: L.Trainer) -> Sums:
        """What this epoch's steps have returned so far, over all ranks."""
        found = torch.tensor([[float(total), count] for total, count in self.sums.values()], dtype=torch.float64)
        if trainer.world_size > 1 and self.sums:
            found = trainer.strategy.reduce(found.to(trainer.strategy.root_device), reduce_op="sum")
        return {name: (total, int(count)) for name, (total, count) in zip(self.sums, found.tolist(), strict=True)}

    def _row(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, float | int]:
        row: dict[str, float | int] = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "seconds": round(self._elapsed(), 3),
            **{f"train/{name}": total / count for name, (total, count) in self._totals(trainer).items()},
            "train/lr": trainer.optimizers[getattr(pl_module, "leader", 0)].param_groups[0]["lr"],
        }
        row |= trainer.datamodule.counts()
        if self.norms is not None:
            row |= self.norms.take()
        if self.validated:
            row |= {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
        return row

    def _describe(self, trainer: L.Trainer, pl_module: L.LightningModule) -> str:
        total, count = self.sums["loss"]
        loss, phase = float(total) / count, getattr(pl_module, "phase", "")
        phase = phase and f" ({phase})"
        best = f"  best {self.monitor} {console.number(self.best())}" if self.history else ""
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}{phase}  step {trainer.global_step}"
        return f"{epoch}  train/loss {console.number(loss)}{best}  {self._speed(trainer)}"

    def _tell(self, concerns: list[str]) -> None:
        """Warn of what is amiss, unless that was said of the epoch before."""
        for concern in concerns:
            if concern not in self.told and self.session.shows_progress:
                console.warn(concern)
        self.told = list(concerns)

    def _agree(self, trainer: L.Trainer) -> tuple[bool, int]:
        """Whether to save, and the signal that asks to stop or 0: the same answer on every rank."""
        due = time.monotonic() - self.saved > 60 * self.saving.every_minutes and not self.writer.busy
        signum = self.session.asked_to_stop()
        if trainer.world_size == 1:
            return due, signum
        asked = torch.tensor([int(due and trainer.is_global_zero), signum], device=trainer.strategy.root_device)
        torch.distributed.all_reduce(asked, op=torch.distributed.ReduceOp.MAX)
        return bool(asked[0]), int(asked[1])

    def _refuse_nan(self, trainer: L.Trainer) -> None:
        """Raise on every rank if the loss or the network of any is not finite: it is never saved, and so never best.

        Raises:
            FloatingPointError: It is not.
        """
        device = trainer.strategy.root_device
        faults = torch.zeros(2, device=device)
        faults[0] = 0 if all(math.isfinite(total) for total, _ in self.sums.values()) else 1
        weights = (p for p in trainer.lightning_module.parameters() if p.is_floating_point())
        faults[1] = 0 if all(bool(torch.isfinite(p).all()) for p in weights) else 1
        if trainer.world_size > 1:
            torch.distributed.all_reduce(faults, op=torch.distributed.ReduceOp.MAX)
        if faults.any():
            what = "the training loss is" if faults[0] else "the network's weights are"
            again = ", again after going back with half the learning rate" if self.account.rollbacks else ""
            raise FloatingPointError(
                f"{what} not finite (NaN or infinite) in epoch {trainer.current_epoch + 1}{again}; lower --model.lr or "
                "set --trainer.gradient_clip_val, and look at the data"
            )

    def _save(self, trainer: L.Trainer, epoch: int, score: float | None, *more: tuple[str, Callable[[], None]]) -> None:
        """Save, and have it committed and ``more`` written; on every rank, as the state is gathered from all."""
        zero, self.totals = trainer.is_global_zero, self._totals(trainer)
        with self.checkpoints.staging() if zero else nullcontext() as staged:
            trainer.save_checkpoint(staged / WEIGHTS if zero else WEIGHTS)
            if zero:
                finite = score if score is not None and math.isfinite(score) else None
                step = trainer.global_step
                commit = self.checkpoints.deferred(staged, epoch=epoch, step=step, score=finite)
                seconds = self._elapsed()

                def store() -> None:
                    commit()
                    self.account.save(step, seconds)

                self.writer.put((CHECKPOINT, store), ("removal of old checkpoints", self.checkpoints.prune), *more)
        self.saved = time.monotonic()

    def _stop_if(self, signum: int) -> None:
        if signum:
            self.writer.finish(CHECKPOINT, METRICS)
            raise Stopped(signum)


def hyperparameters(trainer: L.Trainer) -> list[list[dict[str, Any]]]:
    """What each parameter group of each optimizer is set to, the parameters aside."""
    return [
        [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
        for optimizer in trainer.optimizers
    ]


def put_in_force(trainer: L.Trainer, configured: list[list[dict[str, Any]]]) -> None:
    """Put the config's hyperparameters over those that a checkpoint of another config brought.

    A restored optimizer has the learning rate, decay and momentum it was saved with. Moments stay, and the place in
    the schedule: the rate becomes the same part of the new largest rate as it was of the old.
    """
    for optimizer, groups in zip(trainer.optimizers, configured, strict=True):
        for group, settings in zip(optimizer.param_groups, groups, strict=True):
            part = group["lr"] / group["initial_lr"] if group.get("initial_lr") else 1.0
            group.update(settings)
            group["lr"] = part * settings.get("initial_lr", settings["lr"])
    for schedule in trainer.lr_scheduler_configs:
        if hasattr(schedule.scheduler, "base_lrs"):
            schedule.scheduler.base_lrs = [g["initial_lr"] for g in schedule.scheduler.optimizer.param_groups]


def scale_rates(trainer: L.Trainer, factor: float) -> None:
    """Multiply every learning rate by a factor, now and in the rest of its schedule."""
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            group["lr"] *= factor
            if "initial_lr" in group:
                group["initial_lr"] *= factor
    for schedule in trainer.lr_scheduler_configs:
        if hasattr(schedule.scheduler, "base_lrs"):
            schedule.scheduler.base_lrs = [rate * factor for rate in schedule.scheduler.base_lrs]


def as_csv(history: list[dict[str, float | int]]) -> str:
    """One line an epoch; a metric that an epoch did not measure is left empty."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
