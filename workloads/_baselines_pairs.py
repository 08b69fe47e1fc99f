"""What methods without a network reach in translating the same test sentences.

Shapes: N sentences.
"""

import numpy as np

from workloads._extras import need
from workloads.data._scores import exact_match
from workloads.data._splits import subset
from workloads.data.pairs import Pairs

MOST = 20_000
"""Training pairs that are looked through for each language; more would take longer than the network."""

CHUNK = 512
"""Test sentences compared with all training sentences at once."""


def nearest(data: Pairs) -> dict[str, float]:
    """Exact match of the source as it stands, and of the translation of the nearest training source.

    Nearest by the cosine of TF-IDF weights of character n-grams. Where the test split has a harder part, the names of
    its figures end in "(unseen numbers)".
    """
    test = data.texts["test"]
    answers = {"copy the source": test.source, "nearest training source": _nearest_targets(data)}
    scores = {}
    for suffix, rows in (("", ~test.unseen), (" (unseen numbers)", test.unseen)):
        if rows.any():
            for name, answer in answers.items():
                scores[name + suffix] = exact_match(answer[rows], test.target[rows])
    return scores


def _nearest_targets(data: Pairs) -> np.ndarray:
    """For each test pair the target of the training pair in its language whose source is nearest."""
    train, test = data.texts["train"], data.texts["test"]
    answer = np.empty(len(test), dtype=object)
    vectorizer = need("sklearn.feature_extraction.text", extra="text").TfidfVectorizer
    for language in np.unique(test.language):
        known, asked = (np.flatnonzero(part.language == language) for part in (train, test))
        known = known[subset(len(known), None, MOST, seed=0)]
        if len(known) == 0:
            answer[asked] = ""
            continue
        grams = vectorizer(analyzer="char", ngram_range=(1, 4), lowercase=False, dtype=np.float32)
        known_NF = grams.fit_transform(train.source[known])
        for some in np.array_split(asked, -(-len(asked) // CHUNK)):
            likeness = grams.transform(test.source[some]) @ known_NF.T
            answer[some] = train.target[known[np.asarray(likeness.argmax(axis=1)).ravel()]]
    return answer
