"""How good written sentences are: exact match, BLEU and chrF, by sacrebleu."""

from collections.abc import Sequence
from typing import Any

from workloads._extras import need


def exact_match(written: Sequence[str], references: Sequence[str]) -> float:
    """Share of sentences that are their reference to the last character, in [0, 1]."""
    return sum(ours == theirs for ours, theirs in zip(written, references, strict=True)) / len(references)


def all_scores(written: Sequence[str], references: Sequence[str], slow: bool) -> dict[str, float]:
    """``exact_match`` and ``bleu`` (Papineni et al. 2002, in [0, 100]), and what takes longer, if asked for.

    Args:
        written: Sentences.
        references: One for each.
        slow: Whether to compute ``chrf`` (Popović 2015, in [0, 100]) too.
    """
    metrics = {name: metric for name, metric in _metrics().items() if slow or name == "bleu"}
    scores = {name: metric.corpus_score(written, [references]).score for name, metric in metrics.items()}
    return {"exact_match": exact_match(written, references), **scores}


def signatures() -> dict[str, str]:
    """How sacrebleu computes each metric, in its own notation, which makes figures comparable (Post 2018)."""
    metrics = _metrics()
    for metric in metrics.values():
        metric.corpus_score(["a"], [["a"]])  # the number of references is part of it
    return {name: str(metric.get_signature()) for name, metric in metrics.items()}


def _metrics() -> dict[str, Any]:
    sacrebleu = need("sacrebleu", extra="text")
    # `force` keeps it from warning that sentences may be tokenized already, for those that end in a full stop.
    return {"bleu": sacrebleu.BLEU(force=True), "chrf": sacrebleu.CHRF()}
