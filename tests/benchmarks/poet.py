"""Training speed of ``raydeck train poet``, as ratios in one run. Run by hand, on a quiet machine:

    python tests/benchmarks/poet.py

Every variant runs in a process of its own, the variants in turn, and of each the median counts. All do the same work:
the same LSTM, tied output and precision, the same chunks of the same streams, AdamW with clipping and a cosine
schedule, and a validation after every epoch; raydeck also saves every epoch.
"""

import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS, EPOCHS = 3, 3
OVERRIDES = {"data.num_characters": 100_000, "model.embedding_dim": 512, "trainer.max_epochs": EPOCHS}


def is_bf16():
    """Whether raydeck computes in bfloat16 here."""
    from workloads._machine import inspect

    return inspect("cpu", "bf16-native").precision == "bf16-mixed"


def parts():
    """The config, and the data module with its splits."""
    import torch

    import workloads
    from workloads._machine import inspect

    workload = workloads.load("poet")
    config = workload.config(OVERRIDES)
    machine = inspect("cpu", "32")
    torch.set_num_threads(machine.num_threads)
    data = workload.build_data(config, machine)
    data.setup("fit")
    return config, data


def raydeck():
    """Tokens/s from the second epoch on, with validation and saving, from the run's own metrics.csv."""
    from cluster.placement import Placement
    from cluster.session import LocalSession
    from cluster.worker import Job, fit

    config, data = parts()
    with tempfile.TemporaryDirectory() as folder:
        job = Job(workload="poet", config=config, directory=f"{folder}/run", placement=Placement(), baselines=False)
        fit(job, LocalSession())
        rows = list(csv.DictReader(Path(folder, "run", "metrics.csv").read_text().splitlines()))
    seconds = float(rows[-1]["seconds"]) - float(rows[0]["seconds"])
    return len(data.splits["train"].flat) * (EPOCHS - 1) / seconds


def bare():
    """Tokens/s from the second epoch on of a loop over tensors in memory, without any framework."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    config, data = parts()
    key, size, batch_size = config["model"], data.vocabulary, config["data"]["batch_size"]
    assert (key["cell"], key["tied"], key["hidden_dim"]) == ("lstm", True, key["embedding_dim"])
    chunk = config["data"]["chunk_tokens"]
    train, validation = (
        data.splits[name].flat.long()[: len(data.splits[name].flat) // batch_size * batch_size].view(batch_size, -1)
        for name in ("train", "validation")
    )
    embedding, head = nn.Embedding(size, key["embedding_dim"]), nn.Linear(key["hidden_dim"], size)
    lstm = nn.LSTM(key["embedding_dim"], key["hidden_dim"], key["num_layers"], batch_first=True, dropout=key["dropout"])
    head.weight, dropout = embedding.weight, nn.Dropout(key["dropout"])
    network = nn.ModuleList([embedding, lstm, head, dropout])
    optimizer = torch.optim.AdamW(network.parameters(), key["lr"], weight_decay=key["weight_decay"], fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * (train.shape[1] // chunk + 1))

    def chunks(tokens):
        state = None
        for start in range(0, tokens.shape[1] - 1, chunk):
            inputs, target = tokens[:, start : start + chunk], tokens[:, start + 1 : start + chunk + 1]
            with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16()):
                hidden, state = lstm(dropout(embedding(inputs[:, : target.shape[1]])), state)
                logits = head(dropout(hidden))
            state = tuple(part.detach() for part in state)
            yield F.cross_entropy(logits.flatten(0, 1).float(), target.flatten())

    for epoch in range(EPOCHS):
        if epoch == 1:
            began = time.perf_counter()
        network.train()
        for loss in chunks(train):
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), config["trainer"]["gradient_clip_val"])
            optimizer.step()
            schedule.step()
        network.eval()
        with torch.inference_mode():
            sum(float(loss) for loss in chunks(validation))
    return train.numel() * (EPOCHS - 1) / (time.perf_counter() - began)


def tuned():
    """The bare loop, with the C library's allocator set as raydeck sets it."""
    from workloads._machine import inspect, prepare

    prepare(inspect("cpu", "32"))
    return bare()


VARIANTS = {"raydeck": raydeck, "bare": bare, "tuned": tuned}


def main() -> None:
    rates: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for variant in VARIANTS:
            out = subprocess.check_output([sys.executable, __file__, variant], text=True)
            rates.setdefault(variant, []).append(json.loads(out.splitlines()[-1]))
    median = {variant: statistics.median(values) for variant, values in rates.items()}
    for variant, value in median.items():
        print(f"{variant:8} {value:8,.0f} tokens/s ({', '.join(f'{r:,.0f}' for r in rates[variant])})")
    print(f"raydeck / bare loop       {median['raydeck'] / median['bare']:.2f}")
    print(f"raydeck / tuned bare loop {median['raydeck'] / median['tuned']:.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(VARIANTS[sys.argv[1]]()))
    else:
        main()
