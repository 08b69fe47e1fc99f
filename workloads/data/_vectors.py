"""Word vectors from a text file, as word2vec and GloVe write them: a word and its numbers in each line.

Shapes: K words that have a vector, D numbers of a vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch


@dataclass(frozen=True)
class Vectors:
    """Vectors for some tokens of a vocabulary.

    Args:
        token_K: The tokens, int64, ascending.
        vector_KD: Their vectors, float32.
    """

    token_K: torch.Tensor
    vector_KD: torch.Tensor


def read_vectors(path: str, vocabulary: Mapping[str, int]) -> Vectors:
    """Read the vectors of those words that a vocabulary has; of a word that comes twice, the first.

    Args:
        path: The file, UTF-8. A first line of two whole numbers, how many words and how many numbers of each, is
            passed over.
        vocabulary: Word to token.

    Raises:
        ValueError: No such file, it is not text, no word is known, or a line is at fault; names the line.
    """
    if not Path(path).is_file():
        raise ValueError(f"data.vectors: no file {path}")
    found: dict[int, np.ndarray] = {}
    dim = 0
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                cells = line.rstrip().split(" ")
                if number == 1 and len(cells) == 2 and all(cell.isdecimal() for cell in cells):
                    continue
                dim = dim or len(cells) - 1
                # Some of GloVe's words have spaces in them: the numbers are counted from the end.
                token = vocabulary.get(" ".join(cells[:-dim])) if dim else None
                if len(cells) <= dim or dim < 1:
                    raise ValueError(f"data.vectors: {path}, line {number}: expected a word and {dim or 'its'} numbers")
                if token is not None and token not in found:
                    found[token] = _numbers(cells[-dim:], path, number)
    except UnicodeDecodeError as error:
        raise ValueError(f"data.vectors: {path} is not UTF-8 text ({error.reason}); give a text file") from None
    if not found:
        raise ValueError(f"data.vectors: {path} has none of the vocabulary's {len(vocabulary):,} words")
    tokens = sorted(found)
    return Vectors(torch.tensor(tokens), torch.from_numpy(np.stack([found[token] for token in tokens])))


def _numbers(cells: list[str], path: str, line: int) -> np.ndarray:
    try:
        vector_D = np.array(cells, dtype=np.float32)
    except ValueError:
        vector_D = np.array([np.nan])
    if not np.isfinite(vector_D).all():
        raise ValueError(f"data.vectors: {path}, line {line}: not every number is a finite one")
    return vector_D
