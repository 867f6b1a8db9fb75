"""Intervals cover the truth and equal models are seldom called different, within binomial limits of few simulations."""

from __future__ import annotations

import math

import pytest

from benchmarks.coverage import CELLS, FOLDED, Cell, coverage, folded_coverage, rejections, retrained, run

N = 150


def limit(rate: float, n: int) -> float:
    """Three standard errors."""
    return 3 * math.sqrt(rate * (1 - rate) / n)


@pytest.mark.parametrize(
    "cell",
    [
        Cell(metric="auroc", clusters=40, auroc=0.98),
        Cell(metric="auroc", clusters=1000, prevalence=0.01, auroc=0.96),
        Cell(metric="auprc", clusters=200, prevalence=0.1, auroc=0.8),
        Cell(metric="auroc", clusters=30, size=20, correlation=0.3),
        Cell(metric="auprc", clusters=30, size=20, correlation=0.3),
        Cell(metric="mcc", clusters=10, size=400, auroc=0.7, correlation=1.0),
    ],
    ids=lambda cell: f"{cell.metric} {cell.name}",
)
def test_intervals_cover_the_truth(cell: Cell) -> None:
    assert coverage(cell, N, bootstraps=0)["coverage"] >= 0.95 - limit(0.95, N)


def test_intervals_over_folds_cover_the_mean_of_heads_trained_on_as_many_rows() -> None:
    assert folded_coverage(FOLDED[0], 60)["coverage"] >= 0.95 - limit(0.95, 60)


def test_only_the_named_rows_are_run_again() -> None:
    before = {
        "simulations": 9,
        "coverage": [{"metric": "mcc", "name": CELLS[-1].name}, {"metric": "x", "name": "gone"}],
    }
    found = run(2, workers=1, before=before, only="^auroc 40 items, 50% positive, AUROC 0.98$")
    assert [row["name"] for row in found["coverage"]] == ["40 items, 50% positive, AUROC 0.98", CELLS[-1].name]
    assert found["simulations"] == 9


@pytest.mark.parametrize("n_clusters", [2, 4, 6, 10])
def test_equal_models_are_seldom_called_different(n_clusters: int) -> None:
    assert rejections("mcc", n_clusters, 0.0, 100)["rejected"] <= 0.05 + limit(0.05, 100)


def test_real_differences_are_found() -> None:
    assert rejections("auroc", 40, 0.6, 40)["rejected"] >= 0.8


def test_three_trainings_tell_that_nothing_changed() -> None:
    assert retrained(3, 60)["called_better"] <= 0.05 + limit(0.05, 60)
