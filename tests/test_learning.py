"""Networks learn: far above the majority class, on real data, by the test split of a run."""

import pytest


def test_the_perceptron_learns_a_table(raydeck):
    result = raydeck.json("train", "mlp", "--data.source", "wine")
    assert result["test"]["accuracy"] >= 0.9 > result["baselines"]["majority class"] + 0.4


def test_the_convolutional_network_learns_small_digits(raydeck):
    result = raydeck.json("train", "cnn", "--data.source", "digits", "--model.channels", "[16,32]",
                          "--data.elastic", "0", "--data.shift", "0.5", "--trainer.max_epochs", "6")  # fmt: skip
    assert result["test"]["accuracy"] >= 0.9 > result["baselines"]["majority class"] + 0.7


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "least"), [("cnn", 0.985), ("mlp_images", 0.955), ("translator", 0.97)])
def test_the_shipped_settings_reach_what_the_readme_says(raydeck, name, least):
    """A seed and a processor move the figure by a few digits in a thousand; the README's are those of one machine."""
    result = raydeck.json("train", name, timeout=800)
    assert result["test"][result["metric"]] >= least
    assert result["test"][result["metric"]] > max(result["baselines"].values())
