"""Figures of ``raydeck diagnose``: gradient norms by distance, and a metric by distance."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from workloads._diagnose import Curve
from workloads._extras import need

COLORS = {
    "rnn-sigmoid": "#c1443c", "rnn-relu": "#e08e2b", "rnn-tanh": "#7d5ba6", "gru": "#2a8c82", "lstm": "#1f5a94",
}  # fmt: skip
TEXT, FAINT = "#333333", "#9a9a9a"
FLOOR = 1e-30
"""What is less leaves the figure: further down, the rest would be one line at the top."""
NAMES = {"initial": "before training", "trained": "after training"}


def gradients(title: str, curves: Sequence[Curve]) -> Any:
    """Norms against distance, on a logarithmic scale: a panel before training and one after.

    Args:
        title: Heading.
        curves: What was measured.

    Returns:
        A figure: see :func:`png`.
    """
    panels = list(dict.fromkeys(curve.weights for curve in curves))
    figure, all_axes = _figure(len(panels))
    _title(figure, title, "Norm of the loss's gradient with respect to the state so many steps before the last one")
    finite = [n for curve in curves for n in curve.norms if n > 0 and math.isfinite(n)]
    low, high = max(FLOOR, min(finite, default=FLOOR)), max(finite, default=1.0)
    for axes, weights in zip(all_axes, panels, strict=True):
        axes.set_title(NAMES[weights], fontsize=11, color=TEXT, loc="left")
        axes.set_yscale("log")
        axes.set_ylim(low, high * 3)
        axes.set_xlabel("steps before the last", fontsize=10, color=TEXT)
        for curve in curves:
            if curve.weights == weights:
                style = {"linewidth": 2.2} if curve.state == "hidden" else {"linewidth": 1.8, "linestyle": "dashed"}
                label = curve.cell if curve.state == "hidden" else f"{curve.cell}, its memory"
                axes.plot(curve.norms, color=COLORS.get(curve.cell, TEXT), label=label, **style)
    all_axes[0].set_ylabel("gradient norm", fontsize=10, color=TEXT)
    all_axes[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=10)
    return figure


def distances(title: str, metric: str, rows: Sequence[Mapping[str, Any]]) -> Any:
    """A metric against distance, a line a cell.

    Args:
        title: Heading.
        metric: Key of the metric in ``rows``.
        rows: ``cell``, ``distance``, the metric, or None where there is none, and what ``chance`` makes of it.

    Returns:
        A figure: see :func:`png`.
    """
    figure, (axes,) = _figure(1)
    _title(figure, title, f"Test {metric} of each cell, trained at each distance between what decides and the end")
    marks = iter("osD^vP*X")
    for cell in dict.fromkeys(row["cell"] for row in rows):
        known = [(row["distance"], row[metric]) for row in rows if row["cell"] == cell and row[metric] is not None]
        if not known:
            continue
        axes.plot(
            *zip(*known, strict=True), color=COLORS.get(cell, TEXT), marker=next(marks), markersize=6, linewidth=2,
            alpha=0.85, label=cell,
        )  # fmt: skip
    axes.axhline(rows[0]["chance"], color=FAINT, linewidth=1.2, linestyle="dotted", label="chance")
    ticks = sorted({row["distance"] for row in rows})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("distance in steps", fontsize=10, color=TEXT)
    axes.set_ylabel(metric, fontsize=10, color=TEXT)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=10)
    return figure


def png(figure: Any) -> bytes:
    """A figure as a PNG."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _figure(panels: int) -> tuple[Any, Sequence[Any]]:
    drawn = need("matplotlib.figure", "text").Figure(figsize=(5 * panels + 3, 5.6), dpi=110, facecolor="white")
    need("matplotlib.backends.backend_agg", "text").FigureCanvasAgg(drawn)
    all_axes = drawn.subplots(1, panels, sharey=True, squeeze=False)[0]
    width = 5 * panels + 3
    drawn.subplots_adjust(left=0.9 / width, right=1 - 2.0 / width, top=0.8, bottom=0.12, wspace=0.07)
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9, colors=TEXT)
        axes.grid(axis="y", color="#eeeeee")
        axes.set_axisbelow(True)
    return drawn, all_axes


def _title(figure: Any, title: str, subtitle: str) -> None:
    left = 0.35 / figure.get_figwidth()
    figure.text(left, 0.94, title, fontsize=14, weight="bold", color=TEXT, parse_math=False)
    figure.text(left, 0.89, subtitle, fontsize=10, color=TEXT, parse_math=False)
