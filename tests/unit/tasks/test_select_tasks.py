"""Tasks are selected by key, by group and by file."""

from __future__ import annotations

from pathlib import Path

import pytest

from bend_hf.errors import RegistryError
from bend_hf.tasks import TASKS, select_tasks

MINE = """
from dataclasses import replace

from bend_hf.tasks import TASKS as REGISTRY

_GENES = REGISTRY.get("gene_finding")
TASKS = (
    replace(_GENES, key="exons", group="exons", {change}),
    replace(_GENES, {change}),
)
"""


def my_task(folder: Path, change: str) -> Path:
    path = folder / "my_task.py"
    path.write_text(MINE.format(change=change))
    return path


def test_a_file_and_a_key_are_selected_in_order_and_once(tmp_path: Path) -> None:
    path = my_task(tmp_path, "title='Exons'")
    name = f"{path}:exons"
    found = select_tasks([name, "cpg_methylation", name])
    assert [task.key for task in found] == ["exons", "cpg_methylation"]
    assert "exons" not in TASKS


def test_a_file_may_hold_a_registered_declaration(tmp_path: Path) -> None:
    path = my_task(tmp_path, "config=None")
    assert select_tasks([f"{path}:gene_finding"]) == [TASKS.get("gene_finding")]


def test_a_file_cannot_change_a_registered_task(tmp_path: Path) -> None:
    path = my_task(tmp_path, "metric='auroc'")
    with pytest.raises(RegistryError, match="declares a task 'gene_finding', which is the key of another registered"):
        select_tasks([f"{path}:gene_finding"])
