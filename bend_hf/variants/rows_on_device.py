"""Rows of token embeddings of some sequences, left on the device that made them, and where a nucleotide's row is.

    rows = embedded_rows(embedder, ["ACGTACGT", "ACGTTCGT"])
    place = rows.at(np.array([0, 1]), np.array([4, 4]))          # the row that holds the fifth letter of each
    rows.values[place]                                           # (2, width), still on the device

Batches hold a fixed number of tokens here, never a probed one, so that a resumed run repeats the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from bend_hf.embedders._alignment import Tokenized
from bend_hf.embedders._batching import BatchFunction, batch_end
from bend_hf.errors import AlignmentError, ModelError
from bend_hf.shapes import Bools, Ints

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bend_hf.embedders._base import Embedder

_HOMOPOLYMER: Final = "A" * 64


@dataclass(frozen=True, kw_only=True)
class RowsOnDevice:
    """R rows of S sequences; within a sequence each row stands for the nucleotides behind those of the one before.

    Attributes:
        values: Shape (R, D), float32, on the device.
        bp: Nucleotides of each row, 1 or more, shape (R,).
        starts: Where each sequence's rows start, shape (S + 1,).
    """

    values: Tensor
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


def bp_of_tokens(tokenized: Tokenized) -> Ints:
    """Nucleotides that each token stands for in all its rows, shape (N,); 0 for a token that gives none.

    A token that is listed twice (BEND's copy of DNABERT's first row near the end) gets all its nucleotides where
    it stands, which is where they are.
    """
    counted = np.bincount(tokenized.row_token, weights=tokenized.row_bp, minlength=len(tokenized.ids))
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


def embedded_rows(embedder: Embedder, sequences: list[str]) -> RowsOnDevice:
    """The rows of some sequences, which must fit into the device's memory.

    Where rows are averaged over both strands, or only rows are known of a model, they come by way of the host.
    """
    if embedder.reverse_complement_average or not has_tokens(embedder):
        return _by_way_of_the_host(embedder, sequences)
    tokenized = embedder.tokenize(sequences)
    bp = bp_of_tokens(tokenized)
    wanted = bp > 0
    starts = np.concatenate([[0], np.cumsum(wanted)])[tokenized.token_starts()]
    values = run_on_device(embedder, tokenized, wanted, lambda ids, mask: embedder._hidden(ids, mask, embedder.layer))
    return RowsOnDevice(values=values, bp=bp[wanted], starts=starts)


def _by_way_of_the_host(embedder: Embedder, sequences: list[str]) -> RowsOnDevice:
    import torch

    embedded = embedder.embed_tokens(sequences)
    counts = [len(one.row_bp) for one in embedded]
    return RowsOnDevice(
        values=torch.from_numpy(np.concatenate([one.rows for one in embedded])),
        bp=np.concatenate([one.row_bp for one in embedded]),
        starts=np.concatenate([[0], np.cumsum(counts)]),
    )


def run_on_device(embedder: Embedder, tokenized: Tokenized, wanted: Bools, function: BatchFunction) -> Tensor:
    """A batch function's values for the wanted tokens, float32, shape (wanted tokens, K), in the order of the tokens.

    Args:
        embedder: Whose device, padding and batch size are used.
        tokenized: The model's inputs.
        wanted: Which tokens, shape (N,).
        function: From ids (B, T) and mask (B, T) or None to values (B, T, K).
    """
    import torch

    runner = embedder._ready()
    device = runner.device
    lengths = np.diff(tokenized.piece_starts)
    slot_of = np.cumsum(wanted) - 1
    needed = np.flatnonzero(np.add.reduceat(wanted, tokenized.piece_starts[:-1]))
    order = needed[np.argsort(-lengths[needed], kind="stable")]
    ordered = lengths[order]
    out: Tensor | None = None
    first = 0
    with torch.inference_mode():
        while first < len(order):
            last = batch_end(ordered, first, budget_tokens=runner.usual_tokens, equal_lengths=embedder.equal_lengths)
            pieces, n_tokens = order[first:last], ordered[first:last]
            inside = np.arange(int(n_tokens[0])) < n_tokens[:, None]
            index = np.where(inside, tokenized.piece_starts[pieces][:, None] + np.arange(inside.shape[1]), 0)
            ids = torch.from_numpy(np.where(inside, tokenized.ids[index], embedder.pad_id).astype(np.int64))
            mask = None if inside.all() else torch.from_numpy(inside.astype(np.int64)).to(device)
            values = function(ids.to(device), mask)
            take = np.flatnonzero(inside & wanted[index])
            if out is None:
                out = torch.empty((int(wanted.sum()), values.shape[-1]), dtype=torch.float32, device=device)
            flat = values.reshape(-1, values.shape[-1])
            slots = slot_of[index.reshape(-1)[take]]
            out[_on(slots, device)] = (flat if len(take) == len(flat) else flat[_on(take, device)]).float()
            first = last
    return torch.zeros((0, 0)) if out is None else out


def _on(index: Ints, device: torch.device) -> Tensor:
    import torch

    return torch.from_numpy(index).to(device)


def piece_starts_of_tokens(tokenized: Tokenized) -> Ints:
    """Where the model input begins that each token is in, shape (N,)."""
    starts: Ints = np.repeat(tokenized.piece_starts[:-1], np.diff(tokenized.piece_starts))
    return starts
