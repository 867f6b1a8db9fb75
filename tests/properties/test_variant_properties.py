"""Properties of the scores of any variants."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bend_hf.variants import SCORES
from bend_hf.variants.alleles import Context, StoredVariants
from bend_hf.variants.supervised_head import fold_by_position
from tests.variant_controls import Markov, MarksG, OrderZeroTriplets, Unigram, column, scores_of

BASES = "ACGT"
NAMES = SCORES.names()


@st.composite
def variants(draw: st.DrawFn, longest: int = 40) -> tuple[str, int, str, str, int]:
    text = draw(st.text(BASES, min_size=5, max_size=longest))
    at = draw(st.integers(0, len(text) - 1))
    alt = draw(st.sampled_from([base for base in BASES if base != text[at]]))
    return text, at, text[at], alt, draw(st.integers(0, 1))


@given(st.lists(variants(), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_distance_is_zero_unless_the_marked_base_changes(rows: list[tuple[str, int, str, str, int]]) -> None:
    for (_, _, ref, alt, _), distance in zip(rows, column(scores_of(MarksG(), rows), "score"), strict=True):
        assert distance == float("G" in (ref, alt))


@given(st.lists(variants(), min_size=2, max_size=6), st.sampled_from([Unigram, OrderZeroTriplets, Markov]))
@settings(max_examples=25, deadline=None)
def test_scores_do_not_depend_on_the_other_variants(
    rows: list[tuple[str, int, str, str, int]], model: type[Unigram] | type[OrderZeroTriplets] | type[Markov]
) -> None:
    together = scores_of(model(batch_tokens=50), rows)
    for number, row in enumerate(rows):
        alone = scores_of(model(), [row])
        for name in NAMES:
            (mine,), others = column(alone, name), column(together, name)[number]
            assert (mine is None) == (others is None)
            np.testing.assert_allclose(mine or 0.0, others or 0.0, atol=1e-5)


@given(variants(), st.sampled_from([Unigram, OrderZeroTriplets, Markov]))
@settings(max_examples=25, deadline=None)
def test_exchanging_the_alleles_negates_the_ratio(
    row: tuple[str, int, str, str, int], model: type[Unigram] | type[OrderZeroTriplets] | type[Markov]
) -> None:
    text, at, ref, alt, label = row
    back = (text[:at] + alt + text[at + 1 :], at, alt, ref, label)
    found = scores_of(model(), [row, back])
    ahead, behind = column(found, "log_likelihood_ratio")
    assert (ahead is None) == (behind is None)
    np.testing.assert_allclose(ahead or 0.0, -(behind or 0.0), atol=1e-5)
    for name in ("score", "l1_distance", "l2_distance", "window_distance", "sequence_distance"):
        one, other = column(found, name)
        np.testing.assert_allclose(one or 0.0, other or 0.0, atol=1e-6)


@given(variants(), st.integers(0, 10), st.integers(0, 10))
def test_reading_the_other_strand_twice_changes_nothing(
    row: tuple[str, int, str, str, int], left_bp: int, right_bp: int
) -> None:
    text, at, ref, alt, _ = row
    stored = StoredVariants(sequences=[text], offset_bp=np.array([at]), ref=[ref], alt=[alt])
    pair = stored.alleles(Context(left_bp=left_bp, right_bp=right_bp))
    again = pair.reverse_complement([ref]).reverse_complement([ref])
    assert (again.ref, again.alt, again.offset_bp.tolist()) == (pair.ref, pair.alt, pair.offset_bp.tolist())


@given(
    st.lists(st.integers(0, 60_000), min_size=2, max_size=60),
    st.integers(2, 6),
    st.integers(100, 2_000),
)
def test_folds_share_no_sequence(starts: list[int], n_folds: int, apart_bp: int) -> None:
    start = np.array(starts)
    ranked = np.sort(start)
    if (np.diff(ranked) < apart_bp).all():
        return
    found = fold_by_position(["chr1"] * len(start), start, n_folds=n_folds, apart_bp=apart_bp)
    near = np.abs(start[:, None] - start) < apart_bp
    assert (found.fold[:, None] == found.fold)[near].all()
    assert 2 <= found.n_folds <= max(n_folds, 2)
    assert set(found.fold.tolist()) == set(range(found.n_folds))
