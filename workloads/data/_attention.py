"""Attention as a person can read it: words and pieces of words, their weights, and a picture of both.

Shapes: S tokens of the source, T tokens that are written.
"""

import functools
import re
import tempfile
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workloads._extras import need
from workloads.data._targets import listed

MOST_DRAWN = 9
"""Sentences of a picture."""

INCHES, MOST_INCHES = 0.27, 16
"""Side of a weight in the picture, and that of a whole matrix, which makes the weights of long sentences smaller."""

BROKEN = "\N{REPLACEMENT CHARACTER}"


def pieces(ids: Sequence[int], decode: Callable[[list[int]], str]) -> tuple[list[str], list[int]]:
    """Tokens as text, with those put together that are not readable apart: bytes of a character, marks on a letter.

    Args:
        ids: Tokens.
        decode: What makes text of them.

    Returns:
        The pieces, and for each token the number of its piece.
    """
    texts: list[str] = []
    piece_of: list[int] = []
    held: list[int] = []
    for number, token in enumerate(ids, start=1):
        held.append(token)
        text = decode(held)
        if BROKEN in text and number < len(ids):
            continue
        if texts and unicodedata.category(text[:1] or " ").startswith("M"):
            texts[-1] += text
        else:
            texts.append(text)
        piece_of += [len(texts) - 1] * len(held)
        held = []
    return texts, piece_of


def weights_of(weight_TS: np.ndarray, target_of: Sequence[int], source_of: Sequence[int]) -> np.ndarray:
    """Weights of pieces: those of a source piece's tokens add up, those of a written piece's are averaged."""
    rows = np.eye(max(target_of, default=-1) + 1)[list(target_of)]
    columns = np.eye(max(source_of, default=-1) + 1)[list(source_of)]
    return (rows / np.maximum(rows.sum(axis=0), 1)).T @ weight_TS @ columns


def draw(attentions: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw matrices of attention: the source's pieces across, the written ones down, dark where weight is.

    Args:
        attentions: Each with ``source`` and ``target``, pieces, and ``weights``, rows of the target.
        path: A PNG.
    """
    drawn = need("matplotlib.figure", "text").Figure(layout="constrained", dpi=110, facecolor="white")
    need("matplotlib.backends.backend_agg", "text").FigureCanvasAgg(drawn)
    shown = attentions[:MOST_DRAWN]
    num_columns = min(3, len(shown))
    num_rows = -(-len(shown) // num_columns)
    widest, tallest = (max(len(a[side]) for a in shown) for side in ("source", "target"))
    side = min(INCHES, MOST_INCHES / max(widest, tallest, 1))
    drawn.set_size_inches(num_columns * (side * widest + 1.8), num_rows * (side * tallest + 1.3))
    families = need("matplotlib", "text").rc_context({"font.family": _fonts()[0]})
    with families, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        axes = drawn.subplots(num_rows, num_columns, squeeze=False).ravel()
        for axis, attention in zip(axes, shown, strict=False):
            _matrix(axis, attention, font_size=min(10.0, 60 * side))
        for axis in axes[len(shown) :]:
            axis.axis("off")
        drawn.savefig(path, format="png")
    said = " ".join(str(warning.message) for warning in caught)
    missing = sorted({chr(int(code)) for code in re.findall(r"Glyph (\d+) .*? missing from font", said)})
    if missing:
        warnings.warn(f"{path}: no font here has {listed(missing)}; boxes stand in their place", stacklevel=2)


def _matrix(axis: Any, attention: dict[str, Any], font_size: float) -> None:
    axis.imshow(np.asarray(attention["weights"]), cmap="Blues", vmin=0, vmax=1, aspect="equal")
    axis.set_xticks(range(len(attention["source"])), [_visible(p) for p in attention["source"]], rotation=90)
    axis.set_yticks(range(len(attention["target"])), [_visible(p) for p in attention["target"]])
    axis.xaxis.tick_top()
    axis.tick_params(length=0, labelsize=font_size)


def _visible(piece: str) -> str:
    """A piece without what would not be seen; a space by itself as a mark. `$` would begin a formula."""
    return (piece.strip() or "␣").replace("$", r"\$")


@functools.cache
def _fonts() -> tuple[list[str], tempfile.TemporaryDirectory]:
    """Fonts to draw with, best first, and the folder of the first, which goes when this process ends.

    FiraGO has Latin, Greek, Cyrillic, Devanagari, Arabic, Hebrew, Georgian and Thai; of matplotlib's own fonts none has
    Devanagari. Its package holds it as bytes, and matplotlib reads files.
    """
    folder = tempfile.TemporaryDirectory(prefix="raydeck-fonts-")
    file = Path(folder.name) / "FiraGO-Regular.ttf"
    file.write_bytes(need("pymupdf_fonts", "text").myfont("figo"))
    need("matplotlib.font_manager", "text").fontManager.addfont(file)
    return ["FiraGO", "DejaVu Sans"], folder
