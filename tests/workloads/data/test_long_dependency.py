"""Sentences whose first word decides their end: what is in them, and that nothing else gives the answer away."""

import re
from collections import Counter

import pytest
import torch

from lightning_modules.text_classifier import TextClassifier
from workloads._baselines_long_dependency import forgetful
from workloads.data.long_dependency import ENDS, LEAST, LongDependency

SENTENCE = re.compile(r"(\w+) , student of (\w+) who (\w+) (\w+)(.*) , is a")


def made(**options):
    data = LongDependency(**options)
    data.setup()
    return data


def read(data, split):
    """The sentences of a split as text, and their ends."""
    batch = data.splits[split].gather(torch.arange(len(data.splits[split])))
    tokenizer = data.tokenizer
    return [tokenizer.decode(row) for row in batch["text"].tolist()], [data.classes[i] for i in batch["target"]]


@pytest.mark.parametrize("distance", [LEAST, 25, 400])
def test_the_first_word_decides_and_stands_at_that_distance(distance):
    data = made(distance=distance, num_examples=200)
    texts, ends = read(data, "train")
    for text, end in zip(texts, ends, strict=True):
        assert len(text.split()) == distance + 1
        assert ENDS[SENTENCE.fullmatch(text).group(1)] == end
    batch = data.splits["train"].gather(torch.arange(3))
    assert batch["text"].shape == (3, distance + 1) and batch["text_length"].tolist() == [distance + 1] * 3


def test_no_two_sentences_say_the_same_and_classes_are_even():
    data = made(distance=LEAST, num_examples=3000, num_cues=8)
    said, ends = [], []
    for split, size in (("train", 2100), ("validation", 300), ("test", 600)):
        texts, found = read(data, split)
        assert len(texts) == size
        said += [text.split(maxsplit=1)[1] for text in texts]
        ends += found
    assert len(set(said)) == 3000
    assert set(Counter(ends).values()) == {375} and set(ends) == set(ENDS.values())


def test_what_is_written_follows_from_the_seed_of_the_splits():
    first, same = made(num_examples=200), made(num_examples=200)
    other = made(num_examples=200, split_seed=1)
    for split in ("train", "validation", "test"):
        assert read(first, split) == read(same, split) != read(other, split)


def test_all_that_follows_the_first_word_leaves_chance():
    scores = forgetful(made(distance=20, num_examples=3000))
    assert scores["majority class"] == 0.25
    assert scores["bag of the last 20 words"] == pytest.approx(0.25, abs=0.06)  # four standard errors below 0.07


def test_a_restored_module_knows_the_words_and_the_ends():
    data = made(num_examples=200, num_cues=3)
    other = LongDependency(num_examples=200, num_cues=3)
    other.load_state_dict(data.state_dict())
    assert other.classes == data.classes == ["bold painter", "hard worker", "patient teacher"]
    text = "Jonas , student of Yong who reads books , is a"
    found = other.encode([text]).examples.gather(torch.tensor([0]))
    assert other.tokenizer.decode(found["text"][0].tolist()) == text


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"distance": 9}, "data.distance: expected at least 10, got 9"),
        ({"num_cues": 9}, "data.num_cues: expected 2 to 8, got 9"),
        ({"num_examples": 30}, "data.num_examples: expected at least 10 for each of 4 cues, got 30"),
        ({"distance": 10, "num_examples": 10_000}, "at a distance of 10 there are no 10000 sentences that differ"),
    ],
)
def test_what_cannot_be_written_is_refused(options, line):
    with pytest.raises(ValueError, match=line):
        made(**options)


@pytest.mark.parametrize("text", ["Yong , student of Param , is a", "param , is a"])
def test_a_sentence_of_nobody_that_is_known_is_refused(text):
    with pytest.raises(ValueError, match=rf"{text}: a sentence begins with one of Param, Meera, Jonas, Aisha"):
        made(num_examples=200).encode(["Param , is a", text])


def test_an_explanation_has_a_word_for_every_word():
    data = made(num_examples=200)
    torch.manual_seed(0)
    model = TextClassifier(data.num_tokens, data.output, data.num_outputs, embedding_dim=4, hidden_dim=4).eval()
    text = "Param , student of Yong who reads books , is a"
    batch = data.encode([text]).examples.gather(torch.tensor([0]))
    with torch.inference_mode():
        (answer,) = data.answers(model.predict_step(batch, 0, explain=True))
    assert [word["word"] for word in answer["words"]] == text.split()
    assert answer["label"] in data.classes
