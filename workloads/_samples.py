"""Pictures that a generator makes of noise: how they compare with real ones, and the pictures of ``raydeck predict``.

Shapes: N pictures, M others, F features, K classes, C channels, H rows, W columns.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from workloads._codes import MOST_ROWS, as_bytes
from workloads._judge import Judge, judge_of
from workloads.data._base import Inputs, Reader
from workloads.data._batches import InMemory
from workloads.data._pictures import contact_sheet
from workloads.data.images import Images

NEIGHBOURS = 3
"""Neighbour whose distance is the radius of a picture's surroundings, as Kynkäänniemi et al. have it."""

COLLAPSED = 0.25
"""Part of its fair share below which a class counts as missing among samples."""

COPIED = 0.5
"""Samples whose nearest training picture is nearer than this part of a real picture's count as copies of it."""

CHUNK = 500
"""Pictures whose distances to all others are held at once."""


@dataclass(frozen=True)
class Reference:
    """What real pictures are to the judge.

    Args:
        judge: The judge.
        real: Features of each split's pictures, shape (N, F).
        train_pixels: Training pictures, uint8, shape (N, C, H, W).
        distance: Median distance of a real picture to the nearest training picture, for each split, in pixel space.
    """

    judge: Judge
    real: dict[str, Tensor]
    train_pixels: Tensor
    distance: dict[str, float]


REFERENCES: "weakref.WeakKeyDictionary[Images, Reference]" = weakref.WeakKeyDictionary()
"""What was once computed of each data module."""


def reference_of(data: Images) -> Reference:
    """What real pictures are to the judge; computed once."""
    if data not in REFERENCES:
        judge = judge_of(data)
        pixels = {name: _pixels(data, name) for name in data.splits}
        train = pixels["train"]
        REFERENCES[data] = Reference(
            judge,
            {name: judge.features(some) for name, some in pixels.items()},
            train,
            {name: float(nearest(pixels[name], train).median()) for name in ("validation", "test")},
        )
    return REFERENCES[data]


def _pixels(data: Images, name: str) -> Tensor:
    split = data.splits[name]
    return torch.cat([split.gather(some)["inputs"].cpu() for some in torch.arange(len(split)).split(CHUNK)])


def scores(data: Images, split: str, outputs: dict[str, Tensor]) -> dict[str, float]:
    """How made pictures compare with those of a split.

    Args:
        data: The prepared data module.
        split: ``validation`` or ``test``.
        outputs: ``picture``, uint8, (N, C, H, W): as many as the split has.

    Returns:
        ``frechet_distance``, ``precision`` and ``recall`` in the judge's features; ``copied``, the part that is nearly
        a training picture; and where there are classes ``smallest_share`` and ``largest_share`` of one among the
        samples.
    """
    if "train" not in data.splits:
        raise ValueError(
            "a generator is compared with the pictures that it was trained on; leave data.source as it was"
        )
    reference = reference_of(data)
    made = outputs["picture"]
    found = compare(reference.judge.features(made), reference.real[split])
    distance_N = nearest(made, reference.train_pixels)
    found["copied"] = float((distance_N < COPIED * reference.distance[split]).float().mean())
    data.concerns = []
    if found["copied"] > 0.05:
        data.concerns.append(f"{found['copied']:.0%} of the samples are nearly training pictures: it memorises")
    if reference.judge.network is not None:
        share_K = reference.judge.classes(made).bincount(minlength=data.num_classes) / len(made)
        found["smallest_share"], found["largest_share"] = float(share_K.min()), float(share_K.max())
        missing = [data.classes[k] for k in torch.nonzero(share_K < COLLAPSED / data.num_classes)[:, 0].tolist()]
        if missing:
            data.concerns.append(f"hardly any sample of {', '.join(missing)}: the generator has collapsed onto others")
    return found


def compare(made_NF: Tensor, real_MF: Tensor) -> dict[str, float]:
    """Fréchet distance, precision and recall of made pictures' features beside real ones'.

    Raises:
        ValueError: There are too few pictures.
    """
    least = min(len(made_NF), len(real_MF))
    if least <= NEIGHBOURS:
        raise ValueError(
            f"{least} pictures in a split are too few to compare samples with; it takes at least {NEIGHBOURS + 1}: add "
            "pictures"
        )
    precision, recall = precision_recall(made_NF, real_MF)
    return {"frechet_distance": frechet_distance(made_NF, real_MF), "precision": precision, "recall": recall}


def frechet_distance(made_NF: Tensor, real_MF: Tensor) -> float:
    """Squared Fréchet distance of normal distributions that are fitted to two sets of features (Heusel et al. 2017).

    Computed in float64. It shrinks as sets grow: only distances of sets of equal size can be compared.
    """
    made_NF, real_MF = made_NF.double(), real_MF.double()
    covariance_FF, other_FF = made_NF.T.cov(), real_MF.T.cov()
    # The trace of the product's root, by its eigenvalues: they are real and not negative but for rounding.
    root = torch.linalg.eigvals(covariance_FF @ other_FF).real.clamp(min=0).sqrt().sum()
    apart = (made_NF.mean(dim=0) - real_MF.mean(dim=0)).square().sum()
    return float((apart + covariance_FF.trace() + other_FF.trace() - 2 * root).clamp(min=0))


def precision_recall(made_NF: Tensor, real_MF: Tensor) -> tuple[float, float]:
    """The part of made pictures that lie among real ones, and of real that lie among made (arXiv:1904.06991).

    A picture lies among others if it is no further from one of them than that one's third nearest neighbour is.
    """
    apart_NM = torch.cdist(made_NF, real_MF)
    return float(_among(apart_NM, real_MF).float().mean()), float(_among(apart_NM.T, made_NF).float().mean())


def _among(apart_NM: Tensor, others_MF: Tensor) -> Tensor:
    # The nearest is the picture itself.
    radius_M = torch.cdist(others_MF, others_MF).kthvalue(NEIGHBOURS + 1, dim=1).values
    return (apart_NM <= radius_M).any(dim=1)


def nearest(pictures_NCHW: Tensor, others_MCHW: Tensor) -> Tensor:
    """Euclidean distance of each picture to the nearest of the others, of pixels in [0, 1], shape (N,)."""
    others_MP = others_MCHW.flatten(1).float() / 255
    parts = pictures_NCHW.flatten(1).split(CHUNK)
    return torch.cat([torch.cdist(part.float() / 255, others_MP).amin(dim=1) for part in parts])


class Samples(Reader):
    """Pictures made of noise.

    Args:
        data: The data module, which knows the classes.
    """

    needs_inputs = False

    def __init__(self, data: Images) -> None:
        self.data, self.show = data, "grid"

    def encode(
        self, inputs: Sequence[str], *, show: Literal["grid", "interpolations"] = "grid", num_samples: int = 64
    ) -> Inputs:
        """Ask for pictures.

        Args:
            inputs: Names of classes, of each of which pictures are made; none makes them of whatever comes. It takes a
                network that was trained with ``--model.conditional``.
            show: What a picture shows: a grid of samples, or interpolations between the noise of one and the next.
            num_samples: Pictures to make, of all classes together.

        Raises:
            ValueError: A class is unknown, or no picture is asked for.
        """
        if num_samples < 1:
            raise ValueError(f"--num-samples: expected at least 1, got {num_samples}")
        for name in inputs:
            if name not in self.data.classes:
                known = ", ".join(self.data.classes) or "none"
                raise ValueError(f"{name}: no such class; there are: {known}")
        self.show = show
        chosen = [self.data.classes.index(name) for name in inputs] or [-1]
        target_N = torch.tensor(chosen).repeat(-(-num_samples // len(chosen)))[:num_samples]
        names = [f"sample {i + 1}" + (f" ({inputs[i % len(inputs)]})" if inputs else "") for i in range(num_samples)]
        return Inputs(names, InMemory({"target": target_N}))

    def answers(self, outputs: dict[str, Tensor]) -> list[dict[str, Any]]:
        picture, path = outputs["picture"].numpy(), outputs["path"].numpy()
        return [
            {"brightness": float(p.mean()), "picture": p, "path": way} for p, way in zip(picture, path, strict=True)
        ]

    def picture(self, inputs: Inputs, answers: list[dict[str, Any]], path: Path) -> bool:
        if self.show == "interpolations":
            rows = np.concatenate([as_bytes(answer["path"]) for answer in answers[:MOST_ROWS]])
            contact_sheet(rows, [("", "")] * len(rows), path, columns=len(answers[0]["path"]))
        else:
            contact_sheet(
                as_bytes(np.stack([answer["picture"] for answer in answers])), [("", "")] * len(answers), path
            )
        return True
