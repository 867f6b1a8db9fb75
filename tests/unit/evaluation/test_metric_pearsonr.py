"""The Pearson metric against cases worked by hand and SciPy, its decided edge cases, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import evaluate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from bend_hf.files import asset_folder

numbers = st.floats(-100, 100, width=32)


@pytest.fixture(scope="module")
def pearsonr() -> Any:
    return evaluate.load(str(asset_folder("metrics") / "pearsonr"))


def test_correlation_worked_by_hand(pearsonr: Any) -> None:
    # deviations -1 0 1 and -1 1 0: covariance 1, spreads 2 and 2
    result = pearsonr.compute(predictions=[1.0, 2.0, 3.0], references=[1, 3, 2])
    assert result == {"pearsonr": 0.5, "per_label": [0.5], "n_labels_left_out": 0, "n_items": [3]}
    assert type(result["pearsonr"]) is float


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.float64, st.tuples(st.just(2), st.integers(2, 30)), elements=numbers))
def test_is_that_of_scipy(pair: Any) -> None:
    metric = evaluate.load(str(asset_folder("metrics") / "pearsonr"))
    found = metric.compute(predictions=pair[0], references=pair[1], ignore_index=None)["pearsonr"]
    if min(np.ptp(side) for side in pair) == 0:
        assert math.isnan(found)
    elif min(np.ptp(side) / (np.abs(side).max() + 1e-300) for side in pair) > 1e-3:  # SciPy is exact itself there
        assert found == pytest.approx(stats.pearsonr(*pair).statistic, abs=1e-12)


def test_line_is_exactly_one_however_large_or_far_off(pearsonr: Any) -> None:
    x = np.array([0.0, 1.0, 2.0, 7.0])
    for scale in (1e-300, 1.0, 1e300):
        assert pearsonr.compute(predictions=x, references=scale * x)["pearsonr"] == pytest.approx(1.0, abs=1e-15)
    assert pearsonr.compute(predictions=x, references=-x)["pearsonr"] == -1.0
    assert pearsonr.compute(predictions=x + 1e9, references=x)["pearsonr"] == pytest.approx(1.0, abs=1e-12)
    assert pearsonr.compute(predictions=[-1.7e308, 1.7e308], references=[0, 1])["pearsonr"] == 1.0


@pytest.mark.parametrize(
    ("predictions", "references"),
    [([], []), ([0.3], [0.1]), ([0.1, 0.1, 0.1], [1, 2, 3]), ([1, 2], [5, 5]), ([1, 2], [-100, -100])],
)
def test_constant_or_nothing_is_nan(pearsonr: Any, predictions: Any, references: Any) -> None:
    result = pearsonr.compute(predictions=predictions, references=references)
    assert math.isnan(result["pearsonr"])
    assert result["n_labels_left_out"] == 1


def test_mean_leaves_constant_labels_out_and_counts_them(pearsonr: Any) -> None:
    x = np.array([[1, 1, 1], [2, 2, 1], [3, 3, 1]], np.float32)
    y = np.array([[1, 3, 1], [3, 2, 2], [2, 1, 3]])
    result = pearsonr.compute(predictions=x, references=y, names=["a", "b", "c"])
    np.testing.assert_equal(result["per_label"], [0.5, -1.0, math.nan])
    assert (result["pearsonr"], result["n_labels_left_out"]) == (-0.25, 1)
    assert result["names"] == ["a", "b", "c"]


def test_ignored_cells_are_not_looked_at(pearsonr: Any) -> None:
    for reference, ignored in ((math.nan, None), (-7.0, -7.0)):
        result = pearsonr.compute(
            predictions=[1.0, 2.0, math.nan], references=[1.0, 2.0, reference], ignore_index=ignored
        )
        assert (result["pearsonr"], result["n_items"]) == (1.0, [2])


@pytest.mark.parametrize("value", [-100.0, -100, -1.0, 0.0])
def test_no_number_is_left_out_by_default(pearsonr: Any, value: float) -> None:
    predictions, references = [1.0, 2.0, 3.0, 4.0], [value, -50.0, 10.0, 20.0]
    result = pearsonr.compute(predictions=predictions, references=references)
    assert result["n_items"] == [4]
    assert result["pearsonr"] == pytest.approx(stats.pearsonr(predictions, references).statistic, abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_weights_repeat_items_and_zero_leaves_them_out(data: st.DataObject) -> None:
    metric = evaluate.load(str(asset_folder("metrics") / "pearsonr"))
    n = data.draw(st.integers(1, 20))
    x, y = (data.draw(hnp.arrays(np.float64, n, elements=st.integers(-5, 5).map(float))) for _ in range(2))
    weights = data.draw(hnp.arrays(np.int64, n, elements=st.integers(0, 3)))
    weighted = metric.compute(predictions=x, references=y, sample_weight=weights)["pearsonr"]
    repeated = metric.compute(predictions=np.repeat(x, weights), references=np.repeat(y, weights))["pearsonr"]
    assert weighted == pytest.approx(repeated, abs=1e-12, nan_ok=True)


def test_stream_and_other_processes_give_the_same(pearsonr: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((500, 2)), rng.random((500, 2))
    other = evaluate.load(str(asset_folder("metrics") / "pearsonr"))
    for start in range(0, 500, 7):
        (pearsonr if start % 2 else other).add_batch(predictions=x[start : start + 7], references=y[start : start + 7])
    assert len(pearsonr) + len(other) == 500
    pearsonr.add_batch(**other.take_items())
    streamed = pearsonr.compute()["per_label"]
    assert streamed == pytest.approx(pearsonr.compute(predictions=x, references=y)["per_label"], abs=1e-12)


@pytest.mark.parametrize("name", ["pearsonr", "spearmanr"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"predictions": [0.1, math.nan], "references": [0, 1]}, r"predictions of label 0 hold 1 nan or infinite"),
        ({"predictions": [0.1, 0.2], "references": [0, math.inf]}, r"references of label 0 hold 1 nan or infinite"),
        ({"predictions": ["a"], "references": [0]}, r"predictions are <U1; expected numbers"),
        ({"predictions": [0.1, 0.2], "references": [0]}, r"shape \(2,\), references \(1,\)"),
        ({"predictions": [0.1], "references": [0], "names": ["a", "b"]}, r"2 names and 1 labels"),
        ({"predictions": [0.1], "references": [0], "sample_weight": [-1]}, r"sample_weight has shape \(1,\)"),
        ({"predictions": [0.1], "references": [0], "sample_weight": [1, 1]}, r"shape \(2,\) for 1 items"),
        ({"sample_weight": [1]}, r"give it to add_batch instead"),
        ({"references": [0]}, r"go together"),
        ({}, r"nothing to score"),
    ],
)
def test_refuses_and_is_empty_afterwards(name: str, given: dict[str, Any], message: str) -> None:
    metric = evaluate.load(str(asset_folder("metrics") / name))
    with pytest.raises(ValueError, match=message):
        metric.compute(**given)
    assert len(metric) == 0
