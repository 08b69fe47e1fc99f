"""A picture of texts: each word on the colour of its influence, and below it how far an LSTM's gates are open."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workloads._extras import need
from workloads.data._explained import GATES

MOST_LINES = 150
"""Lines of a picture; the rest is left out, and the picture says so."""

WIDTH = 100
"""Characters of a line."""

CHARACTER, LINE, MARGIN = 0.0753, 0.36, 0.6
"""Width of a character of 9 points, height of a line, and width of the margin, in inches."""

ROWS = {"influence": (0.06, 0.46), "input_gate": (0.54, 0.13), "forget_gate": (0.69, 0.13), "output_gate": (0.84, 0.13)}
"""Where within a line each value is drawn: its upper edge and its height, as shares of the line."""


class Placed(NamedTuple):
    """Text at a place of the picture, with the word's values where it is a word.

    Args:
        line: From 0.
        column: Character of the line, from 0.
        text: What is written.
        word: What is known of it.
    """

    line: int
    column: int
    text: str
    word: Mapping[str, Any] | None = None


def draw(texts: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], path: Path) -> None:
    """Draw texts as a PNG.

    Args:
        texts: For each what to write above it, and its words as :func:`~workloads.data._explained.explained` gives
            them.
        path: File to write.
    """
    placed = list(_placed(texts))
    if placed[-1].line >= MOST_LINES:
        placed = [p for p in placed if p.line < MOST_LINES] + [Placed(MOST_LINES, 0, "(and more)")]
    rows = {name: row for name, row in ROWS.items() if any(name in p.word for p in placed if p.word)}
    num_lines = placed[-1].line + 1
    height = num_lines * (LINE if len(rows) > 1 else LINE / 2)
    size = (MARGIN + WIDTH * CHARACTER + 2, max(height, 1.5) + 0.4)
    figure = need("matplotlib.figure", extra="text").Figure(size, dpi=120, facecolor="white")
    need("matplotlib.backends.backend_agg", extra="text").FigureCanvasAgg(figure)

    def axes_at(left: float, width: float, height: float) -> Any:
        """Axes below the picture's upper edge; in inches, so that text fits its box."""
        rectangle = (left / size[0], (size[1] - 0.2 - height) / size[1], width / size[0], height / size[1])
        return figure.add_axes(rectangle)

    axes = axes_at(MARGIN, WIDTH * CHARACTER, height)
    axes.set(xlim=(0, WIDTH), ylim=(num_lines, 0))
    axes.set_axis_off()
    for p in placed:
        weight = "normal" if p.word else "bold"
        axes.text(p.column, p.line + 0.43, p.text, family="monospace", fontsize=9, parse_math=False, weight=weight)
    for name, row in rows.items():
        boxes = _boxes(axes, placed, name, row)
        for line in sorted({p.line for p in placed if p.word}) if name in GATES else []:
            axes.text(-0.5, line + sum(row), name.partition("_")[0], fontsize=5, ha="right", va="bottom")
        if name in ("influence", GATES[0]):
            label = "how open a gate is" if name in GATES else "against the answer    for it"
            bar = axes_at(size[0] - (0.8 if name in GATES else 1.7), 0.12, 1.5)
            figure.colorbar(boxes, cax=bar).set_label(label, fontsize=7)
            bar.tick_params(labelsize=7)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a script that the font lacks, boxes are drawn
        figure.savefig(path, format="png")


def _placed(texts: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> Iterator[Placed]:
    """Titles, and below each its words in lines, with a space between those that had one."""
    line = 0
    for title, words in texts:
        yield Placed(line, 0, title[:WIDTH])
        line, column, end = line + 1, 0, 0
        largest = max(abs(word["influence"]) for word in words) or 1.0
        for word in words:
            shown = " ".join(word["word"].split())[:WIDTH]
            column += int(word["begin"] > end and column > 0)
            if column + len(shown) > WIDTH:
                line, column = line + 1, 0
            yield Placed(line, column, shown, {**word, "influence": word["influence"] / largest})
            column, end = column + len(shown), word["begin"] + len(word["word"])
        line += 2


def _boxes(axes: Any, placed: Sequence[Placed], name: str, row: tuple[float, float]) -> Any:
    """Add a coloured box for one value of each word."""
    collection = need("matplotlib.collections", extra="text").PolyCollection
    words = [p for p in placed if p.word]
    left_W = np.array([p.column for p in words], dtype=float)
    right_W, top_W = left_W + [len(p.text) for p in words], np.array([p.line for p in words]) + row[0]
    bottom_W = top_W + row[1]
    corners_W42 = np.stack(
        [np.stack(corner, axis=1) for corner in
         ((left_W, top_W), (right_W, top_W), (right_W, bottom_W), (left_W, bottom_W))], axis=1
    )  # fmt: skip
    boxes = collection(corners_W42, cmap="Blues" if name in GATES else "RdYlGn", alpha=0.9, zorder=0)
    boxes.set_array(np.array([p.word[name] for p in words if p.word]))
    boxes.set_clim((0, 1) if name in GATES else (-1, 1))
    axes.add_collection(boxes)
    return boxes
