"""The AUROC metric against cases worked by hand, its decided edge cases, and what it refuses."""

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
def auroc() -> Any:
    return evaluate.load(str(asset_folder("metrics") / "auroc"))


def test_tie_counts_half_as_worked_by_hand(auroc: Any) -> None:
    # pairs (positive, negative): 0.4 > 0.1, 0.4 = 0.4, 0.8 > 0.1, 0.8 > 0.4: 3.5 of 4
    result = auroc.compute(predictions=[0.1, 0.4, 0.4, 0.8], references=[0, 0, 1, 1])
    assert result == {
        "auroc": 0.875,
        "per_label": [0.875],
        "n_labels_left_out": 0,
        "n_positive": [2],
        "n_negative": [2],
    }
    assert type(result["auroc"]) is float


def test_label_with_one_class_is_left_out_and_counted(auroc: Any) -> None:
    scores = np.array([[0.2, 0.1, 0.9], [0.7, 0.4, 0.1], [0.3, 0.2, 0.5]], np.float32)
    references = [[0, 1, 1], [1, 1, 0], [1, 1, 0]]
    result = auroc.compute(predictions=scores, references=references, names=["a", "b", "c"])
    np.testing.assert_equal(result["per_label"], [1.0, math.nan, 1.0])
    assert result["auroc"] == 1.0
    assert result["n_labels_left_out"] == 1
    assert (result["n_positive"], result["n_negative"]) == ([2, 3, 1], [1, 0, 2])
    assert result["names"] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("predictions", "references"), [([], []), ([0.1, 0.2], [1, 1]), ([0.1, 0.2], [-100, -100]), (np.zeros((3, 0)),) * 2]
)
def test_nothing_to_compare_gives_nan(auroc: Any, predictions: Any, references: Any) -> None:
    assert math.isnan(auroc.compute(predictions=predictions, references=references)["auroc"])


def test_constant_scores_give_one_half(auroc: Any) -> None:
    assert auroc.compute(predictions=np.full(7, 3.5), references=[0, 1, 0, 0, 1, 0, 0])["auroc"] == 0.5


def test_ignored_cells_are_not_looked_at(auroc: Any) -> None:
    scores = np.array([[0.1, 0.5], [0.9, math.nan], [math.nan, 0.7]])
    result = auroc.compute(predictions=scores, references=[[0, 1], [1, -100], [-100, 0]])
    assert result["per_label"] == [1.0, 0.0]


def test_other_ignore_index_may_be_given_after_adding(auroc: Any) -> None:
    auroc.add_batch(predictions=[0.1, 0.9, 0.5], references=np.array([0, 1, 255], np.uint8))
    auroc.add_batch(predictions=[0.2], references=[0])
    assert auroc.compute(ignore_index=255)["n_negative"] == [2]


def test_infinite_scores_have_their_rank(auroc: Any) -> None:
    assert auroc.compute(predictions=[-math.inf, 0.0, math.inf, math.inf], references=[0, 1, 1, 0])["auroc"] == 0.625


def test_neighbouring_doubles_are_no_tie(auroc: Any) -> None:
    above = np.nextafter(0.1, 1)
    assert auroc.compute(predictions=[0.1, above], references=[0, 1])["auroc"] == 1.0
    assert auroc.compute(predictions=np.float32([0.1, above]), references=[0, 1])["auroc"] == 0.5


def test_inputs_of_all_kinds_give_the_same(auroc: Any) -> None:
    scores, references = [0.125, 0.5, 0.5, 0.75], [0, 0, 1, 1]
    column = Dataset.from_dict({"score": scores, "true": references})
    for p, r in [
        (torch.tensor(scores, requires_grad=True), torch.tensor(references, dtype=torch.float32)),
        (torch.tensor(scores, dtype=torch.bfloat16), torch.tensor(references) == 1),
        (np.float16(scores), np.uint8(references)),
        (column["score"], column["true"]),
        ([1, 4, 4, 6], references),
    ]:
        assert auroc.compute(predictions=p, references=r)["auroc"] == 0.875


def test_bools_are_scores_too(auroc: Any) -> None:
    assert auroc.compute(predictions=[True, False, False, True], references=[1, 0, 1, 0])["auroc"] == 0.5


def test_added_arrays_may_be_used_again(auroc: Any) -> None:
    buffer, labels = np.array([0.1, 0.9], np.float32), np.array([0, 1], np.int8)
    auroc.add_batch(predictions=buffer, references=labels)
    buffer[:], labels[:] = 0.5, 0
    auroc.add_batch(predictions=buffer, references=labels)
    assert auroc.compute()["auroc"] == 1.0


def test_single_items_can_be_added(auroc: Any) -> None:
    rng = np.random.default_rng(0)
    scores, references = rng.random((700, 2)), rng.integers(0, 2, (700, 2))
    for score, reference in zip(scores, references, strict=True):
        auroc.add(prediction=score, reference=reference)
    assert len(auroc) == 700
    one_by_one = auroc.compute()
    assert one_by_one == auroc.compute(predictions=scores, references=references)
    auroc.add(prediction=0.3, reference=0)
    auroc.add(prediction=0.4, reference=1)
    assert auroc.compute()["auroc"] == 1.0


def test_items_of_two_processes_score_as_of_one(auroc: Any) -> None:
    other = evaluate.load(str(asset_folder("metrics") / "auroc"))
    auroc.add_batch(predictions=[0.1, 0.4], references=[0, 0])
    other.add_batch(predictions=[0.4, 0.8], references=[1, 1])
    auroc.add_batch(**other.take_items())
    assert len(other) == 0
    assert auroc.compute()["auroc"] == 0.875
    with pytest.raises(ValueError, match="no items to take"):
        auroc.take_items()


@pytest.mark.parametrize("name", ["auroc", "auprc"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"predictions": [0.1, math.nan], "references": [0, 1]}, r"predictions of label 0 hold 1 nan"),
        ({"predictions": [0.1, 0.2], "references": [0, 2]}, r"references of label 0 hold 2 \(1 of 2 references\)"),
        ({"predictions": [[0.1, 0.2]], "references": [[0, -1]]}, r"references of label 1 hold -1.*-100 \(ignore_index"),
        ({"predictions": [0.1], "references": [-100], "ignore_index": None}, r"references of label 0 hold -100"),
        ({"predictions": [0.1], "references": [0.5]}, r"references are float64 and not whole numbers"),
        ({"predictions": [0.1], "references": [math.nan]}, r"references are float64 and not whole numbers"),
        ({"predictions": ["0.1"], "references": [0]}, r"predictions are <U3; expected numbers"),
        ({"predictions": [0.1, 0.2], "references": [0]}, r"shape \(2,\), references \(1,\)"),
        ({"predictions": np.zeros((2, 3, 4)), "references": np.zeros((2, 3, 4))}, r"reshape to \(sequences \* windows"),
        ({"predictions": [[0.1], [0.2, 0.3]], "references": [0, 1]}, r"rows have different lengths"),
        ({"predictions": [0.1], "references": [0], "names": ["a", "b"]}, r"2 names and 1 labels"),
        ({"predictions": [0.1], "references": [0], "ignore_index": 1}, r"ignore_index is 1, which is a label"),
        ({"references": [0]}, r"go together"),
        ({}, r"nothing to score"),
    ],
)
def test_refuses_and_is_empty_afterwards(name: str, given: dict[str, Any], message: str) -> None:
    metric = evaluate.load(str(asset_folder("metrics") / name))
    with pytest.raises(ValueError, match=message):
        metric.compute(**given)
    assert len(metric) == 0


def test_batch_with_other_labels_is_refused_and_adds_nothing(auroc: Any) -> None:
    auroc.add_batch(predictions=[[0.1, 0.2], [0.3, 0.1]], references=[[0, 1], [1, 0]])
    with pytest.raises(ValueError, match=r"shape \(1, 3\) after one of shape \(2, 2\)"):
        auroc.add_batch(predictions=[[0.1, 0.2, 0.3]], references=[[0, 1, 1]])
    assert auroc.compute()["auroc"] == 1.0
