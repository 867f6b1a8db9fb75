"""Small models whose result for any variant is known, and a source of variants in memory.

>>> MarksG()("ACGT")[:, 0].tolist()
[0.0, 0.0, 1.0, 0.0]
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from accelerate import Accelerator

from bend_hf.embedders._alignment import Tokenized, TokenStream, Window, assemble
from bend_hf.embedders._embedder import Embedder
from bend_hf.embedders._windows import starts_of
from bend_hf.embedders.dnabert import kmer_token_map
from bend_hf.evaluation.predictions import Predictions
from bend_hf.tasks import VariantSpec
from bend_hf.types import Ints
from bend_hf.variants import ScoreSettings, score_variants

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SHARES = {"A": 0.5, "C": 0.25, "G": 0.125, "T": 0.125}  # of an order-0 genome: entropy 1.75 bits
ENTROPY_BITS = 1.75


class Control(Embedder):
    """A model over given tokens: one-hot embeddings, and logits that its class defines.

    Tokens are taken greedily, the longest first. Ids count from 1; 0 pads, and the last one is the mask.
    """

    needs_checkpoint = False
    words: ClassVar[tuple[str, ...]] = ("A", "C", "G", "T")

    def _load(self) -> None:
        self._id_of = {word: number for number, word in enumerate(self.words, start=1)}
        self.mask_id = len(self.words) + 1
        self.n_ids = len(self.words) + 2

    @property
    def width(self) -> int:
        return self.n_ids

    def _split(self, sequence: str) -> list[str]:
        found, at = [], 0
        while at < len(sequence):
            found.append(max((word for word in self.words if sequence.startswith(word, at)), key=len))
            at += len(found[-1])
        return found

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        split = [self._split(sequence) for sequence in sequences]
        flat = [word for words in split for word in words]
        stream = TokenStream(
            ids=np.array([self._id_of[word] for word in flat]),
            token_bp=np.array([len(word) for word in flat]),
            starts=starts_of([len(words) for words in split]),
        )
        return assemble(stream, Window(context_tokens=None))

    def _hidden(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int) -> Tensor:
        from torch.nn.functional import one_hot

        return one_hot(ids_BT, self.n_ids).float()

    def _loss_tokens(self) -> Sequence[int]:
        return range(1, len(self.words) + 1)


class MarksG(Control):
    """An embedding that holds whether each nucleotide is a G, and nothing else."""

    direction = "none"

    def _hidden(self, ids_BT: Tensor, mask_BT: Tensor | None, layer: int) -> Tensor:
        import torch

        marked = (ids_BT == self._id_of["G"]).float()
        return torch.stack([marked, 1.0 - marked], dim=-1)

    @property
    def width(self) -> int:
        return 2


class OrderZero(Control):
    """A masked model of independent nucleotides with exact likelihoods; it copies a token that is not masked."""

    def _logits(self, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        import torch
        from torch.nn.functional import one_hot

        masked = (ids_BT == self.mask_id)[..., None]
        return torch.where(masked, self._log_shares(), 100.0 * one_hot(ids_BT, self.n_ids).float())

    def _log_shares(self) -> torch.Tensor:
        """Return the log-probability of each token: the product of its nucleotides' frequencies."""
        import torch

        shares = np.ones(self.n_ids)
        for word, number in self._id_of.items():
            shares[number] = np.prod([SHARES[letter] for letter in word])
        return torch.from_numpy(np.log(shares)).float()


class OrderZeroPairs(OrderZero):
    """The same with 2-mers as tokens, and single nucleotides at the end."""

    words = (*("".join(pair) for pair in product("ACGT", repeat=2)), "A", "C", "G", "T")


class OrderZeroTriplets(OrderZero):
    """The same with overlapping 3-mers, one embedding each for the middle nucleotide."""

    words = tuple("".join(word) for word in product("ACGT", repeat=3))

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        split = [[text[at : at + 3] for at in range(len(text) - 2)] for text in sequences]
        n_words = np.array([len(words) for words in split])
        ids = np.array([self._id_of[word] for words in split for word in words])
        lengths = np.array([len(text) for text in sequences])
        stream = TokenStream(ids=ids, token_bp=np.ones(len(ids), np.int64), starts=starts_of(n_words))
        return assemble(stream, Window(context_tokens=None), token_map=kmer_token_map(n_words, lengths, as_bend=False))


class Unigram(OrderZero):
    """A masked model of independent tokens of several lengths, with these frequencies."""

    words = ("A", "C", "G", "T", "CG", "ACG")
    shares: ClassVar[dict[str, float]] = {"A": 0.3, "C": 0.2, "G": 0.1, "T": 0.1, "CG": 0.1, "ACG": 0.2}

    def _log_shares(self) -> torch.Tensor:
        import torch

        shares = np.ones(self.n_ids)
        shares[1 : 1 + len(self.words)] = [self.shares[word] for word in self.words]
        return torch.from_numpy(np.log(shares)).float()


class Markov(Control):
    """A causal model of order 1: a nucleotide is followed by itself with 0.7, by each other with 0.1."""

    direction = "causal"

    def _logits(self, ids_BT: Tensor, mask_BT: Tensor | None) -> Tensor:
        import torch
        from torch.nn.functional import one_hot

        return torch.where(one_hot(ids_BT, self.n_ids).bool(), 0.7, 0.1).log()


class Memory:
    """Variants in memory.

    Args:
        rows: Sequence, position of the variant in it, REF, ALT and label of each.
    """

    def __init__(self, rows: Sequence[tuple[str, int, str, str, int]], **further: Sequence[Any]) -> None:
        sequence, offset, ref, alt, label = zip(*rows, strict=True)
        self._table = pa.table(
            {
                "item": np.arange(len(rows)),
                "sequence": pa.array(sequence, pa.large_string()),
                "variant_offset": pa.array(offset, pa.int32()),
                "label": pa.array(label, pa.int64()),
                "chromosome": ["chr1"] * len(rows),
                "start": np.arange(len(rows)) * 10_000,
                "end": np.arange(len(rows)) * 10_000 + 1,
                "ref": list(ref),
                "alt": list(alt),
                **{name: pa.array(values) for name, values in further.items()},
            }
        )

    @property
    def label_names(self) -> tuple[str, ...]:
        return ("no", "yes")

    def __len__(self) -> int:
        return len(self._table)

    def by_site(self) -> Ints:
        return np.arange(len(self))

    def table(self, rows: Ints) -> pa.Table:
        return self._table.take(pa.array(rows))


def scores_of(
    embedder: Embedder, rows: Sequence[tuple[str, int, str, str, int]], spec: VariantSpec | None = None, **settings: Any
) -> Predictions:
    """Compute all scores of some variants."""
    settings["context"] = spec or VariantSpec()
    return score_variants(Memory(rows), embedder, Accelerator(cpu=True), ScoreSettings(**settings)).predictions


def column(predictions: Predictions, name: str) -> list[float | None]:
    """Return one score of every variant."""
    if name == "score":
        assert predictions.score is not None
        return [float(value) for value in predictions.score]
    return [None if value is None else float(value) for value in predictions.columns[name].to_pylist()]
