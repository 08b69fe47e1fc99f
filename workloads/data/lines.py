"""Lines for a network to write others like: of plain text, or of an oracle, a network that knows how likely each is.

Shapes: N lines, T tokens of the longest line, B lines of a batch, V vocabulary.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_modules.shared.line_generator import LineGenerator
from workloads.data._base import DataModule, Inputs
from workloads.data._batches import Examples, InMemory
from workloads.data._line_scores import bleu, self_bleu
from workloads.data._ragged import PAD
from workloads.data._sources import OnError, default_cache
from workloads.data._splits import SPLITS, subset
from workloads.data._tokens import END, SPECIAL, Tokenizer, encoded
from workloads.data.plain_text import PlainText

ORACLE = "oracle"
ORACLE_SHARES = {"train": 1.0, "validation": 0.1, "test": 0.2}
"""Lines that the oracle writes for each split, as parts of ``num_lines``."""

ORDERS = (2, 3, 4, 5)
"""Longest runs of tokens that each BLEU counts."""

JUDGED = 4
"""The order by which checkpoints of text are ranked."""

LEAST_LINES = 20
"""Lines of each split, without which there is nothing to learn or to compare with."""


class Lines(DataModule):
    """Lines of plain text, or of an oracle.

    The oracle (Yu et al. 2017, arXiv:1609.05473) is an LSTM whose weights are drawn from a standard normal; its lines
    are of one length. Of text, lines that are longer than ``length`` tokens are left out and counted, and so are those
    without a small letter, which name speakers and scenes; equal lines are on one side.

    Args:
        source: oracle; shakespeare; a .txt file or a folder of such; or hf://owner/name with a column ``text``.
        batch_size: Lines of a batch, over all workers.
        length: Most tokens of a line; of the oracle, tokens of every line.
        num_lines: Lines to train on: of the oracle, those that it writes; of text the most that are used, drawn by
            split_seed, and in the same proportion to validate and test on; 0 uses all.
        tokenizer: What a token of text is: word, byte pairs (bpe), or character.
        vocabulary_size: Most tokens of the vocabulary; of the oracle, all.
        oracle_dim: Width of the oracle's embedding and LSTM.
        oracle_seed: Decides the oracle.
        split_seed: Decides the splits of text, and the oracle's lines.
        on_error: Whether a bad file stops the run or is skipped and counted; more than 5 % always stop it.
        cache_dir: Folder for encoded texts; null is the platform's cache folder.
        revision: Commit, tag or branch of a hub source.

    Raises:
        ValueError: A value is out of range.
    """

    needs_inputs = False

    def __init__(
        self,
        source: str = ORACLE,
        batch_size: int = 64,
        length: int = 20,
        num_lines: int = 10_000,
        tokenizer: Literal["word", "bpe", "character"] = "word",
        vocabulary_size: int = 1000,
        oracle_dim: int = 32,
        oracle_seed: int = 0,
        split_seed: int = 0,
        on_error: OnError = "stop",
        cache_dir: str | None = None,
        revision: str | None = None,
    ) -> None:
        super().__init__()
        least = {"length": (length, 2), "num_lines": (num_lines, 0), "oracle_dim": (oracle_dim, 1)}
        least |= {"oracle_seed": (oracle_seed, 0), "vocabulary_size": (vocabulary_size, len(SPECIAL) + 1)}
        for name, (value, smallest) in least.items():
            if value < smallest:
                raise ValueError(f"data.{name}: expected at least {smallest}, got {value}")
        if source == ORACLE and num_lines < LEAST_LINES * 10:
            raise ValueError(f"data.num_lines: an oracle writes at least {LEAST_LINES * 10}, got {num_lines}")
        self.source, self.batch_size, self.length, self.num_lines = source, batch_size, length, num_lines
        self.kind, self.vocabulary_size = tokenizer, vocabulary_size
        self.oracle_dim, self.oracle_seed, self.split_seed = oracle_dim, oracle_seed, split_seed
        self.on_error, self.revision = on_error, revision
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else default_cache()
        self.tokenizer: Tokenizer | None = None
        self.texts: dict[str, list[str]] = {}
        self._oracle: LineGenerator | None = None

    @property
    def vocabulary(self) -> int:
        """V: tokens that there are, the special ones among them."""
        return self.tokenizer.size if self.tokenizer else self.vocabulary_size

    @property
    def ends(self) -> bool:
        """Whether a line may be shorter than ``length``."""
        return self.source != ORACLE

    @property
    def metric(self) -> str:
        """The metric to quote."""
        return f"bleu_{JUDGED}" if self.ends else "oracle_nll"

    @property
    def oracle(self) -> LineGenerator:
        """The network that writes the lines, and knows how likely any line is."""
        if self._oracle is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.oracle_seed)
                self._oracle = LineGenerator(self.vocabulary_size, self.oracle_dim, self.oracle_dim, ends=False)
                for parameter in self._oracle.parameters():
                    torch.nn.init.normal_(parameter)
            self._oracle.requires_grad_(False)
        return self._oracle

    def load(self, whole: bool = False) -> dict[str, Examples]:
        if whole and self.ends == (self.tokenizer is None):
            raise ValueError("data.source: a run on an oracle's lines knows no words, and one on text no oracle")
        if not self.ends:
            return {split: InMemory({"tokens": tokens}) for split, tokens in self._written().items()}
        read = PlainText(
            self.source, split_seed=self.split_seed, on_error=self.on_error, revision=self.revision
        )  # fmt: skip
        texts = {split: _lines(some.values()) for split, some in read.read(whole).items()}
        self.skipped = read.skipped
        if self.tokenizer is None:
            self.tokenizer, sequences = encoded(
                texts, ["train"], kind=self.kind, size=self.vocabulary_size, lowercase=False, cache_dir=self.cache_dir
            )
        else:
            sequences = {split: self.tokenizer.encode(some) for split, some in texts.items()}
        splits: dict[str, Examples] = {}
        seen: set[str] = set()
        share = min(1.0, self.num_lines / max(1, len(texts["train"]))) if self.num_lines and not whole else 1.0
        for split in (name for name in SPLITS if name in texts):
            fits = (sequences[split].lengths < self.length).tolist()  # END takes a place
            kept = [i for i, text in enumerate(texts[split]) if fits[i] and text not in seen]
            seen.update(texts[split])
            kept = [kept[i] for i in subset(len(kept), None, max(1, round(share * len(kept))), self.split_seed)]
            if len(kept) < LEAST_LINES:
                raise ValueError(
                    f"data.source: {self.source}: {len(kept)} different lines of fewer than {self.length} tokens in "
                    f"the {split} split; it takes at least {LEAST_LINES}: add text, or raise data.length"
                )
            self.texts[split] = [texts[split][i] for i in kept]
            chosen = sequences[split].take(torch.tensor(kept)).framed(end=END)
            splits[split] = InMemory({"tokens": _padded(chosen, self.length)})
        return splits

    def _written(self) -> dict[str, Tensor]:
        """Lines of the oracle."""
        generator = torch.Generator().manual_seed(self.split_seed)
        return {
            split: self.oracle.draw(max(LEAST_LINES, round(share * self.num_lines)), self.length, generator=generator)
            for split, share in ORACLE_SHARES.items()
        }

    def scores(self, split: str, outputs: dict[str, Tensor]) -> dict[str, float]:
        """How good and how different from each other lines are.

        Args:
            split: ``validation`` or ``test``.
            outputs: ``tokens``, (N, T).

        Returns:
            ``criterion``, by which checkpoints are ranked, lower is better; ``distinct``, the part of lines that stand
            there once. Of the oracle ``oracle_nll``, its negative log likelihood of a token, in nats: the criterion. Of
            text ``bleu_2`` to ``bleu_5`` against the split's lines, ``self_bleu_2`` to ``self_bleu_5`` against each
            other, and ``copied``, the part that are lines of training; the criterion is 1 minus the harmonic mean of
            ``bleu_4`` and 1 - ``self_bleu_4``.
        """
        made_NT = outputs["tokens"]
        found = {"distinct": len({tuple(line) for line in made_NT.tolist()}) / len(made_NT)}
        self.concerns = []
        if not self.ends:
            with torch.inference_mode():
                found["oracle_nll"] = found["criterion"] = float(self.oracle.nll(made_NT))
        else:
            lines = self.lines(made_NT)
            found |= self._text_scores(split, lines)
            training = set(self.texts.get("train", ()))
            found["copied"] = sum(line in training for line in lines) / len(lines)
            if found["copied"] > 0.1:
                self.concerns.append(f"{found['copied']:.0%} of the lines are lines of training: it memorises")
        if found["distinct"] < 0.5:
            self.concerns.append(
                f"only {found['distinct']:.0%} of the lines are different: the generator has collapsed"
            )
        return found

    def _text_scores(self, split: str, lines: list[str]) -> dict[str, float]:
        made = [tokenized(line) for line in lines]
        quality = bleu(made, [tokenized(line) for line in self.texts[split]], ORDERS)
        sameness = self_bleu(made, ORDERS)
        good, apart = quality[JUDGED], 1 - sameness[JUDGED]
        return {
            **{f"bleu_{n}": value for n, value in quality.items()},
            **{f"self_bleu_{n}": value for n, value in sameness.items()},
            "criterion": 1 - 2 * good * apart / (good + apart) if good + apart else 1.0,
        }

    def lines(self, tokens_NT: Tensor) -> list[str]:
        """Lines as people read them; the oracle's as numbers of its tokens."""
        if self.tokenizer is None:
            return [" ".join(str(token - len(SPECIAL)) for token in line) for line in tokens_NT.tolist()]
        return [joined_words(self.tokenizer.decode(line), self.kind) for line in tokens_NT.tolist()]

    def encode(self, inputs: Sequence[str], *, num_lines: int = 20) -> Inputs:
        """Ask for lines.

        Args:
            inputs: None are taken.
            num_lines: Lines to write.

        Raises:
            ValueError: There are inputs, or no line is asked for.
        """
        if inputs:
            raise ValueError(
                f"{inputs[0]}: this network writes lines of its own; leave inputs out, and see --num-lines"
            )
        if num_lines < 1:
            raise ValueError(f"--num-lines: expected at least 1, got {num_lines}")
        names = [f"line {i + 1}" for i in range(num_lines)]
        return Inputs(names, InMemory({"line": torch.arange(num_lines)}))

    def answers(self, outputs: dict[str, Tensor]) -> list[dict[str, Any]]:
        return [{"text": line} for line in self.lines(outputs["tokens"])]

    def state_dict(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer.state() if self.tokenizer else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict.get("tokenizer"):
            self.tokenizer = Tokenizer.restore(state_dict["tokenizer"])


def _lines(texts: Any) -> list[str]:
    """Lines with a small letter in them, without space around them."""
    lines = (line.strip() for text in texts for line in text.splitlines())
    return [line for line in lines if re.search(r"[^\W\d_]", line) and line != line.upper()]


def _padded(sequences: Any, length: int) -> Tensor:
    """Sequences as a table, int64, shape (N, T)."""
    place_NT = sequences.offsets[:-1, None] + torch.arange(length)
    inside_NT = torch.arange(length) < sequences.lengths[:, None]
    return sequences.flat[place_NT.clamp(max=len(sequences.flat) - 1)].long().masked_fill(~inside_NT, PAD)


def tokenized(line: str) -> list[str]:
    """Words and marks of punctuation, whatever the tokens of the network are, so that BLEU is comparable."""
    return re.findall(r"\w+(?:['\u2019]\w+)*|[^\w\s]", line)


def joined_words(text: str, kind: str) -> str:
    """Text whose tokens were words: without the space that decoding puts before marks of punctuation."""
    if kind != "word":
        return text
    return re.sub(r"(\w) (['\u2019]) ?(\w)", r"\1\2\3", re.sub(r" ([,.;:!?])", r"\1", text))
