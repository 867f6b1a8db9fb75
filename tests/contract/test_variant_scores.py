"""What every variant score must hold: its declaration, its column, and when it has a value."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bend_hf.evaluation.predictions import Predictions
from bend_hf.tasks import VariantSpec
from bend_hf.variants import SCORES, VariantScore, summarize_scores
from bend_hf.variants.read import COORDINATES
from bend_hf.variants.scores import MAIN, score_keys
from bend_hf.variants.summary import as_table
from tests.variant_controls import Markov, MarksG, OrderZero, Unigram, column, scores_of

TAKEN = {*COORDINATES, "item", "target", "label", "predicted", "left_bp", "right_bp", "sequence", "fold"}
SUBSTITUTIONS = [
    ("TTACGGATCCATGCA", at, ref, alt, label) for at, ref, alt, label in [(3, "C", "A", 0), (7, "T", "G", 1)]
]
INSERTION = ("GGCCAATT", 3, "C", "CA", 0)
CONTEXT = VariantSpec(context_bp=4, causal_context_bp=4, stored_context_bp=8)

each_score = pytest.mark.parametrize("score", SCORES.in_order(), ids=score_keys())


def values(predictions: Predictions, score: VariantScore) -> list[float]:
    return [np.nan if value is None else value for value in column(predictions, score.key)]


def test_the_first_score_is_bends() -> None:
    assert score_keys()[0] == MAIN


@each_score
def test_declaration_names_a_free_column_and_says_what_it_measures(score: VariantScore) -> None:
    assert re.fullmatch("[a-z][a-z0-9_]*", score.key)
    assert score.key not in TAKEN
    assert score.text
    assert "\n" not in score.text
    assert not score.text.endswith(".")


@each_score
@pytest.mark.parametrize("model", [OrderZero, Unigram, Markov])
def test_every_substitution_has_a_finite_value(
    score: VariantScore, model: type[OrderZero] | type[Unigram] | type[Markov]
) -> None:
    found = values(scores_of(model(), SUBSTITUTIONS, CONTEXT), score)
    assert len(found) == len(SUBSTITUTIONS)
    assert np.isfinite(found).all()


@each_score
def test_value_is_missing_only_if_what_it_needs_is_missing(score: VariantScore) -> None:
    without_head = values(scores_of(MarksG(), SUBSTITUTIONS, CONTEXT), score)
    assert np.isnan(without_head).all() == (score.needs == "likelihood")
    at_variant = values(scores_of(OrderZero(), SUBSTITUTIONS, CONTEXT, averages=False), score)
    assert np.isnan(at_variant).all() == (score.needs == "sequence")


@each_score
def test_insertions_have_a_value_only_if_the_score_takes_them(score: VariantScore) -> None:
    found = values(scores_of(OrderZero(), [INSERTION, *SUBSTITUTIONS], CONTEXT), score)
    assert np.isfinite(found[0]) == score.scores_indels
    assert np.isfinite(found[1:]).all()


@each_score
def test_value_does_not_depend_on_the_other_variants(score: VariantScore) -> None:
    together = values(scores_of(Unigram(), SUBSTITUTIONS, CONTEXT), score)
    alone = [values(scores_of(Unigram(), [variant], CONTEXT), score)[0] for variant in SUBSTITUTIONS]
    np.testing.assert_allclose(alone, together, atol=1e-5)


@each_score
def test_summary_counts_a_falling_score_by_its_negative(score: VariantScore) -> None:
    summary = summarize_scores(scores_of(OrderZero(), SUBSTITUTIONS, CONTEXT))
    scores = summary["scores"]
    assert isinstance(scores, dict)
    block = scores[score.key]
    assert isinstance(block, dict)
    assert (block["text"], block["sign"]) == (score.text, 1.0 if score.rises_with_effect else -1.0)
    assert any(line.split()[0] == score.key for line in str(as_table(summary)).splitlines())
