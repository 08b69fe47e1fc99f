"""What an answer is worth that does not remember how a sentence began.

Shapes: N examples, T tokens, V vocabulary.
"""

import numpy as np
import torch

from workloads._extras import need
from workloads.data.long_dependency import LongDependency


def forgetful(data: LongDependency) -> dict[str, float]:
    """Majority class, and logistic regression on the words after the first, which leave nothing but chance.

    Returns:
        Name to accuracy on the test split.
    """
    linear = need("sklearn.linear_model", extra="text").LogisticRegression(C=1.0, max_iter=200)
    (bag_NV, target_N), (test_NV, answer_N) = (_bags(data, split) for split in ("train", "test"))
    majority = np.bincount(target_N).argmax()
    with need("threadpoolctl", extra="data").threadpool_limits(data.machine.num_threads):
        linear.fit(bag_NV, target_N)
        accuracy = float(linear.score(test_NV, answer_N))
    name = f"bag of the last {data.distance} words"
    return {"majority class": float(np.mean(answer_N == majority)), name: accuracy}


def _bags(data: LongDependency, split: str) -> tuple[np.ndarray, np.ndarray]:
    """How often each sentence of a split has each word after its first, shape (N, V), and the targets."""
    batch = data.splits[split].gather(torch.arange(len(data.splits[split])))
    bag_NV = torch.zeros(len(batch["text"]), data.num_tokens)
    ones_NT = torch.ones_like(batch["text"][:, 1:], dtype=torch.float32)
    return bag_NV.scatter_add_(1, batch["text"][:, 1:], ones_NT).numpy(), batch["target"].numpy()
