"""Token embeddings of alleles, left on the device that computed them, and which of them covers a nucleotide.

    alleles = AlleleEmbeddings.of(embedder, ["ACGTACGT", "ACGTTCGT"])
    index = alleles.layout.at(np.array([0, 1]), np.array([4, 4]))   # the embedding that covers the fifth nucleotide
    alleles.some(index)                                             # shape (2, D); others are left out if possible
    alleles.all().values[index]                                     # the same, out of all embeddings

Batches hold a fixed number of tokens, never a probed one, so that a resumed run repeats every bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from bend_hf.embedders._alignment import Tokenized
from bend_hf.embedders._batching import batch_end
from bend_hf.errors import AlignmentError, NotFiniteError
from bend_hf.types import Bools, Ints

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bend_hf.embedders._embedder import Embedder

_HOMOPOLYMER: Final = "A" * 64
# On a CPU, where fewer tokens stay in its cache: 6 layers of width 256 take a third longer with 2,048.
_CPU_TOKENS: Final = 1024
# If more than this fraction of a batch's longest sequence is wanted, all of it is computed.
_FEW: Final = 0.5

# From an embedder, ids (B, T), mask (B, T) or None and selected tokens (B, Q) to values (B, Q, K); without selected
# tokens to the values of all tokens (B, T, K).
TokenFunction: TypeAlias = "Callable[[Embedder, Tensor, Tensor | None, Tensor | None], Tensor]"


@dataclass(frozen=True, kw_only=True)
class TokenLayout:
    """Which nucleotides each of R embeddings of S sequences covers; those of a sequence follow one another.

    Attributes:
        bp: Nucleotides that each embedding covers, 1 or more, shape (R,).
        starts: Index of each sequence's first embedding, shape (S + 1,).
    """

    bp: Ints
    starts: Ints

    def ends_bp(self) -> Ints:
        """Return where each embedding's nucleotides end, counted through all sequences, shape (R,)."""
        ends: Ints = np.cumsum(self.bp)
        return ends

    def starts_bp(self) -> Ints:
        """Return where each sequence's nucleotides start, counted through all sequences, shape (S + 1,)."""
        starts: Ints = np.concatenate([[0], self.ends_bp()])[self.starts]
        return starts

    def at(self, sequence: Ints, offset_bp: Ints) -> Ints:
        """Find the embedding that covers a nucleotide.

        Args:
            sequence: Index of the sequence, shape (n,).
            offset_bp: Position of the nucleotide in it, shape (n,).

        Returns:
            Index of the embedding, shape (n,).

        Raises:
            AlignmentError: A sequence's tokens end before that nucleotide.
        """
        starts = self.starts_bp()
        beyond = np.flatnonzero(starts[sequence] + offset_bp >= starts[sequence + 1])
        if len(beyond):
            raise AlignmentError(f"the tokens end before nucleotide {offset_bp[beyond[0]]}, which holds the variant")
        return np.searchsorted(self.ends_bp(), starts[sequence] + offset_bp, side="right")


@dataclass(frozen=True, kw_only=True)
class EmbeddingsOnDevice(TokenLayout):
    """All embeddings of S sequences.

    Attributes:
        values: Float32 on the device, shape (R, D).
    """

    values: Tensor

    def some(self, index: Ints) -> Tensor:
        """Select embeddings by index, shape (n, D)."""
        return self.values[_on(index, self.values.device)]


def bp_of_tokens(tokenized: Tokenized) -> Ints:
    """Count the nucleotides that each token's embeddings cover, shape (N,); 0 for a token without an embedding.

    A token that is listed twice (BEND copies DNABERT's first embedding near the end) counts all its nucleotides at
    its own position, which is where they are.
    """
    counted = np.bincount(tokenized.embedding_token, weights=tokenized.embedding_bp, minlength=len(tokenized.ids))
    return counted.astype(np.int64)


def tokens_overlap(embedder: Embedder) -> bool:
    """Check whether neighboring tokens share nucleotides, as overlapping k-mers do.

    Tokens that do not overlap cover the same number of nucleotides at any position. In a homopolymer, overlapping
    k-mers are all the same token, and those at the ends cover more nucleotides than the others.
    """
    if not embedder.has_tokens:
        return False
    tokenized = embedder.tokenize([_HOMOPOLYMER])
    bp = bp_of_tokens(tokenized)
    covers = bp > 0
    pairs = np.unique(np.stack([tokenized.ids[covers].astype(np.int64), bp[covers]]), axis=1)
    return bool(len(np.unique(pairs[0])) < pairs.shape[1])


@dataclass(frozen=True, kw_only=True)
class AlleleEmbeddings:
    """The embeddings of some sequences, which must fit into the device's memory.

    Attributes:
        layout: Which nucleotides each embedding covers.
    """

    layout: TokenLayout
    _embedder: Embedder
    _source: Tokenized | EmbeddingsOnDevice  # tokens to compute embeddings from, or the embeddings themselves
    _wanted: Bools

    @classmethod
    def of(cls, embedder: Embedder, sequences: list[str]) -> AlleleEmbeddings:
        """Tokenize sequences; their embeddings are computed when they are asked for.

        If embeddings are averaged over both strands, or the model gives no tokens, all embeddings are computed now
        and pass through the host.
        """
        if embedder.reverse_complement_average or not embedder.has_tokens:
            computed = _through_host(embedder, sequences)
            return cls(layout=computed, _embedder=embedder, _source=computed, _wanted=np.zeros(0, np.bool_))
        tokenized = embedder.tokenize(sequences)
        bp = bp_of_tokens(tokenized)
        wanted = bp > 0
        starts = np.concatenate([[0], np.cumsum(wanted)])[tokenized.token_starts()]
        layout = TokenLayout(bp=bp[wanted], starts=starts)
        return cls(layout=layout, _embedder=embedder, _source=tokenized, _wanted=wanted)

    def all(self) -> EmbeddingsOnDevice:
        """Compute every embedding."""
        if isinstance(self._source, EmbeddingsOnDevice):
            return self._source
        values = run_on_device(self._embedder, self._source, self._wanted, hidden)
        return EmbeddingsOnDevice(values=values, bp=self.layout.bp, starts=self.layout.starts)

    def some(self, index: Ints) -> Tensor:
        """Compute selected embeddings and skip what the model needs for others alone.

        Args:
            index: Which embeddings, in any order and with repeats, shape (n,).

        Returns:
            Float32 on the device, shape (n, D).
        """
        if isinstance(self._source, EmbeddingsOnDevice):
            return self._source.some(index)
        token = np.flatnonzero(self._wanted)[index]
        few = np.zeros_like(self._wanted)
        few[token] = True
        values = run_on_device(self._embedder, self._source, few, hidden)
        return values[_on((np.cumsum(few) - 1)[token], values.device)]


def not_finite(embedder: Embedder, what: str = "an embedding") -> NotFiniteError:
    """Say that a model gave nan or infinity."""
    return NotFiniteError(
        f"{embedder.name} gave {what} that is not finite, computed in {embedder.dtype}; {embedder.finite_remedy}"
    )


def _through_host(embedder: Embedder, sequences: list[str]) -> EmbeddingsOnDevice:
    import torch

    embedded = embedder.embed_tokens(sequences)
    if not all(np.isfinite(one.values).all() for one in embedded):
        raise not_finite(embedder)
    counts = [len(one.embedding_bp) for one in embedded]
    return EmbeddingsOnDevice(
        values=torch.from_numpy(np.concatenate([one.values for one in embedded])),
        bp=np.concatenate([one.embedding_bp for one in embedded]),
        starts=np.concatenate([[0], np.cumsum(counts)]),
    )


def hidden(embedder: Embedder, ids_BT: Tensor, mask_BT: Tensor | None, tokens_BQ: Tensor | None) -> Tensor:
    """Compute token embeddings; a ``TokenFunction``."""
    return embedder._hidden_at(ids_BT, mask_BT, embedder.layer, tokens_BQ)


def logits(embedder: Embedder, ids_BT: Tensor, mask_BT: Tensor | None, tokens_BQ: Tensor | None) -> Tensor:
    """Compute language-model logits; a ``TokenFunction``."""
    return embedder._logits_at(ids_BT, mask_BT, tokens_BQ)


def losses(embedder: Embedder, ids_BT: Tensor, mask_BT: Tensor | None, tokens_BQ: Tensor | None) -> Tensor:
    """Compute the loss of each token as it stands; a ``TokenFunction``."""
    found = embedder._loss_batch(ids_BT, mask_BT)
    _check_losses(embedder, found, ids_BT, mask_BT)
    return found if tokens_BQ is None else found.gather(1, tokens_BQ[..., None])


def _check_losses(embedder: Embedder, loss_BT1: Tensor, ids_BT: Tensor, mask_BT: Tensor | None) -> None:
    """Check that each token that competes has a finite loss; the first token of a causal model has none."""
    import torch

    bad_BT = ~torch.isfinite(loss_BT1[..., 0])
    competing = embedder._loss_tokens()
    if competing is not None:
        bad_BT &= torch.isin(ids_BT, torch.tensor(list(competing), device=ids_BT.device))
    if mask_BT is not None:
        bad_BT &= mask_BT.bool()
    if bool(bad_BT[:, 1:].any()):
        raise not_finite(embedder, "a log-likelihood")


def tokens_at_a_time(embedder: Embedder) -> int:
    """Return the tokens of one batch: fixed, so that a resumed run repeats every bit."""
    runner = embedder.runner()
    return embedder.batch_tokens or (_CPU_TOKENS if runner.device.type == "cpu" else runner.default_tokens)


def run_on_device(embedder: Embedder, tokenized: Tokenized, wanted: Bools, function: TokenFunction) -> Tensor:
    """Compute a function's values for the wanted tokens.

    Args:
        embedder: Its device, padding and batch size are used.
        tokenized: The model's inputs.
        wanted: Which tokens, shape (N,).
        function: What to compute for them.

    Returns:
        Float32 on the device, shape (wanted tokens, K), in the order of the tokens.
    """
    import torch

    runner = embedder.runner()
    device = runner.device
    budget = tokens_at_a_time(embedder)
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
            chunks, n_tokens = order[first:last], ordered[first:last]
            inside = np.arange(int(n_tokens[0])) < n_tokens[:, None]
            index = np.where(inside, tokenized.chunk_starts[chunks][:, None] + np.arange(inside.shape[1]), 0)
            ids = torch.from_numpy(np.where(inside, tokenized.ids[index], embedder.pad_id).astype(np.int64))
            mask = None if inside.all() else torch.from_numpy(inside.astype(np.int64)).to(device)
            selection = _Selection.of(inside & wanted[index])
            tokens = None if selection.tokens is None else _on(selection.tokens, device)
            values = function(embedder, ids.to(device), mask, tokens)
            if out is None:
                out = torch.empty((int(wanted.sum()), values.shape[-1]), dtype=torch.float32, device=device)
            flat = values.reshape(-1, values.shape[-1])
            slots = slot_of[index.reshape(-1)[selection.token]]
            selected = flat if len(selection.value) == len(flat) else flat[_on(selection.value, device)]
            out[_on(slots, device)] = selected.float()
            first = last
    if out is None:
        return torch.zeros((0, 0))
    if function is hidden and not bool(torch.isfinite(out).all()):
        raise not_finite(embedder)
    return out


@dataclass(frozen=True, kw_only=True)
class _Selection:
    """The tokens of one batch whose values are wanted.

    Attributes:
        tokens: Positions in each sequence, shape (B, Q), padded with 0; None for all tokens.
        token: Index of each wanted token among all B * T tokens, ascending.
        value: Index of each wanted token's value among those that the function returns.
    """

    tokens: Ints | None
    token: Ints
    value: Ints

    @classmethod
    def of(cls, wanted_BT: Bools) -> _Selection:
        token = np.flatnonzero(wanted_BT)
        counts = wanted_BT.sum(axis=1)
        most = int(counts.max())
        if most > _FEW * wanted_BT.shape[1]:
            return cls(tokens=None, token=token, value=token)
        sequence, position = np.divmod(token, wanted_BT.shape[1])
        column = np.arange(len(token)) - np.repeat(np.cumsum(counts) - counts, counts)
        tokens = np.zeros((len(counts), most), np.int64)
        tokens[sequence, column] = position
        return cls(tokens=tokens, token=token, value=sequence * most + column)


def _on(index: Ints, device: torch.device) -> Tensor:
    import torch

    return torch.from_numpy(index).to(device)


def chunk_starts_of_tokens(tokenized: Tokenized) -> Ints:
    """Return where the chunk (model input) of each token starts, shape (N,)."""
    starts: Ints = np.repeat(tokenized.chunk_starts[:-1], np.diff(tokenized.chunk_starts))
    return starts
