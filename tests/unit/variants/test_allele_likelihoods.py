"""Likelihoods of alleles are exact for models whose probabilities are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bend_hf.embedders import OneHotEmbedder
from bend_hf.embedders._embedder import Embedder
from bend_hf.errors import ConfigError, ModelError
from bend_hf.tasks import VariantSpec
from bend_hf.variants.allele_embeddings import tokens_overlap
from bend_hf.variants.allele_likelihoods import AlleleLikelihoods, entropy_bits
from tests.variant_controls import (
    ENTROPY_BITS,
    SHARES,
    Markov,
    MarksG,
    OrderZero,
    OrderZeroPairs,
    OrderZeroTriplets,
    Unigram,
    column,
    scores_of,
)

TEXT = "TTACGGATCCATGCA"


@pytest.mark.parametrize("model", [OrderZero, OrderZeroPairs, OrderZeroTriplets])
@pytest.mark.parametrize("offset", [2, 6, 7, 12])
@pytest.mark.parametrize("both_strands", [False, True])
def test_order_zero_likelihood_is_exact(model: type[Embedder], offset: int, both_strands: bool) -> None:
    ref = TEXT[offset]
    alts = [base for base in "ACGT" if base != ref]
    found = scores_of(model(), [(TEXT, offset, ref, alt, 0) for alt in alts], both_strands=both_strands)
    complement = dict(zip("ACGT", "TGCA", strict=True))
    for alt, ratio in zip(alts, column(found, "log_likelihood_ratio"), strict=True):
        ahead = math.log(SHARES[alt] / SHARES[ref])
        back = math.log(SHARES[complement[alt]] / SHARES[complement[ref]])
        assert ratio == pytest.approx((ahead + back) / 2 if both_strands else ahead, abs=1e-5)
    assert column(found, "entropy") == pytest.approx([ENTROPY_BITS] * 3, abs=1e-5)


def test_overlapping_tokens_are_recognized() -> None:
    assert [tokens_overlap(model()) for model in (OrderZero, OrderZeroPairs, OrderZeroTriplets, Unigram)] == [
        False,
        False,
        True,
        False,
    ]


def test_tokens_of_several_lengths_are_summed_over_what_the_alleles_change() -> None:
    # TACGT is T ACG T; TATGT is T A T G T: one token against three over the same nucleotides
    found = scores_of(Unigram(), [("TACGT", 2, "C", "T", 0)])
    expected = math.log(0.3 * 0.1 * 0.1) - math.log(0.2)
    assert column(found, "log_likelihood_ratio") == pytest.approx([expected], abs=1e-5)


def test_ratios_of_one_site_add_up() -> None:
    likely = AlleleLikelihoods.of(Unigram()).of_bases(["TTACGTA"], np.array([3]))
    found = scores_of(Unigram(), [("TTACGTA", 3, "C", alt, 0) for alt in "AGT"])
    assert column(found, "log_likelihood_ratio") == pytest.approx(
        [likely[0, base] - likely[0, 1] for base in (0, 2, 3)], abs=1e-5
    )


def test_causal_model_is_asked_one_token_before_the_variant() -> None:
    found = scores_of(Markov(), [("CCAAT", 3, "A", "G", 0), ("CCAAT", 2, "A", "C", 0)])
    # after an A: A 0.7 against G 0.1; after a C: A 0.1 against C 0.7
    assert column(found, "log_likelihood_ratio") == pytest.approx([math.log(1 / 7), math.log(7)], abs=1e-5)
    entropy = -(0.7 * math.log2(0.7) + 0.3 * math.log2(0.1))
    assert column(found, "entropy") == pytest.approx([entropy, entropy], abs=1e-5)


def test_causal_model_reads_the_other_strand_from_the_right() -> None:
    found = scores_of(Markov(), [("CCAAT", 3, "A", "G", 0)], both_strands=True)
    # from the right, T comes first: its complement A is followed by T or by C, 0.1 each
    assert column(found, "log_likelihood_ratio") == pytest.approx([math.log(1 / 7) / 2], abs=1e-5)


def test_causal_model_gives_no_score_for_a_first_base() -> None:
    found = scores_of(Markov(), [("CCAAT", 0, "C", "G", 0)])
    assert column(found, "log_likelihood_ratio") == [None]
    assert column(found, "entropy") == [None]


def test_indels_are_scored_by_likelihood_alone() -> None:
    spec = VariantSpec(context_bp=2, causal_context_bp=2, stored_context_bp=4)
    insertion, deletion = ("GGCCAATT", 3, "C", "CA", 0), ("GGCCAATT", 3, "CA", "C", 0)
    found = scores_of(OrderZero(), [insertion, deletion, ("GGCCAATT", 3, "C", "A", 0)], spec)
    assert column(found, "log_likelihood_ratio") == pytest.approx(
        [math.log(SHARES["A"]), -math.log(SHARES["A"]), math.log(2)], abs=1e-5
    )
    assert math.isnan(column(found, "score")[0] or 0.0)
    assert column(found, "window_distance")[:2] == [None, None]


def test_causal_model_sees_the_sequence_after_an_indel() -> None:
    spec = VariantSpec(context_bp=2, causal_context_bp=2, stored_context_bp=4)
    found = scores_of(Markov(), [("GGCCAATT", 3, "C", "CG", 0)], spec)
    # shown G C C A A against G C C G A A; from the first difference on: C>A A>A against C>G G>A A>A
    assert column(found, "log_likelihood_ratio") == pytest.approx([math.log(0.1)], abs=1e-5)


def test_indels_of_overlapping_tokens_raise() -> None:
    with pytest.raises(ModelError, match="overlapping tokens; alleles of different lengths cannot be compared"):
        scores_of(OrderZeroTriplets(), [("GGCCAATT", 3, "C", "CAT", 0)])


def test_indels_without_likelihood_raise() -> None:
    with pytest.raises(ModelError, match="1 variants are insertions or deletions, which only likelihoods can score"):
        scores_of(MarksG(), [("GGCCAATT", 3, "C", "CAT", 0)])


def test_model_without_a_head_has_null_columns_unless_they_are_needed() -> None:
    found = scores_of(OneHotEmbedder(), [(TEXT, 3, "C", "A", 0)])
    assert column(found, "log_likelihood_ratio") == [None]
    with pytest.raises(ModelError, match="has no language-model head; likelihoods need one"):
        scores_of(OneHotEmbedder(), [(TEXT, 3, "C", "A", 0)], need_likelihood=True)


def test_masked_model_without_a_mask_raises() -> None:
    model = OrderZero()
    model.mask_id = None
    with pytest.raises(ModelError, match="has no mask token"):
        AlleleLikelihoods.of(model)


def test_overlapping_chunks_raise() -> None:
    with pytest.raises(ModelError, match="likelihoods need overlap_tokens=0"):
        AlleleLikelihoods.of(OrderZero(overlap_tokens=4))


def test_entropy_by_hand() -> None:
    found = entropy_bits(np.log([[0.25] * 4, [0.5, 0.5, 1e-300, 1e-300], [0.5, 0.25, 0.125, 0.125]]))
    np.testing.assert_allclose(found, [2.0, 1.0, 1.75], atol=1e-12)


def test_the_ratio_of_a_whole_window_adds_up_what_follows_the_variant() -> None:
    # TACGT against TATGT: A>C or A>T, then C>G or T>G
    found = scores_of(Markov(), [("TACGT", 2, "C", "T", 0), ("TACCT", 2, "C", "T", 0)], whole_window=True)
    expected = [0.0, math.log(0.1) - math.log(0.7)]  # in the second, C follows C, and with ALT it follows T
    assert column(found, "log_likelihood_ratio") == pytest.approx(expected, abs=1e-5)
    site = scores_of(Markov(), [("TACCT", 2, "C", "T", 0)])
    assert column(site, "log_likelihood_ratio") == pytest.approx([0.0], abs=1e-5)


def test_a_whole_window_needs_a_causal_model() -> None:
    with pytest.raises(ConfigError, match="is not causal, so that the likelihood of a whole window is not the sum"):
        scores_of(OrderZero(), [("TACGT", 2, "C", "T", 0)], whole_window=True)
