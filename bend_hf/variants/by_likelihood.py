"""What a language model's likelihoods say of variants: ALT against REF, and how sure it is of the site.

    likely = LikelihoodScores(scorer=Scorer.of(embedder), context=context, both_strands=True)
    likely.of_substitutions(Sites(sequences, offset_bp, ref, alt))["log_likelihood_ratio"]

On both strands, each says its own and the mean counts. Alleles of different lengths are told apart by what stands
behind them, for a causal model too, which is shown that much more for them.

>>> LikelihoodScores.__name__
'LikelihoodScores'
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bend_hf.shapes import Ints
from bend_hf.variants.alleles import Alleles, Context, alleles, distinct
from bend_hf.variants.likelihood import BASES, Scorer, entropy_bits


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
