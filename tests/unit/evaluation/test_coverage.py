"""Intervals cover the truth and equal models are seldom called different, within binomial limits of few simulations."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import _docs
from benchmarks.coverage import (
    CELLS,
    FOLDED,
    PAIRS,
    RESULTS,
    TARGET,
    TRAININGS,
    Cell,
    coverage,
    folded_coverage,
    rejections,
    retrained,
    run,
)

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
        Cell(metric="auprc", clusters=80, prevalence=0.8, auroc=0.8),
        Cell(metric="auroc", clusters=15, size=60, auroc=0.97, correlation=0.5),
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


def test_only_the_named_tests_are_run_again() -> None:
    old = {"metric": "mcc", "clusters": 2, "effect": 0.4, "rejected": 1.0}
    before = {"simulations": 9, "coverage": [], "tests": [old], "retrained": [{"trainings": 3, "called_better": 1.0}]}
    found = run(2, workers=1, before=before, only="^paired test, mcc, 4 clusters$")
    assert [(row["metric"], row["clusters"], row["effect"]) for row in found["tests"]] == [
        ("mcc", 2, 0.4),
        ("mcc", 4, 0.0),
        ("mcc", 4, 0.4),
    ]
    assert found["tests"][0] == old
    assert found["retrained"] == before["retrained"]


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    """The results of the last whole run."""
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return found


def test_every_kind_of_data_is_covered_and_what_is_covered_more_has_its_reason(recorded: dict[str, Any]) -> None:
    for row in recorded["coverage"]:
        assert row["coverage"] >= TARGET[0], row["name"]
        assert row["coverage"] <= TARGET[1] or row["reason"].startswith("wider"), row["name"]
    page = (RESULTS.parents[2] / "docs" / "uncertainty.md").read_text(encoding="utf-8")
    section = page.split("<!-- begin too-narrow -->")[1].split("<!-- end too-narrow -->")[0]
    assert section.strip() == _docs.too_narrow().strip()


def test_the_document_lists_what_is_covered_less(
    recorded: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {**recorded["coverage"][0], "coverage": 0.9, "reason": "narrower: few items"}
    (tmp_path / "coverage.json").write_text(json.dumps({"coverage": [row, recorded["coverage"][1]]}))
    monkeypatch.setattr(_docs, "RESULTS", tmp_path)
    section = _docs.too_narrow()
    assert section.startswith("1 of 2 kinds of data are covered in less than 93%")
    assert f"| {row['metric']} | {row['name']} | 90.0% | narrower: few items |" in section


def test_the_recorded_results_are_of_every_kind_of_data_and_within_their_limits(recorded: dict[str, Any]) -> None:
    assert [(row["metric"], row["name"]) for row in recorded["coverage"]] == [
        (c.metric, c.name) for c in (*CELLS, *FOLDED)
    ]
    assert [(row["metric"], row["clusters"], row["effect"]) for row in recorded["tests"]] == PAIRS
    assert [row["trainings"] for row in recorded["retrained"]] == list(TRAININGS)
    assert max(row["rejected"] for row in recorded["tests"] if row["effect"] == 0) <= 0.06
    assert recorded["retrained"][-1]["called_better"] <= 0.06


@pytest.mark.parametrize("n_clusters", [2, 4, 6, 10])
def test_equal_models_are_seldom_called_different(n_clusters: int) -> None:
    assert rejections("mcc", n_clusters, 0.0, 100)["rejected"] <= 0.05 + limit(0.05, 100)


def test_real_differences_are_found() -> None:
    assert rejections("auroc", 40, 0.6, 40)["rejected"] >= 0.8


def test_three_trainings_tell_that_nothing_changed() -> None:
    assert retrained(3, 60)["called_better"] <= 0.05 + limit(0.05, 60)
