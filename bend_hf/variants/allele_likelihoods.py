"""How likely a language model finds each allele of a variant, given the sequence around it.

    likelihoods = VariantLikelihoods(alleles=AlleleLikelihoods.of(embedder), context=context, indel_context=context,
                                     both_strands=True)
    likelihoods.of_substitutions(stored).log_likelihood_ratio

A masked model is asked with the tokens masked in which the alleles differ. A causal model is asked one token earlier.
Alleles of different lengths are compared by what follows them, so a causal model is shown more context for them. Only
tokens that compete in the model's loss share the probability. Logarithms are natural; a value is nan if the model
cannot say (a causal model's first token, a site that the tokenizer turns into unknown tokens).

>>> entropy_bits(np.log([[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 1e-300, 1e-300]])).tolist()
[2.0, 1.0]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.embedders._alignment import Tokenized
from bend_hf.embedders._embedder import Embedder, NetworkEmbedder
from bend_hf.errors import ModelError
from bend_hf.types import Ints
from bend_hf.variants.allele_embeddings import (
    bp_of_tokens,
    chunk_starts_of_tokens,
    logits,
    losses,
    not_finite,
    run_on_device,
    tokens_at_a_time,
    tokens_overlap,
)
from bend_hf.variants.alleles import Alleles, Context, StoredVariants, distinct

if TYPE_CHECKING:
    from torch import Tensor, nn

BASES: Final = "ACGT"
_ANY_SEQUENCE: Final = "ACGTTGCATTAC"


@dataclass(frozen=True, kw_only=True)
class AlleleLikelihoods:
    """A language model that says how likely alleles are.

    Attributes:
        embedder: The model.
        mask_id: Its mask token; None for a causal model.
        overlaps: Whether its tokens share nucleotides.
        head: Computes the logits of a causal model from its embeddings; None if they do not follow from them.
    """

    embedder: Embedder
    mask_id: int | None
    overlaps: bool
    head: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def of(cls, embedder: Embedder) -> AlleleLikelihoods:
        """Check that a model has likelihoods.

        Raises:
            ModelError: The model has no likelihoods; the message says why.
        """
        if type(embedder)._logits is Embedder._logits or embedder.direction == "none":
            raise ModelError(f"{embedder.name} has no language-model head; likelihoods need one")
        embedder._need_head()
        if embedder.overlap_tokens:
            raise ModelError(
                f"{embedder.name} reads long sequences in overlapping chunks, which show a masked token again; "
                "likelihoods need overlap_tokens=0"
            )
        causal = embedder.direction == "causal"
        mask_id = None if causal else embedder.mask_id
        if not causal and mask_id is None:
            raise ModelError(f"{embedder.name} has no mask token; likelihoods of a masked language model need one")
        head = _head_of(embedder) if causal else None
        return cls(embedder=embedder, mask_id=mask_id, overlaps=tokens_overlap(embedder), head=head)

    def of_bases(
        self, sequences: Sequence[str], offset_bp: Ints, before_SD: Tensor | None = None
    ) -> NDArray[np.float64]:
        """Compute the log-likelihoods of A, C, G and T at S sites.

        Args:
            sequences: The sequence around each site, with any base at the site.
            offset_bp: Position of the site in each sequence, shape (S,).
            before_SD: Embeddings of the tokens before the sites, if they are known, for ``head``, shape (S, D).

        Returns:
            Shape (S, 4).
        """
        texts = [
            text[:at] + base + text[at + 1 :]
            for text, at in zip(sequences, offset_bp.tolist(), strict=True)
            for base in BASES
        ]
        return self.of_alleles(texts, offset_bp, n_alleles=len(BASES), before_SD=before_SD)

    def of_alleles(
        self, texts: list[str], offset_bp: Ints, *, n_alleles: int, before_SD: Tensor | None = None
    ) -> NDArray[np.float64]:
        """Compute the log-likelihoods of the alleles of S sites.

        Args:
            texts: The sequence of each allele; those of one site follow one another.
            offset_bp: Where the alleles of each site begin to differ, shape (S,).
            n_alleles: Number of alleles per site.
            before_SD: As for ``of_bases``.

        Returns:
            Shape (S, alleles).

        Raises:
            ModelError: Alleles differ in length, and the model has overlapping tokens.
        """
        tokens = _Tokens.of(self.embedder.tokenize(texts))
        spans = _spans(tokens, n_alleles)
        if self.mask_id is None:
            read = self._causal(tokens, spans, before_SD)
        else:
            read = self._masked(texts, tokens, spans, offset_bp, mask_id=self.mask_id)
        found = np.where(np.isfinite(read), read, np.nan).reshape(-1, n_alleles)
        no_difference = (spans.n_tokens.reshape(-1, n_alleles) == 0).all(axis=1)
        found[no_difference | np.isnan(found).any(axis=1)] = np.nan
        return found

    def _masked(
        self, texts: list[str], tokens: _Tokens, spans: _Spans, offset_bp: Ints, *, mask_id: int
    ) -> NDArray[np.float64]:
        # the alleles of a site whose spans have one length look the same once they are masked
        site = np.arange(len(texts)) // spans.n_alleles
        _, shown, shown_as = np.unique(
            site * (int(spans.n_tokens.max()) + 1) + spans.n_tokens, return_index=True, return_inverse=True
        )
        inputs = _Tokens.of(self.embedder.tokenize([texts[index] for index in shown]))
        hidden, token = spans.tokens_of(shown)
        ids = inputs.tokenized.ids.copy()
        ids[inputs.index[hidden, token]] = mask_id
        masked = replace(inputs.tokenized, ids=ids)
        allele, token = spans.tokens_of(np.arange(len(texts)))
        if self.overlaps:
            if (spans.n_tokens.reshape(-1, spans.n_alleles) != spans.n_tokens[:: spans.n_alleles, None]).any():
                raise ModelError(
                    f"{self.embedder.name} has overlapping tokens; alleles of different lengths cannot be compared"
                )
            alone = token == tokens.column_at(np.repeat(offset_bp, spans.n_alleles))[allele]
            allele, token = allele[alone], token[alone]
        values = self._log_probabilities(masked, inputs.index[shown_as[allele], token], tokens.ids[allele, token])
        return np.bincount(allele, values, len(texts)).astype(np.float64)

    def _causal(self, tokens: _Tokens, spans: _Spans, before_SD: Tensor | None) -> NDArray[np.float64]:
        n_behind = tokens.counts - spans.n_front
        if (n_behind == 1).all() and (spans.n_tokens == 1).all():
            return self._next_token(tokens, spans, before_SD)
        if self._shares_prefixes(tokens, spans):
            return self._behind_prefixes(tokens, spans)
        allele = np.repeat(np.arange(len(n_behind)), n_behind)
        token = np.arange(len(allele)) - np.repeat(np.cumsum(n_behind) - n_behind, n_behind) + spans.n_front[allele]
        position = tokens.index[allele, token]
        wanted = np.zeros(len(tokens.tokenized.ids), np.bool_)
        wanted[position] = True
        found = run_on_device(self.embedder, tokens.tokenized, wanted, losses)[:, 0]
        slot = (np.cumsum(wanted) - 1)[position]
        return np.bincount(allele, -found.cpu().numpy()[slot], len(n_behind)).astype(np.float64)

    def _shares_prefixes(self, tokens: _Tokens, spans: _Spans) -> bool:
        """Whether what the alleles of a site begin with can be computed once: they begin alike, in one chunk each."""
        whole = len(tokens.tokenized.chunk_starts) - 1 == len(tokens.counts) and not tokens.tokenized.special.any()
        return self.embedder.shares_prefixes and whole and int(spans.n_front.min()) > 0

    def _behind_prefixes(self, tokens: _Tokens, spans: _Spans) -> NDArray[np.float64]:
        """Add up the log-likelihoods behind the tokens that the alleles of a site begin with."""
        found = np.empty(len(tokens.counts))
        for front in np.unique(spans.n_front).tolist():
            alleles = np.flatnonzero(spans.n_front == front)
            n_behind = tokens.counts[alleles] - front
            ids = tokens.ids[alleles][:, : front + int(n_behind.max())]
            # in the order of their ids, so that alleles with one beginning follow one another
            given, given_as = np.unique(np.where(ids < 0, self.embedder.pad_id, ids), axis=0, return_inverse=True)
            values = self._losses_behind(given, front)[given_as.reshape(-1)]
            inside = np.arange(values.shape[1]) < n_behind[:, None]
            if not np.isfinite(values[inside]).all():
                raise not_finite(self.embedder, "a log-likelihood")
            found[alleles] = -np.where(inside, values, 0.0).sum(axis=1)
        return found

    def _losses_behind(self, ids: Ints, front: int) -> NDArray[np.float64]:
        """Compute the losses behind the first ``front`` tokens of n distinct sequences, shape (n, T - front)."""
        import torch

        prefixes, start, prefix_of = np.unique(ids[:, :front], axis=0, return_index=True, return_inverse=True)
        starts = np.append(start, len(ids))
        prefix_of, rest = prefix_of.reshape(-1), ids[:, front:]
        n_tokens = np.cumsum(front + np.diff(starts) * rest.shape[1])
        values = np.empty(rest.shape)
        first, device = 0, self.embedder.runner().device
        while first < len(prefixes):
            before = n_tokens[first - 1] if first else 0
            fits = int(np.searchsorted(n_tokens, before + tokens_at_a_time(self.embedder), side="right"))
            last = max(first + 1, fits)
            rows = slice(starts[first], starts[last])
            given = (prefixes[first:last], rest[rows], prefix_of[rows] - first)
            with torch.inference_mode():
                losses_NR = self.embedder._losses_behind(*(torch.from_numpy(one).to(device) for one in given))
            values[rows] = losses_NR.cpu().numpy()
            first = last
        return values

    def _next_token(self, tokens: _Tokens, spans: _Spans, before_SD: Tensor | None) -> NDArray[np.float64]:
        """Score alleles with nothing after them: what is before them, of the first allele, says how likely each is.

        The forward pass of the reference allele has computed it if its embeddings are given.
        """
        alleles = np.arange(len(tokens.counts))
        site = alleles // spans.n_alleles
        first = site * spans.n_alleles
        position = tokens.index[first, spans.n_front[first]] - 1
        inside = position >= chunk_starts_of_tokens(tokens.tokenized)[position + 1]
        values = np.full(len(alleles), np.nan)
        target = tokens.ids[alleles, spans.n_front]
        if before_SD is None or self.head is None:
            values[inside] = self._log_probabilities(tokens.tokenized, position[inside], target[inside])
        elif inside.any():
            import torch

            with torch.inference_mode():
                scores = self.head(before_SD).float()
            values[inside] = self._read(scores, site[inside], target[inside])
        return values

    def _log_probabilities(self, tokenized: Tokenized, position: Ints, target: Ints) -> NDArray[np.float64]:
        """Compute the log-probability of token ``target[i]`` from the logits at ``position[i]``, shape (n,)."""
        if not len(position):
            return np.zeros(0)
        wanted = np.zeros(len(tokenized.ids), np.bool_)
        wanted[position] = True
        scores = run_on_device(self.embedder, tokenized, wanted, logits)
        return self._read(scores, (np.cumsum(wanted) - 1)[position], target)

    def _read(self, scores: Tensor, row: Ints, target: Ints) -> NDArray[np.float64]:
        """Read the log-probability of token ``target[i]`` from row ``row[i]`` of logits, shape (n,)."""
        import torch

        with torch.inference_mode():
            logs = self._competing(scores).log_softmax(dim=1)
            read = logs[torch.from_numpy(row).to(logs.device), torch.from_numpy(target).to(logs.device)]
        values = read.cpu().numpy().astype(np.float64)
        competing = self.embedder._loss_tokens()
        competes = np.ones(len(target), np.bool_) if competing is None else np.isin(target, list(competing))
        if not np.isfinite(values[competes]).all():
            raise not_finite(self.embedder, "a log-likelihood")
        return values

    def _competing(self, scores: Tensor) -> Tensor:
        import torch

        tokens = self.embedder._loss_tokens()
        if tokens is None:
            return scores
        out = torch.full_like(scores, -torch.inf)
        kept = torch.tensor(list(tokens), device=scores.device)
        out[:, kept] = scores[:, kept]
        return out


def _head_of(embedder: Embedder) -> Callable[[Tensor], Tensor] | None:
    """Return the head of a network if the logits are what it makes of the embeddings, which one sequence shows."""
    head: nn.Module | None = getattr(embedder.model, "lm_head", None)
    if head is None or embedder.reverse_complement_average or not isinstance(embedder, NetworkEmbedder):
        return None
    import torch

    device = embedder.runner().device
    ids = torch.from_numpy(embedder.tokenize([_ANY_SEQUENCE]).ids.astype(np.int64)).to(device)[None]

    def of_embeddings(x_SD: Tensor, head: nn.Module = head) -> Tensor:
        scores: Tensor = head(x_SD.to(dtype))
        return scores

    dtype = next((weight.dtype for weight in head.parameters()), torch.float32)
    with torch.inference_mode():
        hidden = embedder._hidden_at(ids, None, embedder.layer, None)
        expected = embedder._logits_at(ids, None, None)
        if hidden.shape[-1] != getattr(head, "in_features", hidden.shape[-1]):
            return None
        found = of_embeddings(hidden.float())
    return of_embeddings if found.shape == expected.shape and torch.equal(found, expected) else None


@dataclass(frozen=True, kw_only=True)
class _Tokens:
    """The tokens of S sequences without special tokens, padded with -1.

    Attributes:
        tokenized: The model inputs that hold them.
        ids: Shape (S, T).
        index: Index of each token in ``tokenized.ids``, shape (S, T).
        counts: Number of tokens of each sequence, shape (S,).
    """

    tokenized: Tokenized
    ids: Ints
    index: Ints
    counts: Ints

    @classmethod
    def of(cls, tokenized: Tokenized) -> _Tokens:
        places = np.flatnonzero(~tokenized.special)
        starts = np.searchsorted(places, tokenized.token_starts())
        counts = np.diff(starts)
        column = np.arange(int(counts.max(initial=0)))
        inside = column < counts[:, None]
        index = np.where(inside, places[np.minimum(starts[:-1, None] + column, max(len(places) - 1, 0))], -1)
        ids = np.where(inside, tokenized.ids[index].astype(np.int64), -1)
        return cls(tokenized=tokenized, ids=ids, index=index, counts=counts)

    def column_at(self, offset_bp: Ints) -> Ints:
        """Find the token that holds a nucleotide of each sequence, shape (S,)."""
        bp = np.where(self.index >= 0, bp_of_tokens(self.tokenized)[self.index], 0)
        column: Ints = (np.cumsum(bp, axis=1) <= offset_bp[:, None]).sum(axis=1)
        return column


@dataclass(frozen=True, kw_only=True)
class _Spans:
    """For each allele, the span of tokens in which it differs from the other alleles of its site.

    Attributes:
        n_alleles: Alleles per site.
        n_front: Tokens before the span, shape (S * alleles,).
        n_tokens: Tokens of the span, shape (S * alleles,).
    """

    n_alleles: int
    n_front: Ints
    n_tokens: Ints

    def tokens_of(self, alleles: Ints) -> tuple[Ints, Ints]:
        """List the span tokens of some alleles: the index of the given allele, and the position of the token."""
        n = self.n_tokens[alleles]
        which = np.repeat(np.arange(len(alleles)), n)
        return which, np.arange(len(which)) - np.repeat(np.cumsum(n) - n, n) + self.n_front[alleles][which]


def _spans(tokens: _Tokens, n_alleles: int) -> _Spans:
    n_columns = tokens.ids.shape[1]
    shape = (-1, n_alleles, n_columns)
    counts = tokens.counts.reshape(-1, n_alleles)
    fewest = counts.min(axis=1)
    front = np.minimum(_common(tokens.ids.reshape(shape)), fewest)
    # the same from the end: the last token of each allele is in the first column
    column = tokens.counts[:, None] - 1 - np.arange(n_columns)
    backwards = np.where(column >= 0, np.take_along_axis(tokens.ids, np.maximum(column, 0), axis=1), -1)
    behind = np.minimum(_common(backwards.reshape(shape)), fewest - front)
    return _Spans(
        n_alleles=n_alleles,
        n_front=np.repeat(front, n_alleles),
        n_tokens=(counts - (front + behind)[:, None]).reshape(-1),
    )


def _common(ids_SAT: Ints) -> Ints:
    """Count the tokens that all alleles of a site begin with, shape (S,)."""
    same = (ids_SAT == ids_SAT[:, :1]).all(axis=1)
    common: Ints = np.cumprod(same, axis=1).sum(axis=1).astype(np.int64)
    return common


def entropy_bits(log_likelihoods: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the entropy of the base at each site, with likelihoods scaled to sum to one.

    Args:
        log_likelihoods: Shape (S, 4).

    Returns:
        Shape (S,); nan if a likelihood is nan.
    """
    highest = log_likelihoods.max(axis=1, keepdims=True)
    fractions = np.exp(log_likelihoods - highest)
    fractions /= fractions.sum(axis=1, keepdims=True)
    logs = np.log2(fractions, out=np.zeros_like(fractions), where=fractions > 0)
    return np.asarray(-(fractions * logs).sum(axis=1) + 0.0)


@dataclass(frozen=True, kw_only=True)
class SiteLikelihoods:
    """Likelihoods of n substitutions.

    Attributes:
        log_likelihood_ratio: Log-likelihood of ALT minus that of REF, shape (n,).
        entropy_bits: Entropy of the base at the site, shape (n,).
    """

    log_likelihood_ratio: NDArray[np.float64]
    entropy_bits: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class VariantLikelihoods:
    """A language model's likelihoods of variants.

    Attributes:
        alleles: The language model.
        context: What it is shown around a substitution.
        indel_context: What it is shown around an insertion or a deletion.
        both_strands: Whether the result is the mean over both strands.
    """

    alleles: AlleleLikelihoods
    context: Context
    indel_context: Context
    both_strands: bool

    def of_substitutions(self, stored: StoredVariants, before_VD: Tensor | None = None) -> SiteLikelihoods:
        """Compute the likelihoods of n variants that replace one base by one base.

        Args:
            stored: The variants.
            before_VD: Embeddings of the tokens before the variants on the plus strand, if they are known, (n, D).
        """
        codes = [np.array([BASES.index(base) for base in column]) for column in (stored.ref, stored.alt)]
        each = np.arange(len(stored))
        ratios, entropies = [], []
        for shown, is_minus in self._strands(stored, self.context):
            site = distinct([f"{at} {text}" for at, text in zip(shown.offset_bp.tolist(), shown.ref, strict=True)])
            first = np.unique(site.code, return_index=True)[1]
            known = None if is_minus or before_VD is None else before_VD[first]
            found = self.alleles.of_bases([shown.ref[i] for i in first], shown.offset_bp[first], known)
            found = found[:, ::-1] if is_minus else found  # A C G T are the complements of T G C A
            by_variant = found[site.code]
            ratios.append(by_variant[each, codes[1]] - by_variant[each, codes[0]])
            entropies.append(entropy_bits(found)[site.code])
        return SiteLikelihoods(log_likelihood_ratio=np.mean(ratios, axis=0), entropy_bits=np.mean(entropies, axis=0))

    def of_indels(self, stored: StoredVariants) -> NDArray[np.float64]:
        """Compute log-likelihood ratios of variants of any length, shape (n,); longer alleles add up more tokens.

        For a causal model this is the ratio of the whole windows, because what is before a variant cancels.
        """
        ratios = []
        for shown, _ in self._strands(stored, self.indel_context):
            texts = [text for pair in zip(shown.ref, shown.alt, strict=True) for text in pair]
            found = self.alleles.of_alleles(texts, shown.offset_bp, n_alleles=2)
            ratios.append(found[:, 1] - found[:, 0])
        return np.asarray(np.mean(ratios, axis=0))

    def _strands(self, stored: StoredVariants, context: Context) -> list[tuple[Alleles, bool]]:
        """Return the alleles on the plus strand, and on the minus strand if both are asked for."""
        plus = stored.alleles(context)
        if not self.both_strands:
            return [(plus, False)]
        return [(plus, False), (stored.alleles(context.mirrored()).reverse_complement(stored.ref), True)]
