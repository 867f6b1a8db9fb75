"""Scores as text for the terminal: columns side by side, and several seeds as mean and deviation.

>>> print(aligned(("task", "score"), [("a", "0.5000")]))
task  score
------------
a     0.5000
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bend_hf.evaluation.results import ResultRecord


def shown(value: float | None) -> str:
    """A score in four digits."""
    return "undefined" if value is None else f"{value:.4f}"


def aligned(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Columns under their names."""
    widths = [max(len(row[i]) for row in [header, *lines]) for i in range(len(header))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *lines]
    ]
    return "\n".join([text[0], "-" * max(map(len, text)), *text[1:]])


def seed_lines(records: Sequence[ResultRecord]) -> list[str]:
    """For each task and model of several seeds a line: the mean, its deviation and which seeds; empty otherwise."""
    groups: dict[tuple[str, str], list[ResultRecord]] = {}
    for record in records:
        groups.setdefault((record.task, str(record.model.get("model"))), []).append(record)
    lines = []
    for (task, model), group in groups.items():
        if len(group) < 2:
            continue
        values = np.array([record.value for record in group if record.value is not None])
        mean = shown(float(values.mean()) if len(values) else None)
        spread = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
        lines.append(f"{task}, {model}: {group[0].main_metric} {mean}{spread} over {len(values)} of {len(group)} seeds")
    return ["", *lines] if lines else []
