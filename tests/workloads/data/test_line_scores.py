"""BLEU of lines against all others: sacrebleu's figures, and the ends of the scale."""

import pytest
import sacrebleu

from workloads.data._line_scores import bleu, self_bleu

REFERENCES = [
    ["the", "quality", "of", "mercy", "is", "not", "strained"],
    ["it", "droppeth", "as", "the", "gentle", "rain", "from", "heaven"],
    ["upon", "the", "place", "beneath", "it", "is", "twice", "blest"],
]
LINES = [
    ["the", "quality", "of", "rain", "is", "not", "strained", "upon"],
    ["it", "is", "the", "gentle", "rain", "from", "heaven"],
    ["mercy", "mercy", "the", "the"],
]


@pytest.mark.parametrize("order", [2, 3, 4])
def test_it_is_sacrebleu_s_sentence_bleu_with_every_line_as_a_reference(order):
    metric = sacrebleu.BLEU(max_ngram_order=order, smooth_method="floor", smooth_value=0.1, tokenize="none")
    metric.effective_order = False
    expected = [metric.sentence_score(" ".join(line), [" ".join(r) for r in REFERENCES]).score / 100 for line in LINES]
    for line, theirs in zip(LINES, expected, strict=True):
        assert bleu([line], REFERENCES, [order])[order] == pytest.approx(theirs, rel=1e-6)
    assert bleu(LINES, REFERENCES, [order])[order] == pytest.approx(sum(expected) / len(expected), rel=1e-6)


@pytest.mark.parametrize("order", [2, 4])
def test_self_bleu_leaves_each_line_out_of_its_references(order):
    lines = [*LINES, *REFERENCES, LINES[0]]
    expected = [bleu([line], lines[:i] + lines[i + 1 :], [order])[order] for i, line in enumerate(lines)]
    assert self_bleu(lines, [order])[order] == pytest.approx(sum(expected) / len(expected), rel=1e-9)


def test_the_ends_of_the_scale():
    assert bleu(REFERENCES, REFERENCES, [4])[4] == pytest.approx(1.0)
    assert self_bleu([LINES[0]] * 5, [4])[4] == pytest.approx(1.0)
    assert bleu([["unheard", "of", "words", "here"]], [["other"] * 4], [4])[4] < 0.1
    assert bleu([[]], REFERENCES, [2])[2] == 0.0
    assert self_bleu([LINES[0]], [2])[2] == 0.0  # there is no other
