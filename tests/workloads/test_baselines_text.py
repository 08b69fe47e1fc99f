"""Baselines on texts: against scikit-learn called directly, and what is known of the reviews."""

import pytest

from workloads import _baselines_text
from workloads.data.labelled_text import LabelledText


@pytest.fixture
def ready(tmp_path):
    def ready(*arguments, **keys):
        data = LabelledText(*arguments, cache_dir=str(tmp_path), **keys)
        data.setup()
        return data

    return ready


def test_on_short_reviews_they_agree_with_scikit_learn_and_beat_the_majority(ready):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    data = ready("short", num_examples=3000)
    scores = _baselines_text.texts(data)
    assert list(scores) == ["majority class", "TF-IDF + logistic regression", "bag-of-words MLP"]
    target = {name: data.splits[name].columns["target"].numpy() for name in ("train", "test")}
    expected = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True), LogisticRegression(C=10))
    expected.fit(data.texts["train"], target["train"])
    assert scores["TF-IDF + logistic regression"] == pytest.approx(
        expected.score(data.texts["test"], target["test"]), abs=0.01
    )
    assert scores["majority class"] == pytest.approx(0.5, abs=0.01)
    assert min(scores["TF-IDF + logistic regression"], scores["bag-of-words MLP"]) > 0.65


def test_numbers_are_scored_by_r2(ready, tmp_path):
    rows = [f"{'good ' * (i % 7)}{'bad ' * (i % 5)}film,{(i % 7) - (i % 5) + 0.5}" for i in range(200)]
    (tmp_path / "stars.csv").write_text("text,label\n" + "\n".join(rows))
    data = ready(str(tmp_path / "stars.csv"))
    scores = _baselines_text.texts(data)
    assert data.output == "regression" and list(scores)[:2] == ["mean", "TF-IDF + ridge regression"]
    assert abs(scores["mean"]) < 0.2 < scores["TF-IDF + ridge regression"]
    assert scores == _baselines_text.texts(data)
