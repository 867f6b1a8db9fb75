"""Leaderboards: which results are compared, ranks and ties."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from bend_hf.errors import RecordError
from bend_hf.evaluation.record import ResultRecord
from bend_hf.publishing.eval_results import dataset_scored_on
from bend_hf.publishing.leaderboard import heads_in_words, leaderboards, over_tasks
from bend_hf.publishing.report.plots import plot_files
from bend_hf.publishing.report.tables import as_csv, as_markdown
from tests.records import record, several


def _with(made: ResultRecord, part: str, **changes: object) -> ResultRecord:
    return replace(made, **{part: {**getattr(made, part), **changes}})  # type: ignore[arg-type]


def test_two_protocols_never_share_a_leaderboard() -> None:
    for board in leaderboards(several()):
        assert {row.result.protocol for row in board.rows} == {board.protocol}
    assert len(leaderboards(several())) == 6


def test_other_data_make_another_leaderboard() -> None:
    found = leaderboards([record(), record(model="onehot", origin="sample"), record(model="grover")])
    assert sorted(len(board.rows) for board in found) == [1, 2]


def test_equal_scores_share_a_rank() -> None:
    made = [record(model=m, value=v, interval=None) for m, v in (("a", 0.7), ("b", 0.9), ("c", 0.9), ("d", 0.5))]
    [board] = leaderboards(made)
    assert [(row.name, row.rank, row.tied) for row in board.rows] == [
        ("b", 1, True),
        ("c", 1, True),
        ("a", 3, False),
        ("d", 4, False),
    ]


def test_rows_whose_interval_overlaps_the_best_are_tied_with_it() -> None:
    made = [
        record(model="best", value=0.9, interval=(0.85, 0.95)),
        record(model="near", value=0.84, interval=(0.8, 0.86)),
        record(model="far", value=0.7, interval=(0.65, 0.75)),
        record(model="silent", value=0.89, interval=None),
    ]
    [board] = leaderboards(made)
    assert {row.name: row.tied for row in board.rows} == {"best": True, "near": True, "far": False, "silent": False}


def test_a_single_best_row_is_not_tied() -> None:
    [board] = leaderboards([record(), record(model="b", value=0.5, interval=(0.4, 0.6))])
    assert [row.tied for row in board.rows] == [False, False]


def test_partial_coverage_and_undefined_scores_have_no_rank() -> None:
    half = record(model="half", value=0.99, coverage={"scored": 10, "items": 1000, "item_sha256": "c" * 64})
    [board] = leaderboards([record(), half, record(model="void", value=None, interval=None)])
    assert [(row.name, row.rank) for row in board.rows] == [("dnabert2", 1), ("half", None), ("void", None)]


def test_rows_that_would_look_alike_say_what_differs() -> None:
    made = [
        record(),
        _with(record(value=0.7), "config", epochs=3),
        _with(record(), "training", head={"kind": "LinearSpec"}),
    ]
    [board] = leaderboards(made)
    assert {row.name for row in board.rows} == {"dnabert2, epochs 100", "dnabert2, epochs 3", "dnabert2, linear"}


def test_a_model_at_two_revisions_is_two_rows() -> None:
    [board] = leaderboards([record(), _with(record(), "model", revision="f" * 40)])
    assert {row.name for row in board.rows} == {"dnabert2, revision 7bce263", "dnabert2, revision fffffff"}


def _control(**changes: object) -> ResultRecord:
    made = _with(record(model="kmer", value=0.66, family="control", n_parameters=84), "config", epochs=None)
    return _with(made, "data", **changes)


def test_records_of_controls_have_no_rank() -> None:
    [board] = leaderboards([record(), _control()])
    assert [row.name for row in board.rows] == ["dnabert2"]
    assert board.controls == {"k-mers": 0.66}
    assert board.reasons_not_to_publish == ()


PROVENANCE = {
    "version": "3.5.0",
    "source": "https://example.org/expert",
    "license": "Artistic-1.0",
    "trained_on": "genes | of <others>",
}


def test_a_model_below_the_best_control_is_marked_and_the_control_says_where_it_comes_from() -> None:
    expert = _with(record(model="augustus", value=0.75, family="control"), "model", provenance=PROVENANCE)
    made = [record(value=0.8), record(model="grover", value=0.7, controls={"kmer": 0.72}), expert]
    [board] = leaderboards(made)
    assert [board.below_best_control(row) for row in board.rows] == [
        "",
        "below the best control, AUGUSTUS with 0.7500",
    ]
    assert [board.score_text(row) for row in board.rows] == ["0.8000", "0.7000 ‡"]
    stated = "version 3.5.0, license Artistic-1.0; trained on genes | of <others>; https://example.org/expert"
    assert board.provenances == {"AUGUSTUS": stated}
    text = as_markdown([board])
    assert "‡ below the best control." in text
    assert "grover: below the best control, AUGUSTUS with 0.7500." in text
    assert "AUGUSTUS: version 3.5.0, license Artistic-1.0; trained on genes &#124; of &lt;others&gt;; https" in text
    rows = list(csv.DictReader(io.StringIO(as_csv([board]))))
    assert [(row["model"], row["below_best_control"]) for row in rows[:2]] == [("dnabert2", "no"), ("grover", "yes")]
    assert [row["source"] for row in rows if row["model"] == "AUGUSTUS"] == [stated]


def test_a_control_with_a_record_of_its_own_is_in_the_table_of_genes() -> None:
    made = record("gene_finding", model="augustus", value=0.75, family="control")
    structure = {
        "value": 0.62,
        "interval": {"low": 0.5, "high": 0.7},
        "detail": {"names": ["exon", "row"], "sensitivity": [0.6, 0.1], "precision": [0.64, 0.2], "f1": [0.62, 0.13]},
    }
    [board] = leaderboards([replace(made, metrics={**made.metrics, "gene_structure": structure})])
    [genes] = board.genes
    assert genes[:4] == ("AUGUSTUS", "0.7500", "0.6000", "0.6400")


def test_a_control_in_the_record_of_a_model_says_where_it_comes_from() -> None:
    made = record(controls={"augustus": 0.9})
    entry = made.controls["augustus"]
    assert isinstance(entry, dict)
    made = replace(made, controls={"augustus": {**entry, "provenance": PROVENANCE}})
    [board] = leaderboards([made])
    assert board.score_text(board.rows[0]) == "0.8000 ‡"
    assert list(board.provenances) == ["AUGUSTUS"]
    [other] = leaderboards([record(controls={"kmer": 0.7})])
    assert (other.score_text(other.rows[0]), other.provenances) == ("0.8000", {})


def test_a_control_on_the_sample_keeps_a_report_from_being_published() -> None:
    [board] = leaderboards([_control(origin="sample")])
    assert (board.rows, list(board.controls)) == ((), ["k-mers"])
    assert "bundled sample" in board.reasons_not_to_publish[0]
    assert "control" in as_markdown([board])
    assert plot_files([board], print) == {}


def test_a_control_on_other_data_is_on_another_leaderboard() -> None:
    found = leaderboards([record(), _control(files={"bed": {"sha256": "e" * 64}})])
    assert sorted((len(board.rows), len(board.controls)) for board in found) == [(0, 1), (1, 0)]


def _kmer(value: float, *, seed: int = 0, **config: object) -> ResultRecord:
    return _with(_with(record(model="kmer", value=value, seed=seed), "model", family="control"), "config", **config)


def test_no_score_of_a_control_replaces_another_or_gives_way_to_a_model_of_its_name() -> None:
    made = [_kmer(0.6), _kmer(0.64, seed=1), _kmer(0.5, epochs=3)]
    [board] = leaderboards([record(), *made])
    assert sorted(board.controls.values()) == pytest.approx([0.5, 0.62])
    assert len(board.controls) == 2
    [board] = leaderboards([record(model="kmer"), _kmer(0.6)])
    assert list(board.controls.values()) == [0.6]
    said: list[str] = []
    leaderboards(
        [record(controls={"gc": 0.5}), record(model="onehot", value=0.4, controls={"gc": 0.7})], log=said.append
    )
    assert said == ["chromatin_accessibility: records hold 0.5000 and 0.7000 for GC content; the first is shown"]


def test_seeds_that_were_scored_on_two_datasets_of_the_hub_have_no_score_to_publish() -> None:
    [board] = leaderboards([record(), _with(record(seed=1), "data", repo="bend/copy")])
    with pytest.raises(RecordError, match=r"scored on bend/chromatin_accessibility@0123456.* and bend/copy@0123456"):
        dataset_scored_on(board.rows[0].result)


def test_scores_on_datasets_of_another_namespace_are_told_apart() -> None:
    elsewhere = _with(record(value=0.7), "data", repo="me/chromatin_accessibility")
    control = _with(_kmer(0.5), "data", repo="me/chromatin_accessibility")
    [board] = leaderboards([record(), record(seed=1), elsewhere, _kmer(0.6), control])
    assert [(row.name, row.result.seeds) for row in board.rows] == [
        ("dnabert2", (0, 1)),
        ("dnabert2, data of me", (0,)),
    ]
    assert board.controls == {"k-mers": 0.6, "k-mers, data of me": 0.5}
    assert "me/chromatin_accessibility at 0123456789ab" in board.data
    assert "bend/chromatin_accessibility at 0123456789ab" in board.data
    assert "dnabert2, data of me" in as_markdown([board])


def _twin(task: str, model: str, value: float, **changes: object) -> ResultRecord:
    return _with(record(task, model, value, **changes), "model", random_init=True)  # type: ignore[arg-type]


def test_a_model_with_random_weights_next_to_the_trained_one_is_a_control() -> None:
    made = [
        record(value=0.8, controls={"random_twin": 0.55, "kmer": 0.6}),
        _twin("chromatin_accessibility", "dnabert2", 0.55),
    ]
    [board] = leaderboards(made)
    assert [row.name for row in board.rows] == ["dnabert2"]
    assert board.controls == {"dnabert2, random weights": 0.55, "k-mers": 0.6}
    [alone] = leaderboards(made[1:])
    assert [(row.name, row.rank) for row in alone.rows] == [("dnabert2, random weights", 1)]
    assert alone.controls == {}


def test_each_model_has_its_own_twin() -> None:
    made = [record(model=name, value=0.8, controls={"random_twin": twin}) for name, twin in (("a", 0.51), ("b", 0.52))]
    [board] = leaderboards(made, log=lambda text: pytest.fail(text))
    assert board.controls == {"a, random weights": 0.51, "b, random weights": 0.52}


def _kmers(task: str, value: float, **facts: object) -> ResultRecord:
    return _with(record(task, "kmer", value, family="control"), "model", checkpoint="", **facts)


def test_a_control_of_another_size_on_each_task_keeps_its_name() -> None:
    made = []
    for task, width in (("chromatin_accessibility", 512), ("gene_finding", 128)):
        made += [record(task, value=0.8, controls={"kmer": 0.6}), _kmers(task, 0.6, width=width)]
    assert [board.controls for board in leaderboards(made)] == [{"k-mers": 0.6}, {"k-mers": 0.6}]


def test_a_model_has_one_line_over_all_tasks_whatever_its_heads_are() -> None:
    made = [
        _with(
            record("gene_finding", value=0.4, controls={"random_twin": 0.1}), "training", head={"kind": "LinearSpec"}
        ),
        record("variant_effects_disease", value=0.6, controls={"random_twin": 0.5}),
        record("chromatin_accessibility", value=0.7, controls={"kmer": 0.65}),
    ]
    boards = leaderboards(made)
    lines = over_tasks(boards)
    assert [board.task for board in boards] == ["chromatin_accessibility", "gene_finding", "variant_effects_disease"]
    assert [(line.name, line.is_control, line.values) for line in lines] == [
        ("dnabert2", False, (0.7, 0.4, 0.6)),
        ("dnabert2, random weights", True, (None, 0.1, 0.5)),
        ("k-mers", True, (0.65, None, None)),
    ]
    assert heads_in_words(boards) == "linear"


def test_a_model_with_two_heads_on_a_task_has_two_lines_over_all_tasks() -> None:
    linear = _with(record("gene_finding", value=0.4), "training", head={"kind": "LinearSpec"})
    boards = leaderboards([record("gene_finding", value=0.5), linear, record(value=0.7)])
    assert [line.name for line in over_tasks(boards)] == ["dnabert2", "dnabert2, linear"]
