"""The AUPRC metric against cases worked by hand and its decided edge cases.

What it refuses stands with the same refusals of AUROC, in ``test_metric_auroc.py``.
"""

from __future__ import annotations

import math
from typing import Any

import evaluate
import numpy as np
import pytest

from bend_hf.files import asset_folder


@pytest.fixture(scope="module")
def auprc() -> Any:
    return evaluate.load(str(asset_folder("metrics") / "auprc"))


def test_equal_scores_share_a_threshold_as_worked_by_hand(auprc: Any) -> None:
    # at 0.8 one of one is right, at 0.4 two of three: (1 + 2/3) / 2
    result = auprc.compute(predictions=[0.1, 0.4, 0.4, 0.8], references=[0, 0, 1, 1])
    assert result == {
        "auprc": pytest.approx(5 / 6, abs=1e-15),
        "per_label": [pytest.approx(5 / 6, abs=1e-15)],
        "chance": 0.5,
        "chance_per_label": [0.5],
        "n_labels_left_out": 0,
        "n_positive": [2],
        "n_negative": [2],
    }
    assert type(result["auprc"]) is float


def test_constant_scores_give_chance(auprc: Any) -> None:
    result = auprc.compute(predictions=np.zeros(8), references=[1, 0, 0, 0, 1, 0, 0, 0])
    assert result["auprc"] == result["chance"] == 0.25


def test_chance_is_the_mean_over_the_labels_scored(auprc: Any) -> None:
    scores = np.array([[0.9, 0.1, 0.4, 0.3], [0.2, 0.4, 0.3, 0.8], [0.3, 0.2, 0.2, 0.1], [0.1, 0.9, 0.1, 0.0]])
    references = [[1, 1, 0, -100], [0, 1, 1, -100], [0, 1, 1, -100], [0, 1, 0, -100]]
    result = auprc.compute(predictions=scores, references=references)
    np.testing.assert_equal(result["chance_per_label"], [0.25, 1.0, 0.5, math.nan])
    np.testing.assert_equal(np.isnan(result["per_label"]), [False, True, False, True])
    assert result["chance"] == 0.375
    assert result["n_labels_left_out"] == 2
    # third label: positives at 0.3 and 0.2, a negative above both at 0.4: precisions 1/2 and 2/3
    assert result["auprc"] == pytest.approx((1.0 + 7 / 12) / 2, abs=1e-15)


@pytest.mark.parametrize(("predictions", "references"), [([], []), ([0.1, 0.2], [0, 0]), ([0.1, 0.2], [-100, -100])])
def test_nothing_to_rank_gives_nan(auprc: Any, predictions: list[float], references: list[int]) -> None:
    result = auprc.compute(predictions=predictions, references=references)
    assert math.isnan(result["auprc"])
    assert math.isnan(result["chance"])


def test_ignored_cells_are_not_looked_at(auprc: Any) -> None:
    result = auprc.compute(predictions=[0.9, math.nan, 0.1], references=[1, -100, 0])
    assert result["auprc"] == 1.0
    assert result["chance"] == 0.5


def test_items_of_two_processes_score_as_of_one(auprc: Any) -> None:
    other = evaluate.load(str(asset_folder("metrics") / "auprc"))
    auprc.add_batch(predictions=[0.1, 0.4], references=[0, 0])
    other.add(prediction=0.4, reference=1)
    other.add(prediction=0.8, reference=1)
    auprc.add_batch(**other.take_items())
    assert auprc.compute()["auprc"] == pytest.approx(5 / 6, abs=1e-15)
