"""A run of the translator from its data to its answers, small enough to be trained here."""

import signal

import numpy as np
import pytest
import torch

import workloads
from cluster.checkpoints import WEIGHTS
from cluster.folder import Folder
from cluster.placement import Placement
from cluster.runs import Run
from cluster.session import LocalSession, Stopped
from cluster.worker import Job, fit
from workloads._evaluate import restore
from workloads._machine import inspect

WORDS = {"one": "un", "two": "deux", "three": "trois", "red": "rouge", "blue": "bleu", "dog": "chien", "cat": "chat"}
SMALL = {
    "data.vocabulary_size": 300, "data.batch_size": 32, "model.embedding_dim": 32, "model.hidden_dim": 64,
    "model.dropout": 0.1, "model.lr": 1e-2, "trainer.precision": "32",
}  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Sentences in two languages, word by word: a second one beside French shouts them in English."""
    random, found = np.random.default_rng(0), {}
    while len(found) < 500:
        words = random.permutation(list(WORDS))[: random.integers(1, 6)].tolist()
        found[" ".join(words)] = [WORDS[word] for word in words]
    rows = [f"{source},{' '.join(words)},fr" for source, words in found.items()]
    rows += [f"{source},{source.upper()}!,loud" for source in found]
    path = tmp_path_factory.mktemp("table") / "pairs.csv"
    path.write_text("\n".join(["source,target,language", *rows]) + "\n")
    return path


def job(folder, table, **keys):
    layer = SMALL | {"data.source": str(table), "data.cache_dir": str(folder / "cache")} | keys
    return Job(workload="translator", config=workloads.load("translator").config(layer), directory=str(folder / "run"),
               placement=Placement(cpus_per_worker=1), baselines=False)  # fmt: skip


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory):
    """The result of a run, its module and its data."""
    given = job(tmp_path_factory.mktemp("runs"), table, **{"trainer.max_epochs": 18})
    result, workload = fit(given, LocalSession()), workloads.load("translator")
    with Run(Folder(given.directory)).checkpoints("max").best() as (_, path):
        return result, *restore(workload, given.config, path / WEIGHTS, inspect("cpu", "32", 1))


def test_it_learns_two_languages_that_it_tells_apart_by_their_token(trained):
    test = trained[0]["test"]
    assert min(test["exact_match_fr"], test["exact_match_loud"]) > 0.9
    assert test["bleu"] > 95 and test["chrf"] > 95
    assert trained[0]["signatures"]["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")


def test_a_beam_translates_a_person_s_sentences_in_their_order(trained):
    _, model, data = trained
    inputs = data.encode(["two red cat", "one", "three blue dog cat"], language="fr")
    with torch.no_grad():
        answers = data.answers(model.predict_step(inputs.examples.gather(torch.arange(3)), 0, beam_width=4))
    assert [answer["translation"] for answer in answers] == ["deux rouge chat", "un", "trois bleu chien chat"]
    attention = answers[0]["attention"]
    weights = np.array(attention["weights"])
    assert "".join(attention["source"]) == "two red cat" and "".join(attention["target"]) == "deux rouge chat"
    assert weights.shape == (len(attention["target"]), len(attention["source"]))
    assert np.abs(weights.sum(axis=1) - 1).max() < 1e-3


class StopsAt(LocalSession):
    """Is asked to stop when it has been asked so many times whether it is."""

    def __init__(self, count):
        super().__init__()
        self.count = count

    def asked_to_stop(self):
        self.count -= 1
        return signal.SIGTERM if self.count <= 0 else 0


def newest(folder):
    with Run(Folder(str(folder / "run"))).checkpoints("max").latest() as (entry, path):
        return entry.step, torch.load(path / WEIGHTS, weights_only=True)["state_dict"]


def test_a_run_stopped_in_mid_epoch_goes_on_as_if_it_had_not_been(table, tmp_path):
    # Dropout and the decoder's own guesses draw random numbers, and the share of guesses depends on the step.
    keys = {"trainer.max_epochs": 2, "model.teacher_forcing": 0.3, "data.num_examples": 300}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit(job(whole, table, **keys), LocalSession())
    with pytest.raises(Stopped):
        fit(job(parts, table, **keys), StopsAt(11))
    steps_an_epoch = 7
    assert newest(parts)[0] % steps_an_epoch and newest(parts)[0] > steps_an_epoch
    fit(job(parts, table, **keys), LocalSession())
    (step, ours), (_, theirs) = newest(parts), newest(whole)
    assert step == 2 * steps_an_epoch
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
