"""The findings of audits of real data in documents and cards are those that the benchmark wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bend_hf.data.sources import tasks_in
from bend_hf.evaluation.audit.task_audit import AUDIT_VERSION, findings_table
from bend_hf.files import asset_folder

ROOT = Path(__file__).resolve().parents[3]
FOUND = json.loads((ROOT / "benchmarks" / "results" / "audit.json").read_text(encoding="utf-8"))["findings"]


@pytest.mark.parametrize("name", FOUND)
def test_the_page_shows_every_audited_folder(name: str) -> None:
    assert {audit["audit_version"] for audit in FOUND[name]} == {AUDIT_VERSION}
    assert findings_table(FOUND[name]) in (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")


def test_every_task_of_the_sample_was_audited_and_its_card_shows_the_same() -> None:
    folder = asset_folder("sample")
    assert [audit["task"] for audit in FOUND["sample"]] == [task.key for task in tasks_in(folder)[1]]
    assert findings_table(FOUND["sample"]) in (folder / "README.md").read_text(encoding="utf-8")


def test_the_chromosome_was_audited_in_every_task_with_real_labels() -> None:
    tasks = {audit["task"] for audit in FOUND["chr20"]}
    assert tasks >= {"chromatin_accessibility", "enhancer_annotation", "gene_finding", "histone_modification"}
    assert "variant_effects_disease" in tasks
