"""Words for people: notices and progress on stderr, results on stdout."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

Kind = Literal["notice", "warning"]


def to_stderr(kind: Kind, text: str) -> None:
    print(f"warning: {text}" if kind == "warning" else text, file=sys.stderr, flush=True)


_tell: Callable[[Kind, str], None] = to_stderr


def say(text: str) -> None:
    """A notice."""
    _tell("notice", text)


def warn(text: str) -> None:
    """Something that a person should look at."""
    _tell("warning", text)


@contextmanager
def told_to(listener: Callable[[Kind, str], None]) -> Iterator[None]:
    """Have notices and warnings told to ``listener``, while inside, where nobody reads this process's stderr."""
    global _tell
    before, _tell = _tell, listener
    try:
        yield
    finally:
        _tell = before


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table on stdout: drawn in a terminal, tab-separated when redirected."""
    if not sys.stdout.isatty():
        for row in [columns, *rows]:
            print("\t".join(str(cell) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=title, title_justify="left")
    for column in columns:
        drawn.add_column(column)
    for row in rows:
        drawn.add_row(*(str(cell) for cell in row))
    Console().print(drawn)


def marked(title: str, pieces: Sequence[tuple[str, float]]) -> None:
    """Print a text on stdout with marked pieces: on colours in a terminal, with signs in brackets when redirected.

    Args:
        title: What stands above it.
        pieces: Parts of the text, each with its mark, from -1 (red, ``[---bad]``) to 1 (green, ``[+++good]``).
    """
    # What a text holds must not steer the terminal.
    title, *parts = (
        "".join(c if c.isprintable() or c == "\n" else " " for c in part) for part in (title, *(p for p, _ in pieces))
    )
    shown = [(part, mark) for part, (_, mark) in zip(parts, pieces, strict=True)]
    if not sys.stdout.isatty():
        signs = [("+" if mark > 0 else "-") * min(3, int(4 * abs(mark))) for _, mark in shown]
        print(f"\n{title}")
        print("".join(f"[{sign}{piece}]" if sign else piece for (piece, _), sign in zip(shown, signs, strict=True)))
        return
    from rich.console import Console
    from rich.text import Text

    text = Text(f"\n{title}\n", style="bold")
    for piece, mark in shown:
        pale = 255 - round(155 * abs(mark))
        on = f"black on rgb({pale},230,{pale})" if mark > 0 else f"black on rgb(240,{pale},{pale})"
        text.append(piece, style=on if abs(mark) >= 0.1 else "not bold")
    Console().print(text)


def number(value: float | int | None) -> str:
    """A number to four decimals, or to four digits where that would say nothing."""
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.3e}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 8 s, 2 min 5 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def epoch(row: Mapping[str, float]) -> str:
    """A line of a run's history."""
    told = [f"{key} {number(value)}" for key, value in row.items() if key.count("/") == 1 and key != "train/lr"]
    return f"epoch {row['epoch']:.0f}  {'  '.join(told)}  {duration(row['seconds'])}"


class Progress:
    """One live bar in a terminal; a plain line an epoch when redirected.

    Args:
        total: Batches of the whole run; None as long as that is not known.
        done: Batches before this start.
        shown: False for workers that should be silent.
    """

    def __init__(self, total: int | None, done: int, shown: bool) -> None:
        self.shown, self.live = shown, None
        self.updated = 0.0
        if shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self.live = Bar(
                BarColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self.task = self.live.add_task("starting", total=total, completed=done)
            self.live.start()

    def due(self) -> bool:
        """Whether a live bar wants an update: at most five a second, so that reading the loss costs nothing."""
        return self.live is not None and time.monotonic() - self.updated > 0.2

    def step(self, done: int, text: str, total: int | None = None) -> None:
        if self.live is not None:
            self.updated = time.monotonic()
            self.live.update(self.task, completed=done, description=text, total=total)

    def epoch(self, text: str) -> None:
        if self.live is not None:
            self.live.console.print(text, highlight=False)
        elif self.shown:
            say(text)

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None
