"""Chance, calibration, scores of parts and label noise, each against an independent computation."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from bend_hf.data.dataset import TaskData
from bend_hf.evaluation.chance import chance_of, with_chance
from bend_hf.evaluation.diagnostics import calibration_of, diagnostics_of, distance_to_training, label_noise
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.record import member
from bend_hf.tasks import TASKS
from bend_hf.types import Json


def multi_label(n: int = 400, labels: int = 3, seed: int = 0) -> Predictions:
    """Items of 512 bp, 2 kb apart, with labels of different prevalence; some are not labeled."""
    rng = np.random.default_rng(seed)
    target = (rng.random((n, labels)) < np.linspace(0.03, 0.5, labels)).astype(np.int16)
    score = 1 / (1 + np.exp(-(2 * target - 1 + rng.standard_normal((n, labels)))))
    target[rng.random((n, labels)) < 0.05] = -100
    start = np.arange(n) * 2000
    return Predictions(
        item=np.arange(n),
        windows=np.arange(n + 1),
        target=target,
        score=score.astype(np.float32),
        predicted=None,
        label_names=tuple(f"label{k}" for k in range(labels)),
        columns={
            "chromosome": pa.array(["chr1"] * n),
            "start": pa.array(start),
            "end": pa.array(start + 512 + 100 * (np.arange(n) % 5)),
        },
    )


def of_one_label(target: list[int], score: list[float]) -> Predictions:
    n = len(target)
    return Predictions(
        item=np.arange(n),
        windows=np.arange(n + 1),
        target=np.array(target, np.int16),
        score=np.array(score, np.float32),
        predicted=None,
        label_names=("no", "yes"),
    )


def slow_ece(score: np.ndarray, true: np.ndarray) -> float:
    """The distance between mean probability and fraction of positives, bin by bin."""
    error = 0.0
    for k in range(10):
        inside = [i for i in range(len(score)) if k / 10 <= score[i] < (k + 1) / 10 or (k == 9 and score[i] == 1)]
        if inside:
            error += len(inside) / len(score) * abs(score[inside].mean() - true[inside].mean())
    return error


def test_calibration_equals_scikit_learn_and_bins_counted_by_hand() -> None:
    predictions = multi_label()
    found = calibration_of(predictions)
    assert found is not None
    assert predictions.score is not None
    columns = [
        (predictions.score[held, k].astype(np.float64), predictions.target[held, k])
        for k in range(3)
        for held in [predictions.target[:, k] >= 0]
    ]
    assert found["brier"] == pytest.approx(np.mean([brier_score_loss(true, score) for score, true in columns]))
    assert found["ece"] == pytest.approx(np.mean([slow_ece(score, true) for score, true in columns]))
    bins = found["reliability"]
    assert isinstance(bins, list)
    assert len(bins) == 10
    joined = np.concatenate([score for score, _ in columns]), np.concatenate([true for _, true in columns])
    inside = (joined[0] >= 0.3) & (joined[0] < 0.4)
    assert member(bins[3], "n") == inside.sum()
    assert member(bins[3], "predicted") == pytest.approx(joined[0][inside].mean())
    assert member(bins[3], "positive") == pytest.approx(joined[1][inside].mean())


def test_chance_of_auprc_is_the_fraction_of_positives_and_of_folds_their_mean() -> None:
    one = of_one_label([1, 0, 0, 0, 1, 1, 0, -100], [0.1] * 8)
    chance = chance_of(one, "auprc")
    assert chance is not None
    assert (chance.value, chance.how) == (pytest.approx(3 / 7), "the fraction of positives")
    folds = replace(one, columns={"fold": pa.array([1, 1, 1, 1, 2, 2, 2, 2])})
    chance = chance_of(folds, "auprc")
    assert chance is not None
    assert chance.value == pytest.approx((1 / 4 + 2 / 3) / 2)
    labels = multi_label()
    held = [labels.target[:, k][labels.target[:, k] >= 0] for k in range(3)]
    chance = chance_of(labels, "auprc")
    assert chance is not None
    assert chance.value == pytest.approx(np.mean([column.mean() for column in held]))


def test_chance_of_auroc_is_the_mean_of_random_orders() -> None:
    rng, target = np.random.default_rng(0), [1] * 12 + [0] * 30
    chance = chance_of(of_one_label(target, [0.5] * 42), "auroc")
    assert chance is not None
    drawn = [roc_auc_score(target, rng.random(42)) for _ in range(300)]
    assert chance.value == pytest.approx(np.mean(drawn), abs=0.02)


@pytest.mark.parametrize(("turned", "below"), [(False, False), (True, True)])
def test_a_score_is_below_chance_only_if_its_whole_interval_is(turned: bool, below: bool) -> None:
    metrics: dict[str, Json] = {
        "auroc": {"value": 0.3 if turned else 0.4, "interval": {"low": 0.2, "high": 0.45 if turned else 0.6}},
        "auprc": {"value": 0.1, "interval": {"low": 0.05, "high": 0.2}},
    }
    found = with_chance(metrics, of_one_label([0, 1], [0.1, 0.2]))
    assert member(found, "auroc", "chance", "value") == 0.5
    assert member(found, "auroc", "below_chance") is below
    assert member(found, "auprc", "chance", "value") == 0.5
    assert member(found, "auprc", "below_chance") is None, "of the main metric only"


def test_parts_by_length_and_distance_are_scored_on_their_items() -> None:
    predictions = multi_label(labels=1)
    distance = np.where(np.arange(400) % 2 == 0, 0, 5000)
    found = diagnostics_of(predictions, "auprc", distance_bp=(predictions.item, distance))
    by_distance = found["by_distance"]
    assert isinstance(by_distance, list)
    assert predictions.score is not None
    assert [member(part, "part") for part in by_distance] == [
        "overlaps or touches a training row",
        "up to 10 kb from one",
    ]
    for part, bp in zip(by_distance, (0, 5000), strict=True):
        held = (distance == bp) & (predictions.target[:, 0] >= 0)
        assert member(part, "items") == 200
        expected = average_precision_score(predictions.target[held, 0], predictions.score[held, 0])
        assert member(part, "value") == pytest.approx(expected)
        low, high = member(part, "low"), member(part, "high")
        assert isinstance(low, float)
        assert isinstance(high, float)
        assert low < expected < high
    by_length = found["by_length"]
    assert isinstance(by_length, list)
    assert [member(part, "part") for part in by_length] == [
        "512 to 612 bp",
        "613 to 712 bp",
        "713 to 812 bp",
        "813 to 912 bp",
    ]
    assert sum(member(part, "items") for part in by_length) == 400  # type: ignore[misc]  # whole numbers


def test_parts_by_prevalence_average_the_labels_of_each_range() -> None:
    predictions = multi_label(labels=4)
    found = diagnostics_of(predictions, "auroc", per_label=[0.9, 0.8, 0.6, None])
    assert found["by_prevalence"] == [
        {"part": "1% to 5% positive", "labels": 1, "value": 0.9},
        {"part": "5% to 20% positive", "labels": 1, "value": 0.8},
        {"part": "20% or more positive", "labels": 1, "value": 0.6},
    ]
    assert found["calibration"] is None, "not known to be probabilities"
    assert found["by_distance"] is None


def test_rows_at_one_place_with_other_labels_are_counted() -> None:
    predictions = multi_label(n=8, labels=2)
    predictions.target[:] = [[0, 1]] * 8
    predictions.target[3] = [1, 1]
    start = [0, 0, 5, 5, 9, 9, 30, 40]
    columns = {**predictions.columns, "start": pa.array(start), "end": pa.array([s + 2 for s in start])}
    moved = replace(predictions, columns=columns)
    assert label_noise(moved) == {"rows_at_the_place_of_another": 6, "rows_with_other_labels": 2}
    other = {**columns, "alt": pa.array(["A", "C"] * 4)}
    assert label_noise(replace(moved, columns=other)) == {
        "rows_at_the_place_of_another": 0,
        "rows_with_other_labels": 0,
    }
    assert label_noise(replace(predictions, columns={})) is None


def test_labels_along_a_sequence_differ_if_one_nucleotide_does() -> None:
    rng, lengths = np.random.default_rng(0), np.array([50, 50, 70, 70])
    windows = np.concatenate([[0], np.cumsum(lengths)])
    target = rng.integers(0, 9, windows[-1]).astype(np.int16)
    target[50:100], target[170:240] = target[:50], target[100:170]
    target[200] = (target[200] + 1) % 9
    genes = Predictions(
        item=np.arange(4),
        windows=windows,
        target=target,
        score=None,
        predicted=target,
        label_names=tuple("abcdefghi"),
        columns={
            "chromosome": pa.array(["chr1"] * 4),
            "start": pa.array([0, 0, 7, 7]),
            "end": pa.array([50, 50, 77, 77]),
        },
    )
    assert label_noise(genes) == {"rows_at_the_place_of_another": 4, "rows_with_other_labels": 2}


def test_the_distance_to_training_is_that_of_the_items_own_fold() -> None:
    def rows(items: list[int], starts: list[int], chromosome: str = "chr1") -> Dataset:
        return Dataset.from_dict(
            {
                "item": items,
                "chromosome": [chromosome] * len(items),
                "start": starts,
                "end": [start + 10 for start in starts],
            }
        )

    data = TaskData(
        task=TASKS.get("enhancer_annotation"),
        subsets={
            "part1": rows([0], [100]),
            "part2": rows([1], [500]),
            "part3": rows([2], [1000]),
            "part4": rows([3], [0]),
        },
        facts={},
    )
    found = distance_to_training(data, [1, 2])
    assert found is not None
    # fold 1 validates on part 2 and trains on parts 3 and 4; fold 2 validates on part 3 and trains on parts 1 and 4
    assert [one.tolist() for one in found] == [[0, 1], [90, 390]]
    named = TaskData(
        task=TASKS.get("cpg_methylation"),
        subsets={"train": rows([0], [0]), "validation": rows([2], [0]), "test": rows([1], [5], "chr2")},
        facts={},
    )
    found = distance_to_training(named, [None])
    assert found is not None
    assert found[1].tolist() == [-1]


def test_diagnostics_of_a_hundred_thousand_items_take_seconds() -> None:
    predictions = multi_label(n=100_000, labels=18)
    started = time.perf_counter()
    found = diagnostics_of(predictions, "auroc", probabilities=True, distance_bp=(predictions.item, predictions.item))
    assert time.perf_counter() - started < 20
    assert isinstance(found["by_length"], list)
