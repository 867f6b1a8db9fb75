"""The MCC metric against cases worked by hand, its decided edge cases, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import evaluate
import numpy as np
import pytest
import torch
from datasets import Dataset

from bend_hf.files import asset_folder


@pytest.fixture(scope="module")
def mcc() -> Any:
    return evaluate.load(str(asset_folder("metrics") / "mcc"))


def test_three_classes_as_worked_by_hand(mcc: Any) -> None:
    # c = 3 right of s = 4; t = (2, 1, 1), p = (1, 2, 1): (12 - 5) / sqrt((16 - 6) (16 - 6)) = 0.7
    result = mcc.compute(predictions=[0, 1, 1, 2], references=[0, 0, 1, 2])
    assert result["mcc"] == 0.7
    assert result["confusion_matrix"] == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert result["recall"] == [0.5, 1.0, 1.0]
    assert result["precision"] == [1.0, 0.5, 1.0]
    assert result["f1"] == [2 / 3, 2 / 3, 1.0]
    assert result["support"] == [2, 1, 1]


def test_result_is_plain_python(mcc: Any) -> None:
    result = mcc.compute(predictions=np.array([0, 1], np.int8), references=np.array([0, 0], np.int8), names=["a", "b"])
    assert type(result["mcc"]) is float
    assert {type(x) for key in ("recall", "precision", "f1") for x in result[key]} == {float}
    assert {type(x) for row in [result["support"], *result["confusion_matrix"]] for x in row} == {int}
    assert result["names"] == ["a", "b"]


def test_perfect_and_swapped_are_exact(mcc: Any) -> None:
    rng = np.random.default_rng(0)
    for n in (3, 1_000, 99_999):
        labels = np.append([0, 1], rng.integers(0, 2, n))
        assert mcc.compute(predictions=labels, references=labels)["mcc"] == 1.0
        assert mcc.compute(predictions=1 - labels, references=labels)["mcc"] == -1.0


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64])
def test_integer_dtypes_give_the_same(mcc: Any, dtype: type) -> None:
    predictions, references = np.array([0, 1, 1, 2], dtype), np.array([0, 0, 1, 2], dtype)
    assert mcc.compute(predictions=predictions, references=references)["mcc"] == 0.7


def test_lists_tensors_columns_and_rows_give_the_same(mcc: Any) -> None:
    predictions, references = [0, 1, 1, 2], [0, 0, 1, 2]
    column = Dataset.from_dict({"predicted": predictions, "true": references})
    for p, r in [
        (torch.tensor(predictions), torch.tensor(references)),
        (column["predicted"], column["true"]),
        (np.reshape(predictions, (2, 2)), [[0, 0], [1, 2]]),
        (np.repeat(predictions, 2)[::2], tuple(references)),
    ]:
        assert mcc.compute(predictions=p, references=r)["mcc"] == 0.7


def test_bools_are_two_classes(mcc: Any) -> None:
    result = mcc.compute(predictions=np.array([True, False, True]), references=[True, False, False])
    assert result["confusion_matrix"] == [[1, 1], [0, 1]]


def test_one_class_gives_zero(mcc: Any) -> None:
    assert mcc.compute(predictions=[1, 1, 1], references=[1, 1, 1])["mcc"] == 0.0
    assert mcc.compute(predictions=[0, 0, 0], references=[0, 1, 2])["mcc"] == 0.0


@pytest.mark.parametrize(("predictions", "references"), [([], []), ([0, 3], [-100, -100])])
def test_nothing_to_score_gives_nan(mcc: Any, predictions: list[int], references: list[int]) -> None:
    result = mcc.compute(predictions=predictions, references=references, n_classes=4)
    assert math.isnan(result["mcc"])
    assert all(math.isnan(x) for x in result["recall"] + result["precision"] + result["f1"])
    assert result["support"] == [0, 0, 0, 0]


def test_absent_class_is_nan_in_its_own_place(mcc: Any) -> None:
    result = mcc.compute(predictions=[0, 1, 3], references=[0, 1, 1], n_classes=5)
    np.testing.assert_equal(result["recall"], [1.0, 0.5, math.nan, math.nan, math.nan])
    np.testing.assert_equal(result["precision"], [1.0, 1.0, math.nan, 0.0, math.nan])
    np.testing.assert_equal(result["f1"], [1.0, 2 / 3, math.nan, 0.0, math.nan])


def test_ignored_references_do_not_count_whatever_the_prediction(mcc: Any) -> None:
    result = mcc.compute(predictions=[0, 1, 1, 2, 7, -5, 5000], references=[0, 0, 1, 2, -100, -100, -100])
    assert result["mcc"] == 0.7
    assert len(result["support"]) == 3


@pytest.mark.parametrize("ignore_index", [-1, 5, 255])
def test_other_ignore_index_may_be_given_after_adding(mcc: Any, ignore_index: int) -> None:
    mcc.add_batch(predictions=[0, 1, 1, 2, 0], references=[0, 0, 1, 2, ignore_index])
    result = mcc.compute(n_classes=3, ignore_index=ignore_index)
    assert result["mcc"] == 0.7
    assert result["support"] == [2, 1, 1]


def test_single_items_and_sequences_can_be_added(mcc: Any) -> None:
    mcc.add(prediction=0, reference=0)
    mcc.add(prediction=np.int8(1), reference=0)
    mcc.add(prediction=[1, 2, 0], reference=[1, 2, -100])
    assert len(mcc) == 5
    assert mcc.compute()["mcc"] == 0.7
    assert len(mcc) == 0


def test_compute_adds_to_what_is_there(mcc: Any) -> None:
    mcc.add_batch(predictions=[0, 1], references=[0, 0])
    assert mcc.compute(predictions=[1, 2], references=[1, 2])["mcc"] == 0.7


def test_large_counts_do_not_overflow(mcc: Any) -> None:
    small = np.array([[3, 1], [2, 4]])
    mcc.merge(small * 10**14)
    large = mcc.compute()
    mcc.merge(small)
    assert large["mcc"] == pytest.approx(mcc.compute()["mcc"], rel=1e-15)
    assert large["mcc"] == pytest.approx((4 * 3 - 1 * 2) / math.sqrt(5 * 6 * 4 * 5), rel=1e-15)


def test_sum_of_two_processes_is_one_process(mcc: Any) -> None:
    other = evaluate.load(str(asset_folder("metrics") / "mcc"))
    mcc.add_batch(predictions=[0, 1, 2], references=[0, 0, -100])
    other.add_batch(predictions=[1, 2], references=[1, 2])
    total = torch.from_numpy(mcc.take_counts(n_classes=4)) + torch.from_numpy(other.take_counts(n_classes=4))
    assert len(mcc) == len(other) == 0
    mcc.merge(total)
    assert mcc.compute(n_classes=4)["mcc"] == 0.7


def test_process_without_items_gives_zero_counts(mcc: Any) -> None:
    assert mcc.take_counts(n_classes=3).tolist() == [[0] * 3] * 3


def test_many_batches_cross_the_chunks_right(mcc: Any) -> None:
    rng = np.random.default_rng(1)
    references = rng.integers(-1, 5, 400_000)
    references[references < 0] = -100
    references[300_000] = 8  # a class first seen in a later chunk
    predictions = rng.integers(0, 9, 400_000)
    mcc.add_batch(predictions=predictions, references=references)
    assert len(mcc) == 400_000
    result = mcc.compute()
    expected = np.zeros((9, 9), np.int64)
    np.add.at(expected, (references[references >= 0], predictions[references >= 0]), 1)
    assert result["confusion_matrix"] == expected.tolist()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"predictions": [0.0, 1.0], "references": [0, 1]}, r"predictions are float64.*take the argmax"),
        ({"predictions": [0, 1], "references": [0.0, 1.0]}, r"references are float64"),
        ({"predictions": [0, 1], "references": ["a", "b"]}, r"references are <U1.*expected class numbers"),
        ({"predictions": [0, 1], "references": [0]}, r"shape \(2,\), references \(1,\)"),
        ({"predictions": [[0, 1]], "references": [0, 1]}, r"shape \(1, 2\), references \(2,\)"),
        ({"predictions": [[0], [1, 2]], "references": [0, 1]}, r"rows have different lengths"),
        ({"predictions": [1, -1], "references": [0, 1]}, r"item 1 has prediction -1 and reference 1"),
        ({"predictions": [1, 0], "references": [0, -1]}, r"reference -1 occurs 1 times.*-100 \(ignore_index\)"),
        ({"predictions": [0], "references": [-100], "ignore_index": None}, r"reference -100 occurs 1 times"),
        ({"predictions": [0, 1024], "references": [0, 1]}, r"item 1 has prediction 1024.*from 0 to 1,023"),
        ({"predictions": [0, 2], "references": [0, 1], "n_classes": 2}, r"predictions hold class 2 1 times.*0 to 1"),
        ({"predictions": [0, 0], "references": [0, 3], "n_classes": 2}, r"references hold class 3"),
        ({"predictions": [0], "references": [0], "n_classes": 0}, r"n_classes is 0"),
        ({"predictions": [0], "references": [0], "n_classes": 3, "names": ["a", "b"]}, r"n_classes is 3, but.*2 names"),
        ({"predictions": [0]}, r"references go together"),
        ({}, r"nothing to score"),
    ],
)
def test_refuses_and_is_empty_afterwards(mcc: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mcc.compute(**given)
    assert len(mcc) == 0


def test_bad_batch_adds_nothing(mcc: Any) -> None:
    mcc.add_batch(predictions=[0, 1, 1, 2], references=[0, 0, 1, 2])
    with pytest.raises(ValueError, match="prediction -1"):
        mcc.add_batch(predictions=[0, -1], references=[0, 1])
    assert mcc.compute()["mcc"] == 0.7


@pytest.mark.parametrize("confusion", [[[1.0, 0.0], [0.0, 1.0]], [[1, 2, 3]], [[1, -1], [0, 1]]])
def test_merge_refuses_what_are_no_counts(mcc: Any, confusion: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"expected counts, integers from 0 on, of shape \(classes, classes\)"):
        mcc.merge(confusion)


@pytest.mark.parametrize("name", ["mcc", "auroc", "auprc"])
def test_num_process_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="num_process is 2"):
        evaluate.load(str(asset_folder("metrics") / name), num_process=2, process_id=0)
