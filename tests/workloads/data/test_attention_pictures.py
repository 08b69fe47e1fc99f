import numpy as np
import pytest

from workloads.data._attention import draw, pieces, weights_of
from workloads.data._tokens import Tokenizer

TEXTS = ["रविवार, 4 दिसंबर 1977", "Sunday, December 4, 1977", "¿Cuánto? 🙂"]


@pytest.mark.parametrize("size", [260, 300, 400])
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_readable_and_make_up_the_text(text, size):
    tokenizer = Tokenizer.fit("bpe", TEXTS, size)
    ids, _ = tokenizer.words(text)
    texts, piece_of = pieces(ids, tokenizer.decode)
    assert "".join(texts) == text and "\N{REPLACEMENT CHARACTER}" not in "".join(texts)
    assert piece_of == sorted(piece_of) and set(piece_of) == set(range(len(texts)))
    assert size > 260 or not any(piece.startswith(("ि", "ं")) for piece in texts)


def test_weights_of_pieces_by_hand():
    weights = np.array([[0.1, 0.2, 0.7], [0.3, 0.4, 0.3], [0.0, 0.5, 0.5]])
    np.testing.assert_allclose(weights_of(weights, [0, 0, 1], [0, 1, 1]), [[0.2, 0.8], [0.0, 1.0]])


def test_nothing_written_has_no_weights():
    assert pieces([], str) == ([], [])
    assert weights_of(np.empty((0, 3)), [], [0, 1, 1]).shape == (0, 2)


def test_long_sentences_are_drawn_small(tmp_path):
    from PIL import Image

    weights = np.eye(300).tolist()
    draw([{"source": ["a"] * 300, "target": ["b"] * 300, "weights": weights}], tmp_path / "long.png")
    with Image.open(tmp_path / "long.png") as picture:
        assert max(picture.size) < 2200


def test_devanagari_has_a_font_and_what_has_none_is_told(tmp_path):
    attention = {"source": ["Sunday", ",", " $5"], "target": ["रविवार", ",", " "], "weights": np.eye(3).tolist()}
    draw([attention] * 2, tmp_path / "a.png")  # a warning would be an error
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    with pytest.warns(UserWarning, match=r"b\.png: no font here has 漢; boxes stand in their place$"):
        draw([attention | {"target": ["漢", ",", "x"]}], tmp_path / "b.png")
