"""The audit that records keep: made once, in bounded time, or the reason why there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from bend_hf.config import RunConfig
from bend_hf.data.dataset import TaskData, limited, load_task
from bend_hf.evaluation.audit import task_audit
from bend_hf.evaluation.audit.task_audit import audit_facts, audit_for_record, audit_task, keep_for_records
from bend_hf.publishing.model_card_runs import run_fields
from bend_hf.runs.run import run_controls
from tests.audit_tasks import Row, task_data
from tests.records import record
from tests.tiny import write_genome, write_task


@pytest.fixture
def data(tmp_path: Path) -> TaskData:
    """A task of files, built into a cache of its own."""
    write_genome(tmp_path / "genomes" / "genome.fa")
    write_task(tmp_path, "cpg_methylation", n=30, seed=sum(map(ord, tmp_path.name)))
    return load_task("cpg_methylation", str(tmp_path))


def refuse(*_: object) -> None:
    raise AssertionError("the task was audited again")


def test_files_are_audited_once(data: TaskData, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = audit_facts(audit_task(data).as_json())
    assert audit_for_record(data) == expected
    monkeypatch.setattr(task_audit, "audit_task", refuse)
    assert audit_for_record(data) == expected


def test_a_damaged_or_older_file_is_not_used(data: TaskData) -> None:
    expected = audit_for_record(data)
    (folder,) = {Path(file["filename"]).parent for subset in data.subsets.values() for file in subset.cache_files}
    for text in ("{", "[]", '{"audit_version": 0}'):
        (folder / "bend_audit.json").write_text(text)
        assert audit_for_record(data) == expected


def test_large_tasks_wait_for_an_audit_and_limited_runs_have_none(
    data: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert audit_for_record(limited(data, 3)) == {"left_out": "the run was limited to some rows"}
    monkeypatch.setattr(task_audit, "_RECORD_BP", 1000)
    reason = str(audit_for_record(data)["left_out"])
    assert reason.endswith("nucleotides; 'bend-hf audit cpg_methylation' makes an audit")
    kept = keep_for_records(data, audit_task(data))
    assert audit_for_record(data) == kept
    assert "leaks" in kept


def test_rows_in_memory_are_audited_each_time() -> None:
    rows = {"train": [Row(sequence="ACGT" * 30)], "test": [Row(sequence="ACGT" * 30)]}
    assert audit_for_record(task_data(rows))["leaks"] == {"test": {"rows": 1, "share": 1.0}}


def test_records_and_cards_hold_the_audit(data: TaskData, tmp_path: Path) -> None:
    config = RunConfig(task=("cpg_methylation",), data=str(tmp_path), model="onehot", out=tmp_path / "results")
    made = run_controls(config, ["prevalence"])[0].record
    assert made.data["audit"] == audit_for_record(data)
    assert "tested rows occur in rows that they are tested against" in run_fields(made)["leaks"]
    assert run_fields(record())["leaks"] == "unknown: the data were not audited"
    short = run_controls(RunConfig(**{**vars(config), "limit": 4}), ["prevalence"])[0].record
    assert run_fields(short)["leaks"] == "unknown: the run was limited to some rows"
