"""The size of BEND's tasks as published: rows, and the nucleotides that go through a model.

>>> from bend_hf.tasks import TASKS
>>> published_bp(TASKS.get("cpg_methylation"))
491027968
"""

from __future__ import annotations

from typing import Final

from bend_hf.tasks import TaskSpec

# Marin et al. 2024, Table 1: number of samples.
ROWS: Final = {
    "gene_finding": 5_976,
    "enhancer_annotation": 285,
    "chromatin_accessibility": 2_005_617,
    "histone_modification": 612_081,
    "cpg_methylation": 959_039,
    "variant_effects_expression": 105_263,
    "variant_effects_disease": 295_495,
}
GENE_BP: Final = 4_353_894 / 597  # nucleotides and genes of BEND's test split; other splits are taken to be alike


def published_bp(task: TaskSpec) -> int:
    """Return the nucleotides of a task of BEND that go through a model."""
    rows = ROWS[task.key]
    if task.variant:
        return rows * 2 * (2 * task.variant.context_bp + 1)  # REF and ALT
    return int(rows * (task.window_bp or GENE_BP))
