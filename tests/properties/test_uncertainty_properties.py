"""Resamples in bulk equal the metric on items that are really repeated; DeLong equals its definition."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import evaluate
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.uncertainty.bootstrap import Bootstrap, draw_weights, draws_of
from bend_hf.evaluation.uncertainty.comparison import holm
from bend_hf.evaluation.uncertainty.delong import delong
from bend_hf.evaluation.uncertainty.fast_metrics import ConfusionCounts, CurveCounts
from bend_hf.files import asset_folder

unhurried = settings(deadline=None, max_examples=40)  # the first example of a metric loads it


@cache
def metric(name: str) -> Any:
    return evaluate.load(str(asset_folder("metrics") / name))


def repeated(cluster: NDArray[np.int64], weights: NDArray[Any]) -> NDArray[np.int64]:
    """Row numbers, each as often as its cluster was drawn."""
    return np.repeat(np.arange(len(cluster)), weights[cluster].astype(np.int64))


@st.composite
def clustered(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The cluster of each of some windows, in any order, and weights for some resamples."""
    n_clusters = draw(st.integers(1, 6))
    cluster = draw(hnp.arrays(np.int64, st.integers(1, 30), elements=st.integers(0, n_clusters - 1)))
    weights = draw(hnp.arrays(np.float32, (n_clusters, 3), elements=st.integers(0, 3).map(float)))
    return cluster, weights


@unhurried
@given(clustered(), st.data())
def test_mcc_of_a_resample_is_that_of_the_repeated_items(case: Any, data: st.DataObject) -> None:
    cluster, weights = case
    classes = st.integers(0, 3)
    true = data.draw(hnp.arrays(np.int16, len(cluster), elements=st.one_of(classes, st.just(-100))))
    said = data.draw(hnp.arrays(np.int16, len(cluster), elements=classes))
    counts = ConfusionCounts.of(said, true, cluster, n_clusters=len(weights), n_classes=4)
    expected = [
        metric("mcc").compute(predictions=said[rows], references=true[rows], n_classes=4)["mcc"]
        for rows in (repeated(cluster, column) for column in weights.T)
    ]
    np.testing.assert_allclose(counts.mcc(weights), expected, rtol=0, atol=1e-12)


@unhurried
@given(clustered(), st.data())
def test_areas_of_a_resample_are_those_of_the_repeated_items(case: Any, data: st.DataObject) -> None:
    cluster, weights = case
    true = data.draw(hnp.arrays(np.int16, len(cluster), elements=st.sampled_from([0, 1, -100])))
    score = data.draw(hnp.arrays(np.float32, len(cluster), elements=st.sampled_from([-1.0, 0.0, -0.0, 0.5, 2.0])))
    found = CurveCounts(score, true, cluster, n_clusters=len(weights)).metrics(weights, ["auroc", "auprc"])
    for name in ("auroc", "auprc"):
        expected = [
            metric(name).compute(predictions=score[rows], references=true[rows])[name]
            for rows in (repeated(cluster, column) for column in weights.T)
        ]
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-12, err_msg=name)


@unhurried
@given(
    st.integers(1, 40), st.integers(1, 5), st.booleans(), st.sampled_from(["item", "chromosome"]), st.integers(0, 99)
)
def test_draws_are_those_of_naive_resampling(n: int, n_labels: int, folded: bool, by: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 4, n)
    windows = np.concatenate([[0], np.cumsum(lengths)])
    fold = np.sort(rng.integers(1, 3, n)) if folded else np.zeros(n, np.int64)
    chromosome = rng.integers(0, 3, n)
    target = rng.integers(0, 2, (windows[-1], n_labels)).astype(np.int16)
    score = rng.choice([0.1, 0.2, 0.7], (windows[-1], n_labels)).astype(np.float32)
    predictions = Predictions(
        item=np.arange(n),
        windows=windows,
        target=target,
        score=score,
        predicted=None,
        label_names=tuple(map(str, range(n_labels))),
        columns={
            "chromosome": pa.array([f"chr{number}" for number in chromosome]),
            **({"fold": pa.array(fold)} if folded else {}),
        },
    )
    drawn = draws_of(predictions, ["auroc", "auprc"], Bootstrap(seed=seed, resamples=5, clusters=by))
    for name in ("auroc", "auprc"):
        of_folds = []
        for one in np.unique(fold):
            items = np.flatnonzero(fold == one)
            cluster = np.arange(len(items)) if by == "item" else np.unique(chromosome[items], return_inverse=True)[1]
            own = np.random.default_rng([seed, int(one)])
            of_resamples = []
            for _ in range(5):
                n_clusters = int(cluster.max()) + 1
                picked = own.integers(0, n_clusters, n_clusters, dtype=np.int32)
                chosen = [item for pick in picked for item in items[cluster == pick]]
                rows = np.concatenate([np.arange(windows[item], windows[item + 1]) for item in chosen])
                of_resamples.append(metric(name).compute(predictions=score[rows], references=target[rows])[name])
            of_folds.append(of_resamples)
        values = np.array(of_folds)
        defined = ~np.isnan(values)
        expected = [
            column[kept].mean() if kept.any() else math.nan for column, kept in zip(values.T, defined.T, strict=True)
        ]
        np.testing.assert_allclose(drawn[name].values, expected, rtol=0, atol=1e-12, err_msg=name)


@given(st.integers(1, 50), st.integers(1, 40), st.integers(1, 9), st.integers(0, 9))
def test_weights_do_not_depend_on_the_pieces(n_clusters: int, resamples: int, at_once: int, seed: int) -> None:
    pieces = [np.concatenate(list(draw_weights(n_clusters, resamples, [seed], k)), axis=1) for k in (at_once, 1000)]
    np.testing.assert_array_equal(*pieces)
    assert pieces[0].shape == (n_clusters, resamples)
    assert (pieces[0].sum(axis=0) == n_clusters).all()


@unhurried
@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 3), st.data())
def test_delong_is_its_definition(n_positive: int, n_negative: int, m: int, data: st.DataObject) -> None:
    values = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 0.25])
    score = data.draw(hnp.arrays(np.float64, (m, n_positive + n_negative), elements=values))
    target = np.array(data.draw(st.permutations([1] * n_positive + [0] * n_negative)))
    found = delong(score, target)
    # every pair of a positive and a negative item; half for a tie
    gap = score[:, target == 1][:, :, None] - score[:, target == 0][:, None, :]
    wins = (gap > 0) + (gap == 0) / 2
    np.testing.assert_allclose(found.areas, wins.mean(axis=(1, 2)), rtol=0, atol=1e-12)
    by_positive, by_negative = wins.mean(axis=2), wins.mean(axis=1)
    centred = [part - part.mean(axis=1, keepdims=True) for part in (by_positive, by_negative)]
    expected = sum(part @ part.T / (part.shape[1] - 1) / part.shape[1] for part in centred)
    np.testing.assert_allclose(found.covariance, expected, rtol=0, atol=1e-12)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_as_the_step_down_procedure_does(p_values: list[float]) -> None:
    corrected = holm(p_values)
    for level in (0.01, 0.05, 0.3):
        order = np.argsort(p_values, kind="stable")
        rejected = set()
        for rank, index in enumerate(order):
            if p_values[index] * (len(order) - rank) > level:
                break
            rejected.add(int(index))
        assert {index for index, p in enumerate(corrected) if p <= level} == rejected
    assert all(after >= before for before, after in zip(p_values, corrected, strict=True))


@pytest.mark.parametrize("name", ["auroc", "auprc"])
def test_scores_of_thousands_of_items_agree_in_single_and_double_precision(name: str) -> None:
    rng = np.random.default_rng(0)
    true = (rng.random(3000) < 0.3).astype(np.int16)
    score = rng.standard_normal(3000).astype(np.float32).round(2) + true
    cluster = rng.integers(0, 500, 3000)
    counts = CurveCounts(score, true, cluster, n_clusters=500)
    weights = np.concatenate(list(draw_weights(500, 4, [3])), axis=1)
    expected = [
        metric(name).compute(predictions=score[rows], references=true[rows])[name]
        for rows in (repeated(cluster, column) for column in weights.T)
    ]
    assert counts.dtype == np.float32
    np.testing.assert_allclose(counts.metrics(weights, [name])[name], expected, rtol=0, atol=1e-12)
