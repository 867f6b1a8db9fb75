"""Cards and reports show chance, calibration, parts of the test split, few steps, and scores below chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bend_hf.evaluation.record import ResultRecord
from bend_hf.publishing.leaderboard import leaderboards
from bend_hf.publishing.model_card import model_card
from bend_hf.publishing.report import write_report
from bend_hf.publishing.report.tables import as_csv, as_markdown
from bend_hf.publishing.results import group_records
from bend_hf.types import Json
from tests.records import record, schema_errors, write

DIAGNOSTICS: dict[str, Json] = {
    "calibration": {
        "ece": 0.0312,
        "brier": 0.1875,
        "reliability": [
            {"from": 0.0, "to": 0.1, "n": 700.0, "predicted": 0.05, "positive": 0.04},
            {"from": 0.1, "to": 0.2, "n": 0.0, "predicted": None, "positive": None},
            {"from": 0.9, "to": 1.0, "n": 300.0, "predicted": 0.95, "positive": 0.8},
        ],
    },
    "by_length": None,
    "by_distance": [
        {"part": "up to 10 kb from one", "items": 600, "value": 0.85, "low": 0.8, "high": 0.9, "mark": None},
        {"part": "over 1 Mb from one", "items": 400, "value": 0.7, "low": None, "high": None, "mark": "undefined"},
    ],
    "by_prevalence": [
        {"part": "1% to 5% positive", "labels": 2, "value": 0.75},
        {"part": "20% or more positive", "labels": 1, "value": 0.9},
    ],
    "label_noise": {"rows_at_the_place_of_another": 8, "rows_with_other_labels": 3},
}


def judged(*, value: float = 0.8, steps: int = 1200, seed: int = 0) -> ResultRecord:
    """A record of this version, with all that it knows."""
    made = record(value=value, interval=(value - 0.02, value + 0.02), seed=seed)
    entry = made.metrics["auroc"]
    assert isinstance(entry, dict)
    chance: dict[str, Json] = {"value": 0.5, "how": "a random order of the items"}
    below = value + 0.02 < 0.5
    metrics: dict[str, Json] = {**made.metrics, "auroc": {**entry, "chance": chance, "below_chance": below}}
    assert made.training is not None
    runs: list[Json] = [{"fold": None, "best_epoch": 2, "history": [], "steps": steps, "few_steps": steps < 50}]
    return replace(made, metrics=metrics, training={**made.training, "runs": runs}, diagnostics=DIAGNOSTICS)


def test_a_card_shows_chance_calibration_parts_and_label_noise() -> None:
    card = model_card([judged()])
    for text in (
        "Chance: Chromatin accessibility: auroc 0.5000 (a random order of the items).",
        "- Expected calibration error 0.0312, Brier score 0.1875.",
        "| 0.9 to 1.0 | 300 | 0.9500 | 0.8000 |",
        "| up to 10 kb from one | 600 | 0.8500 | 0.8000 to 0.9000 |",
        "| over 1 Mb from one | 400 | 0.7000 | none |",
        "| 1% to 5% positive | 2 | 0.7500 |",
        "- Test rows at the place of another test row: 8; with other labels than it: 3.",
        "1,200 steps of the optimizer",
        "one training: another seed may give another score",
    ):
        assert text in card
    assert "0.1 to 0.2" not in card, "an empty bin"
    assert "By length:" not in card
    assert "↓" not in card
    assert not schema_errors(judged().as_json())


def test_a_score_below_chance_is_marked_and_explained() -> None:
    records = [judged(value=0.4)]
    card = model_card(records)
    assert "| 0.4000 ↓ | 0.3800 to 0.4200 |" in card
    assert "↓ significantly below chance." in card
    text = "auroc is significantly below chance (0.5000): what was learned holds in reverse on the test items"
    assert text in card
    boards = leaderboards(records)
    assert "0.4000 ↓" in as_markdown(boards)
    assert text in as_markdown(boards)
    assert ",0.5,yes," in as_csv(boards)


def test_few_steps_are_a_footnote_of_cards_and_reports() -> None:
    records = [judged(steps=3), judged(steps=12, seed=1)]
    text = "the head took 3 steps of the optimizer, too few to say much about the model"
    assert text in model_card(records)
    assert text in as_markdown(leaderboards(records))
    assert "too few to say" not in as_markdown(leaderboards([judged()]))


def test_several_seeds_show_both_parts_of_the_variance() -> None:
    card = model_card([judged(), judged(value=0.82, seed=1), judged(value=0.81, seed=2)])
    assert "Chromatin accessibility, bend-2024: standard error 0.0102 over items, 0.0058 over seeds." in card
    assert "one training" not in card


def test_records_of_earlier_releases_show_nothing_that_they_do_not_know() -> None:
    (group,) = group_records([record()])
    assert (group.chance, group.below_chance) == (None, False)
    card = model_card([record()])
    assert "Chance" not in card
    assert "Calibration" not in card
    body = {name: value for name, value in record().as_json().items() if name != "diagnostics"}
    assert ResultRecord.from_json(body).diagnostics is None


def test_a_report_draws_the_reliability_of_probabilities(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    files = write_report([write(tmp_path / "results", judged())], tmp_path / "report")
    assert [file.suffix for file in files if "reliability_chromatin" in file.name] == [".png", ".svg"]
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "Reliability: Chromatin accessibility" in page
    assert "Chance: 0.5000 (a random order of the items)." in page
    assert "expected calibration error 0.0312, Brier score 0.1875." in page
