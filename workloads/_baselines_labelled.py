"""What is reached with the labelled images alone, beside a network that has learnt from the others before.

Shapes: N images.
"""

import copy

import torch

from workloads import _baselines
from workloads._extras import need
from workloads._trainer import retrained
from workloads.data.images import Images


def labelled(data: Images) -> dict[str, float]:
    """Accuracy of the majority class, of classical methods on pixels, and of the same network without pretraining.

    All see the labels that the network sees, and no other image but for validation.
    """
    found = {}
    train, test = data.splits["train"], data.splits["test"]
    index = torch.arange(len(train)) if train.labelled is None else train.labelled
    (inputs, target_N), (test_inputs, test_target_N) = (
        _pixels(split, some) for split, some in ((train, index), (test, torch.arange(len(test))))
    )
    majority = target_N.mode().values
    found["majority class"] = float((test_target_N == majority).float().mean())
    methods = {
        "logistic regression": need("sklearn.linear_model", extra="data").LogisticRegression(C=0.1, max_iter=200),
        "SVM": need("sklearn.svm", extra="data").SVC(C=10),
    }
    with need("threadpoolctl", extra="data").threadpool_limits(data.machine.num_threads):
        for name, method in methods.items():
            found[name] = float(method.fit(inputs.numpy(), target_N.numpy()).score(test_inputs, test_target_N))
    if data.unlabelled_epochs:
        found["without pretraining"] = without_pretraining(data)
    return found


def _pixels(split, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    parts = [split.gather(some) for some in index.split(_baselines.CHUNK)]
    inputs = torch.cat([part["inputs"].flatten(1).cpu().float().div(255) for part in parts])
    return inputs, torch.cat([part["target"].cpu() for part in parts])


def without_pretraining(data: Images) -> float:
    """The same network, seed, settings and epochs with labels, from weights that are drawn at random."""
    alone = copy.copy(data)
    alone.splits = dict(data.splits, train=copy.copy(data.splits["train"]))
    alone.splits["train"].unlabelled_epochs = 0
    epochs = data.trainer.max_epochs - data.unlabelled_epochs
    found = retrained(alone, {"unlabelled_epochs": 0}, monitor="val/accuracy", mode="max", max_epochs=epochs)
    return found["test/accuracy"]
