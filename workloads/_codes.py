"""What the codes of an autoencoder are good for: scores on the test split, and the pictures of ``raydeck predict``.

Shapes: N images, D code, S steps of a way, C channels, H rows, W columns.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from workloads import _baselines
from workloads._extras import need
from workloads.data._base import Inputs, Reader
from workloads.data._batches import InMemory
from workloads.data._pictures import contact_sheet, scatter
from workloads.data.images import Images

Show = Literal["reconstructions", "map", "neighbours", "interpolations", "samples"]

NEIGHBOURS = 7
"""Nearest images that are drawn beside each."""

MOST_ROWS = 12
"""Rows of a picture in which an image has a row of its own."""


def scores(data: Images, split: str, outputs: dict[str, torch.Tensor]) -> dict[str, float]:
    """How well classes can be read from the codes, and how well errors tell a class that training left out.

    Args:
        data: The prepared data module.
        split: ``test``.
        outputs: ``code`` (N, D), ``error`` (N,) and ``target`` (N,) of the split; of the training split ``train_code``
            and ``train_target``, where there is one.

    Returns:
        ``probe_accuracy`` of a logistic regression on training codes (Alain and Bengio 2016, arXiv:1610.01644), where
        there are classes; ``anomaly_auroc`` of the error as a sign of the class that was left out, where one was.
    """
    found = {}
    target_N = outputs["target"].numpy()
    known_N = outputs.get("train_target", torch.empty(0)).numpy() >= 0
    if data.num_classes > 1 and known_N.any() and (target_N >= 0).all():
        train = outputs["train_code"].numpy()[known_N], outputs["train_target"].numpy()[known_N]
        found["probe_accuracy"] = probe(data, train, (outputs["code"].numpy(), target_N))
    if data.leave_out:
        strange_N = target_N == data.classes.index(data.leave_out)
        auroc = need("sklearn.metrics", extra="data").roc_auc_score
        found["anomaly_auroc"] = float(auroc(strange_N, outputs["error"].numpy()))
    return found


def probe(data: Images, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> float:
    """Accuracy of a logistic regression on standardised codes; on the classes that it was trained on."""
    pipeline = need("sklearn.pipeline", extra="data").make_pipeline(
        need("sklearn.preprocessing", extra="data").StandardScaler(),
        need("sklearn.linear_model", extra="data").LogisticRegression(max_iter=1000),
    )
    seen = np.isin(test[1], train[1])
    with need("threadpoolctl", extra="data").threadpool_limits(data.machine.num_threads):
        return float(pipeline.fit(*train).score(test[0][seen], test[1][seen]))


def baselines(data: Images) -> dict[str, float]:
    """Squared error a pixel of the mean training image, and of principal components as many as the code is wide.

    What a component brings back is clipped to the range of pixels, as the network's pictures are.
    """
    train, test = (_pixels(data, split) for split in ("train", "test"))
    width = data.trainer.lightning_module.hparams.code_dim
    width = min(width, *train.shape)
    pca = need("sklearn.decomposition", extra="data").PCA(width, svd_solver="full")
    with need("threadpoolctl", extra="data").threadpool_limits(data.machine.num_threads):
        back = pca.fit(train).inverse_transform(pca.transform(test)).clip(0, 1)
    return {
        "mean image": float(np.square(test - train.mean(axis=0)).mean()),
        f"PCA, {width} components": float(np.square(test - back).mean()),
    }


def _pixels(data: Images, name: str) -> np.ndarray:
    split = data.splits[name]
    parts = [split.gather(some)["inputs"] for some in torch.arange(len(split)).split(_baselines.CHUNK)]
    return torch.cat(parts).flatten(1).cpu().float().div(255).numpy()


class Codes(Reader):
    """Images as a network's code keeps them.

    Args:
        data: The data module, which knows the images' form.
    """

    needs_inputs = False

    def __init__(self, data: Images) -> None:
        self.data, self.show = data, "reconstructions"

    def encode(self, inputs: Sequence[str], *, show: Show = "reconstructions", num_images: int = 64) -> Inputs:
        """Encode images.

        Args:
            inputs: Files or folders; none takes images of the test split.
            show: What a picture shows: reconstructions beside their originals, a map of the codes in two dimensions,
                the nearest neighbours of each image in code space, interpolations between one image and the next, or
                samples that are decoded from noise.
            num_images: Test images to take where no input is given.

        Raises:
            ValueError: An input is missing or broken, or there are too few.
        """
        self.show = show
        if inputs:
            return self.data.encode(inputs)
        if num_images < 1:
            raise ValueError(f"--num-images: expected at least 1, got {num_images}")
        self.data.setup("test")
        split = self.data.splits["test"]
        # From all over the split, which may be in the order of its classes.
        batch = split.gather(torch.linspace(0, len(split) - 1, min(num_images, len(split))).long())
        names = [
            f"test image {i}" + (f" ({self.data.classes[target]})" if target >= 0 else "")
            for i, target in enumerate(batch["target"].tolist(), start=1)
        ]
        return Inputs(names, InMemory({"inputs": batch["inputs"]}))

    def answers(self, outputs: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
        pictures = {name: outputs[name].numpy() for name in ("picture", "path", "sample")}
        return [
            {"error": error, "code": code, **{name: values[i] for name, values in pictures.items()}}
            for i, (error, code) in enumerate(zip(outputs["error"].tolist(), outputs["code"].tolist(), strict=True))
        ]

    def picture(self, inputs: Inputs, answers: list[dict[str, Any]], path: Path) -> bool:
        originals = inputs.examples.gather(torch.arange(len(answers)))["inputs"].cpu().numpy()
        if self.show == "map":
            self._map(inputs, np.array([answer["code"] for answer in answers]), path)
        elif self.show == "neighbours":
            self._neighbours(originals, np.array([answer["code"] for answer in answers]), path)
        elif self.show == "interpolations":
            rows = np.concatenate([as_bytes(answer["path"]) for answer in answers[:MOST_ROWS]])
            contact_sheet(rows, [("", "")] * len(rows), path, columns=len(answers[0]["path"]))
        elif self.show == "samples":
            drawn = as_bytes(np.stack([answer["sample"] for answer in answers]))
            contact_sheet(drawn, [("", "")] * len(drawn), path)
        else:
            back = as_bytes(np.stack([answer["picture"] for answer in answers]))
            pairs = np.stack([originals, back], axis=1).reshape(-1, *originals.shape[1:])
            titles = [title for answer in answers for title in (("", ""), ("error", f"{answer['error']:.4f}"))]
            contact_sheet(pairs, titles, path)
        return True

    def _map(self, inputs: Inputs, code_ND: np.ndarray, path: Path) -> None:
        """The codes in two dimensions: as they are, or by t-SNE (van der Maaten and Hinton 2008)."""
        if len(code_ND) < 3:
            raise ValueError("--show map: expected at least 3 images")
        how = "code"
        if code_ND.shape[1] > 2:
            how = "t-SNE of the code"
            tsne = need("sklearn.manifold", extra="data").TSNE
            code_ND = tsne(2, perplexity=min(30, (len(code_ND) - 1) / 3), init="pca", random_state=0).fit_transform(
                code_ND
            )
        groups = [name.rpartition("(")[2].rstrip(")") if "(" in name else "" for name in inputs.names]
        scatter(code_ND, groups, how, path)

    def _neighbours(self, originals: np.ndarray, code_ND: np.ndarray, path: Path) -> None:
        if len(code_ND) < 2:
            raise ValueError("--show neighbours: expected at least 2 images")
        count = min(NEIGHBOURS, len(code_ND) - 1)
        nearest = need("sklearn.neighbors", extra="data").NearestNeighbors(n_neighbors=count + 1).fit(code_ND)
        distance, index = nearest.kneighbors(code_ND[:MOST_ROWS])
        titles = [("", "") if k == 0 else ("", f"{far:.2f}") for row in distance for k, far in enumerate(row)]
        contact_sheet(originals[index.reshape(-1)], titles, path, columns=count + 1)


def as_bytes(pictures: np.ndarray) -> np.ndarray:
    """Pixels in [0, 1] as uint8."""
    return (pictures * 255).round().clip(0, 255).astype(np.uint8)
