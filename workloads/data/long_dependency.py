"""Sentences whose first word decides their end, however far away it is: the deck's "Param, student of Yong, is a ...".

Shapes: N sentences, T words of each, F words between head and end.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from workloads.data._base import Inputs
from workloads.data._batches import Examples
from workloads.data._ragged import Ragged, Sequences
from workloads.data._sentences import texts_of
from workloads.data._splits import cut
from workloads.data._targets import Target, listed
from workloads.data._texts import Texts, short
from workloads.data._tokens import Tokenizer

ENDS = {
    "Param": "hard worker", "Meera": "patient teacher", "Jonas": "bold painter", "Aisha": "careful writer",
    "Chen": "quiet thinker", "Olga": "good listener", "Luis": "fast runner", "Hana": "kind doctor",
}  # fmt: skip
"""Who a sentence is about, to what is true of them."""
TEACHERS = (
    "Yong", "Priya", "Malik", "Ingrid", "Tomas", "Noor", "Pablo", "Wei",
    "Farid", "Greta", "Kofi", "Leila", "Marta", "Nils", "Ravi", "Zoe",
)  # fmt: skip
VERBS = (
    "reads", "writes", "draws", "repairs", "collects", "studies", "sells", "carries", "paints", "counts", "cleans",
    "opens", "copies", "finds", "hides", "sorts", "brings", "keeps", "loses", "makes", "moves", "names", "shows",
    "takes",
)  # fmt: skip
NOUNS = (
    "books", "letters", "maps", "clocks", "stones", "stars", "apples", "chairs", "doors", "coins", "lamps", "songs",
    "papers", "boats", "shoes", "seeds", "wheels", "cups", "bells", "ropes", "keys", "plants", "tools", "walls",
)  # fmt: skip
ADVERBS = ("slowly", "often", "gladly", "daily", "rarely", "quickly", "outside", "together")
CLAUSE = (VERBS, NOUNS, ADVERBS, ("and",))
"""What is said of the teacher, a word of each after the other, for as long as the sentence goes on."""

HEAD, END = (",", "student", "of"), (",", "is", "a")
LEAST = len(HEAD) + len(END) + 4
"""Words after the first of the shortest sentence: head and end, a teacher, "who", and a clause of two words."""


class LongDependency(Texts):
    """Sentences such as "Param , student of Yong who reads books , is a", to be completed: "hard worker".

    The first word alone decides; what follows is said of everybody. So it is memory that is measured, at a distance of
    one's choice. A bag of all words knows the answer, and so does a network that looks at every step: let it look at
    its last state alone (``model.pooling last``, one direction). No two sentences, of one split or of two, say the same
    of a teacher.

    Args:
        distance: Steps from the first word, which decides, to the last, from at least 10.
        num_examples: Sentences, of which 70 % are for training, 10 % for validation and 20 % for test.
        num_cues: People whom sentences are about, and so classes, 2 to 8; each has as many sentences as any other.
        batch_size: Sentences of a batch, over all workers.
        split_seed: Decides what is written and who is in which split, apart from the run's seed.

    Raises:
        ValueError: A value is out of range; one line that names its key.
    """

    def __init__(
        self,
        distance: int = 100,
        num_examples: int = 3000,
        num_cues: int = 4,
        batch_size: int = 64,
        split_seed: int = 0,
    ) -> None:
        super().__init__()
        if distance < LEAST:
            raise ValueError(f"data.distance: expected at least {LEAST}, got {distance}")
        if not 2 <= num_cues <= len(ENDS):
            raise ValueError(f"data.num_cues: expected 2 to {len(ENDS)}, got {num_cues}")
        if num_examples < 10 * num_cues:
            raise ValueError(f"data.num_examples: expected at least 10 for each of {num_cues} cues, got {num_examples}")
        self.distance, self.num_examples, self.num_cues = distance, num_examples, num_cues
        self.batch_size, self.split_seed = batch_size, split_seed
        self.fitted_target: Target | None = None
        self.fitted_tokenizer: Tokenizer | None = None

    @property
    def decided(self) -> Target:
        """How sentences end."""
        if self.fitted_target is None:
            ends = [ENDS[cue] for cue in list(ENDS)[: self.num_cues]]
            self.fitted_target = Target.fit(ends, "multiclass")
        return self.fitted_target

    @property
    def tokenizer(self) -> Tokenizer:
        """Of every word that is ever written, so that the vocabulary is that of all distances and numbers of cues."""
        if self.fitted_tokenizer is None:
            texts = [" ".join(words) for words in (ENDS, TEACHERS, HEAD, END, ("who",), *CLAUSE)]
            self.fitted_tokenizer = Tokenizer.fit("word", texts, 1000)
        return self.fitted_tokenizer

    def state_dict(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer.state(), "target": self.decided.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self.fitted_tokenizer = Tokenizer.restore(state_dict["tokenizer"])
            self.fitted_target = Target.restore(state_dict["target"])

    def load(self, whole: bool = False) -> dict[str, Examples]:
        cues = list(ENDS)[: self.num_cues]
        cue_N = np.arange(self.num_examples) % self.num_cues
        target_N = self.decided.encode(np.array([ENDS[cue] for cue in cues])[cue_N], lambda i: f"sentence {i + 1}")
        token_NT = torch.from_numpy(self._write(cues, cue_N))
        sentences = Sequences.of(token_NT.flatten(), torch.full((len(token_NT),), token_NT.shape[1]))
        index = (
            {"test": np.arange(self.num_examples)} if whole else cut(len(cue_N), classes=cue_N, seed=self.split_seed)
        )
        return {
            name: Ragged({"text": sentences.take(torch.from_numpy(some))}, {"target": target_N[some]})
            for name, some in index.items()
        }

    def encode(self, inputs: Sequence[str]) -> Inputs:
        cues = [cue for cue, end in ENDS.items() if end in self.classes]
        found = [text for given in inputs for text in texts_of(given, "text", named=len(inputs) > 1)]
        names, self.asked = [name for name, _ in found], [text for _, text in found]
        for name, text in found:
            if text.split()[0] not in cues:
                raise ValueError(f"{short(name)}: a sentence begins with one of {listed(cues)}")
        sentences = self.tokenizer.encode(self.asked)
        return Inputs(names, Ragged({"text": sentences}, {"number": torch.arange(len(names))}))

    def _write(self, cues: Sequence[str], cue_N: np.ndarray) -> np.ndarray:
        """The tokens of all sentences, shape (N, T): each says something else of a teacher.

        Raises:
            ValueError: There is not so much to say at so short a distance.
        """

        def tokens(words: Sequence[str]) -> np.ndarray:
            return self.tokenizer.encode([" ".join(words)]).flat.numpy()

        num_words = self.distance - LEAST + 2
        kinds = [tokens(TEACHERS), *(tokens(CLAUSE[i % len(CLAUSE)]) for i in range(num_words))]
        choice_NF = _distinct([len(kind) for kind in kinds], len(cue_N), self.split_seed)
        if len(choice_NF) < len(cue_N):
            raise ValueError(
                f"data.num_examples: at a distance of {self.distance} there are no {len(cue_N)} sentences that differ; "
                "raise data.distance, or ask for fewer"
            )
        said = [kind[choice_NF[:, i]] for i, kind in enumerate(kinds)]
        head, who, end = ([np.full(len(cue_N), token) for token in tokens(part)] for part in (HEAD, ("who",), END))
        return np.stack([tokens(cues)[cue_N], *head, said[0], *who, *said[1:], *end], axis=1)


def _distinct(sizes: Sequence[int], num_rows: int, seed: int) -> np.ndarray:
    """Rows of choices, the i-th of ``sizes[i]``, no two alike; fewer than ``num_rows`` if there are hardly as many."""
    random = np.random.default_rng(seed)
    row_NF = np.empty((0, len(sizes)), dtype=np.uint8)
    for _ in range(20):
        more_NF = np.stack([random.integers(size, size=2 * num_rows, dtype=np.uint8) for size in sizes], axis=1)
        row_NF = np.concatenate([row_NF, more_NF])
        row_NF = row_NF[np.sort(np.unique(row_NF, axis=0, return_index=True)[1])]
        if len(row_NF) >= num_rows:
            break
    return row_NF[:num_rows]
