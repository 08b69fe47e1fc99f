"""How good written sentences are: exact match, BLEU and chrF, the latter two by sacrebleu."""

from collections.abc import Sequence
from typing import Any

from workloads._extras import need

METRICS = ("exact_match", "bleu", "chrf")
"""From quick to slow."""


def exact_match(written: Sequence[str], references: Sequence[str]) -> float:
    """Share of sentences that are their reference to the last character, in [0, 1]."""
    return sum(ours == theirs for ours, theirs in zip(written, references, strict=True)) / len(references)


def sentence_scores(written: Sequence[str], references: Sequence[str], metrics: Sequence[str]) -> dict[str, float]:
    """Scores of a corpus.

    Args:
        written: Sentences.
        references: One for each.
        metrics: Some of ``METRICS``. ``bleu`` (Papineni et al. 2002) and ``chrf`` (Popović 2015) are in [0, 100].
    """
    scores = {"exact_match": exact_match(written, references)}
    for name in metrics:
        if name != "exact_match":
            scores[name] = _sacrebleu(name).corpus_score(written, [references]).score
    return scores


def signatures() -> dict[str, str]:
    """How each metric of sacrebleu is computed, in its own notation, which makes figures comparable (Post 2018)."""
    found = {}
    for name in METRICS[1:]:
        metric = _sacrebleu(name)
        metric.corpus_score(["a"], [["a"]])  # the number of references is part of it
        found[name] = str(metric.get_signature())
    return found


def _sacrebleu(name: str) -> Any:
    sacrebleu = need("sacrebleu", extra="text")
    # `force` keeps it from warning that sentences may be tokenized already, for those that end in a full stop.
    return sacrebleu.BLEU(force=True) if name == "bleu" else sacrebleu.CHRF()
