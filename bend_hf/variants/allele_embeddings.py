"""Rows of token embeddings of some sequences, left on the device that made them, and where a nucleotide's row is.

    rows = AlleleEmbeddings.of(embedder, ["ACGTACGT", "ACGTTCGT"])
    place = rows.layout.at(np.array([0, 1]), np.array([4, 4]))   # the row that holds the fifth letter of each
    rows.some(place)                                             # (2, width), and nothing else was computed to the end
    rows.all().values[place]                                     # the same, out of all rows; still on the device

Batches hold a fixed number of tokens here, never a probed one, so that a resumed run repeats the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from bend_hf.embedders._alignment import Tokenized
from bend_hf.embedders._batching import batch_end
from bend_hf.errors import AlignmentError, ModelError
from bend_hf.types import Bools, Ints

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bend_hf.embedders._embedder import Embedder

_HOMOPOLYMER: Final = "A" * 64
# On a CPU, where fewer tokens stay in its cache: 6 layers of width 256 take a third longer with 2,048.
_CPU_TOKENS: Final = 1024
# Where more of a batch's longest sequence is wanted, all of it is computed.
_FEW: Final = 0.5

# From an embedder, ids (B, T), mask (B, T) or None and some tokens (B, Q) to values (B, Q, K); to all tokens' values
# (B, T, K) where no tokens are named.
RowFunction: TypeAlias = "Callable[[Embedder, Tensor, Tensor | None, Tensor | None], Tensor]"


@dataclass(frozen=True, kw_only=True)
class TokenLayout:
    """R rows of S sequences; within a sequence each row stands for the nucleotides behind those of the one before.

    Attributes:
        bp: Nucleotides of each row, 1 or more, shape (R,).
        starts: Where each sequence's rows start, shape (S + 1,).
    """

    bp: Ints
    starts: Ints

    def ends_bp(self) -> Ints:
        """Where each row's nucleotides end, counted through all sequences, shape (R,)."""
        ends: Ints = np.cumsum(self.bp)
        return ends

    def starts_bp(self) -> Ints:
        """Where each sequence's nucleotides start, counted the same way, shape (S + 1,)."""
        starts: Ints = np.concatenate([[0], self.ends_bp()])[self.starts]
        return starts

    def at(self, sequence: Ints, offset_bp: Ints) -> Ints:
        """The row that holds a nucleotide.

        Args:
            sequence: Which sequence, shape (n,).
            offset_bp: Which nucleotide of it, shape (n,).

        Raises:
            AlignmentError: A sequence's rows end before that nucleotide.
        """
        starts = self.starts_bp()
        beyond = np.flatnonzero(starts[sequence] + offset_bp >= starts[sequence + 1])
        if len(beyond):
            raise AlignmentError(f"the tokens end before nucleotide {offset_bp[beyond[0]]} that holds the variant")
        return np.searchsorted(self.ends_bp(), starts[sequence] + offset_bp, side="right")


@dataclass(frozen=True, kw_only=True)
class RowsOnDevice(TokenLayout):
    """All rows of S sequences.

    Attributes:
        values: Shape (R, D), float32, on the device.
    """

    values: Tensor

    def some(self, index: Ints) -> Tensor:
        """A few of them, shape (n, D)."""
        return self.values[_on(index, self.values.device)]


def bp_of_tokens(tokenized: Tokenized) -> Ints:
    """Nucleotides that each token stands for in all its rows, shape (N,); 0 for a token that gives none.

    A token that is listed twice (BEND's copy of DNABERT's first row near the end) gets all its nucleotides where
    it stands, which is where they are.
    """
    counted = np.bincount(tokenized.embedding_token, weights=tokenized.embedding_bp, minlength=len(tokenized.ids))
    return counted.astype(np.int64)


def tokens_overlap(embedder: Embedder) -> bool:
    """Whether neighbouring tokens share letters, as overlapping k-mers do.

    Tokens that share none stand for as many nucleotides wherever they are. Of one letter repeated, overlapping
    k-mers are all the same token, and those at the ends stand for more nucleotides than the others.
    """
    if not has_tokens(embedder):
        return False
    tokenized = embedder.tokenize([_HOMOPOLYMER])
    bp = bp_of_tokens(tokenized)
    gives = bp > 0
    pairs = np.unique(np.stack([tokenized.ids[gives].astype(np.int64), bp[gives]]), axis=1)
    return bool(len(np.unique(pairs[0])) < pairs.shape[1])


def has_tokens(embedder: Embedder) -> bool:
    """Whether the embedder's tokens are known: those of a user's own model are not, only its rows."""
    try:
        embedder.tokenize(["ACGT"])
    except ModelError:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class AlleleEmbeddings:
    """The rows of some sequences, which must fit into the device's memory; computed when they are asked for.

    Attributes:
        layout: Which nucleotides each row stands for.
    """

    layout: TokenLayout
    _embedder: Embedder
    _tokenized: Tokenized | None
    _wanted: Bools
    _made: Tensor | None

    @classmethod
    def of(cls, embedder: Embedder, sequences: list[str]) -> AlleleEmbeddings:
        """Reads the tokens of some sequences.

        Where rows are averaged over both strands, or only rows are known of a model, all of them are made now, and
        come by way of the host.
        """
        if embedder.reverse_complement_average or not has_tokens(embedder):
            made = _by_way_of_the_host(embedder, sequences)
            none = np.zeros(0, np.bool_)
            return cls(layout=made, _embedder=embedder, _tokenized=None, _wanted=none, _made=made.values)
        tokenized = embedder.tokenize(sequences)
        bp = bp_of_tokens(tokenized)
        wanted = bp > 0
        starts = np.concatenate([[0], np.cumsum(wanted)])[tokenized.token_starts()]
        layout = TokenLayout(bp=bp[wanted], starts=starts)
        return cls(layout=layout, _embedder=embedder, _tokenized=tokenized, _wanted=wanted, _made=None)

    def all(self) -> RowsOnDevice:
        """Every row."""
        if self._tokenized is None:
            assert self._made is not None
            values = self._made
        else:
            values = run_on_device(self._embedder, self._tokenized, self._wanted, hidden)
        return RowsOnDevice(values=values, bp=self.layout.bp, starts=self.layout.starts)

    def some(self, index: Ints) -> Tensor:
        """A few rows, shape (n, D); what a model computes for other rows alone is left out.

        Args:
            index: Which rows, in any order and as often as wanted, shape (n,).
        """
        if self._tokenized is None:
            return self.all().some(index)
        token = np.flatnonzero(self._wanted)[index]
        few = np.zeros_like(self._wanted)
        few[token] = True
        values = run_on_device(self._embedder, self._tokenized, few, hidden)
        return values[_on((np.cumsum(few) - 1)[token], values.device)]


def _by_way_of_the_host(embedder: Embedder, sequences: list[str]) -> RowsOnDevice:
    import torch

    embedded = embedder.embed_tokens(sequences)
    counts = [len(one.embedding_bp) for one in embedded]
    return RowsOnDevice(
        values=torch.from_numpy(np.concatenate([one.values for one in embedded])),
        bp=np.concatenate([one.embedding_bp for one in embedded]),
        starts=np.concatenate([[0], np.cumsum(counts)]),
    )


def hidden(embedder: Embedder, ids_BT: Tensor, mask_BT: Tensor | None, tokens_BQ: Tensor | None) -> Tensor:
    """The rows themselves; a ``RowFunction``."""
    return embedder._hidden_at(ids_BT, mask_BT, embedder.layer, tokens_BQ)


def logits(embedder: Embedder, ids_BT: Tensor, mask_BT: Tensor | None, tokens_BQ: Tensor | None) -> Tensor:
    """Language-model scores; a ``RowFunction``."""
    return embedder._logits_at(ids_BT, mask_BT, tokens_BQ)


def losses(embedder: Embedder, ids_BT: Tensor, mask_BT: Tensor | None, tokens_BQ: Tensor | None) -> Tensor:
    """Losses of the tokens as they stand; a ``RowFunction``."""
    found = embedder._loss_batch(ids_BT, mask_BT)
    return found if tokens_BQ is None else found.gather(1, tokens_BQ[..., None])


def run_on_device(embedder: Embedder, tokenized: Tokenized, wanted: Bools, function: RowFunction) -> Tensor:
    """A function's values for the wanted tokens, float32, shape (wanted tokens, K), in the order of the tokens.

    Args:
        embedder: Whose device, padding and batch size are used.
        tokenized: The model's inputs.
        wanted: Which tokens, shape (N,).
        function: What is computed of them.
    """
    import torch

    runner = embedder.runner()
    device = runner.device
    budget = embedder.batch_tokens or (_CPU_TOKENS if device.type == "cpu" else runner.usual_tokens)
    lengths = np.diff(tokenized.chunk_starts)
    slot_of = np.cumsum(wanted) - 1
    needed = np.flatnonzero(np.add.reduceat(wanted, tokenized.chunk_starts[:-1]))
    order = needed[np.argsort(-lengths[needed], kind="stable")]
    ordered = lengths[order]
    out: Tensor | None = None
    first = 0
    with torch.inference_mode():
        while first < len(order):
            last = batch_end(ordered, first, budget_tokens=budget, equal_lengths=embedder.equal_lengths)
            pieces, n_tokens = order[first:last], ordered[first:last]
            inside = np.arange(int(n_tokens[0])) < n_tokens[:, None]
            index = np.where(inside, tokenized.chunk_starts[pieces][:, None] + np.arange(inside.shape[1]), 0)
            ids = torch.from_numpy(np.where(inside, tokenized.ids[index], embedder.pad_id).astype(np.int64))
            mask = None if inside.all() else torch.from_numpy(inside.astype(np.int64)).to(device)
            asked = _Asked.of(inside & wanted[index])
            named = None if asked.tokens is None else _on(asked.tokens, device)
            values = function(embedder, ids.to(device), mask, named)
            if out is None:
                out = torch.empty((int(wanted.sum()), values.shape[-1]), dtype=torch.float32, device=device)
            flat = values.reshape(-1, values.shape[-1])
            slots = slot_of[index.reshape(-1)[asked.token]]
            out[_on(slots, device)] = (
                flat if len(asked.value) == len(flat) else flat[_on(asked.value, device)]
            ).float()
            first = last
    return torch.zeros((0, 0)) if out is None else out


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """Which tokens of one batch are computed to the end.

    Attributes:
        tokens: Of each sequence, shape (B, Q), filled up with 0 where a sequence has fewer; None: all.
        token: The wanted ones by their place among all B * T tokens, ascending.
        value: Where the value of each is among those that the function gives.
    """

    tokens: Ints | None
    token: Ints
    value: Ints

    @classmethod
    def of(cls, wanted_BT: Bools) -> _Asked:
        token = np.flatnonzero(wanted_BT)
        counts = wanted_BT.sum(axis=1)
        most = int(counts.max())
        if most > _FEW * wanted_BT.shape[1]:
            return cls(tokens=None, token=token, value=token)
        sequence, place = np.divmod(token, wanted_BT.shape[1])
        column = np.arange(len(token)) - np.repeat(np.cumsum(counts) - counts, counts)
        tokens = np.zeros((len(counts), most), np.int64)
        tokens[sequence, column] = place
        return cls(tokens=tokens, token=token, value=sequence * most + column)


def _on(index: Ints, device: torch.device) -> Tensor:
    import torch

    return torch.from_numpy(index).to(device)


def chunk_starts_of_tokens(tokenized: Tokenized) -> Ints:
    """Where the model input begins that each token is in, shape (N,)."""
    starts: Ints = np.repeat(tokenized.chunk_starts[:-1], np.diff(tokenized.chunk_starts))
    return starts
