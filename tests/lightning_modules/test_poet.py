"""The language model: by one long forward pass, by hand, by what it can learn by heart, and by a run cut in two."""

import json
import math
import os
import re
import subprocess
import sys

import pytest
import torch
from stopped import StopsAfter

import workloads
from cluster import using
from cluster.checkpoints import WEIGHTS
from cluster.folder import Folder
from cluster.placement import Placement
from cluster.runs import Run
from cluster.session import LocalSession, Stopped
from cluster.worker import Job, fit
from lightning_modules.poet import Poet, nucleus, probabilities
from lightning_modules.shared.carried import all_streams, own_streams
from lightning_modules.shared.likelihood import PAD, Metrics
from workloads.data._ragged import Sequences
from workloads.data.plain_text import PlainText, Streams

VERSE = "So long as men can breathe or eyes can see,\nSo long lives this, and this gives life to thee.\n"


def streams(num_tokens, chunk_tokens, high=20):
    flat = torch.randint(4, high, (num_tokens,), generator=torch.Generator().manual_seed(1))
    return Streams(Sequences.of(flat, torch.tensor([num_tokens])), num_tokens, chunk_tokens)


def batches(split, batch_size, **options):
    plan = split.plan(batch_size, **{"seed": 0, "epoch": 0, "shuffle": False, **options})
    return [split.gather(index) for index in plan]


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_a_carried_state_is_one_long_forward_pass(cell):
    torch.manual_seed(0)
    split, model = streams(95, 7), Poet(20, cell, num_layers=2, hidden_dim=16, embedding_dim=8, dropout=0.0)
    whole = {name: torch.cat([b[name] for b in batches(split, 3)], dim=1) for name in ("inputs", "target")}
    logits_BTV, state = model(whole["inputs"])
    inside_BT = whole["target"] != PAD
    expected = torch.nn.functional.cross_entropy(logits_BTV[inside_BT], whole["target"][inside_BT], reduction="sum")
    losses, num_tokens = [], []
    for k, batch in enumerate(batches(split, 3)):
        losses.append(model.training_step(batch, k))
        num_tokens.append((batch["target"] != PAD).sum())
    assert len(losses) == 5 and sum(num_tokens) == 96
    total = sum(loss * n for loss, n in zip(losses, num_tokens, strict=True))
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(model.carried, tuple(part.detach() for part in state))
    model.training_step(batches(split, 3)[0], 0)  # an epoch begins with zeros
    torch.testing.assert_close(model.training_step(batches(split, 3)[1], 1), losses[1])


def test_gradients_end_where_a_chunk_begins():
    torch.manual_seed(0)
    model = Poet(20, hidden_dim=8, embedding_dim=8, dropout=0.0, tied=False)
    first, second = batches(streams(40, 10), 2)[:2]
    model.training_step(first, 0)
    model.training_step(second, 1).backward()
    read = model.embedding.weight.grad.abs().sum(dim=1) > 0
    assert read.nonzero().flatten().tolist() == second["inputs"].unique().tolist()


def test_training_and_evaluation_carry_states_of_their_own():
    torch.manual_seed(0)
    model = Poet(20, hidden_dim=8, embedding_dim=8, dropout=0.0)
    some, others = batches(streams(40, 10), 2), batches(streams(60, 10), 2)
    losses = [model.training_step(batch, k) for k, batch in enumerate(some)]
    again = []
    for k, (batch, other) in enumerate(zip(some, others, strict=False)):
        again.append(model.training_step(batch, k))
        model.validation_step(other, k)
    torch.testing.assert_close(again, losses)


def test_likelihood_by_hand():
    logits_BTV = torch.zeros(2, 2, 4)
    logits_BTV[0, 0, 1] = math.log(5)  # probability 5/8
    target_BT = torch.tensor([[1, 2], [3, PAD]])  # 5/8, 1/4, 1/4 and nothing
    metrics = Metrics()
    metrics.update(logits_BTV, target_BT, torch.tensor([4.0, 2.0]))
    nats = -math.log(5 / 8) + 2 * math.log(4)
    found = {name: metric.compute().item() for name, metric in metrics.named("val").items()}
    assert found == pytest.approx(
        {"val/loss": nats / 3, "val/perplexity": math.exp(nats / 3), "val/nats_per_character": nats / 6}
    )


@pytest.mark.parametrize(
    ("top_p", "kept"), [(1.0, [0.5, 0.3, 0.15, 0.05]), (0.8, [0.5, 0.3, 0, 0]), (0.81, [0.5, 0.3, 0.15, 0]),
                        (0.5, [0.5, 0, 0, 0]), (1e-9, [0.5, 0, 0, 0])]
)  # fmt: skip
def test_nucleus_by_hand(top_p, kept):
    place = torch.tensor([2, 0, 3, 1])
    probability_BV = torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64)
    expected_BV = torch.tensor([kept], dtype=torch.float64)[:, place]
    assert torch.equal(nucleus(probability_BV[:, place], top_p), expected_BV)


def test_probabilities_by_hand():
    logits_BV = torch.tensor([[99.0, 99.0, 99.0, 99.0, 1.0, 1.0 + math.log(3)]])
    found = [probabilities(logits_BV, temperature)[0].tolist() for temperature in (1.0, 0.5, 1e-300)]
    expected = [[0] * 4 + [0.25, 0.75], [0] * 4 + [0.1, 0.9], [0] * 4 + [0, 1]]
    assert found == [pytest.approx(each) for each in expected]


def test_tied_weights_are_one_parameter():
    tied, untied = (Poet(100, hidden_dim=12, embedding_dim=8, tied=tied) for tied in (True, False))
    assert tied.head.weight is tied.embedding.weight
    recurrent = 4 * 12 * (8 + 12 + 2)
    count = {m: sum(p.numel() for p in m.parameters()) for m in (tied, untied)}
    assert count[tied] == 100 * 8 + recurrent + (12 * 8 + 8) + 100
    assert count[untied] == 100 * 8 + recurrent + 100 * 12 + 100
    restored = Poet(100, hidden_dim=12, embedding_dim=8)
    restored.load_state_dict(tied.state_dict())
    assert restored.head.weight is restored.embedding.weight


def write(model, data, **options):
    batch = data.encode([], prompt=options.pop("prompt", "")).examples.gather(torch.tensor([0]))
    with torch.inference_mode():
        return torch.stack([step["token"] for step in model.eval().predict_step(batch, 0, **options)], dim=1)


@pytest.fixture(scope="module")
def by_heart(tmp_path_factory):
    """A network that has learned two lines by heart, and its data."""
    file = tmp_path_factory.mktemp("text") / "sonnet.txt"
    file.write_text(VERSE * 30)
    data = PlainText(str(file), tokenizer="character", batch_size=8, chunk_tokens=32, cache_dir=str(file.parent))
    data.setup()
    torch.manual_seed(0)
    model = Poet(data.vocabulary, hidden_dim=64, embedding_dim=32, dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for epoch in range(15):
        for k, batch in enumerate(batches(data.splits["train"], 8, epoch=epoch, shuffle=True)):
            optimizer.zero_grad()
            loss = model.training_step(batch, k)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    return model, data, loss.item()


def test_it_learns_a_short_text_by_heart_and_says_that_it_copies(by_heart):
    model, data, loss = by_heart
    assert loss < 0.1 < math.log(data.vocabulary) - 2
    tokens = write(model, data, prompt="So long as men can ", length=180, temperature=0.1)
    assert data.fitted.decode(tokens[0].tolist()) == (VERSE * 3)[len("So long as men can ") :][:180]
    (answer,) = data.answers({"token": tokens})
    assert answer["num_copied_characters"] == 180 and answer["longest_copy"] == answer["text"]


def test_the_seed_decides_the_verse(by_heart):
    model, data, _ = by_heart
    verses = [write(model, data, length=60, temperature=3.0, seed=seed).tolist() for seed in (1, 1, 2)]
    assert verses[0] == verses[1] != verses[2]
    assert min(min(verse[0]) for verse in verses) >= 4  # no token that no text has


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"temperature": 0.0}, "--temperature: expected more than 0, got 0"),
        ({"temperature": -1.0}, "--temperature: expected more than 0, got -1"),
        ({"temperature": math.nan}, "--temperature: expected more than 0, got nan"),
        ({"top_p": 0.0}, "--top-p: expected a probability above 0, at most 1, got 0"),
        ({"top_p": 1.5}, "--top-p: expected a probability above 0, at most 1, got 1.5"),
        ({"length": 0}, "--length: expected at least 1 token, got 0"),
        ({"seed": -1}, "--seed: expected a whole number"),
    ],
)
def test_nothing_is_drawn_with_values_out_of_range(by_heart, options, line):
    with pytest.raises(ValueError, match=f"^{line}"):
        write(*by_heart[:2], **options)


@pytest.mark.parametrize(
    ("key", "value"), [("dropout", 1.0), ("hidden_dim", 0), ("num_layers", 0), ("embedding_dim", 0), ("lr", 0.0)]
)
def test_settings_out_of_range_are_named(key, value):
    with pytest.raises(ValueError, match=rf"^model\.{key}: expected"):
        Poet(10, **{key: value})


GATHER = """
import sys, torch
from lightning_modules.shared.carried import all_streams, own_streams
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", f"file://{sys.argv[2]}", rank=rank, world_size=2)
whole = tuple(torch.arange(30.0).reshape(2, 5, 3) + k for k in range(2))
own = own_streams(whole, rank, 2, torch.device("cpu"))
assert [part.shape[1] for part in own] == [3 - rank] * 2
assert all(map(torch.equal, all_streams(own, 2), whole))
torch.distributed.destroy_process_group()
"""


def test_two_workers_states_come_together_in_the_order_of_the_streams(tmp_path):
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-c", GATHER]
    ranks = [subprocess.Popen([*command, str(rank), tmp_path / "meeting"], env=environ) for rank in range(2)]
    try:
        assert [rank.wait(timeout=60) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    state = (torch.randn(1, 5, 2),)
    assert all(map(torch.equal, all_streams(state, 1), state))
    thirds = [own_streams(state, rank, 3, torch.device("cpu"))[0] for rank in range(3)]
    assert [third.shape[1] for third in thirds] == [2, 2, 1] and torch.equal(thirds[1], state[0][:, 1::3])


def job_in(folder):
    workload = workloads.load("poet")
    config = workload.config(workload.smoke, {"model.dropout": 0.2, "model.num_layers": 2})
    return Job(workload="poet", config=config, directory=str(folder), baselines=False,
               placement=Placement(cpus_per_worker=1))  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run's job, and its result."""
    job = job_in(tmp_path_factory.mktemp("runs") / "whole")
    return job, fit(job, LocalSession())


def newest(job):
    with Run(Folder(job.directory)).checkpoints("min").latest() as (_, path):
        return torch.load(path / WEIGHTS, weights_only=True)


def test_a_run_stopped_in_mid_text_and_resumed_is_the_uninterrupted_one(tmp_path, uninterrupted):
    job = job_in(tmp_path / "cut")
    for batches_till_stop in (20, 90):  # in the first epoch's text, and in the second's
        with pytest.raises(Stopped):
            fit(job, StopsAfter(batches_till_stop))
        carried = newest(job)["carried"]
        assert [part.shape for part in carried] == [(2, 8, 32)] * 2 and all(part.abs().sum() > 0 for part in carried)
    result, (whole, expected) = fit(job, LocalSession()), uninterrupted
    assert [result[key] for key in ("steps", "test", "monitor")] == [
        expected[key] for key in ("steps", "test", "monitor")
    ]
    ours, theirs = newest(job)["state_dict"], newest(whole)["state_dict"]
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_predict_prints_verse_and_what_it_copied(uninterrupted, capsys):
    run = uninterrupted[0].directory
    said = []
    for seed in ("1", "1", "2"):
        assert (
            using.predict([run, "--prompt", "JULIET\nO", "--length", "30", "--seed", seed, "--accelerator", "cpu"]) == 0
        )
        said.append(capsys.readouterr())
    assert said[0] == said[1] and said[0].out != said[2].out
    assert said[0].out.startswith("JULIET\nO") and len(said[0].out) == len("JULIET\nO") + 30 + 1
    assert re.search(r"^num copied characters: \d+\nlongest copy: .+$", said[0].err, re.MULTILINE)
    assert using.predict([run, "ROMEO", "--length", "30", "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["input"] == "ROMEO" and answer["longest_copy"] in answer["text"]
    assert answer["num_copied_characters"] == len(answer["longest_copy"]) > 1
