"""Resamples: cases worked by hand, what is drawn, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from bend_hf.errors import ConfigError, RecordError
from bend_hf.evaluation.metrics import score
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.uncertainty.bootstrap import Bootstrap, draws_of, folds_of
from bend_hf.evaluation.uncertainty.clusters import clusters_of


def scored(score: list[float], target: list[int], **columns: list[object]) -> Predictions:
    """One label, a window an item."""
    return Predictions(
        item=np.arange(len(score)),
        windows=np.arange(len(score) + 1),
        target=np.array(target, np.int16),
        score=np.array(score, np.float32),
        predicted=None,
        label_names=("no", "yes"),
        columns={name: pa.array(values) for name, values in columns.items()},
    )


def classes(predicted: list[int], target: list[int], lengths: list[int]) -> Predictions:
    """Three classes, items of several windows."""
    return Predictions(
        item=np.arange(len(lengths)),
        windows=np.concatenate([[0], np.cumsum(lengths)]),
        target=np.array(target, np.int16),
        score=None,
        predicted=np.array(predicted, np.int16),
        label_names=("a", "b", "c"),
    )


def noisy(n: int = 300, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, n)
    return scored((rng.standard_normal(n) + target).tolist(), target.tolist())


def test_two_items_give_the_three_values_worked_by_hand() -> None:
    # item 0 has four windows right; item 1 two of four: drawn twice, once each, or not at all
    predictions = classes([0, 0, 1, 1, 0, 0, 1, 1], [0, 0, 1, 1, 0, 1, 0, 1], [4, 4])
    drawn = draws_of(predictions, ["mcc"], Bootstrap(resamples=400))["mcc"]
    assert drawn.value == 0.5
    values, counts = np.unique(drawn.values, return_counts=True)
    assert values.tolist() == [0.0, 0.5, 1.0]
    np.testing.assert_allclose(counts / 400, [0.25, 0.5, 0.25], atol=0.08)  # four standard errors


def test_value_is_that_of_the_metric() -> None:
    predictions = noisy()
    for metric in ("auroc", "auprc"):
        assert predictions.score is not None
        expected = score(metric, predictions.score, predictions.target).value
        assert draws_of(predictions, [metric], Bootstrap(resamples=1))[metric].value == pytest.approx(
            expected, abs=1e-12
        )


def test_folds_are_drawn_apart_and_averaged() -> None:
    predictions = scored([0.1, 0.9, 0.8, 0.2], [0, 1, 0, 1], fold=[1, 1, 2, 2], chromosome=["a", "a", "b", "b"])
    assert folds_of(predictions).tolist() == [1, 1, 2, 2]
    drawn = draws_of(predictions, ["auroc"], Bootstrap(resamples=5, clusters="chromosome"))["auroc"]
    assert drawn.value == 0.5  # 1.0 in the first fold, 0.0 in the second; 0.75 of all four together
    assert drawn.values.tolist() == [0.5] * 5
    assert drawn.n_clusters == 2


def test_order_of_items_in_memory_does_not_join_windows_wrongly() -> None:
    predictions = classes([0, 1, 1, 2, 0, 2], [0, 1, 2, 2, 0, 1], [1, 3, 2])
    drawn = draws_of(predictions, ["mcc"], Bootstrap(resamples=300))["mcc"]
    assert drawn.value == pytest.approx(score("mcc", [0, 1, 1, 2, 0, 2], [0, 1, 2, 2, 0, 1]).value, abs=1e-12)
    alone = score("mcc", [1, 1, 2], [1, 2, 2]).value  # the second item three times
    assert np.isclose(drawn.values, alone, atol=1e-12).any()


def test_blocks_are_places_on_a_chromosome() -> None:
    predictions = scored(
        [0.1] * 5,
        [0] * 5,
        chromosome=["chr2", "chr1", "chr1", "chr1", "chr2"],
        start=[0, 0, 900, 1900, 1100],
        end=[10, 10, 1000, 2200, 1200],
    )
    assert clusters_of(predictions, "block", block_bp=1000).tolist() == [2, 0, 0, 1, 3]  # by their middles
    assert clusters_of(predictions, "chromosome").tolist() == [1, 0, 0, 0, 1]
    assert clusters_of(predictions, "item").tolist() == [0, 1, 2, 3, 4]


def test_dictionary_columns_are_read_as_their_values() -> None:
    predictions = scored([0.1] * 3, [0] * 3)
    coded = replace(predictions, columns={"chromosome": pa.array(["b", "a", "b"]).dictionary_encode()})
    assert clusters_of(coded, "chromosome").tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("metric", "settings", "message"),
    [
        ("mcc", {}, "mcc needs classes, but these predictions hold scores"),
        ("pearsonr", {}, "metric 'pearsonr' has no interval; known are: auprc, auroc, gene_structure, mcc"),
        ("auroc", {"resamples": 0}, "resamples is 0"),
        ("auroc", {"clusters": "blok"}, "unknown clusters 'blok'; did you mean 'block'"),
        ("auroc", {"clusters": "block", "block_bp": 0}, "blocks have 0 bp; expected 1 or more"),
    ],
)
def test_settings_that_cannot_be_drawn_are_refused(metric: str, settings: dict[str, object], message: str) -> None:
    predictions = scored([0.1, 0.2], [0, 1], chromosome=["a", "b"], start=[0, 0], end=[1, 1])
    with pytest.raises(ConfigError, match=message):
        draws_of(predictions, [metric], Bootstrap(**settings))  # type: ignore[arg-type]


def test_scores_of_nan_are_refused_where_they_count() -> None:
    with pytest.raises(RecordError, match="1 scores are nan"):
        draws_of(scored([math.nan, 0.2], [0, 1]), ["auroc"])
    assert draws_of(scored([math.nan, 0.2, 0.1], [-100, 1, 0]), ["auroc"], Bootstrap(resamples=1))["auroc"].value == 1.0


def test_clusters_without_places_are_refused() -> None:
    with pytest.raises(
        RecordError, match=r"clusters by chromosome need the column 'chromosome'.*but the predictions have fold"
    ):
        draws_of(scored([0.1, 0.2], [0, 1], fold=[0, 0]), ["auroc"], Bootstrap(clusters="chromosome"))


def test_resamples_without_a_class_are_undefined() -> None:
    drawn = draws_of(scored([0.9, 0.1, 0.2], [1, 0, 0]), ["auroc"], Bootstrap(resamples=500))["auroc"]
    # no positive in three draws: (2/3)**3; no negative: (1/3)**3; together a third
    assert np.isnan(drawn.values).mean() == pytest.approx(1 / 3, abs=0.09)
    assert np.nanmin(drawn.values) == 1.0
