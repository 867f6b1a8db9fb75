"""The layer is chosen on validation, and its score says among how many it was chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bend_hf.evaluation.layer_choice import choice_interval, choose, curves_of, level_of, of_choices, validation_of
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.record import ResultRecord
from bend_hf.evaluation.remarks import remarks
from bend_hf.evaluation.uncertainty.intervals import interval_of
from bend_hf.types import Json
from tests.records import record


def of_layer(layer: int | str, validation: float | None, test: float, seed: int = 0) -> ResultRecord:
    made = record("cpg_methylation", "dnabert2", test, interval=(test - 0.1, test + 0.1))
    interval: dict[str, Json] = {"low": test - 0.2, "high": test + 0.2, "level": level_of(3), "method": "Wilson"}
    return replace(
        made,
        model={**made.model, "layer": layer},
        config={**made.config, "layer": layer, "seed": seed},
        layers={"tried": [0, 1, 2], "validation": validation, "interval": interval},
    )


def test_the_choice_is_by_validation_over_seeds_and_not_by_test() -> None:
    records = [of_layer(0, 0.9, 0.5), of_layer(1, 0.7, 0.8), of_layer(2, None, 0.9), of_layer("mean:0,1,2", 0.99, 0.9)]
    records += [of_layer(0, 0.3, 0.4, seed=1), of_layer(1, 0.7, 0.7, seed=1), of_layer(2, 0.9, 0.9, seed=1)]
    (curve,) = curves_of(records)
    assert [(one.layer, one.n_seeds) for one in curve.points] == [(0, 2), (1, 2), (2, 2)]
    assert [one.layer for one in curve.mixes] == ["mean:0,1,2"]
    chosen = curve.chosen
    assert chosen is not None
    assert chosen.layer == 1
    assert (chosen.validation, chosen.test) == pytest.approx((0.7, 0.75))
    assert (chosen.low, chosen.high, chosen.choice_low, chosen.choice_high) == pytest.approx((0.6, 0.9, 0.5, 1.0))
    assert "Layer 1 is chosen on the validation split among 3 layers" in curve.in_words()
    assert of_choices([*records, record("cpg_methylation", "hyenadna-tiny-1k", 0.5)]) == [
        *(False, True, False, False),
        *(False, True, False),
        True,
    ]


def test_a_layer_that_was_tried_with_others_says_so() -> None:
    (remark,) = [one for one in remarks(of_layer(1, 0.7, 0.8)) if "layer" in one]
    assert remark == (
        "the layer is one of 3 that were tried together: whichever is chosen, its auroc lies between 0.6000 and 1.0000"
    )
    assert not [one for one in remarks(of_layer("mean:0,1,2", 0.7, 0.8)) if "layer" in one]


@pytest.mark.parametrize(
    ("values", "chosen"), [({0: None}, None), ({3: 0.5, 1: 0.5}, 1), ({0: float("nan"), 1: -0.2}, 1)]
)
def test_undefined_scores_are_not_chosen(values: dict[int, float | None], chosen: int | None) -> None:
    assert choose(values) == chosen


def test_the_validation_score_is_that_of_the_best_epoch_over_folds() -> None:
    history = [{"validation": 0.2}, {"validation": 0.6}, {"validation": 0.4}]
    runs: list[Json] = [{"best_epoch": 2, "history": history}, {"best_epoch": 1, "history": history}]  # type: ignore[dict-item]
    assert validation_of({"runs": runs}) == pytest.approx(0.4)
    assert validation_of({"runs": [{"best_epoch": 0, "history": []}]}) is None
    assert validation_of(None) is None


def test_the_intervals_of_all_layers_hold_together() -> None:
    """Of four useless heads, the best one's usual interval misses chance too often; the other one does not."""
    rng, usual, together, n_runs = np.random.default_rng(5), 0, 0, 120
    target = np.arange(100) % 2
    for _ in range(n_runs):
        missed = []
        for _ in range(4):
            predictions = Predictions(
                item=np.arange(100),
                windows=np.arange(101),
                target=target.astype(np.int16),
                score=rng.random(100).astype(np.float32),
                predicted=None,
                label_names=("a", "b"),
            )
            one, other = interval_of(predictions, "auroc"), choice_interval(4, predictions, "auroc")
            assert other is not None
            missed.append((not one.low < 0.5 < one.high, not other["low"] < 0.5 < other["high"]))  # type: ignore[operator]
        usual += any(first for first, _ in missed)
        together += any(second for _, second in missed)
    assert usual / n_runs > 0.1
    assert together / n_runs < 0.09
