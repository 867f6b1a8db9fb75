"""Which records may be published as BEND scores, and the reasons against the others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bend_hf.evaluation.record import ResultRecord
from bend_hf.publishing.publishable import reasons_not_to_publish
from tests.records import CREATED_WITH, record


def test_a_complete_run_as_declared_on_a_hub_dataset_may_be_published() -> None:
    assert reasons_not_to_publish(record()) == []
    assert reasons_not_to_publish(record("variant_effects_disease")) == []


def _config(**changes: object) -> ResultRecord:
    made = record()
    return replace(made, config={**made.config, **changes})  # type: ignore[arg-type]


def _data(**changes: object) -> ResultRecord:
    made = record()
    return replace(made, data={**made.data, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (record(origin="sample"), "scored on the bundled sample"),
        (record(origin="files"), "the user's own BED, label or genome files"),
        (record(origin="folder"), "no Hub dataset with the same content is named"),
        (record(origin="built"), "no Hub dataset with the same content is named"),
        (_data(revision=None), "revision of the dataset was not recorded"),
        (_data(changes={"rows_dropped_out_of_bounds": 2}), "partial coverage: rows dropped out of bounds: 2"),
        (_data(changes={"rows_dropped_ref_mismatch": 1}), "partial coverage: rows dropped ref mismatch: 1"),
        (record(coverage={"scored": 9, "items": 10, "item_sha256": "c" * 64}), "partial coverage: 9 of 10 items"),
        (record(value=None), "main metric is undefined"),
        (_config(epochs=1), "epochs is 1, the task declares 100"),
        (_config(batch_size=8), "batch_size is 8, the task declares 256"),
        (_config(schedule="cosine"), "schedule is cosine"),
        (record(created_with={**CREATED_WITH, "git_commit": "abc-dirty"}), "uncommitted changes"),
        (replace(record(), model={**record().model, "random_init": True}), "random weights"),
        (replace(record(), task="mine"), "not a task of BEND"),
    ],
)
def test_each_reason_is_given(made: ResultRecord, reason: str) -> None:
    assert any(reason in said for said in reasons_not_to_publish(made)), reasons_not_to_publish(made)


def test_folds_that_were_not_run_are_partial_coverage() -> None:
    made = record("enhancer_annotation")
    ten = {f"part_{number}": 28 for number in range(10)}
    fold = {"fold": 1, "items": 28, "metrics": {}}
    assert reasons_not_to_publish(replace(made, data={**made.data, "items": dict(ten)}, folds=[fold])) == [
        "partial coverage: 1 of 10 folds"
    ]
    assert reasons_not_to_publish(replace(made, data={**made.data, "items": dict(ten)}, folds=[fold] * 10)) == []
