"""What sources of texts that are to be judged have in common: what they decide of the model, and answers explained.

Shapes: B texts of a batch, T tokens of the longest.
"""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from workloads.data._base import DataModule, Inputs
from workloads.data._explained import Piece, explained, marked
from workloads.data._targets import Target
from workloads.data._tokens import Tokenizer
from workloads.data._words_picture import draw

SHOWN = 60
"""Characters of a text by which a title names it."""


class Texts(DataModule):
    """Texts, each with a class or a number to find.

    Attributes:
        asked: The texts that :meth:`encode` was last given; of each it hands out the place as ``number``.
        whole_words: Whether an explanation puts together the tokens of what stands between spaces.
    """

    whole_words = False

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    @property
    @abstractmethod
    def decided(self) -> Target:
        """What the training texts decided of the labels."""

    @property
    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """What turns texts into tokens."""

    @property
    def num_tokens(self) -> int:
        """Tokens of the vocabulary."""
        return self.tokenizer.size

    @property
    def vectors_dim(self) -> int:
        """Numbers of a pretrained word vector; 0 where there are none."""
        return 0

    @property
    def output(self) -> str:
        """binary, multiclass, regression or count."""
        return self.decided.output

    @property
    def num_outputs(self) -> int:
        """Classes of a multiclass target, else 1."""
        return self.decided.num_outputs

    @property
    def target_scale(self) -> float:
        """Standard deviation of a regression target in its own units, else 1."""
        return self.decided.scale

    @property
    def metric(self) -> str:
        """accuracy, r2 or mae."""
        return self.decided.metric

    @property
    def classes(self) -> list[str]:
        """Names of the classes; empty of numbers."""
        return self.decided.classes

    def answers(self, outputs: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
        answers = self.decided.answers(outputs)
        if "influence" in outputs:
            for b, answer in enumerate(answers):
                text, num_tokens = self.asked[outputs["number"][b]], int(outputs["length"][b])
                answer["words"] = explained(
                    text,
                    self.tokenizer.words(text)[1][:num_tokens],
                    outputs["influence"][b, :num_tokens].numpy(),
                    outputs["gates"][b, :num_tokens].numpy() if "gates" in outputs else None,
                    whole_words=self.whole_words,
                )
        return answers

    def marked(self, answers: list[dict[str, Any]]) -> list[tuple[str, list[Piece]]]:
        return [
            (_title(a), marked(text, a["words"])) for a, text in zip(answers, self.asked, strict=True) if "words" in a
        ]

    def picture(self, inputs: Inputs, answers: list[dict[str, Any]], path: Path) -> bool:
        if "words" not in answers[0]:
            return False
        draw([(_title(answer), answer["words"]) for answer in answers], path)
        return True


def _title(answer: Mapping[str, Any]) -> str:
    said = f"{answer['label']} {answer['probability']:.3f}" if "label" in answer else f"{answer['value']:.4g}"
    return f"{said}  {short(answer['input'])}"


def short(name: str) -> str:
    """A text's name for a line: on one, and cut."""
    name = " ".join(name.split())
    return name if len(name) <= SHOWN else f"{name[:SHOWN]}..."
