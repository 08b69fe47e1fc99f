"""The longest copied span, against trying every span."""

import random

import pytest

from workloads.data._copies import longest_copy


def slowly(written, source):
    """The source's first of the longest spans."""
    for length in range(min(len(written), len(source)), 0, -1):
        for place in range(len(source) - length + 1):
            if source[place : place + length] in written:
                return source[place : place + length]
    return ""


@pytest.mark.parametrize("seed", range(40))
def test_it_is_the_longest(seed):
    choice = random.Random(seed)
    letters = "ab" if seed % 2 else "abcdefghijklmnopqrstuvwxyz\n 🎭"
    written, source = ("".join(choice.choices(letters, k=choice.randrange(1, 120))) for _ in range(2))
    if seed % 4 > 1:
        source = source[: len(source) // 2] + written[3 : 3 + seed] + source[len(source) // 2 :]
    assert longest_copy(written, source) == slowly(written, source)


ENDS = [
    ("", "abc", ""), ("abc", "", ""), ("abc", "xyz", ""), ("a", "a", "a"), ("abcd" * 9, "abcd" * 9, "abcd" * 9),
    ("b" * 50, "ab" + "b" * 70, "b" * 50),
]  # fmt: skip


@pytest.mark.parametrize(("written", "source", "span"), ENDS)
def test_ends(written, source, span):
    assert longest_copy(written, source) == span


def test_no_span_is_lost_where_the_source_is_cut_into_blocks():
    source = "".join(random.Random(0).choices("abcdef", k=5 * 4096))
    for place in (4080, 4096, 8190, 5 * 4096 - 40):
        written = "xyz" + source[place : place + 40] + "zyx"
        assert longest_copy(written, source, block=4096) == source[place : place + 40]


def test_a_span_of_a_long_text_is_found():
    choice = random.Random(1)
    source = "".join(choice.choices("etaoin shrdlu", k=1_000_000))
    spans = (source[7:90], source[999_000:999_200], source[500:600])
    assert longest_copy("#".join(spans), source) == spans[1]
