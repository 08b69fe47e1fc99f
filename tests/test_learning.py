"""Networks learn: far above the majority class, on real data, by the test split of a run."""

from pathlib import Path

import pytest


def test_the_perceptron_learns_a_table(raydeck):
    result = raydeck.json("train", "mlp", "--data.source", "wine")
    assert result["test"]["accuracy"] >= 0.9 > result["baselines"]["majority class"] + 0.4


def test_the_convolutional_network_learns_small_digits(raydeck):
    result = raydeck.json("train", "cnn", "--data.source", "digits", "--model.channels", "[16,32]",
                          "--data.elastic", "0", "--data.shift", "0.5", "--trainer.max_epochs", "6")  # fmt: skip
    assert result["test"]["accuracy"] >= 0.9 > result["baselines"]["majority class"] + 0.7


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_lstm_learns_short_reviews(raydeck):
    result = raydeck.json("train", "text_classifier", "--data.source", "short", "--model.embedding_dim", "32",
                          "--model.hidden_dim", "32", "--trainer.max_epochs", "3", timeout=500)  # fmt: skip
    assert result["test"]["accuracy"] >= 0.7 > result["baselines"]["majority class"] + 0.15


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "least"), [("cnn", 0.985), ("mlp_images", 0.955), ("translator", 0.97)])
def test_the_shipped_settings_reach_what_the_readme_says(raydeck, name, least):
    """A seed and a processor move the figure by a few digits in a thousand; the README's are those of one machine."""
    result = raydeck.json("train", name, timeout=800)
    assert result["test"][result["metric"]] >= least
    assert result["test"][result["metric"]] > max(result["baselines"].values())


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_poet_that_has_read_the_plays_once_knows_them_better_than_5_grams(raydeck):
    result = raydeck.json("train", "poet", "--trainer.max_epochs", "1", timeout=1400)
    assert result["test"]["nats_per_character"] < result["baselines"]["5-gram, Kneser-Ney"] - 0.05
    assert result["baselines"]["5-gram, Kneser-Ney"] < result["baselines"]["unigram"] - 1.5


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_lstm_reads_long_reviews_as_the_readme_says(raydeck):
    """TF-IDF and it are a few reviews in a thousand apart, which another processor may turn round."""
    result = raydeck.json("train", "text_classifier", timeout=2300)
    assert result["test"]["accuracy"] >= 0.9
    assert result["test"]["accuracy"] > max(result["baselines"].values()) - 0.01


def test_the_actor_and_critic_learn_to_balance_a_pole(raydeck):
    result = raydeck.json("train", "actor_critic", "--trainer.max_epochs", "2", "--cpus-per-worker", "1")
    assert result["test"]["return"] > 150 > result["baselines"]["random"] + 100


def test_the_deep_q_network_learns_the_way_to_the_end(raydeck):
    helpers = str(Path(__file__).parent / "helpers")
    result = raydeck.json(
        "train", "dqn", "--data.env", "odd_environments:Corridor-v0", "--data.steps_per_epoch", "512",
        "--data.steps_per_batch", "128", "--data.updates_per_batch", "32", "--model.hidden_dims", "[32]",
        "--data.learning_starts", "256", "--trainer.max_epochs", "6", "--cpus-per-worker", "1", PYTHONPATH=helpers,
    )  # fmt: skip
    # From each of three places, 2 to 4 steps of which the last gives 1 and the others cost 0.1.
    assert result["test"]["return"] == pytest.approx(0.8, abs=0.05) and result["baselines"]["random"] < 0.3


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["dqn", "actor_critic"])
def test_agents_balance_a_pole_to_the_end(raydeck, name):
    result = raydeck.json("train", name, timeout=800)
    assert result["test"]["return"] >= 475 > result["baselines"]["random"] + 400
