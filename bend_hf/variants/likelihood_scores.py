"""What a language model's likelihoods say of variants: ALT against REF, and how sure it is of the site.

    likely = LikelihoodScores(scorer=Scorer.of(embedder), context=context, both_strands=True)
    likely.of_substitutions(Sites(sequences, offset_bp, ref, alt))["log_likelihood_ratio"]

On both strands, each says its own and the mean counts. Alleles of different lengths are told apart by what stands
behind them, for a causal model too, which is shown that much more for them.

>>> LikelihoodScores.__name__
'LikelihoodScores'

How likely a language model finds each allele of a site, given what stands around it.

For a site all its alleles are written out and tokenized. The tokens in front that are the same in all of them, and
those behind, are the surroundings; what lies between is the span of an allele, one token or several; none for an
allele that only lacks letters, whose log-likelihood is 0.

- A masked model is shown the surroundings with every token of the span masked, and the log-likelihood of an allele
  is the sum over the tokens of its span (masked marginal; one forward a site, more only where the alleles' spans
  differ in their number of tokens). Overlapping k-mers all repeat the letter: the k-mer that stands for the variant
  is read alone, with all others that hold the letter masked too.
- A causal model gives the sum over the tokens from the span to the end, each given those before it. Where nothing
  stands behind the variant this is the span's own token, and one forward a site is enough.

Only tokens that compete in the model's loss share the probability. Natural logarithm; nan where a model says nothing
(no token in front of a causal model's first, a site that is unknown letters to the tokenizer).

>>> entropy_bits(np.log([[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 1e-300, 1e-300]])).tolist()
[2.0, 1.0]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.embedders._alignment import Tokenized
from bend_hf.embedders._embedder import Embedder
from bend_hf.errors import ModelError
from bend_hf.types import Ints
from bend_hf.variants.allele_embeddings import (
    bp_of_tokens,
    chunk_starts_of_tokens,
    logits,
    losses,
    run_on_device,
    tokens_overlap,
)
from bend_hf.variants.alleles import Alleles, Context, alleles, distinct

if TYPE_CHECKING:
    from torch import Tensor

BASES: Final = "ACGT"


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A model that says how likely alleles are.

    Attributes:
        embedder: The model.
        mask_id: Its mask; None for a causal model.
        overlaps: Whether its tokens share letters.
    """

    embedder: Embedder
    mask_id: int | None
    overlaps: bool

    @classmethod
    def of(cls, embedder: Embedder) -> Scorer:
        """The scorer of a model.

        Raises:
            ModelError: The model has no likelihoods; the message says why.
        """
        if type(embedder)._logits is Embedder._logits or embedder.direction == "none":
            raise ModelError(f"{embedder.name} has no language-model head; likelihoods need one")
        embedder._need_head()
        if embedder.overlap_tokens:
            raise ModelError(
                f"{embedder.name} reads long sequences in overlapping pieces, which show a masked token again; "
                "likelihoods need overlap_tokens=0"
            )
        causal = embedder.direction == "causal"
        mask_id = None if causal else embedder.mask_id
        if not causal and mask_id is None:
            raise ModelError(f"{embedder.name} names no mask token; its likelihoods cannot be asked for")
        return cls(embedder=embedder, mask_id=mask_id, overlaps=tokens_overlap(embedder))

    def of_bases(self, sequences: Sequence[str], offset_bp: Ints) -> NDArray[np.float64]:
        """Log-likelihoods of A, C, G and T at S sites, shape (S, 4).

        Args:
            sequences: What surrounds each site, with any base at it.
            offset_bp: Where the site is in each, shape (S,).
        """
        texts = [
            text[:at] + base + text[at + 1 :]
            for text, at in zip(sequences, offset_bp.tolist(), strict=True)
            for base in BASES
        ]
        return self.of_alleles(texts, offset_bp, n_alleles=len(BASES))

    def of_alleles(self, texts: list[str], offset_bp: Ints, *, n_alleles: int) -> NDArray[np.float64]:
        """Log-likelihoods of the alleles of S sites, shape (S, alleles).

        Args:
            texts: The written-out alleles, those of one site one after the other.
            offset_bp: Where the alleles begin to differ, shape (S,).
            n_alleles: How many each site has.

        Raises:
            ModelError: Alleles of different lengths, for a model with overlapping tokens.
        """
        tokens = _Tokens.of(self.embedder.tokenize(texts))
        spans = _spans(tokens, n_alleles)
        read = self._causal(tokens, spans) if self.mask_id is None else self._masked(texts, tokens, spans, offset_bp)
        found = np.where(np.isfinite(read), read, np.nan).reshape(-1, n_alleles)
        no_difference = (spans.n_tokens.reshape(-1, n_alleles) == 0).all(axis=1)
        found[no_difference | np.isnan(found).any(axis=1)] = np.nan
        return found

    def _masked(self, texts: list[str], tokens: _Tokens, spans: _Spans, offset_bp: Ints) -> NDArray[np.float64]:
        # alleles of a site with spans of one length look the same once they are masked
        site = np.arange(len(texts)) // spans.n_alleles
        _, shown, shown_as = np.unique(
            site * (int(spans.n_tokens.max()) + 1) + spans.n_tokens, return_index=True, return_inverse=True
        )
        inputs = _Tokens.of(self.embedder.tokenize([texts[index] for index in shown]))
        hidden, place = spans.tokens_of(shown)
        ids = inputs.tokenized.ids.copy()
        assert self.mask_id is not None
        ids[inputs.index[hidden, place]] = self.mask_id
        masked = replace(inputs.tokenized, ids=ids)
        allele, place = spans.tokens_of(np.arange(len(texts)))
        if self.overlaps:
            if (spans.n_tokens.reshape(-1, spans.n_alleles) != spans.n_tokens[:: spans.n_alleles, None]).any():
                raise ModelError(
                    f"{self.embedder.name} has overlapping tokens; alleles of different lengths cannot be compared"
                )
            alone = place == tokens.column_at(np.repeat(offset_bp, spans.n_alleles))[allele]
            allele, place = allele[alone], place[alone]
        values = self._log_probabilities(masked, inputs.index[shown_as[allele], place], tokens.ids[allele, place])
        return np.bincount(allele, values, len(texts)).astype(np.float64)

    def _causal(self, tokens: _Tokens, spans: _Spans) -> NDArray[np.float64]:
        n_behind = tokens.counts - spans.n_front
        if (n_behind == 1).all() and (spans.n_tokens == 1).all():
            return self._next_token(tokens, spans)
        allele = np.repeat(np.arange(len(n_behind)), n_behind)
        place = np.arange(len(allele)) - np.repeat(np.cumsum(n_behind) - n_behind, n_behind) + spans.n_front[allele]
        position = tokens.index[allele, place]
        wanted = np.zeros(len(tokens.tokenized.ids), np.bool_)
        wanted[position] = True
        found = run_on_device(self.embedder, tokens.tokenized, wanted, losses)[:, 0]
        slot = (np.cumsum(wanted) - 1)[position]
        return np.bincount(allele, -found.cpu().numpy()[slot], len(n_behind)).astype(np.float64)

    def _next_token(self, tokens: _Tokens, spans: _Spans) -> NDArray[np.float64]:
        """Nothing stands behind the alleles: the first allele's forward says how likely each of them is."""
        alleles = np.arange(len(tokens.counts))
        first = alleles // spans.n_alleles * spans.n_alleles
        position = tokens.index[first, spans.n_front[first]] - 1
        inside = position >= chunk_starts_of_tokens(tokens.tokenized)[position + 1]
        values = np.full(len(alleles), np.nan)
        target = tokens.ids[alleles, spans.n_front]
        values[inside] = self._log_probabilities(tokens.tokenized, position[inside], target[inside])
        return values

    def _log_probabilities(self, tokenized: Tokenized, position: Ints, target: Ints) -> NDArray[np.float64]:
        """Log-probability of token ``target[i]`` by the scores that the model gives at ``position[i]``, shape (n,)."""
        import torch

        if not len(position):
            return np.zeros(0)
        wanted = np.zeros(len(tokenized.ids), np.bool_)
        wanted[position] = True
        scores = run_on_device(self.embedder, tokenized, wanted, logits)
        with torch.inference_mode():
            logs = self._competing(scores).log_softmax(dim=1)
            slot = torch.from_numpy((np.cumsum(wanted) - 1)[position]).to(logs.device)
            read = logs[slot, torch.from_numpy(target).to(logs.device)]
        return read.cpu().numpy().astype(np.float64)

    def _competing(self, scores: Tensor) -> Tensor:
        import torch

        tokens = self.embedder._loss_tokens()
        if tokens is None:
            return scores
        out = torch.full_like(scores, -torch.inf)
        kept = torch.tensor(list(tokens), device=scores.device)
        out[:, kept] = scores[:, kept]
        return out


@dataclass(frozen=True, kw_only=True)
class _Tokens:
    """The tokens of S sequences without specials, as rectangles; -1 behind the last of each.

    Attributes:
        tokenized: What they were read from.
        ids: Shape (S, T).
        index: Where each stands in ``tokenized.ids``, shape (S, T).
        counts: How many each sequence has, shape (S,).
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
        """Which of its tokens holds a nucleotide of each sequence, shape (S,)."""
        bp = np.where(self.index >= 0, bp_of_tokens(self.tokenized)[self.index], 0)
        column: Ints = (np.cumsum(bp, axis=1) <= offset_bp[:, None]).sum(axis=1)
        return column


@dataclass(frozen=True, kw_only=True)
class _Spans:
    """For each allele, the run of tokens that is its own; the others are the same in all alleles of its site.

    Attributes:
        n_alleles: Alleles a site.
        n_front: Tokens in front of the span, shape (S * alleles,).
        n_tokens: Tokens of the span, shape (S * alleles,).
    """

    n_alleles: int
    n_front: Ints
    n_tokens: Ints

    def tokens_of(self, alleles: Ints) -> tuple[Ints, Ints]:
        """Every token of some alleles' spans: which of the alleles given, and which of its tokens."""
        n = self.n_tokens[alleles]
        which = np.repeat(np.arange(len(alleles)), n)
        return which, np.arange(len(which)) - np.repeat(np.cumsum(n) - n, n) + self.n_front[alleles][which]


def _spans(tokens: _Tokens, n_alleles: int) -> _Spans:
    n_columns = tokens.ids.shape[1]
    shape = (-1, n_alleles, n_columns)
    counts = tokens.counts.reshape(-1, n_alleles)
    fewest = counts.min(axis=1)
    front = np.minimum(_common(tokens.ids.reshape(shape)), fewest)
    # the same from the end: the last token of each allele stands in the first column
    column = tokens.counts[:, None] - 1 - np.arange(n_columns)
    backwards = np.where(column >= 0, np.take_along_axis(tokens.ids, np.maximum(column, 0), axis=1), -1)
    behind = np.minimum(_common(backwards.reshape(shape)), fewest - front)
    return _Spans(
        n_alleles=n_alleles,
        n_front=np.repeat(front, n_alleles),
        n_tokens=(counts - (front + behind)[:, None]).reshape(-1),
    )


def _common(ids_SAT: Ints) -> Ints:
    """How many tokens all alleles of a site begin with, shape (S,)."""
    same = (ids_SAT == ids_SAT[:, :1]).all(axis=1)
    common: Ints = np.cumprod(same, axis=1).sum(axis=1).astype(np.int64)
    return common


def entropy_bits(log_likelihoods: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy of the bases at a site, their likelihoods scaled to one, shape (S,); nan where they are."""
    highest = log_likelihoods.max(axis=1, keepdims=True)
    shares = np.exp(log_likelihoods - highest)
    shares /= shares.sum(axis=1, keepdims=True)
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(-(shares * logs).sum(axis=1) + 0.0)


@dataclass(frozen=True, kw_only=True)
class Sites:
    """Variants as they are stored.

    Attributes:
        sequences: Around each variant, with the reference allele.
        offset_bp: Place of the variant's first base in each, shape (n,).
        ref: The reference allele of each.
        alt: The other allele of each.
    """

    sequences: Sequence[str]
    offset_bp: Ints
    ref: Sequence[str]
    alt: Sequence[str]

    def taken(self, chosen: Ints) -> Sites:
        """Some of them."""
        return Sites(
            sequences=[self.sequences[i] for i in chosen],
            offset_bp=self.offset_bp[chosen],
            ref=[self.ref[i] for i in chosen],
            alt=[self.alt[i] for i in chosen],
        )

    def shown(self, context: Context) -> Alleles:
        """What a model sees of them."""
        return alleles(self.sequences, self.offset_bp, self.ref, self.alt, context)


@dataclass(frozen=True, kw_only=True)
class LikelihoodScores:
    """A model's likelihoods of variants.

    Attributes:
        scorer: The model.
        context: What it sees around a substitution.
        indel_context: What it sees around an insertion or a deletion.
        both_strands: Whether the reverse complement is asked too.
    """

    scorer: Scorer
    context: Context
    indel_context: Context
    both_strands: bool

    def of_substitutions(self, sites: Sites) -> dict[str, NDArray[np.float64]]:
        """``log_likelihood_ratio`` and ``entropy``, shape (n,) each."""
        codes = [np.array([BASES.index(base) for base in column]) for column in (sites.ref, sites.alt)]
        each = np.arange(len(sites.ref))
        ratios, entropies = [], []
        for shown, is_minus in self._strands(sites, self.context):
            site = distinct([f"{at} {text}" for at, text in zip(shown.offset_bp.tolist(), shown.ref, strict=True)])
            first = np.unique(site.code, return_index=True)[1]
            found = self.scorer.of_bases([shown.ref[i] for i in first], shown.offset_bp[first])
            found = found[:, ::-1] if is_minus else found  # A C G T are the complements of T G C A
            by_variant = found[site.code]
            ratios.append(by_variant[each, codes[1]] - by_variant[each, codes[0]])
            entropies.append(entropy_bits(found)[site.code])
        return {"log_likelihood_ratio": np.mean(ratios, axis=0), "entropy": np.mean(entropies, axis=0)}

    def of_indels(self, sites: Sites) -> NDArray[np.float64]:
        """Ratios of alleles that are not one base each, shape (n,); a longer allele has more to be sure of."""
        ratios = []
        for shown, _ in self._strands(sites, self.indel_context):
            texts = [text for pair in zip(shown.ref, shown.alt, strict=True) for text in pair]
            found = self.scorer.of_alleles(texts, shown.offset_bp, n_alleles=2)
            ratios.append(found[:, 1] - found[:, 0])
        return np.asarray(np.mean(ratios, axis=0))

    def _strands(self, sites: Sites, context: Context) -> list[tuple[Alleles, bool]]:
        """The alleles on the plus strand, and on the other one where that is asked for."""
        plus = sites.shown(context)
        if not self.both_strands:
            return [(plus, False)]
        mirrored = Context(left_bp=context.right_bp, right_bp=context.left_bp)
        return [(plus, False), (sites.shown(mirrored).reverse_complement(sites.ref), True)]
