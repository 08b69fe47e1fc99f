"""Images with a class or a number each: an embedded set, a folder, or a set of the Hugging Face hub.

Shapes: N images, B images of a batch, C channels, S side of the square in pixels.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from workloads._machine import available_cpus, total_memory
from workloads.data import _listing
from workloads.data._arrow import Mapped, Table, cached
from workloads.data._augment import augment
from workloads.data._base import DataModule, Inputs
from workloads.data._batches import Batch, Examples, InMemory
from workloads.data._listing import EMBEDDED, LABEL, Listing
from workloads.data._pictures import Form, contact_sheet, decoded, faults, look, reason
from workloads.data._sources import OnError, Rejects, default_cache, resolve
from workloads.data._splits import SPLITS, cut, near_duplicates, subset
from workloads.data._targets import Kind, Target, as_labels, listed

LARGEST_SIDE = 256
"""Side that ``size 0`` does not go beyond, in pixels: photographs at full size would take a network days."""

TOLERANCE = 2.0
"""Root-mean-square difference of two thumbnails (0 to 255) up to which their images count as copies of one."""

PART_BYTES = 32 << 20
"""Decoded images held in memory while a file of them is made."""

MOST_SHOWN = 64
"""Images of a contact sheet."""

SHARES = dict(zip(SPLITS, (0.7, 0.1, 0.2), strict=True))


class Images(DataModule):
    """Images with a class or a number each.

    Images are brought to squares of one size, held or stored as uint8, and become float32 in [0, 1] on the device. A
    set that does not fit ``memory_limit`` is decoded once into an Arrow file under ``cache_dir`` and read from there.

    Args:
        source: mnist-5k or digits (embedded); a folder with a folder per class, or with metadata.csv (file_name and
            label), either of them optionally under train, validation and test; or hf://owner/name.
        batch_size: Images of a batch, over all workers.
        fit: How images of other shapes become squares: resize stretches them; pad centres them on black, and shrinks
            only those that are larger.
        size: Side of the square in pixels. 0 takes the longest side of all images for pad, and the median of all
            widths and heights for resize, but at most 256.
        colour: grey or rgb; auto is rgb if any image has colour.
        output: What the labels are; auto makes classes of text and of few whole numbers, else a regression.
        label_column: Column of the labels, in metadata.csv or on the hub.
        labels: needed stops at an image without a label; optional takes it, but for validation and test where others
            have one.
        num_labelled: Training images whose labels are used, drawn by split_seed with each class's share kept; 0 uses
            all. The others stay, without.
        unlabelled_epochs: First epochs, that hand out all training images; later ones hand out the labelled alone, over
            and over again, until there are as many batches. Of use to workloads that learn without labels first.
        leave_out: A class that is left out of training and validation, and stays in the test: to be found as strange.
        num_examples: Images to use, drawn by split_seed with each class's share kept; 0 uses all.
        split_seed: Decides which images are cut off for the splits that the source does not bring.
        shift: Farthest random move of a training image along each axis, in pixels.
        rotation: Largest random turn of a training image either way, in degrees.
        scale: Largest random enlargement or reduction of a training image, as a fraction.
        shear: Largest random slant of a training image either way, in degrees.
        elastic: Farthest random move of parts of a training image against each other, in pixels.
        horizontal_flip: Mirror half of the training images, at random.
        memory_limit: GiB of decoded images to hold in memory; 0 is a quarter of the machine's. Larger sets are read
            from disk.
        cache_dir: Folder for decoded images; null is the platform's cache folder.
        on_error: stop at the first bad image or label, or skip up to 5 % of them.
        revision: Commit, tag or branch of a hub set; null is the newest.
    """

    def __init__(
        self,
        source: str = "mnist-5k",
        batch_size: int = 64,
        fit: Literal["pad", "resize"] = "resize",
        size: int = 0,
        colour: Literal["auto", "grey", "rgb"] = "auto",
        output: Kind = "auto",
        label_column: str = LABEL,
        labels: Literal["needed", "optional"] = "needed",
        num_labelled: int = 0,
        unlabelled_epochs: int = 0,
        leave_out: str = "",
        num_examples: int = 0,
        split_seed: int = 0,
        shift: float = 0.0,
        rotation: float = 0.0,
        scale: float = 0.0,
        shear: float = 0.0,
        elastic: float = 0.0,
        horizontal_flip: bool = False,
        memory_limit: float = 0.0,
        cache_dir: str | None = None,
        on_error: OnError = "stop",
        revision: str | None = None,
    ) -> None:
        super().__init__()
        least = {"size": size, "num_examples": num_examples, "split_seed": split_seed, "memory_limit": memory_limit}
        least |= {"num_labelled": num_labelled, "unlabelled_epochs": unlabelled_epochs}
        moves = {"shift": shift, "rotation": rotation, "scale": scale, "shear": shear, "elastic": elastic}
        for name, value in {**least, **moves}.items():
            if value < 0:
                raise ValueError(f"data.{name}: expected at least 0, got {value}")
        if scale >= 1:
            raise ValueError(f"data.scale: expected a fraction below 1, got {scale}")
        if shear >= 90:
            raise ValueError(f"data.shear: expected less than 90 degrees, got {shear}")
        self.source, self.batch_size, self.fit, self.size, self.colour = source, batch_size, fit, size, colour
        self.kind, self.label_column = output, label_column
        self.optional, self.leave_out = labels == "optional", leave_out
        self.num_labelled, self.unlabelled_epochs = num_labelled, unlabelled_epochs
        self.num_examples, self.split_seed = num_examples, split_seed
        self.augmentation = {**moves, "horizontal_flip": horizontal_flip}
        self.memory_limit, self.on_error, self.revision = memory_limit, on_error, revision
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else default_cache()
        self.target: Target | None = None
        self.form: Form | None = None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, S, S)."""
        return (self.form.channels, self.form.side, self.form.side)

    @property
    def output(self) -> str:
        """Kind of output: binary, multiclass, regression or count."""
        return self.target.output

    @property
    def num_outputs(self) -> int:
        """Classes of a multiclass output, else 1."""
        return self.target.num_outputs

    @property
    def target_scale(self) -> float:
        """Standard deviation of a regression's training targets in their own units, else 1."""
        return self.target.scale

    @property
    def num_classes(self) -> int:
        """Classes of the labels; 0 where there are no labels, or they are numbers."""
        return len(self.classes)

    @property
    def metric(self) -> str | None:
        """The metric to quote, where labels are what it is about."""
        return None if self.optional else self.target.metric

    @property
    def classes(self) -> list[str]:
        """Names of the classes; empty for numbers."""
        return self.target.classes

    def load(self, whole: bool = False) -> dict[str, Examples]:
        rejects = Rejects(self.on_error)
        listing = self._list(rejects)
        rows = np.arange(len(listing.labels))
        if whole and (listing.split == "test").any():
            rows = rows[listing.split == "test"]
        with self._at_fault():
            first = self.target or self._learn(listing, whole)
        rows = self._labelled(listing, rows, first, rejects)
        rows = self._chosen(listing, rows, first)
        total = len(rows) + rejects.count
        rows = self._decide_form(listing, rows, rejects)
        inputs, rows, small = self._decode(listing, rows, rejects)
        rejects.finish(total)
        self.skipped = rejects.count
        labels = listing.labels[rows]
        with self._at_fault():
            parts = {"test": np.arange(len(rows))} if whole else self._parts(listing, rows, small, first)
            if self.target is None and self.optional:
                self.target = first
            elif self.target is None:
                self.target = Target.fit(labels[parts.get("train", parts["test"])], first.output)
            if self.leave_out:
                parts = self._without(parts, labels)
        if self.optional:
            target = self.target.encode_any(labels)
        else:
            target = self.target.encode(labels, lambda i: ", row ".join(map(str, listing.label(rows[i]))))
        splits = {name: _split(inputs, part, target[part]) for name, part in parts.items()}
        if "train" in splits and self.num_classes and (self.optional or self.num_labelled):
            self._hide(splits["train"], target[parts["train"]])
        return splits

    def _without(self, parts: dict[str, np.ndarray], labels: np.ndarray) -> dict[str, np.ndarray]:
        """The splits, those but the test without the class that is left out."""
        if self.leave_out not in self.classes:
            raise ValueError(f"data.leave_out: no class {self.leave_out!r}; there are: {listed(self.classes)}")
        stays = as_labels(labels) != self.leave_out
        kept = {name: part if name == "test" else part[stays[part]] for name, part in parts.items()}
        for name, part in kept.items():
            if not len(part):
                raise ValueError(f"data.leave_out: the {name} split has no class but {self.leave_out!r}")
        return kept

    def _hide(self, split: Examples, target: torch.Tensor) -> None:
        """Settle which images of the training split are used with their labels."""
        known = torch.nonzero(target >= 0)[:, 0]
        some = subset(len(known), target[known].numpy(), self.num_labelled, self.split_seed)
        split.labelled, split.unlabelled_epochs = known[torch.from_numpy(some)], self.unlabelled_epochs

    @contextmanager
    def _at_fault(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise ValueError(f"data.source: {self.source}: {error}") from None

    def _learn(self, listing: Listing, whole: bool) -> Target:
        """A target from all images that may be trained on, before it is known which of them will be."""
        usable = whole | (listing.split == "") | (listing.split == "train")
        if not usable.any():
            raise ValueError("there is no training image; put them under train")
        return (Target.of_any if self.optional else Target.fit)(listing.labels[usable], listing.kind)

    def _list(self, rejects: Rejects) -> Listing:
        where, name = resolve(self.source, list(EMBEDDED))
        kind = self.target.output if self.target else self.kind
        if where == "embedded":
            return _listing.embedded(name, kind)
        if kind == "none":
            kind = "auto"
        if where == "hub":
            return _listing.hub(name, self.revision, self.label_column, kind, self.optional)
        return _listing.folder(Path(name), self.label_column, kind, rejects, self.optional)

    def _labelled(self, listing: Listing, rows: np.ndarray, target: Target, rejects: Rejects) -> np.ndarray:
        """Rows with a label that the target can express. Looked at before the slow part, decoding."""
        if self.optional:
            return rows
        wrong = target.faults(listing.labels[rows], first=self.on_error == "stop")
        for i, fault in wrong.items():
            rejects.reject(*listing.label(rows[i]), fault)
        return np.delete(rows, list(wrong))

    def _chosen(self, listing: Listing, rows: np.ndarray, target: Target) -> np.ndarray:
        split = listing.split[rows]
        strata = np.char.add(split, listing.labels[rows].astype(str)) if target.classes else split
        return rows[subset(len(rows), strata, self.num_examples, self.split_seed)]

    def _decide_form(self, listing: Listing, rows: np.ndarray, rejects: Rejects) -> np.ndarray:
        """Decide the images' one shape, unless a checkpoint has; returns the rows whose headers can be read."""
        if self.form is not None:
            self.form = Form(self.form.side, self.form.channels, self.fit)
            return rows
        channels = {"grey": 1, "rgb": 3}.get(self.colour)
        if not (self.size and channels):
            seen = _look_all(listing, rows, rejects)
            rows = rows[seen[:, 0] > 0]
            seen = seen[seen[:, 0] > 0]
            channels = channels or (3 if seen[:, 2].any() else 1)
        # With no readable image left any side will do: so many bad ones stop the run in a moment.
        sides = seen[:, :2] if not self.size and len(rows) else np.ones((1, 2))
        side = sides.max() if self.fit == "pad" else np.median(sides).round()
        self.form = Form(self.size or int(min(side, LARGEST_SIDE)), channels, self.fit)
        return rows

    def _decode(
        self, listing: Listing, rows: np.ndarray, rejects: Rejects
    ) -> tuple[np.ndarray | Table, np.ndarray, np.ndarray]:
        """Images in memory or mapped; the rows that were good; their thumbnails."""
        row_bytes = int(np.prod(self.input_shape))
        fits = len(rows) * row_bytes <= (self.memory_limit * 2**30 or total_memory() / 4)
        part_rows = max(1, len(rows) if fits else PART_BYTES // row_bytes)

        def reject(row: int, fault: str) -> None:
            rejects.reject(*listing.picture(row), fault)

        parts = decoded(listing.fetch, rows, self.form, part_rows, reject)
        if fits:
            whole = next(parts)
            return whole["inputs"], whole["row"], whole["thumbnail"]
        options = [self.on_error, *vars(self.form).values()]
        digest = hashlib.sha256(json.dumps(options).encode())
        for line in listing.identity(rows):
            digest.update(line.encode() + b"\0")
        path = self.cache_dir / "images" / f"{digest.hexdigest()[:32]}.arrow"
        table = cached(path, parts, rejects.reasons, "name another folder, or raise data.memory_limit to do without")
        return table, table.column("row"), table.column("thumbnail")

    def _parts(self, listing: Listing, rows: np.ndarray, small: np.ndarray, target: Target) -> dict[str, np.ndarray]:
        """Positions in ``rows`` of each split: the source's own, and the missing ones cut from its training split."""
        split = listing.split[rows]
        parts = {name: np.flatnonzero(split == name) for name in SPLITS}
        pool = np.flatnonzero((split == "") | (split == "train"))
        whole = pool
        if self.optional and target.classes:  # what has no label is of use to training alone
            pool = pool[target.encode_any(listing.labels[rows[pool]]).numpy() >= 0]
        missing = [name for name in SPLITS if name == "train" or len(parts[name]) == 0]
        if missing != ["train"]:
            found = cut(
                len(pool),
                classes=listing.labels[rows[pool]].astype(str) if target.classes else None,
                groups=None if listing.distinct else near_duplicates(small[pool], TOLERANCE),
                fractions=tuple(SHARES[name] if name in missing else 0.0 for name in SPLITS),
                seed=self.split_seed,
            )
            parts |= {name: pool[found[name]] for name in missing}
            parts["train"] = np.sort(np.concatenate([parts["train"], np.setdiff1d(whole, pool)]))
        return parts

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Pixels become float32 in [0, 1], and training images are moved about, on the device."""
        if "inputs" not in batch:  # a generator is asked for pictures
            return batch
        inputs = torch.div(batch["inputs"], 255)
        if self.trainer is not None and self.trainer.training:
            inputs = augment(inputs, **self.augmentation)
        return {**batch, "inputs": inputs}

    def encode(self, inputs: Sequence[str]) -> Inputs:
        paths = [path for given in inputs for path in _files(Path(given).expanduser())]

        def reject(row: int, fault: str) -> None:
            raise ValueError(f"{paths[row]}: {fault}")

        rows = np.arange(len(paths))
        whole = next(decoded(lambda some: [paths[i] for i in some], rows, self.form, max(1, len(rows)), reject))
        return Inputs(paths, InMemory({"inputs": torch.from_numpy(whole["inputs"])}))

    def answers(self, outputs: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
        return self.target.answers(outputs)

    def picture(self, inputs: Inputs, answers: list[dict[str, Any]], path: Path) -> bool:
        """A contact sheet of the first 64 images, each with its answer."""
        answers = answers[:MOST_SHOWN]
        titles = [
            (a["label"], f"{a['probability']:.2f}") if "label" in a else ("", f"{a['value']:.4g}") for a in answers
        ]
        shown = inputs.examples.gather(torch.arange(len(answers)))["inputs"]
        contact_sheet(shown.cpu().numpy(), titles, path)
        return True

    def state_dict(self) -> dict[str, Any]:
        """What training decided, as plain values: classes or scale of the target, side and channels of the images."""
        if self.target is None or self.form is None:
            return {}
        return {"target": self.target.state(), "side": self.form.side, "channels": self.form.channels}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self.target = Target.restore(state_dict["target"])
            self.form = Form(state_dict["side"], state_dict["channels"], self.fit)


def _split(inputs: np.ndarray | Table, part: np.ndarray, target: torch.Tensor) -> Examples:
    if isinstance(inputs, Table):
        return Mapped(inputs, "inputs", part, {"target": target})
    return InMemory({"inputs": torch.from_numpy(inputs[part]), "target": target})


def _look_all(listing: Listing, rows: np.ndarray, rejects: Rejects) -> np.ndarray:
    """Width, height and colour of each image, shape (N, 3); zeros where the header is broken."""
    known = faults()

    def task(some: np.ndarray) -> list[tuple[int, int, int] | str]:
        found = []
        for picture in listing.fetch(some):
            try:
                found.append(look(picture))
            except known as error:
                found.append(reason(error))
        return found

    seen = np.zeros((len(rows), 3), dtype=np.int64)
    with ThreadPoolExecutor(available_cpus()) as pool:
        found = (one for part in pool.map(task, np.array_split(rows, -(-len(rows) // 256) or 1)) for one in part)
        for i, one in enumerate(found):
            if isinstance(one, str):
                rejects.reject(*listing.picture(rows[i]), one)
            else:
                seen[i] = one
    return seen


def _files(path: Path) -> list[str]:
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [str(path)]
    found = _listing.pictures_under(str(path))
    if not found:
        raise ValueError(f"{path}: there is no image in this folder")
    return found
