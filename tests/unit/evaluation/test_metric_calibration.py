"""Calibration against cases worked by hand and scikit-learn, its decided edge cases, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import evaluate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import brier_score_loss

from bend_hf.evaluation.metrics import score
from bend_hf.files import asset_folder


@pytest.fixture(scope="module")
def calibration() -> Any:
    return evaluate.load(str(asset_folder("metrics") / "calibration"))


def test_errors_worked_by_hand(calibration: Any) -> None:
    # bin of 0.2: mean 0.2, one of two positive, distance 0.3, weight 2/3; bin of 1: right; 0.04 + 0.64 + 0 squared
    result = calibration.compute(predictions=[0.2, 0.2, 1.0], references=[0, 1, 1], n_bins=2)
    assert result["ece"] == pytest.approx(0.2, abs=1e-15)
    assert result["brier"] == pytest.approx(0.68 / 3, abs=1e-15)
    assert result["bin_weight"] == [2.0, 1.0]
    assert result["bin_positive"] == [0.5, 1.0]
    assert (result["n_items"], result["n_labels_left_out"]) == ([3], 0)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_is_the_plain_sum_over_bins_and_the_brier_score_of_scikit_learn(data: st.DataObject) -> None:
    metric = evaluate.load(str(asset_folder("metrics") / "calibration"))
    n, n_bins = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 12))
    said = data.draw(hnp.arrays(np.float64, n, elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 0.1, 0.99])))
    true = data.draw(hnp.arrays(np.int64, n, elements=st.integers(0, 1)))
    weights = data.draw(hnp.arrays(np.int64, n, elements=st.integers(0, 3)))
    result = metric.compute(predictions=said, references=true, sample_weight=weights, n_bins=n_bins)
    if not weights.any():
        assert math.isnan(result["ece"])
        assert math.isnan(result["brier"])
        return
    assert result["brier"] == pytest.approx(
        brier_score_loss(true, said, sample_weight=weights, pos_label=1, labels=[0, 1]), abs=1e-12
    )
    expected = 0.0
    for number in range(n_bins):
        inside = [i for i in range(n) if min(int(said[i] * n_bins), n_bins - 1) == number and weights[i]]
        weight = sum(weights[i] for i in inside)
        if weight:
            gap = (
                sum(weights[i] * said[i] for i in inside) / weight - sum(weights[i] * true[i] for i in inside) / weight
            )
            expected += abs(gap) * weight / weights.sum()
    assert result["ece"] == pytest.approx(expected, abs=1e-12)
    assert sum(result["bin_weight"]) == weights.sum()


def test_share_of_positives_is_calibrated_and_says_nothing(calibration: Any) -> None:
    result = calibration.compute(predictions=np.full(8, 0.25), references=[1, 0, 0, 0, 1, 0, 0, 0])
    assert result["ece"] == 0.0
    assert result["brier"] == 0.1875


def test_labels_are_averaged_and_empty_ones_left_out(calibration: Any) -> None:
    result = calibration.compute(
        predictions=[[0.0, 0.5, 0.5], [1.0, 0.5, 0.5]], references=[[0, 1, -100], [1, 1, -100]], names=["a", "b", "c"]
    )
    np.testing.assert_equal(result["ece_per_label"], [0.0, 0.5, math.nan])
    np.testing.assert_equal(result["brier_per_label"], [0.0, 0.25, math.nan])
    assert (result["ece"], result["brier"], result["n_labels_left_out"]) == (0.25, 0.125, 1)


def test_edges_belong_to_the_upper_bin_and_one_to_the_last(calibration: Any) -> None:
    result = calibration.compute(predictions=[0.0, 0.5, 1.0], references=[0, 1, 1], n_bins=2)
    assert result["bin_weight"] == [1.0, 2.0]


def test_stream_is_one_call(calibration: Any) -> None:
    rng = np.random.default_rng(0)
    said, true = rng.random((600, 3)).astype(np.float32), rng.integers(0, 2, (600, 3))
    for one, other in zip(said, true, strict=True):
        calibration.add(prediction=one, reference=other)
    np.testing.assert_equal(calibration.compute(), calibration.compute(predictions=said, references=true))


def test_first_entry_stands_for_the_metric() -> None:
    found = score("calibration", [0.5, 0.5], [0, 0])
    assert found.value == 0.5
    assert found.detail["brier"] == 0.25


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"predictions": [0.1, 1.5], "references": [0, 1]},
            r"predictions of label 0 hold 1.5 .*take the sigmoid of logits first",
        ),
        ({"predictions": [math.nan], "references": [0]}, r"predictions of label 0 hold nan"),
        ({"predictions": [0.1, 0.2], "references": [0, 2]}, r"references of label 0 hold 2 \(1 of 2 references\)"),
        ({"predictions": [0.1], "references": [0], "n_bins": 0}, r"n_bins is 0"),
        ({"predictions": [0.1], "references": [0], "ignore_index": 1}, r"ignore_index is 1, which is a label"),
        ({}, r"nothing to score"),
    ],
)
def test_refuses_and_is_empty_afterwards(calibration: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibration.compute(**given)
    assert len(calibration) == 0
