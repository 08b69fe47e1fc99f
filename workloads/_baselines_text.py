"""What simple and classical methods reach on labelled texts; see :mod:`workloads._baselines`.

Shapes: N texts, B texts of a batch, S tokens of all of them, H hidden units, K logits (1, or the number of classes).
"""

import numpy as np
import torch
from torch import Tensor, nn

from lightning_modules.shared import objectives
from workloads import _baselines
from workloads._extras import need
from workloads.data._ragged import Sequences
from workloads.data._splits import subset
from workloads.data.labelled_text import LabelledText

HIDDEN_DIM, BATCH_SIZE, LR = 64, 32, 3e-3
"""The bag-of-words perceptron; chosen on the validation split of the IMDB reviews."""

EPOCHS, PATIENCE = 20, 2
"""Most epochs, and those without a lower validation loss after which it stops."""


def texts(data: LabelledText) -> dict[str, float]:
    """Majority class, TF-IDF of words and pairs of words with logistic regression, and a perceptron on a bag of words.

    Of numbers: mean, TF-IDF with ridge regression, and the perceptron.
    """
    target_N = data.splits["train"].columns["target"].numpy()
    some = subset(len(target_N), target_N if data.classes else None, _baselines.MOST, seed=0)
    suffix = f" ({_baselines.MOST:,} examples)" if len(some) < len(target_N) else ""
    methods = {"TF-IDF + " + _baselines.linear_name(data): _tf_idf, "bag-of-words MLP": _bag_of_words}
    scores = {}
    for name, method in methods.items():
        with need("threadpoolctl", extra="data").threadpool_limits(data.machine.num_threads):
            scores[name + suffix] = _baselines.metric(
                data, data.splits["test"].columns["target"].numpy(), method(data, some)
            )
    return _baselines.constant(data) | scores


def _tf_idf(data: LabelledText, some: np.ndarray) -> np.ndarray:
    """Answers of a linear model on term frequencies, weighted by inverse document frequency (Sparck Jones 1972)."""
    linear = need("sklearn.linear_model", extra="text")
    vectorizer = need("sklearn.feature_extraction.text", extra="text").TfidfVectorizer(
        ngram_range=(1, 2), min_df=min(2, len(some) // 10 or 1), sublinear_tf=True, dtype=np.float32
    )
    target_N = data.splits["train"].columns["target"].numpy()[some]
    model = linear.LogisticRegression(C=10, max_iter=100) if data.classes else linear.Ridge()
    model.fit(vectorizer.fit_transform(data.texts["train"][some]), target_N)
    return model.predict(vectorizer.transform(data.texts["test"]))


class _Bag(nn.Module):
    """A perceptron with one hidden layer on how often each token comes, as a share of the text."""

    def __init__(self, num_tokens: int, num_logits: int) -> None:
        super().__init__()
        self.hidden = nn.EmbeddingBag(num_tokens, HIDDEN_DIM, mode="mean")
        nn.init.normal_(self.hidden.weight, std=0.1)
        self.output = nn.Sequential(nn.ReLU(), nn.Dropout(0.5), nn.Linear(HIDDEN_DIM, num_logits))

    def forward(self, texts: Sequences) -> Tensor:
        """Logits, shape (B, K)."""
        return self.output(self.hidden(texts.flat, texts.offsets[:-1].int()))


def _bag_of_words(data: LabelledText, some: np.ndarray) -> np.ndarray:
    """Answers of the perceptron after the epoch with the lowest validation loss."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _Bag(data.num_tokens, objectives.num_logits(data.output, data.num_outputs))
        optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0, fused=True)
        train, chosen = data.splits["train"], torch.from_numpy(some)
        best, answers_N, left = np.inf, np.empty(0), PATIENCE
        for _ in range(EPOCHS):
            model.train()
            for index in chosen[torch.randperm(len(chosen), generator=generator)].split(BATCH_SIZE):
                logits_BK = model(train.sequences["text"].take(index))
                loss = objectives.loss(data.output, logits_BK, train.columns["target"][index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            model.eval()
            with torch.inference_mode():
                validation = data.splits["validation"]
                logits_BK = model(validation.sequences["text"])
                loss = float(objectives.loss(data.output, logits_BK, validation.columns["target"]))
                if loss < best:
                    best, left = loss, PATIENCE
                    answers_N = _answers(data, model(data.splits["test"].sequences["text"]))
                else:
                    left -= 1
            if left == 0:
                break
    return answers_N


def _answers(data: LabelledText, logits_BK: Tensor) -> np.ndarray:
    if data.classes:
        return objectives.probabilities(data.output, logits_BK).argmax(dim=1).numpy()
    return objectives.values(data.output, logits_BK).numpy()
