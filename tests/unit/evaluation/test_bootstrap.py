"""Bootstrap intervals: cases worked by hand, what is drawn, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from bend_hf.errors import ConfigError, RecordError
from bend_hf.evaluation.metrics import score
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.uncertainty.bootstrap import Bootstrap, draws_of, folds_of, interval_of, intervals_of
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


def test_one_cluster_leaves_nothing_to_chance() -> None:
    predictions = scored([0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1], chromosome=["chr1"] * 4)
    found = interval_of(predictions, "auroc", Bootstrap(clusters="chromosome", resamples=20))
    assert (found.low, found.high, found.n_clusters, found.n_undefined) == (0.875, 0.875, 1, 0)
    assert found.method == "bootstrap over chromosomes"


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


def test_interval_is_as_wide_as_theory_says() -> None:
    # the standard error of an area by Hanley and McNeil 1982, equation 1, is about 0.024 here
    predictions = noisy(400)
    found = interval_of(predictions, "auroc")
    value = draws_of(predictions, ["auroc"], Bootstrap(resamples=1))["auroc"].value
    n_positive = int(predictions.target.sum())
    n_negative = 400 - n_positive
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value) + (n_positive - 1) * (q1 - value**2) + (n_negative - 1) * (q2 - value**2)
    error = math.sqrt(variance / n_positive / n_negative)
    assert (found.high - found.low) / (2 * 1.96 * error) == pytest.approx(1.0, abs=0.12)
    assert found.low < value < found.high


def test_same_seed_gives_the_same_and_another_another() -> None:
    predictions = noisy()
    assert interval_of(predictions, "auroc", Bootstrap(seed=4)) == interval_of(predictions, "auroc", Bootstrap(seed=4))
    assert (
        interval_of(predictions, "auroc", Bootstrap(seed=4)).low
        != interval_of(predictions, "auroc", Bootstrap(seed=5)).low
    )


def test_metrics_together_are_those_alone() -> None:
    predictions = noisy()
    together = intervals_of(predictions, ["auroc", "auprc"], Bootstrap(resamples=50))
    assert together["auprc"] == interval_of(predictions, "auprc", Bootstrap(resamples=50))
    assert together["auroc"] == interval_of(predictions, "auroc", Bootstrap(resamples=50))


def test_level_sets_the_width() -> None:
    predictions = noisy()
    wide, narrow = (interval_of(predictions, "auroc", level=level) for level in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_each_label_has_its_interval_and_one_class_has_none() -> None:
    rng = np.random.default_rng(0)
    target = np.stack([rng.integers(0, 2, 50), np.ones(50, int)], axis=1).astype(np.int16)
    one = noisy(50)
    predictions = replace(one, target=target, score=rng.random((50, 2)).astype(np.float32), label_names=("a", "b"))
    found = interval_of(predictions, "auroc", Bootstrap(resamples=100))
    assert len(found.per_label) == 2
    assert found.per_label[0] == (found.low, found.high)  # the mean leaves the other out
    assert np.isnan(found.per_label[1]).all()
    body = found.as_json()
    assert body["per_label"] == [[found.low, found.high], [None, None]]
    json.dumps(body, allow_nan=False)


def test_resamples_without_a_class_are_counted_and_left_out() -> None:
    predictions = scored([0.9, 0.1, 0.2], [1, 0, 0])
    found = interval_of(predictions, "auroc", Bootstrap(resamples=500))
    # no positive in three draws: (2/3)**3; no negative: (1/3)**3; together a third
    assert found.n_undefined / 500 == pytest.approx(1 / 3, abs=0.09)
    assert (found.low, found.high) == (1.0, 1.0)
    nothing = interval_of(scored([0.5, 0.2], [1, 1]), "auroc", Bootstrap(resamples=10))
    assert math.isnan(nothing.low)
    assert nothing.n_undefined == 10
    assert nothing.as_json()["low"] is None


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


def test_clusters_of_neighbours_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    shared = np.repeat(rng.standard_normal(20), 50)  # what a chromosome's items have in common
    target = (rng.standard_normal(1000) + 2 * shared > 0).astype(int)
    said = 2 * shared + rng.standard_normal(1000)
    predictions = scored(said.tolist(), target.tolist(), chromosome=np.repeat(np.arange(20), 50).tolist())
    item, chromosome = (
        interval_of(predictions, "auroc", Bootstrap(clusters=by, resamples=200)) for by in ("item", "chromosome")
    )
    assert chromosome.high - chromosome.low > 1.5 * (item.high - item.low)


def test_no_item_is_undefined() -> None:
    found = interval_of(scored([], []), "auroc", Bootstrap(resamples=3))
    assert math.isnan(found.low)
    assert found.n_clusters == 0


@pytest.mark.parametrize(
    ("metric", "level", "settings", "message"),
    [
        ("mcc", 0.95, {}, "mcc needs classes, but these predictions hold scores"),
        ("pearsonr", 0.95, {}, "metric 'pearsonr' has no interval; choose one of mcc, auroc, auprc"),
        ("auroc", 0.95, {"resamples": 0}, "resamples is 0"),
        ("auroc", 1.0, {}, "level is 1.0; expected a fraction between 0 and 1"),
        ("auroc", 0.95, {"clusters": "blok"}, "unknown clusters 'blok'; did you mean 'block'"),
        ("auroc", 0.95, {"clusters": "block", "block_bp": 0}, "blocks have 0 bp; expected 1 or more"),
    ],
)
def test_settings_that_cannot_be_drawn_are_refused(
    metric: str, level: float, settings: dict[str, object], message: str
) -> None:
    predictions = scored([0.1, 0.2], [0, 1], chromosome=["a", "b"], start=[0, 0], end=[1, 1])
    with pytest.raises(ConfigError, match=message):
        interval_of(predictions, metric, Bootstrap(**settings), level=level)  # type: ignore[arg-type]


def test_scores_of_nan_are_refused_where_they_count() -> None:
    with pytest.raises(RecordError, match="1 scores are nan"):
        interval_of(scored([math.nan, 0.2], [0, 1]), "auroc")
    assert interval_of(scored([math.nan, 0.2, 0.1], [-100, 1, 0]), "auroc", Bootstrap(resamples=30)).high == 1.0


def test_clusters_without_places_are_refused() -> None:
    with pytest.raises(
        RecordError, match=r"clusters by chromosome need the column 'chromosome'.*but the predictions have fold"
    ):
        interval_of(scored([0.1, 0.2], [0, 1], fold=[0, 0]), "auroc", Bootstrap(clusters="chromosome"))
