"""Scores of variants, each by a case worked by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from bend_hf.errors import AlignmentError, ConfigError
from bend_hf.tasks import VariantSpec
from bend_hf.variants import SCORES, cosine_distance
from bend_hf.variants.allele_embeddings import AlleleEmbeddings, EmbeddingsOnDevice
from bend_hf.variants.allele_segments import SegmentDistances
from bend_hf.variants.alleles import Context, StoredVariants, distinct
from bend_hf.variants.batch import VariantBatch
from tests.variant_controls import Control, MarksG, OrderZeroTriplets, Unigram, column, scores_of


@pytest.mark.parametrize(
    ("key", "value"),
    [("score", 1 - 24 / 25), ("dot_product", 24.0), ("l1_distance", 2.0), ("l2_distance", math.sqrt(2))],
)
def test_scores_at_the_variant_by_hand(key: str, value: float) -> None:
    batch = SimpleNamespace(ref_embeddings=np.array([[3.0, 4.0]]), alt_embeddings=np.array([[4.0, 3.0]]))
    assert SCORES.get(key).compute(cast(VariantBatch, batch)) == pytest.approx([value])


def test_cosine_distance_of_zeros_and_equals() -> None:
    a = np.array([[0.0, 0.0], [0.0, 0.0], [0.1, 0.7]])
    b = np.array([[0.0, 0.0], [1.0, 0.0], [0.1, 0.7]])
    assert cosine_distance(a, b).tolist() == [0.0, 1.0, 0.0]


def test_means_over_window_and_sequence_by_hand() -> None:
    # two sequences of 6 nucleotides: tokens of 2, 2, 2 against tokens of 3, 3
    values = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]])
    embeddings = EmbeddingsOnDevice(values=values, bp=np.array([2, 2, 2, 3, 3]), starts=np.array([0, 3, 5]))
    found = SegmentDistances.of(embeddings, np.array([0]), np.array([1]))
    # by nucleotide: 0 0 0 | 2 | 1 1; the window covers positions 2 to 4
    assert found.mean() == pytest.approx([4 / 6])
    assert found.mean_around(np.array([3]), window_bp=1) == pytest.approx([3 / 3])


def test_window_at_the_end_of_a_sequence_is_shorter() -> None:
    values = torch.eye(4)
    embeddings = EmbeddingsOnDevice(values=values, bp=np.ones(4, np.int64), starts=np.array([0, 2, 4]))
    found = SegmentDistances.of(embeddings, np.array([0]), np.array([1]))
    assert found.mean_around(np.array([1]), window_bp=16) == pytest.approx([1.0])


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1.0, 1e15, 1e30])
def test_the_size_of_embeddings_does_not_change_their_distance(size: float) -> None:
    values = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 0.0]]) * torch.tensor([[size], [1.0], [size]])
    embeddings = EmbeddingsOnDevice(values=values, bp=np.ones(3, np.int64), starts=np.array([0, 1, 2, 3]))
    ref, alt = np.array([0, 1, 0, 0]), np.array([1, 0, 0, 2])
    assert SegmentDistances.of(embeddings, ref, alt).mean() == pytest.approx([0.4, 0.4, 0.0, 1.0], abs=1e-6)
    by_hand = cosine_distance(values[[0, 1, 0, 0]].numpy(), values[[1, 0, 0, 2]].numpy())
    assert by_hand == pytest.approx([0.4, 0.4, 0.0, 1.0], abs=1e-6)


def test_zero_embeddings_are_one_apart_from_others_on_the_device_too() -> None:
    values = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    embeddings = EmbeddingsOnDevice(values=values, bp=np.ones(3, np.int64), starts=np.array([0, 1, 2, 3]))
    assert SegmentDistances.of(embeddings, np.array([0, 0]), np.array([1, 2])).mean().tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("ref", "alt", "distance"), [("G", "A", 1.0), ("A", "G", 1.0), ("A", "C", 0.0), ("T", "C", 0.0)]
)
def test_model_that_marks_one_base_moves_only_where_it_changes(ref: str, alt: str, distance: float) -> None:
    found = scores_of(MarksG(), [("GG" + ref + "GG", 2, ref, alt, 0)])
    assert column(found, "score") == [distance]
    assert column(found, "sequence_distance") == pytest.approx([distance / 5])


def test_each_allele_is_tokenized_by_itself() -> None:
    # T ACG T against T A T G T: ACG and T cover the variant
    found = scores_of(Unigram(), [("TACGT", 2, "C", "T", 0)], likelihood=False)
    assert column(found, "score") == [1.0]
    assert column(found, "sequence_distance") == pytest.approx([3 / 5])


def test_of_overlapping_tokens_the_one_centered_on_the_variant_is_taken() -> None:
    embeddings = AlleleEmbeddings.of(OrderZeroTriplets(), ["TTACG"]).all()
    at = embeddings.at(np.array([0, 0, 0]), np.array([0, 2, 4]))
    assert at.tolist() == [0, 1, 2]  # TTA, TAC, ACG


def test_nucleotide_past_the_tokens_raises() -> None:
    layout = AlleleEmbeddings.of(Control(), ["ACG"]).layout
    with pytest.raises(AlignmentError, match="the tokens end before nucleotide 3"):
        layout.at(np.array([0]), np.array([3]))


def test_embedding_index_past_the_embeddings_raises() -> None:
    with pytest.raises(ConfigError, match="--embedding-idx is 9, but the shortest sequence has 5 embeddings"):
        scores_of(MarksG(), [("GGAGG", 2, "A", "G", 0)], embedding_idx=9)


def test_embedding_index_takes_that_embedding() -> None:
    found = scores_of(MarksG(), [("GGAGG", 2, "A", "G", 0)], embedding_idx=1)
    assert column(found, "score") == [0.0]


def test_every_score_is_a_column() -> None:
    found = scores_of(MarksG(), [("GGAGG", 2, "A", "G", 0)])
    assert set(SCORES.names()) - {"score"} <= set(found.columns)


def test_context_near_the_end_of_a_contig_is_shorter() -> None:
    found = scores_of(MarksG(), [("GGA", 2, "A", "G", 0), ("A" * 1025, 512, "A", "G", 0)])
    assert found.columns["left_bp"].to_pylist() == [2, 256]
    assert found.columns["right_bp"].to_pylist() == [0, 256]


def stored(sequences: list[str], offset_bp: list[int], ref: list[str], alt: list[str]) -> StoredVariants:
    return StoredVariants(sequences=sequences, offset_bp=np.array(offset_bp), ref=ref, alt=alt)


def test_causal_context_ends_at_the_variant() -> None:
    assert Context.of(VariantSpec(), causal=True) == Context(left_bp=512, right_bp=0)
    shown = stored(["AACGTT"], [2], ["C"], ["G"]).alleles(Context(left_bp=512, right_bp=0))
    assert (shown.ref, shown.alt, shown.offset_bp.tolist()) == (["AAC"], ["AAG"], [2])


def test_alleles_of_different_lengths_keep_both_sides() -> None:
    shown = stored(["AACGTT"] * 2, [2, 2], ["CG", "C"], ["C", "CTT"]).alleles(Context(left_bp=1, right_bp=1))
    assert shown.ref == ["ACGT", "ACG"]
    assert shown.alt == ["ACT", "ACTTG"]
    assert shown.is_substitution.tolist() == [False, False]


def test_distinct_keeps_the_order() -> None:
    found = distinct(["b", "a", "b"])
    assert (found.texts, found.code.tolist()) == (["b", "a"], [0, 1, 0])


def test_variants_of_one_site_share_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = MarksG._hidden

    def counted(self: MarksG, ids: torch.Tensor, mask: torch.Tensor | None, layer: int) -> torch.Tensor:
        seen.append(len(ids))
        return plain(self, ids, mask, layer)

    monkeypatch.setattr(MarksG, "_hidden", counted)
    scores_of(MarksG(), [("GGAGG", 2, "A", alt, 0) for alt in "CGT"])
    assert sum(seen) == 4
