"""A sweep in one picture: what was tried, what mattered, and how the best came about."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cluster.console import number
from cluster.importance import INACTIVE
from cluster.picture_axes import UNSET, Axis, key_axis, ordered, score_axis, short_names, shorten, wrap
from workloads._extras import need

MOST_AXES, MOST_BARS = 12, 20
BEST, LINE, FAINT, TEXT = "#e4572e", "#1f5a94", "#9a9a9a", "#333333"


WIDE = 20
"""How many times the least score the greatest may be on a linear scale."""


@dataclass(frozen=True)
class Sweep:
    """What the picture shows; see ``draw``."""

    title: str
    monitor: str
    mode: Literal["min", "max"]
    points: Sequence[Mapping[str, Any]]
    scores: Sequence[float | None]
    statuses: Sequence[str]
    minutes: Sequence[float]
    importances: Mapping[str, float]
    bands: Sequence[float | None] | None = None

    def known(self) -> list[float | None]:
        """Scores that count: finite, and not of a failed trial."""
        told = zip(self.scores, self.statuses, strict=True)
        return [s if s is not None and math.isfinite(s) and status != "failed" else None for s, status in told]

    def ranking(self) -> list[int]:
        """Trials with a score, the worst first."""
        known = self.known()
        scored = [i for i, score in enumerate(known) if score is not None]
        return sorted(scored, key=lambda i: known[i] if self.mode == "max" else -known[i])

    def span(self) -> tuple[float, float]:
        """The best score, and the worst that is drawn where it belongs.

        The best is always shown. Scores more than three interquartile ranges worse than the quartiles would press the
        others into one line.
        """
        scores = [score for score in self.known() if score is not None]
        if not scores:
            return 1.0, 0.0
        sign = 1 if self.mode == "min" else -1
        costs = np.array(scores) * sign
        quarter, half, rest = np.quantile(costs, [0.25, 0.5, 0.75])
        width = (rest - quarter) or (half - costs.min()) or np.ptp(costs)
        return float(costs.min() * sign), float(costs[costs <= rest + 3 * width].max() * sign)

    def beyond(self) -> int:
        """How many scores are worse than the range shows."""
        good, bad = self.span()
        return sum(abs(s - good) > abs(bad - good) for s in self.known() if s is not None)

    def best_so_far(self, trials: Sequence[int]) -> tuple[list[int], list[float]]:
        """Trials with a score, in the order given, and the best until each."""
        known = self.known()
        scored = [i for i in trials if known[i] is not None]
        best = np.minimum.accumulate if self.mode == "min" else np.maximum.accumulate
        return scored, best([known[i] for i in scored]).tolist() if scored else []


def draw(
    path: Path,
    *,
    title: str,
    monitor: str,
    mode: Literal["min", "max"],
    points: Sequence[Mapping[str, Any]],
    scores: Sequence[float | None],
    statuses: Sequence[str],
    minutes: Sequence[float],
    importances: Mapping[str, float],
    bands: Sequence[float | None] | None = None,
) -> None:
    """Write a PNG of 1760 x 990: parallel coordinates, importance, and the best against trials and time.

    Sequences hold one item a trial, in the order in which the trials started.

    Args:
        path: Where the PNG goes.
        title: Heading.
        monitor: Name of the score.
        mode: Whether the score should be small or large.
        points: What each trial tried: dotted key to JSON value; keys may be missing where they are inactive.
        scores: None where a trial failed or has none yet.
        statuses: "finished", "stopped early", "failed" or "unfinished".
        minutes: Time of the sweep at which each trial ended.
        importances: Key to share, from ``cluster.importance``; may be empty.
        bands: Standard deviation of the score over seeds, where there were several.
    """
    sweep = Sweep(title, monitor, mode, points, scores, statuses, minutes, importances, bands)
    figure(sweep).savefig(path, format="png")


def figure(sweep: Sweep) -> Any:
    """The picture, before it is written: axes are parallel coordinates, importance, trials, time."""
    drawn = need("matplotlib.figure", "search").Figure(figsize=(16, 9), dpi=110, facecolor="white")
    need("matplotlib.backends.backend_agg", "search").FigureCanvasAgg(drawn)
    drawn.text(0.012, 0.965, shorten(sweep.title, 95), fontsize=16, weight="bold", color=TEXT, parse_math=False)
    drawn.text(0.012, 0.938, shorten(_summary(sweep), 170), fontsize=10.5, color=TEXT, parse_math=False)
    _parallel(drawn.add_axes((0.045, 0.445, 0.895, 0.385)), sweep)
    _bars(drawn.add_axes((0.165, 0.065, 0.225, 0.295)), sweep)
    trials = drawn.add_axes((0.465, 0.065, 0.285, 0.265))
    _trials(trials, sweep)
    _time(drawn.add_axes((0.79, 0.065, 0.195, 0.265), sharey=trials), sweep)
    return drawn


def _summary(sweep: Sweep) -> str:
    count = Counter(sweep.statuses)
    told = [f"{count[s]:,} {s}" for s in ("finished", "stopped early", "failed", "unfinished") if count[s]]
    trials = f"{len(sweep.points):,} trial{'' if len(sweep.points) == 1 else 's'}"
    ranking = sweep.ranking()
    if not ranking:
        return f"{trials}: {', '.join(told)}. No trial has a score."
    i = ranking[-1]
    band = sweep.bands[i] if sweep.bands else None
    spread = "" if band is None else f" ± {number(band)}"
    best = number(float(sweep.scores[i]))
    return f"{trials}: {', '.join(told)}. Best {sweep.monitor} {best}{spread}, trial {i + 1}."


def _parallel(axes: Any, sweep: Sweep) -> None:
    """Parallel coordinates: a line a trial, an axis a key, the score last."""
    keys = ordered(sweep.points, sweep.importances)
    shown, names = keys[:MOST_AXES], short_names(keys)
    width = min(28, 180 // (len(shown) + 1))
    columns = [key_axis(names[key], [p.get(key, INACTIVE) for p in sweep.points], width) for key in shown]
    columns.append(score_axis(sweep.monitor, sweep.known(), *sweep.span()))
    _lines(axes, sweep, np.array([column.places for column in columns]).T)
    for x, column in enumerate(columns):
        _upright(axes, x, column, width)
    axes.set_xlim(0, max(1, len(columns) - 1))
    axes.set_ylim(UNSET - 0.03, 1.02)
    axes.axis("off")
    first = ", most important first" if sweep.importances else ""
    hidden = f"; {len(keys) - len(shown)} of {len(keys)} keys not shown" if len(keys) > len(shown) else ""
    text = f"What was tried{first}{hidden}"
    axes.figure.text(0.012, 0.9, text, fontsize=10.5, color=TEXT, weight="bold")
    legend = "A line a trial: the darker the better; best in orange, without a score dashed"
    if sweep.beyond():
        legend += f"; {sweep.beyond():,} beyond the score's range, at its bottom"
    axes.figure.text(0.985, 0.9, legend, fontsize=9, color=TEXT, ha="right")


def _lines(axes: Any, sweep: Sweep, places: np.ndarray) -> None:
    """The trials' lines, worse ones below better ones."""
    lines = need("matplotlib.collections", "search").LineCollection
    paths = [np.column_stack([range(places.shape[1]), row]) for row in places]
    ranking = sweep.ranking()
    lost = sorted(set(range(len(paths))) - set(ranking))
    axes.add_collection(
        lines([paths[i] for i in lost], colors=FAINT, linewidths=0.8, linestyles="dashed", alpha=0.7, label="no score")
    )
    shades = need("matplotlib", "search").colormaps["YlGnBu"](np.linspace(0.25, 1.0, max(1, len(ranking))))
    # A thousand lines at full strength are one dark area.
    faint = min(0.9, max(0.1, 25 / max(1, len(paths)) ** 0.75))
    shades[:, 3] = np.linspace(0.5 * faint, min(0.9, 2 * faint), len(shades))
    axes.add_collection(lines([paths[i] for i in ranking[:-1]], colors=shades, linewidths=1.2, label="scored"))
    for i in ranking[-1:]:
        axes.plot(*paths[i].T, color=BEST, linewidth=3, solid_joinstyle="round", label="best", clip_on=False)


def _upright(axes: Any, x: int, column: Axis, width: int) -> None:
    """One vertical axis with its name above and its ticks to the right."""
    behind = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.8}
    axes.plot([x, x], [0, 1], color=TEXT, linewidth=1, zorder=3, clip_on=False)
    axes.text(
        x, 1.05, wrap(column.name, min(width, 15)), ha="center", va="bottom", fontsize=9, weight="bold", color=TEXT,
        parse_math=False, gid="name",
    )  # fmt: skip
    for place, text in column.ticks:
        axes.plot(x, place, marker="_", color=TEXT, markersize=6, zorder=3, clip_on=False)
        axes.annotate(
            text, (x, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8, color=TEXT,
            bbox=behind, zorder=4, parse_math=False, gid="tick", annotation_clip=False,
        )  # fmt: skip


def _bars(axes: Any, sweep: Sweep) -> None:
    """Importance, a bar a key."""
    _plain(axes)
    ranked = sorted(sweep.importances.items(), key=lambda item: -item[1])
    shown = ranked[:MOST_BARS]
    hidden = f"; {len(ranked) - len(shown)} of {len(ranked)} not shown" if len(ranked) > len(shown) else ""
    heading = f"Share of the score's variance{hidden}"
    axes.figure.text(0.012, 0.385, heading, fontsize=10.5, color=TEXT, weight="bold")
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])
    if not shown:
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.figure.text(0.012, 0.345, "Needs at least 8 trials with different scores.", fontsize=9, color=TEXT)
        return
    names = short_names([key for key, _ in ranked])
    size = 9 if len(shown) <= 14 else 7.5
    shares = [share for _, share in shown]
    axes.barh(range(len(shown)), shares, color=LINE, height=0.7)
    labels = [shorten(names[key], 28) for key, _ in shown]
    axes.set_yticks(range(len(shown)), labels, fontsize=size, parse_math=False)
    for y, share in enumerate(shares):
        axes.text(
            share + 0.01 * max(shares),
            y,
            "<1%" if 0 < share < 0.005 else f"{share:.0%}",
            va="center",
            fontsize=size,
            color=TEXT,
        )
    # Few bars stay slim; the room to the right is for the longest bar's figure.
    axes.set_ylim(max(len(shown), 5) - 0.4, -0.6)
    axes.set_xlim(0, 1.12 * max(*shares, 1e-9))


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5, colors=TEXT)


def _trials(axes: Any, sweep: Sweep) -> None:
    """Every score and the best so far, in the order in which trials started."""
    _plain(axes)
    _heading(axes, "Best so far, by trial")
    axes.set_xlabel("trial", fontsize=9, color=TEXT)
    axes.set_ylabel(shorten(sweep.monitor, 34), fontsize=9, color=TEXT, parse_math=False)
    good, bad = sweep.span()
    _limits(axes, good, bad)
    _step(axes, sweep, range(len(sweep.points)), [i + 1 for i in range(len(sweep.points))])
    _bands(axes, sweep)
    _dots(axes, sweep, good, bad)
    if not sweep.ranking():
        axes.set_yticks([])
    count = max(1, len(sweep.points))
    axes.set_xlim(0.5 - 0.02 * count, count + 0.5 + 0.02 * count)
    axes.xaxis.set_major_locator(need("matplotlib.ticker", "search").MaxNLocator(integer=True, min_n_ticks=1))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1.03), ncols=5, fontsize=8, frameon=False, handletextpad=0.4,
            columnspacing=1.0, borderaxespad=0.2,
        )  # fmt: skip


def _heading(axes: Any, text: str) -> None:
    """A heading with room for a legend below it, at one height for both histories."""
    axes.figure.text(axes.get_position().x0, 0.385, text, fontsize=10.5, color=TEXT, weight="bold")


def _limits(axes: Any, good: float, bad: float) -> None:
    """Show the range of scores, with a margin; on a logarithmic scale where the bad would hide the good."""
    low, high = min(good, bad), max(good, bad)
    if low > 0 and high > WIDE * low:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.2, high * 1.2)
        return
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 0.1
    axes.set_ylim(low - margin, high + margin)


def _step(axes: Any, sweep: Sweep, trials: Sequence[int], at: Sequence[float]) -> None:
    """The best so far, as a line that goes on to the last trial."""
    scored, best = sweep.best_so_far(trials)
    if scored:
        places = [at[i] for i in scored] + [max(at)]
        axes.plot(places, [*best, best[-1]], drawstyle="steps-post", color=BEST, linewidth=2, label="best so far")
        i = sweep.ranking()[-1]
        axes.scatter([at[i]], [sweep.scores[i]], s=50, color=BEST, zorder=4, clip_on=False, gid="best")


def _bands(axes: Any, sweep: Sweep) -> None:
    """Standard deviations over seeds."""
    known = sweep.known()
    for i, band in enumerate(sweep.bands or []):
        if band is not None and known[i] is not None:
            axes.plot([i + 1] * 2, [known[i] - band, known[i] + band], color=LINE, linewidth=1, alpha=0.5, gid="band")


def _dots(axes: Any, sweep: Sweep, good: float, bad: float) -> None:
    """A mark a trial: in the range at its score, otherwise at the edge where bad scores are."""
    known, size = sweep.known(), 26 if len(sweep.points) <= 100 else 10
    worse = {i for i, score in enumerate(known) if score is not None and abs(score - good) > abs(bad - good)}
    marks: dict[str, list[int]] = {"finished": [], "stopped early": [], "unfinished": [], "beyond": [], "no score": []}
    for i, status in enumerate(sweep.statuses):
        marks["no score" if known[i] is None else "beyond" if i in worse else status].append(i)
    edge = axes.get_ylim()[sweep.mode == "min"]
    styles = {
        "finished": {"marker": "o", "color": LINE},
        "stopped early": {"marker": "o", "facecolors": "white", "edgecolors": LINE},
        "unfinished": {"marker": "D", "facecolors": "white", "edgecolors": FAINT},
        "beyond": {"marker": "^" if sweep.mode == "min" else "v", "color": LINE},
        "no score": {"marker": "x", "color": FAINT},
    }
    for mark, trials in marks.items():
        if trials:
            heights = [edge if mark in ("beyond", "no score") else known[i] for i in trials]
            label = f"{len(trials):,} beyond" if mark == "beyond" else mark
            places = [i + 1 for i in trials]
            axes.scatter(places, heights, s=size, label=label, clip_on=False, zorder=3, **styles[mark])


def _time(axes: Any, sweep: Sweep) -> None:
    """The best so far against the sweep's time."""
    _plain(axes)
    axes.tick_params(labelleft=False)
    _heading(axes, "Best so far, by time")
    long = max(sweep.minutes, default=0.0) > 180
    at = [m / 60 if long else m for m in sweep.minutes]
    axes.set_xlabel("hours" if long else "minutes", fontsize=9, color=TEXT)
    _step(axes, sweep, sorted(range(len(at)), key=lambda i: at[i]), at)
    axes.set_xlim(0, 1.03 * max([*at, 0.01]))
