"""Speed of ``raydeck train text_classifier``, as ratios in one run. Run by hand, on a quiet machine:

    python tests/benchmarks/text_classifier.py loops      against a bare loop over padded batches in memory
    python tests/benchmarks/text_classifier.py buckets    like lengths in a batch, against random batches
    python tests/benchmarks/text_classifier.py tokens     vocabulary and encoding of 25,000 reviews, and a second start

Every variant runs in a process of its own, the variants in turn, and of each the median counts. ``loops``: all do the
same work on batches of like lengths: the same network and precision, AdamW with clipping and a cosine schedule, and a
validation after every epoch; raydeck also saves every epoch. ``buckets``: training steps of raydeck's network on
batches taken evenly from an epoch's; random ones too are padded to their longest alone. Tokens/s count those of the
reviews, not what fills up.
"""

import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS, EPOCHS, STEPS = 3, 3, 60
EXAMPLES = {"data.num_examples": 1500, "trainer.max_epochs": EPOCHS}


def is_bf16():
    """Whether raydeck computes in bfloat16 here."""
    from workloads._machine import inspect

    return inspect("cpu", "bf16-native").precision == "bf16-mixed"


def parts(overrides):
    """The config, the data module with its splits, and the network."""
    import torch

    import workloads
    from workloads._machine import inspect

    workload = workloads.load("text_classifier")
    config = workload.config(overrides)
    machine = inspect("cpu", config["trainer"]["precision"])
    torch.set_num_threads(machine.num_threads)
    data = workload.build_data(config, machine)
    data.setup("fit")
    return config, data, lambda: workload.build_model(config, workload.decided(data))


def raydeck():
    """Tokens/s from the second epoch on, with validation and saving, from the run's own metrics.csv."""
    from cluster.placement import Placement
    from cluster.session import LocalSession
    from cluster.worker import Job, fit

    config, data, _ = parts(EXAMPLES)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            workload="text_classifier", config=config, directory=f"{folder}/run", placement=Placement(), baselines=False
        )
        fit(job, LocalSession())
        rows = list(csv.DictReader(Path(folder, "run", "metrics.csv").read_text().splitlines()))
    seconds = float(rows[-1]["seconds"]) - float(rows[0]["seconds"])
    return len(data.splits["train"].sequences["text"].flat) * (EPOCHS - 1) / seconds


def bare():
    """Tokens/s from the second epoch on of a loop over padded batches in memory, without any framework."""
    import torch
    import torch.nn.functional as F

    config, data, build = parts(EXAMPLES)
    network = build()
    key = config["model"]
    train, validation = (
        [data.splits[name].gather(index) for index in data.splits[name].plan(
            config["data"]["batch_size"], seed=0, epoch=0, shuffle=name == "train")]
        for name in ("train", "validation")
    )  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters(), key["lr"], weight_decay=key["weight_decay"], fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * len(train))

    def loss_of(batch):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16()):
            logits = network(batch["text"], batch["text_length"])
        return F.binary_cross_entropy_with_logits(logits[:, 0].float(), batch["target"].float())

    for epoch in range(EPOCHS):
        if epoch == 1:
            began = time.perf_counter()
        network.train()
        for batch in train:
            loss = loss_of(batch)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), config["trainer"]["gradient_clip_val"])
            optimizer.step()
            schedule.step()
        network.eval()
        with torch.inference_mode():
            sum(float(loss_of(batch)) for batch in validation)
    tokens = len(data.splits["train"].sequences["text"].flat)
    return tokens * (EPOCHS - 1) / (time.perf_counter() - began)


def tuned():
    """The bare loop, with the C library's allocator set as raydeck sets it."""
    from workloads._machine import inspect, prepare

    prepare(inspect("cpu", "32"))
    return bare()


def steps(plan):
    """Tokens/s of training steps on an evenly spread share of a plan's batches."""
    import torch

    from workloads._machine import inspect, prepare

    config, data, build = parts({})
    prepare(inspect("cpu", "32"))
    train, network = data.splits["train"], build().train()
    optimizer = torch.optim.AdamW(network.parameters(), config["model"]["lr"], fused=True)
    batches = plan(train, config["data"]["batch_size"])
    chosen = batches[:: len(batches) // STEPS]
    tokens = 0
    for k, index in enumerate([*chosen[:3], *chosen]):
        if k == 3:
            began = time.perf_counter()
        batch = train.gather(index)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16()):
            loss = network.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tokens += int(batch["text_length"].sum()) if k >= 3 else 0
    return tokens / (time.perf_counter() - began)


def bucketed():
    return steps(lambda train, size: train.plan(size, seed=0, epoch=0, shuffle=True))


def random():
    from workloads.data._batches import plan_epoch

    return steps(lambda train, size: plan_epoch(len(train), size, seed=0, epoch=0, shuffle=True))


def starts():
    """Seconds of reading, cutting, learning the vocabulary and encoding 25,000 reviews: the first time, and again."""
    from workloads.data.labelled_text import LabelledText

    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            began = time.perf_counter()
            LabelledText(cache_dir=folder).setup()
            seconds.append(time.perf_counter() - began)
    return seconds


VARIANTS = {f.__name__: f for f in (raydeck, bare, tuned, bucketed, random, starts)}


def compare(*variants: str) -> None:
    rates: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for variant in variants:
            rates.setdefault(variant, []).append(one(variant))
    median = {variant: statistics.median(values) for variant, values in rates.items()}
    for variant, value in median.items():
        print(f"{variant:8} {value:8,.0f} tokens/s ({', '.join(f'{r:,.0f}' for r in rates[variant])})")
    for variant in variants[1:]:
        print(f"{variants[0]} / {variant} {median[variants[0]] / median[variant]:.2f}", flush=True)


def one(variant: str):
    return json.loads(subprocess.check_output([sys.executable, __file__, "one", variant], text=True).splitlines()[-1])


def tokens() -> None:
    first, second = one("starts")
    print(f"first start {first:.1f} s, second start {second:.2f} s")


if __name__ == "__main__":
    if sys.argv[1] == "one":
        print(json.dumps(VARIANTS[sys.argv[2]]()))
    else:
        {
            "loops": lambda: compare("raydeck", "bare", "tuned"),
            "buckets": lambda: compare("bucketed", "random"),
            "tokens": tokens,
        }[sys.argv[1]]()
