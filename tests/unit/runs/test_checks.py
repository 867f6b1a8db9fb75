"""Labels that are checked before a model loads: splits without labels, and splits in which all are equal."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
from datasets import Dataset, Features, Sequence, Value

from bend_hf.data.dataset import TaskData
from bend_hf.errors import InputError
from bend_hf.runs.checks import check_labels
from bend_hf.tasks import TASKS, Folds, MultiLabel, NamedSplits, NucleotideClasses, RealValues, SequenceClass
from bend_hf.tasks._labels import LabelKind

NAN = float("nan")
CLASSES, BASES = SequenceClass(names=("a", "b")), NucleotideClasses(names=("a", "b"))
MANY, REAL, TWO = MultiLabel(names=("a", "b")), RealValues(names=("v",)), RealValues(names=("v", "w"))


def data_of(kind: LabelKind, *splits: list[Any], folds: bool = False) -> TaskData:
    """Data with the labels of the splits train, validation and test, or of the parts of folds."""
    item = Value("float32") if isinstance(kind, RealValues) else Value("int16")
    column = "label" if isinstance(kind, SequenceClass) else "labels"
    features = Features({column: item if column == "label" else Sequence(item)})
    names = [f"part{k}" for k in range(len(splits))] if folds else ["train", "validation", "test"]
    partition = Folds(n=len(splits)) if folds else NamedSplits()
    task = replace(TASKS.get("cpg_methylation"), label=kind, partition=partition)
    subsets = {
        name: Dataset.from_dict({column: labels}, features=features) for name, labels in zip(names, splits, strict=True)
    }
    return TaskData(task=task, subsets=subsets, facts={})


@pytest.mark.parametrize(
    ("kind", "mixed", "equal"),
    [
        (CLASSES, [0, 1], [1, 1]),
        (BASES, [[0, 0], [1]], [[1, -100], [1]]),
        (MANY, [[0], [1]], [[0], [0]]),
        (MANY, [[0, 1], []], [[], []]),
        (REAL, [[1.5], [2.5], [NAN]], [[-100.0], [-100.0], [NAN]]),
        (TWO, [[1.0, 2.0]], [[1.0, 1.0]]),
    ],
)
@pytest.mark.parametrize(
    ("place", "message"),
    [
        (0, "all labels are equal in its split 'train', so a head cannot learn"),
        (1, "all labels are equal in its split 'validation', so epochs cannot be compared"),
        (2, "all labels are equal in its split 'test', so the score says nothing"),
    ],
)
def test_a_split_of_equal_labels_is_warned_of_once(
    kind: LabelKind, mixed: list[Any], equal: list[Any], place: int, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    check_labels(data_of(kind, mixed, mixed, mixed))
    assert not caplog.records
    data = data_of(kind, *(equal if number == place else mixed for number in range(3)))
    for _ in range(2):
        check_labels(data)
    (text,) = caplog.messages
    assert message in text


@pytest.mark.parametrize(
    ("kind", "labels", "missing"),
    [(REAL, [[1.0], [2.0]], [[NAN], [NAN]]), (TWO, [[1.0, 2.0]], [[NAN, NAN]]), (BASES, [[0, 1]], [[-100, -100]])],
)
def test_a_training_split_without_labels_is_refused(kind: LabelKind, labels: list[Any], missing: list[Any]) -> None:
    with pytest.raises(InputError, match="no row of its split 'train' has a label, so there is nothing to learn"):
        check_labels(data_of(kind, missing, labels, labels))


def test_other_splits_without_labels_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    check_labels(data_of(REAL, [[1.0], [2.0]], [[NAN]], [[NAN]]))
    assert [text.partition(": ")[2] for text in caplog.messages] == [
        "no row has a label in its split 'validation', so epochs cannot be compared",
        "no row has a label in its split 'test', so the score says nothing about the model",
    ]


def test_folds_are_refused_if_no_part_has_a_label() -> None:
    check_labels(data_of(REAL, [[NAN]], [[1.0], [2.0]], [[NAN]], folds=True))
    with pytest.raises(InputError, match="there is nothing to learn"):
        check_labels(data_of(REAL, [[NAN]], [[NAN]], [[NAN]], folds=True))
