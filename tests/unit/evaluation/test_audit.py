"""The audit finds what was planted, and nothing in data without plants."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, matthews_corrcoef, roc_auc_score

from bend_hf.cli._main import main
from bend_hf.data.sequences import reverse_complement
from bend_hf.errors import RecordError
from bend_hf.evaluation.audit import rules
from bend_hf.evaluation.audit.leak_free import ScoredRun, score_part
from bend_hf.evaluation.audit.task_audit import TaskAudit, audit_in_words, audit_task, write_audit
from bend_hf.evaluation.predictions import Predictions
from bend_hf.tasks import Folds
from bend_hf.tasks._labels import RealValues
from tests.audit_tasks import Row, class_task, multi_label_task, mutated, random_sequence, task_data
from tests.records import record

N_PLANTS = 40


def plants(kind: str, rng: np.random.Generator, sequence: str) -> str:
    """A row that is in truth the given training row."""
    if kind == "exact":
        return sequence
    if kind == "reverse complement":
        return reverse_complement(sequence)
    if kind == "shifted":
        shift = int(rng.integers(1, len(sequence) // 2))
        return sequence[shift:] + random_sequence(rng, shift)
    if kind == "shifted on the other strand":
        return reverse_complement(plants("shifted", rng, sequence))
    if kind == "90 % identical":
        return mutated(rng, sequence, 0.1)
    place = len(sequence) // 2  # a deletion in the middle: no diagonal covers the row
    return sequence[: place - 20] + sequence[place:] + random_sequence(rng, 20)


KINDS = ("exact", "reverse complement", "shifted", "shifted on the other strand", "90 % identical", "deletion")


@pytest.mark.parametrize("kind", KINDS)
def test_every_planted_copy_is_found_and_no_other_row(kind: str) -> None:
    rng = np.random.default_rng(0)
    train = [Row(sequence=random_sequence(rng, 400)) for _ in range(150)]
    test = [Row(sequence=random_sequence(rng, 400)) for _ in range(N_PLANTS)]
    copied = [Row(sequence=plants(kind, rng, row.sequence)) for row in train[:N_PLANTS]]
    audit = audit_task(task_data({"train": train, "test": test + copied}))
    leaks = audit.leaks[-2 * N_PLANTS :]
    assert not leaks[:N_PLANTS].any()
    assert leaks[N_PLANTS:].all()
    nearest = audit.rows["nearest_item"].to_pylist()[-N_PLANTS:]
    assert nearest == list(range(N_PLANTS))
    column = {"exact": "copy", "reverse complement": "copy", "90 % identical": "near", "deletion": "near"}.get(kind)
    assert audit.rows[column or "shifted"].to_numpy()[-N_PLANTS:].mean() > 0.9


def test_clean_data_give_no_leak() -> None:
    rng = np.random.default_rng(1)
    rows = [Row(sequence=random_sequence(rng, 300), labels=(n % 2,)) for n in range(400)]
    audit = audit_task(task_data({"train": rows[:200], "validation": rows[200:300], "test": rows[300:]}))
    assert audit.summary["leaks"] == {"validation": {"rows": 0, "share": 0.0}, "test": {"rows": 0, "share": 0.0}}
    assert not any(sum(v for k, v in pair.items() if k != "items") for pair in audit.summary["pairs"].values())
    assert audit.summary["duplicates"]["rows_with_the_sequence_of_an_earlier_row"] == 0
    assert audit.rows["seen_share"].to_numpy().max() == 0
    assert audit.summary["rules"]["value"] == pytest.approx(0.5, abs=0.12)


def test_copies_in_validation_and_in_train_are_told_apart() -> None:
    rng = np.random.default_rng(2)
    rows = [Row(sequence=random_sequence(rng, 300)) for _ in range(30)]
    audit = audit_task(task_data({"train": rows[:10], "validation": rows[10:20], "test": [*rows[20:], rows[12]]}))
    pairs = audit.summary["pairs"]
    assert (pairs["test, validation"]["copies"], pairs["test, train"]["copies"]) == (1, 0)
    assert pairs["test, validation"]["items"] == [30]
    assert pairs["validation, train"]["any"] == 0


def test_overlapping_places_are_leaks_by_the_nucleotide() -> None:
    rng = np.random.default_rng(3)
    sequence = random_sequence(rng, 1000)

    def at(start: int) -> Row:
        return Row(sequence=sequence[start : start + 100], chromosome="chr1", start=start)

    audit = audit_task(task_data({"train": [at(0)], "test": [at(100), at(99), at(500)]}))
    assert audit.rows["overlap"].to_pylist() == [False, False, True, False]
    assert audit.rows["overlap_share"].to_pylist()[2] == pytest.approx(0.01)
    assert audit.rows["distance_bp"].to_pylist()[1:] == [0, 0, 400]
    assert audit.leaks.tolist() == [False, False, True, False]


def test_folds_are_compared_with_all_other_subsets() -> None:
    rng = np.random.default_rng(4)
    rows = [Row(sequence=random_sequence(rng, 200), labels=(n % 2,)) for n in range(30)]
    task = replace(multi_label_task(), partition=Folds(n=3))
    audit = audit_task(task_data({"part_0": rows[:10], "part_1": rows[10:20], "part_2": [*rows[20:], rows[0]]}, task))
    assert np.flatnonzero(audit.leaks).tolist() == [0, 30]
    assert set(audit.summary["pairs"]) == {"part_0, part_2", "part_2, part_0"}


def test_equal_rows_with_other_labels_are_counted() -> None:
    rng = np.random.default_rng(5)
    one, two = random_sequence(rng, 100), random_sequence(rng, 100)
    train = [Row(sequence=one, labels=(0,)), Row(sequence=reverse_complement(one), labels=(1,)), Row(sequence=two)]
    audit = audit_task(task_data({"train": train, "test": [Row(sequence=two)]}))
    found = audit.summary["duplicates"]
    assert found["rows_with_the_sequence_of_an_earlier_row"] == 2
    assert found["rows_whose_equals_have_other_labels"] == 2
    assert found["items_with_other_labels"] == [0, 1]


def test_rows_of_n_are_not_compared_and_counted() -> None:
    row = Row(sequence="N" * 300)
    audit = audit_task(task_data({"train": [row], "test": [row]}))
    assert not audit.leaks.any()
    assert audit.summary["not_compared"] == {"train": 1, "test": 1}
    assert "mostly N" in audit_in_words(audit.as_json())


def test_a_label_that_follows_from_length_is_found() -> None:
    rng = np.random.default_rng(6)

    def row(positive: bool) -> Row:
        return Row(sequence=random_sequence(rng, 200 + 50 * positive), labels=(1,) if positive else ())

    rows = [row(n % 3 == 0) for n in range(300)]
    audit = audit_task(task_data({"train": rows[:150], "validation": rows[150:200], "test": rows[200:]}))
    best = audit.summary["rules"]["best_by_label"]["label_1"]
    assert best["feature"] == "length"
    assert best["auroc"] == 1.0
    assert audit.summary["rules"]["best_by_label"]["label_0"]["auroc"] is None  # no row carries it


def test_scores_from_counts_equal_scikit_learn() -> None:
    rng = np.random.default_rng(7)
    score, true = rng.integers(0, 6, 500), rng.integers(0, 2, 500)
    positive, negative = (np.bincount(score[true == value], minlength=6).astype(float) for value in (1, 0))
    values = np.arange(6.0)
    assert rules.auroc(positive, negative, values) == pytest.approx(roc_auc_score(true, score))
    assert rules.auprc(positive, negative, values) == pytest.approx(average_precision_score(true, score))
    predicted = rng.integers(0, 3, 500)
    table = np.zeros((3, 3))
    np.add.at(table, (score % 3, predicted), 1)
    assert rules.mcc(table) == pytest.approx(matthews_corrcoef(score % 3, predicted))


def test_real_values_have_copies_but_no_rules() -> None:
    rng = np.random.default_rng(11)
    task = replace(multi_label_task(), label=RealValues(names=("a", "b")), metric="pearsonr")
    rows = [Row(sequence=random_sequence(rng, 200), labels=(0.5, float("nan"))) for _ in range(20)]
    other = Row(sequence=rows[3].sequence, labels=(0.5, 2.0))
    audit = audit_task(task_data({"train": rows[:10], "test": [*rows[10:], other]}, task))
    assert np.flatnonzero(audit.leaks).tolist() == [20]
    assert audit.summary["duplicates"]["items_with_other_labels"] == [3, 20]
    assert audit.summary["rules"] is None
    assert "real values" in audit_in_words(audit.as_json())


def leaky_run(audit: TaskAudit, rng: np.random.Generator, rows: list[Row]) -> ScoredRun:
    """A model that knows the labels of the copies by heart and guesses the rest a little better than chance."""
    test = np.flatnonzero(np.array(audit.rows["split"].to_pylist()) == "test")
    true = np.array([rows[index].labels[0] for index in range(len(test))], np.int16)
    score = np.where(audit.leaks[test], true, 0.3 * true + rng.random(len(test)))
    return ScoredRun(
        name="leaky",
        record=record("histone_modification"),
        predictions=Predictions(
            item=audit.items[test],
            windows=np.arange(len(test) + 1),
            target=true,
            score=score.astype(np.float32),
            predicted=None,
            label_names=("no", "yes"),
        ),
    )


def test_the_score_without_leaks_returns_to_the_score_without_plants() -> None:
    rng = np.random.default_rng(8)
    train = [Row(sequence=random_sequence(rng, 300), labels=(n % 2,)) for n in range(200)]
    clean = [Row(sequence=random_sequence(rng, 300), labels=(n % 2,)) for n in range(100)]
    planted = [Row(sequence=mutated(rng, row.sequence, 0.05), labels=row.labels) for row in train[:100]]
    audit = audit_task(task_data({"train": train, "test": [*clean, *planted]}, class_task()))
    run = leaky_run(audit, rng, [*clean, *planted])
    part = score_part(run, audit.items, ~audit.leaks, "without leaks")
    true, score = run.predictions.target, run.predictions.score
    assert score is not None
    assert part.n_part == 100
    assert part.value == pytest.approx(roc_auc_score(true[:100], score[:100]))
    assert part.official == pytest.approx(roc_auc_score(true, score))
    assert part.official > part.value + 0.05
    assert "on the 100 items without leaks" in audit_in_words(audit.with_scores([part]).as_json())


def test_predictions_of_unknown_items_are_refused() -> None:
    rng = np.random.default_rng(9)
    rows = [Row(sequence=random_sequence(rng, 100), labels=(n % 2,)) for n in range(20)]
    audit = audit_task(task_data({"train": rows[:10], "test": rows[10:]}, class_task()))
    run = leaky_run(audit, rng, rows[10:])
    with pytest.raises(RecordError, match=r"item 10, which the audited data do not hold"):
        score_part(run, audit.items[:10], ~audit.leaks[:10], "without leaks")


def test_the_command_writes_json_and_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "histone_modification", "--data", "sample", "--out", str(tmp_path)]) == 0
    assert "Best rule without a model" in capsys.readouterr().out
    summary = json.loads((tmp_path / "histone_modification.audit.json").read_text())
    assert summary["audit_version"] == 1
    assert summary["leaks"]["test"]["rows"] == 0
    assert (tmp_path / "histone_modification.audit.parquet").is_file()


def test_a_second_audit_writes_the_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    rows = [Row(sequence=random_sequence(rng, 100), labels=(n % 2,)) for n in range(20)]
    data = task_data({"train": rows[:10], "test": rows[5:]})
    first, second = (
        [path.read_bytes() for path in write_audit(audit_task(data), tmp_path / name)] for name in ("a", "b")
    )
    assert first == second
