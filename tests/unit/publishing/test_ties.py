"""Ties with the best row: by the paired test if there are predictions, by intervals otherwise."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bend_hf.evaluation import evidence
from bend_hf.evaluation import predictions as predictions_module
from bend_hf.evaluation.metrics import score
from bend_hf.evaluation.predictions import Predictions, write_predictions
from bend_hf.evaluation.record import ResultRecord, read_record, write_record
from bend_hf.evaluation.uncertainty.comparison import compare
from bend_hf.evaluation.uncertainty.intervals import interval_of
from bend_hf.publishing.leaderboard import Leaderboard, leaderboards
from bend_hf.publishing.report import write_report
from bend_hf.publishing.report.page import page
from bend_hf.publishing.report.tables import as_csv, as_markdown
from bend_hf.publishing.ties import prediction_files
from tests.records import record

N = 300
TARGET = np.random.default_rng(0).integers(0, 2, N).astype(np.int16)
HARD = np.random.default_rng(1).standard_normal(N)  # what makes an item hard for every model


def predictions(skill: float, seed: int, *, first: int = 0) -> Predictions:
    noise = 0.15 * np.random.default_rng(seed).standard_normal(N)
    return Predictions(
        item=np.arange(first, first + N),
        windows=np.arange(N + 1),
        target=TARGET,
        score=(skill * TARGET + HARD + noise).astype(np.float32),
        predicted=None,
        label_names=("no", "yes"),
    )


MODELS = {"best": predictions(1.0, 2), "near": predictions(0.99, 3), "far": predictions(0.8, 4)}


def write_run(folder: Path, model: str, said: Predictions, *, seed: int = 0, keep: bool = True) -> Path:
    """A record and its prediction file, scored as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    answered = said.answered
    interval = interval_of(answered, "auroc")
    made = record(
        "variant_effects_disease",
        model,
        float(score("auroc", answered.score, answered.target, names=None).value),  # type: ignore[arg-type]
        interval=(interval.low, interval.high),
        seed=seed,
        items=N,
        coverage={"scored": N, "items": N, "item_sha256": said.item_sha256, "identity": "content"},
    )
    stem = folder / f"{model}__seed{seed}"
    digest = write_predictions(said, stem.with_suffix(".parquet")) if keep else "e" * 64
    made = replace(
        made,
        predictions={"file": f"{stem.name}.parquet", "sha256": digest, "items": N},
        metrics={"auroc": made.metrics["auroc"]},
    )
    write_record(made, stem.with_suffix(".json"))
    return stem.with_suffix(".json")


def leaderboard_of(paths: list[Path], said: list[str] | None = None) -> Leaderboard:
    records = [read_record(path) for path in paths]
    (found,) = leaderboards(records, prediction_files(paths, records), log=(said if said is not None else []).append)
    return found


def marks(board: Leaderboard) -> dict[str, tuple[str, str]]:
    return {row.name: (row.mark, "" if row.tie is None else row.tie.basis) for row in board.rows}


def test_the_paired_test_separates_models_whose_intervals_overlap(tmp_path: Path) -> None:
    paths = [write_run(tmp_path, name, said) for name, said in MODELS.items()]
    (by_intervals,) = leaderboards([read_record(path) for path in paths])
    assert {row.name: row.mark for row in by_intervals.rows}["far"] == "≈"
    assert marks(leaderboard_of(paths)) == {"best": ("=", ""), "near": ("=", "paired"), "far": ("", "paired")}


def test_p_is_that_of_compare_corrected_over_the_rows(tmp_path: Path) -> None:
    paths = [write_run(tmp_path, name, said) for name, said in MODELS.items()]
    found = {row.name: row.tie.p for row in leaderboard_of(paths).rows if row.tie is not None}
    plain = {one.second: one.p for one in compare(MODELS, "auroc") if one.first == "best"}
    low, high = sorted(plain, key=lambda name: plain[name])
    assert found == {low: pytest.approx(2 * plain[low]), high: pytest.approx(max(2 * plain[low], plain[high]))}


def test_a_row_without_predictions_falls_back_on_intervals_with_a_mark(tmp_path: Path) -> None:
    paths = [write_run(tmp_path, name, said, keep=name != "far") for name, said in MODELS.items()]
    assert marks(leaderboard_of(paths)) == {"best": ("=", ""), "near": ("=", "paired"), "far": ("≈", "overlap")}


def test_without_predictions_of_the_best_row_all_rows_fall_back(tmp_path: Path) -> None:
    paths = [write_run(tmp_path, name, said, keep=name != "best") for name, said in MODELS.items()]
    found = marks(leaderboard_of(paths))
    assert found["best"] == ("≈", "")
    assert {basis for _, basis in found.values()} == {"", "overlap"}


def test_equal_scores_need_no_test(tmp_path: Path) -> None:
    paths = [write_run(tmp_path, name, MODELS["best"], keep=False) for name in ("a", "b")]
    assert marks(leaderboard_of(paths)) == {"a": ("=", ""), "b": ("=", "equal")}


def test_predictions_of_other_items_are_not_paired_and_logged(tmp_path: Path) -> None:
    paths = [write_run(tmp_path, "best", MODELS["best"]), write_run(tmp_path, "far", predictions(0.8, 4, first=7))]
    said: list[str] = []
    assert marks(leaderboard_of(paths, said))["far"] == ("≈", "overlap")
    assert "no paired test for far" in said[0]
    assert "far: best and far cannot be compared: coverage.item_sha256 is" in said[0]


def test_models_that_answer_the_same_items_are_paired_and_others_are_not(tmp_path: Path) -> None:
    def without(name: str, first: int) -> Predictions:
        scores = np.array(MODELS[name].score)
        scores[first : first + 20] = np.nan
        return replace(MODELS[name], score=scores)

    same = [write_run(tmp_path / "same", name, without(name, 5)) for name in ("best", "far")]
    assert marks(leaderboard_of(same))["far"] == ("", "paired")
    others = [write_run(tmp_path / "others", name, without(name, first)) for name, first in (("best", 5), ("far", 90))]
    said: list[str] = []
    assert marks(leaderboard_of(others, said))["far"] == ("≈", "overlap")
    assert "no paired test for far: best and far lack the scores of different items; 'bend-hf compare'" in said[0]


def test_an_exchanged_file_is_not_used(tmp_path: Path) -> None:
    paths = [write_run(tmp_path, name, MODELS[name]) for name in ("best", "far")]
    paths[1].with_suffix(".parquet").unlink()
    write_predictions(predictions(3.0, 4, first=7), paths[1].with_suffix(".parquet"))
    said: list[str] = []
    assert marks(leaderboard_of(paths, said))["far"] == ("≈", "overlap")
    assert "holds other items than its record states" in said[0]


def test_seeds_are_averaged_before_they_are_compared(tmp_path: Path) -> None:
    paths = [write_run(tmp_path, "best", MODELS["best"]), write_run(tmp_path, "best", predictions(1.0, 8), seed=1)]
    paths += [write_run(tmp_path, "far", MODELS["far"]), write_run(tmp_path, "far", predictions(0.8, 9), seed=1)]
    board = leaderboard_of(paths)
    assert [row.result.seeds for row in board.rows] == [(0, 1), (0, 1)]
    assert marks(board)["far"] == ("", "paired")


def test_a_metric_without_resamples_falls_back(tmp_path: Path) -> None:
    paths = []
    for name in ("best", "far"):
        path = write_run(tmp_path / name, name, MODELS[name])
        old: ResultRecord = read_record(path)
        path.unlink()
        write_record(replace(old, metrics={"own": old.metrics["auroc"]}, main_metric="own"), path)
        paths.append(path)
    said: list[str] = []
    assert marks(leaderboard_of(paths, said))["far"] == ("≈", "overlap")
    assert "metric 'own' has no interval" in said[0]


def test_many_models_leave_room_for_the_correction(tmp_path: Path) -> None:
    poor = [write_run(tmp_path, f"poor{n:02d}", predictions(0.3, 10 + n)) for n in range(26)]
    board = leaderboard_of([write_run(tmp_path, "best", predictions(2.0, 2)), *poor])
    assert not any(row.tied for row in board.rows)  # 2 / 1001 times 26 would be above 0.05


def test_tables_and_page_show_both_marks(tmp_path: Path) -> None:
    paths = [write_run(tmp_path, name, said, keep=name != "far") for name, said in MODELS.items()]
    board = leaderboard_of(paths)
    text = as_markdown([board])
    assert "| 2 = | near" in text
    assert "| 3 ≈ | far" in text
    assert "= cannot be told from the best" in text
    assert "≈ may be as good as the best" in text
    lines = {line["model"]: line for line in csv.DictReader(io.StringIO(as_csv([board])))}
    assert [lines[name]["tie_found_by"] for name in MODELS] == ["", "paired", "overlap"]
    assert float(lines["near"]["p_against_best"]) >= 0.05
    html = page([board], {})
    assert "p against the best" in html
    assert html.count('class="dot tied"') == 3


def test_a_report_without_the_paired_test_uses_intervals(tmp_path: Path) -> None:
    for name, said in MODELS.items():
        write_run(tmp_path / "results", name, said)
    for paired, mark in ((True, "3 | far"), (False, "3 ≈ | far")):
        write_report([tmp_path / "results"], tmp_path / "report", plots=False, paired=paired)
        assert f"| {mark}" in (tmp_path / "report" / "README.md").read_text()


def test_a_second_report_reads_no_predictions_and_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEND_HF_CACHE", str(tmp_path / "cache"))
    for name, said in MODELS.items():
        write_run(tmp_path / "results", name, said)
    first = write_report([tmp_path / "results"], tmp_path / "first", plots=False)
    with monkeypatch.context() as patch:
        for module in (evidence, predictions_module):
            patch.setattr(module, "read_predictions", lambda path: pytest.fail(f"{path} was read"))
        again = write_report([tmp_path / "results"], tmp_path / "again", plots=False)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in first]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "again" / "scores.csv").read_text())))
    assert [row["tie_found_by"] for row in rows] == ["", "paired", "paired"]
    write_run(tmp_path / "results", "new", predictions(0.9, 7))
    said: list[str] = []
    write_report([tmp_path / "results"], tmp_path / "more", plots=False, log=said.append)
    assert not said
