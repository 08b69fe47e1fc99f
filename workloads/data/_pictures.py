"""Pictures from files to arrays of one shape, and back to a sheet that a person can look at.

Shapes: N pictures, C channels, S side of the square in pixels.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
import torch
import torch.nn.functional as F

from workloads._extras import need
from workloads._machine import available_cpus

if TYPE_CHECKING:
    from PIL.Image import Image

Encoded = str | bytes | np.ndarray
"""A picture before it is decoded: a file's path, a file's content, or grey pixels of shape (height, width), uint8."""

THUMBNAIL = 8
"""Side of the grey thumbnails by which near-identical pictures are found, in pixels."""

TASK = 64
"""Pictures a thread decodes at a go: enough to hide what a task costs, few enough to share the work evenly."""

GREY = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"})
"""Pillow's modes without colour."""


@dataclass(frozen=True)
class Form:
    """The one shape that all pictures of a run are brought to.

    Args:
        side: S.
        channels: C: 1 is grey, 3 is red, green and blue.
        fit: ``resize`` stretches to the square; ``pad`` centres on a black square, and shrinks what is larger.
    """

    side: int
    channels: Literal[1, 3]
    fit: Literal["pad", "resize"]


def faults() -> tuple[type[Exception], ...]:
    """What Pillow raises for files that are no picture, or a broken one."""
    bomb = need("PIL.Image", extra="vision").DecompressionBombError
    # TypeError: damaged tags of a TIFF file, as Pillow 13 meets them.
    return (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, bomb)


def extensions() -> set[str]:
    """File name endings of pictures, lower case, with the dot."""
    return set(need("PIL.Image", extra="vision").registered_extensions())


def look(encoded: Encoded) -> tuple[int, int, bool]:
    """Width, height and whether there is colour, from the header alone."""
    if isinstance(encoded, np.ndarray):
        return encoded.shape[1], encoded.shape[0], False
    with _open(encoded) as image:
        # For a PNG Pillow would have to decode the pixels first; few have an orientation.
        orientation = image.getexif().get(0x0112, 1) if image.format != "PNG" else 1
        width, height = image.size if orientation < 5 else image.size[::-1]
        return width, height, image.mode not in GREY


def decode(encoded: Encoded, form: Form) -> np.ndarray:
    """Decode a picture: upright by its EXIF orientation, transparency flattened on white, 16 bits reduced to 8.

    Returns:
        Shape (C, S, S), uint8.

    Raises:
        OSError, ValueError: One of :func:`faults`: there is no such file, or it is broken.
    """
    from PIL import ImageOps

    if isinstance(encoded, np.ndarray) and (1, *encoded.shape) == (form.channels, form.side, form.side):
        return encoded[None]
    with _open(encoded) as image:
        image.draft(None, (2 * form.side, 2 * form.side))  # a JPEG far too large is decoded at a fraction of its size
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        image = _fitted(_flat(image).convert("L" if form.channels == 1 else "RGB"), form)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if form.channels == 1 else pixels.transpose(2, 0, 1)


def _open(encoded: Encoded) -> "Image":
    from PIL import Image

    if isinstance(encoded, np.ndarray):
        return Image.fromarray(encoded)
    return Image.open(BytesIO(encoded) if isinstance(encoded, bytes) else encoded)


def _flat(image: "Image") -> "Image":
    """Eight bits a channel and no transparency."""
    from PIL import Image

    if image.mode.startswith("I"):
        values = np.asarray(image)
        return Image.fromarray((values.clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def _fitted(image: "Image", form: Form) -> "Image":
    from PIL import Image

    side = form.side
    if form.fit == "resize":
        return image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BILINEAR)
    longest = max(image.size)
    if longest > side:
        width, height = (max(1, round(length * side / longest)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    square = Image.new(image.mode, (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def decoded(
    fetch: Callable[[np.ndarray], list[Encoded]],
    rows: np.ndarray,
    form: Form,
    part_rows: int,
    reject: Callable[[int, str], None],
) -> Iterator[dict[str, np.ndarray]]:
    """Decode pictures on all CPUs, part by part, so that no more than a part is in memory.

    Args:
        fetch: Gives the pictures of some rows.
        rows: Rows to decode, shape (N,).
        form: What to bring them to.
        part_rows: Rows of a part.
        reject: Told the row and the reason of each picture that cannot be decoded; it is left out unless this raises.

    Yields:
        ``inputs`` (n, C, S, S) uint8, ``row`` (n,) int64 and ``thumbnail`` (n, 64) uint8 of one part's good pictures.
    """
    with ThreadPoolExecutor(available_cpus()) as pool:
        for part in np.split(rows, np.arange(part_rows, len(rows), part_rows)):
            inputs = np.empty((len(part), form.channels, form.side, form.side), dtype=np.uint8)
            small = np.empty((len(part), THUMBNAIL * THUMBNAIL), dtype=np.uint8)

            def task(start: int, part=part, inputs=inputs, small=small) -> list[tuple[int, str]]:
                here = slice(start, start + TASK)
                broken = _decode_into(inputs[here], fetch(part[here]), form)
                small[here] = thumbnails(inputs[here])
                return [(start + i, reason) for i, reason in broken]

            good = np.ones(len(part), dtype=bool)
            for broken in pool.map(task, range(0, len(part), TASK)):
                for i, reason in broken:
                    reject(int(part[i]), reason)
                    good[i] = False
            yield (
                {"inputs": inputs, "row": part, "thumbnail": small}
                if good.all()
                else {"inputs": inputs[good], "row": part[good], "thumbnail": small[good]}
            )


def _decode_into(inputs: np.ndarray, pictures: Sequence[Encoded], form: Form) -> list[tuple[int, str]]:
    broken = []
    known = faults()
    for i, picture in enumerate(pictures):
        try:
            inputs[i] = decode(picture, form)
        except known as error:
            inputs[i] = 0
            broken.append((i, reason(error)))
    return broken


def reason(error: Exception) -> str:
    """One line that says what is wrong with a picture."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if type(error).__name__ == "UnidentifiedImageError":
        return "not a picture, or one of an unknown format"
    said = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
    return f"a broken picture ({said})"


def thumbnails(inputs_NCSS: np.ndarray) -> np.ndarray:
    """Grey thumbnails by averaging, shape (N, 64), uint8."""
    grey = torch.from_numpy(inputs_NCSS).float().mean(1, keepdim=True)
    return F.adaptive_avg_pool2d(grey, THUMBNAIL).round().to(torch.uint8).flatten(1).numpy()


def contact_sheet(
    pictures_NCSS: np.ndarray, titles: Sequence[tuple[str, str]], path: Path | BinaryIO, columns: int = 8
) -> None:
    """Draw pictures in rows, each over its title, as a PNG.

    Args:
        pictures_NCSS: Shape (N, C, S, S), uint8, C is 1 or 3.
        titles: N pairs of a name and a number; a name that is too wide is cut short.
        path: File to write, by its path or open.
        columns: Pictures of a row.
    """
    need("PIL", extra="vision")
    from PIL import Image, ImageDraw, ImageFont

    # Small pictures are enlarged by whole steps, so that each pixel stays a crisp square.
    side = pictures_NCSS.shape[-1]
    shown = side * max(1, round(112 / side)) if side <= 168 else 168
    gap, line = 14, 22 if any(map(any, titles)) else 0
    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    sheet = Image.new("RGB", (gap + columns * (shown + gap), gap + rows * (shown + line + gap)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    sampling = Image.Resampling.NEAREST if shown >= side else Image.Resampling.LANCZOS
    for i, (pixels, (name, number)) in enumerate(zip(pictures_NCSS, titles, strict=True)):
        left, top = gap + i % columns * (shown + gap), gap + i // columns * (shown + line + gap)
        image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        sheet.paste(image.convert("RGB").resize((shown, shown), sampling), (left, top))
        draw.rectangle((left - 1, top - 1, left + shown, top + shown), outline="#b0b0b0")
        title = f"{name}  {number}".strip()
        while len(name) > 2 and draw.textlength(title, font) > shown:
            name = name[:-2].rstrip() + "…"
            title = f"{name}  {number}"
        draw.text((left + shown / 2, top + shown + line / 2), title, fill="#202020", font=font, anchor="mm")
    sheet.save(path, format="PNG")


def scatter(points_N2: np.ndarray, groups: Sequence[str], title: str, path: Path) -> None:
    """Draw points in a plane as a PNG, each group in a colour of its own.

    Args:
        points_N2: Their places.
        groups: Group of each; "" where there are none.
        title: What the plane is.
        path: File to write.
    """
    matplotlib = need("matplotlib", extra="vision")
    figure_of = need("matplotlib.figure", extra="vision").Figure
    figure = figure_of(figsize=(8, 7), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    names = sorted(set(groups))
    colours = matplotlib.colormaps["tab10" if len(names) <= 10 else "tab20"]
    for k, name in enumerate(names):
        here = np.array([group == name for group in groups])
        axes.scatter(*points_N2[here].T, s=12, color=colours(k % colours.N), label=name or None)
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    if names != [""]:
        axes.legend(markerscale=2, ncols=-(-len(names) // 12))
    figure.savefig(path)
