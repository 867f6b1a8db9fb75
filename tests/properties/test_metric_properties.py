"""The metrics agree with scikit-learn on whatever comes, and a stream with one call."""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import Any

import evaluate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    matthews_corrcoef,
    precision_recall_fscore_support,
    roc_auc_score,
)

from bend_hf.files import asset_folder

MAX_CLASSES = 6
CURVES = {"auroc": roc_auc_score, "auprc": average_precision_score}

unhurried = settings(deadline=None)  # the first example of a metric loads it

Arrays = tuple[NDArray[Any], NDArray[Any]]


@cache
def metric(name: str) -> Any:
    return evaluate.load(str(asset_folder("metrics") / name))


@st.composite
def class_pairs(draw: st.DrawFn, min_size: int = 0) -> Arrays:
    """Predicted and true class numbers, shape (items,), the true ones -100 here and there, or all one class."""
    size = draw(st.integers(min_size, 60))
    dtype = draw(st.sampled_from([np.int8, np.int16, np.int32, np.int64]))
    top = draw(st.integers(0, MAX_CLASSES - 1))
    predicted = draw(hnp.arrays(dtype, size, elements=st.integers(0, top)))
    true = draw(hnp.arrays(dtype, size, elements=st.sampled_from([*range(top + 1), -100])))
    return predicted, true


@st.composite
def score_pairs(draw: st.DrawFn) -> Arrays:
    """Scores with many ties and 0/1 references with -100 here and there, shape (items,) or (items, labels)."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=25))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    width = 32 if dtype == np.float32 else 64
    values = draw(
        st.sampled_from([st.sampled_from([-1.0, 0.0, -0.0, 0.5]), st.floats(-1e30, 1e30, width=width)])
        if width == 64
        else st.sampled_from([st.sampled_from([-1.0, 0.0, -0.0, 0.5]), st.floats(-(2.0**90), 2.0**90, width=32)])
    )
    references = st.sampled_from(draw(st.sampled_from([[0, 1], [0, 1, -100], [1], [-100]])))
    return draw(hnp.arrays(dtype, shape, elements=values)), draw(hnp.arrays(np.int64, shape, elements=references))


def as_columns(array: NDArray[Any]) -> list[NDArray[Any]]:
    return [array] if array.ndim == 1 else list(array.T)


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Equal to the last bit, nan for nan."""
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


@unhurried
@given(class_pairs())
def test_mcc_and_its_parts_are_those_of_scikit_learn(pair: Arrays) -> None:
    predicted, true = pair
    result = metric("mcc").compute(predictions=predicted, references=true, n_classes=MAX_CLASSES)
    p, t = predicted[true != -100], true[true != -100]
    if t.size == 0:
        assert math.isnan(result["mcc"])
        assert result["support"] == [0] * MAX_CLASSES
        return
    classes = range(MAX_CLASSES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one class only
        expected = matthews_corrcoef(t, p)
    assert result["mcc"] == pytest.approx(expected, abs=1e-12)
    assert result["confusion_matrix"] == confusion_matrix(t, p, labels=classes).tolist()
    precision, recall, f1, support = precision_recall_fscore_support(t, p, labels=classes, zero_division=math.nan)
    assert result["support"] == support.tolist()
    np.testing.assert_allclose(result["recall"], recall, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result["precision"], precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result["f1"], f1, rtol=0, atol=1e-12)


@unhurried
@given(class_pairs(min_size=1))
def test_mcc_stays_between_its_bounds_and_does_not_care_which_side_is_true(pair: Arrays) -> None:
    predicted, true = pair
    true = np.maximum(true, 0)
    forth = metric("mcc").compute(predictions=predicted, references=true)["mcc"]
    assert -1 <= forth <= 1
    assert metric("mcc").compute(predictions=true, references=predicted)["mcc"] == forth
    assert metric("mcc").compute(predictions=true, references=true)["mcc"] == (len(set(true)) > 1)


@unhurried
@given(score_pairs(), st.sampled_from(sorted(CURVES)))
def test_curve_of_each_label_is_that_of_scikit_learn(pair: Arrays, name: str) -> None:
    scores, references = pair
    result = metric(name).compute(predictions=scores, references=references)
    expected = []
    for score, true in zip(as_columns(scores), as_columns(references), strict=True):
        kept = true != -100
        expected.append(CURVES[name](true[kept], score[kept]) if len(set(true[kept])) == 2 else math.nan)
    np.testing.assert_allclose(result["per_label"], expected, rtol=0, atol=1e-12)
    assert result["n_labels_left_out"] == sum(map(math.isnan, expected))
    held = [value for value in expected if not math.isnan(value)]
    assert result[name] == pytest.approx(np.mean(held) if held else math.nan, abs=1e-12, nan_ok=True)


@unhurried
@given(score_pairs())
def test_chance_is_the_share_of_positives(pair: Arrays) -> None:
    scores, references = pair
    result = metric("auprc").compute(predictions=scores, references=references)
    shares = [np.mean(true[true != -100]) if (true != -100).any() else math.nan for true in as_columns(references)]
    np.testing.assert_allclose(result["chance_per_label"], shares, rtol=0, atol=1e-12)
    held = [share for share, value in zip(shares, result["per_label"], strict=True) if not math.isnan(value)]
    assert result["chance"] == pytest.approx(np.mean(held) if held else math.nan, abs=1e-12, nan_ok=True)


@unhurried
@given(score_pairs())
def test_auroc_of_turned_scores_is_the_rest_of_one(pair: Arrays) -> None:
    scores, references = pair
    forth = metric("auroc").compute(predictions=scores, references=references)["per_label"]
    back = metric("auroc").compute(predictions=-scores, references=references)["per_label"]
    np.testing.assert_allclose(np.add(forth, back), np.where(np.isnan(forth), math.nan, 1.0), rtol=0, atol=1e-12)


@unhurried
@given(st.data())
def test_stream_split_anywhere_is_one_call(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["auprc", "auroc", "mcc"]))
    predictions, references = data.draw(class_pairs() if name == "mcc" else score_pairs())
    cuts = sorted(data.draw(st.lists(st.integers(0, len(references)), max_size=4)))
    for p, r in zip(np.split(predictions, cuts), np.split(references, cuts), strict=True):
        metric(name).add_batch(predictions=p, references=r)
    assert len(metric(name)) == len(references)
    streamed = metric(name).compute()
    assert_same(streamed, metric(name).compute(predictions=predictions, references=references))


@unhurried
@given(st.data())
def test_padding_and_order_of_items_change_nothing(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["auroc", "mcc"]))
    predictions, references = data.draw(class_pairs() if name == "mcc" else score_pairs())
    padding = np.full((3, *references.shape[1:]), -100, references.dtype)
    order = data.draw(st.permutations(range(len(references) + 3)))
    moved = metric(name).compute(
        predictions=np.concatenate([predictions, np.zeros(padding.shape, predictions.dtype)])[order],
        references=np.concatenate([references, padding])[order],
    )
    assert_same(moved, metric(name).compute(predictions=predictions, references=references))


@unhurried
@given(class_pairs(), st.integers(1, 4))
def test_counts_summed_over_processes_are_one_call(pair: Arrays, n_processes: int) -> None:
    predicted, true = pair
    total = np.zeros((MAX_CLASSES, MAX_CLASSES), np.int64)
    for rank in range(n_processes):
        metric("mcc").add_batch(predictions=predicted[rank::n_processes], references=true[rank::n_processes])
        total += metric("mcc").take_counts(n_classes=MAX_CLASSES)
    metric("mcc").merge(total)
    joined = metric("mcc").compute(n_classes=MAX_CLASSES)
    assert_same(joined, metric("mcc").compute(predictions=predicted, references=true, n_classes=MAX_CLASSES))


@unhurried
@given(st.data())
def test_weights_are_those_of_scikit_learn_and_zero_leaves_an_item_out(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["auprc", "auroc"]))
    scores, references = data.draw(score_pairs())
    weights = data.draw(hnp.arrays(np.float64, len(references), elements=st.sampled_from([0.0, 1.0, 0.5, 3.0, 0.125])))
    result = metric(name).compute(predictions=scores, references=references, sample_weight=weights)
    expected = []
    for score, true in zip(as_columns(scores), as_columns(references), strict=True):
        kept = (true != -100) & (weights > 0)
        both = len(set(true[kept])) == 2
        expected.append(CURVES[name](true[kept], score[kept], sample_weight=weights[kept]) if both else math.nan)
    np.testing.assert_allclose(result["per_label"], expected, rtol=0, atol=1e-12)


@unhurried
@given(class_pairs(), st.data())
def test_whole_weights_count_an_item_so_often(pair: Arrays, data: st.DataObject) -> None:
    predicted, true = pair
    weights = data.draw(hnp.arrays(np.int64, len(true), elements=st.integers(0, 4)))
    result = metric("mcc").compute(predictions=predicted, references=true, sample_weight=weights, n_classes=MAX_CLASSES)
    repeated = metric("mcc").compute(
        predictions=np.repeat(predicted, weights), references=np.repeat(true, weights), n_classes=MAX_CLASSES
    )
    assert_same(result, repeated)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one class only
        kept = (true != -100) & (weights > 0)
        if kept.any():
            expected = matthews_corrcoef(true[kept], predicted[kept], sample_weight=weights[kept])
            assert result["mcc"] == pytest.approx(expected, abs=1e-12)


def test_weights_that_cannot_be_counted_are_refused() -> None:
    for weights in ([0.5, 1.0], [-1, 1], [1], [math.nan, 1.0]):
        with pytest.raises(ValueError, match="a whole number from 0 on per item: how often it counts"):
            metric("mcc").compute(predictions=[0, 1], references=[0, 1], sample_weight=weights)
    for name in CURVES:
        with pytest.raises(ValueError, match=r"expected shape \(items,\) and numbers that are 0, or"):
            metric(name).compute(predictions=[0.1, 0.2], references=[0, 1], sample_weight=[1.0, math.inf])
