"""A trained head with its embedder: from sequences to classes and scores.

    head = bend_hf.load_head("results/gene_finding__dnabert2__seed0__20260101T000000.json")
    prediction = head.predict(["ACGT..."])[0]
    prediction.classes          # one name for each nucleotide or window
    prediction.scores           # shape (windows, labels)

Sequences are predicted in batches of bounded size. A sequence that is longer than those of the task is cut into pieces
of their length, each of which is predicted on its own, as in the training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor, nn

from bend_hf.embedders._tokens import checked_sequences
from bend_hf.embedders.cache.dtypes import decode, encode
from bend_hf.embedders.cache.pooling import Pooling
from bend_hf.embedders.token_embeddings import pad_embeddings
from bend_hf.errors import InputError, ModelError
from bend_hf.tasks._labels import RealValues
from bend_hf.training.batches import Inputs, to_device
from bend_hf.training.finetuning import TunedModel, token_rows
from bend_hf.training.heads import pooled_bp
from bend_hf.training.kept_head import HeadConfig, is_per_label, one_row_each
from bend_hf.training.losses import build_loss
from bend_hf.types import Floats, Ints

if TYPE_CHECKING:
    from bend_hf.embedders._embedder import Embedder
    from bend_hf.embedders._spec import TokenEmbeddings

_PIECE_BP: Final = 1 << 16  # longest piece if the task's sequences have several lengths
_BATCH_BP: Final = 1 << 17  # nucleotides of a batch, padding included
_BATCH_ITEMS: Final = 64


@dataclass(frozen=True, kw_only=True)
class HeadPrediction:
    """What a head predicts for one sequence.

    Attributes:
        window_bp: Nucleotides that each row stands for. Nucleotides at the end that fill no window have no row.
        names: Names of the classes or labels, length C.
        scores: Probabilities of the classes, which add up to 1; probabilities of the labels; or real values. Float32,
            shape (windows, C).
        predicted: Index of the most probable class of each window, shape (windows,); None if each label has a score
            of its own.
    """

    window_bp: int
    names: tuple[str, ...]
    scores: Floats
    predicted: Ints | None

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def classes(self) -> list[str]:
        """Name of the most probable class of each window.

        Raises:
            InputError: Each label has a score of its own.
        """
        if self.predicted is None:
            raise InputError("each label has a score of its own here; take scores, whose columns are names")
        names: list[str] = np.array(self.names)[self.predicted].tolist()
        return names


class TrainedHead:
    """A trained head and the embedder that it reads; ``load_head`` makes it.

    Args:
        config: What the head predicts, and how.
        module: The head with its weights; a ``TunedModel`` if the embedder was trained too.
        embedder: The embedder; the trained one in a ``TunedModel``.
    """

    def __init__(self, config: HeadConfig, module: nn.Module, embedder: Embedder) -> None:
        self.config = config
        self.embedder = embedder
        self.module = module.eval()
        self._loss = build_loss(config.loss)

    def __repr__(self) -> str:
        return f"TrainedHead({self.config.task!r}, {self.embedder.name}, {len(self.names)} labels)"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes or labels."""
        return self.config.label.names

    @property
    def row_bp(self) -> int:
        """Nucleotides that one row of a prediction stands for."""
        return self.config.row_bp

    @property
    def piece_bp(self) -> int:
        """Length of the pieces that longer sequences are cut into."""
        return self.config.window_bp or max(self.row_bp, _PIECE_BP // self.row_bp * self.row_bp)

    def __call__(self, sequence: str) -> HeadPrediction:
        """Predict one sequence; see ``predict``."""
        return self.predict([sequence])[0]

    def predict(self, sequences: Sequence[str]) -> list[HeadPrediction]:
        """Predict sequences. Give a sequence of the minus strand as its reverse complement.

        Args:
            sequences: Nucleotides as IUPAC codes in either case.

        Returns:
            One prediction per sequence, in their order.

        Raises:
            InputError: A sequence is empty, holds something else, or is shorter than a label window.
        """
        return list(self.iter_predict(sequences))

    def iter_predict(self, sequences: Iterable[str]) -> Iterator[HeadPrediction]:
        """Predict sequences one after the other, in bounded memory; see ``predict``."""
        numbered = self._predicted_pieces(enumerate(checked_sequences(sequences)))
        for _, pieces in groupby(numbered, key=itemgetter(0)):
            yield self._prediction(np.concatenate([scores for _, scores in pieces]))

    def _predicted_pieces(self, sequences: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Floats]]:
        """Yield the number of a sequence and the scores of a piece of it, shape (windows, C), in order."""
        waiting: list[tuple[int, str]] = []
        longest = 0
        for number, piece in self._pieces(sequences):
            longest = max(longest, len(piece))
            if waiting and (len(waiting) == _BATCH_ITEMS or longest * (len(waiting) + 1) > _BATCH_BP):
                yield from self._batch(waiting)
                waiting, longest = [], len(piece)
            waiting.append((number, piece))
        if waiting:
            yield from self._batch(waiting)

    def _pieces(self, sequences: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        least_bp = self.piece_bp if one_row_each(self.config.label) else self.row_bp
        for number, sequence in sequences:
            if len(sequence) < least_bp:
                raise InputError(
                    f"sequence {number} has {len(sequence)} nucleotides, but the head of {self.config.task} predicts "
                    f"windows of {least_bp}; give sequences of at least that length"
                )
            for start in range(0, len(sequence), self.piece_bp):
                piece = sequence[start : start + self.piece_bp]
                if len(piece) >= least_bp:
                    yield number, piece

    def _batch(self, pieces: list[tuple[int, str]]) -> list[tuple[int, Floats]]:
        sequences = [piece for _, piece in pieces]
        device = self.embedder.runner().device
        self.module.to(device)
        with torch.inference_mode():
            inputs = self._inputs(sequences)
            tensors = [to_device(getattr(inputs, item.name), device) for item in fields(inputs)]
            scores_BWC = self._scores(self.module(*tensors).float()).cpu().numpy()
        found = []
        for (number, piece), scores_WC in zip(pieces, scores_BWC, strict=True):
            n_rows = 1 if one_row_each(self.config.label) else len(piece) // self.row_bp
            if not np.isfinite(scores_WC[:n_rows]).all():
                raise ModelError(
                    f"the head gave numbers that are not finite for sequence {number}; load it with an embedder that "
                    "computes in float32"
                )
            found.append((number, scores_WC[:n_rows].copy()))
        return found

    def _inputs(self, sequences: list[str]) -> Inputs:
        if isinstance(self.module, TunedModel):
            return token_rows(self.embedder.tokenize(sequences), pad_id=self.embedder.pad_id)
        embedded = [self._as_trained(one) for one in self.embedder.embed_tokens(sequences)]
        starts = np.cumsum([0, *(len(one.embedding_bp) for one in embedded)])
        values = np.concatenate([one.values for one in embedded])
        return pad_embeddings(values, starts, np.concatenate([one.embedding_bp for one in embedded]))

    def _as_trained(self, tokens: TokenEmbeddings) -> TokenEmbeddings:
        """Round and average token embeddings as the cache did that the head was trained on."""
        rounded_to, pool_bp = self.config.rounded_to, pooled_bp(self.config.head)
        if rounded_to is None:
            return tokens
        if pool_bp is not None:
            return Pooling(pool_bp=pool_bp, rounded_to=rounded_to).of(tokens)
        values = decode(encode(tokens.values, rounded_to), rounded_to).astype(np.float32, copy=False)
        return type(tokens)(values=values, embedding_bp=tokens.embedding_bp)

    def _scores(self, logits_BWC: Tensor) -> Tensor:
        if isinstance(self.config.label, RealValues):
            return self._loss.predict(logits_BWC)
        if is_per_label(self.config.label):
            return logits_BWC.sigmoid()
        if logits_BWC.shape[-1] == 1:  # a yes-or-no label
            yes_BW1 = logits_BWC.sigmoid()
            return torch.cat([1 - yes_BW1, yes_BW1], dim=-1)
        return logits_BWC.softmax(dim=-1)

    def _prediction(self, scores_WC: Floats) -> HeadPrediction:
        per_label = is_per_label(self.config.label)
        return HeadPrediction(
            window_bp=self.row_bp,
            names=self.names,
            scores=scores_WC,
            predicted=None if per_label else scores_WC.argmax(axis=1),
        )
