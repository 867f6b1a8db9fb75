"""The result records that commands are given, and what commands print of them."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bend_hf.tables import number

if TYPE_CHECKING:
    from bend_hf.evaluation.record import ResultRecord

_OF_A_RUN: Final = (".parquet", ".safetensors", ".csv", ".png", ".svg")


def records_of(paths: Iterable[Path]) -> list[Path]:
    """Replace each file that a run wrote next to its record by the record, so that ``results/cpg*`` can be given.

    Args:
        paths: Files and folders.

    Returns:
        The same in the same order, each once. The record of a file may not exist.
    """
    found = []
    for path in paths:
        if path.suffix not in _OF_A_RUN or path.is_dir():
            found.append(path)
            continue
        # The predictions of a further head have its name before the ending, such as .linear_probe.parquet.
        records = [path.with_suffix(".json"), path.with_suffix("").with_suffix(".json")]
        found.append(next((one for one in records if one.is_file()), records[0]))
    return list(dict.fromkeys(found))


@contextlib.contextmanager
def log_without_data_sources() -> Iterator[None]:
    """Let no log line say where data are read, for commands that read those of many records to check them."""
    logger = logging.getLogger("bend_hf.data")
    before = logger.level
    if not logger.isEnabledFor(logging.DEBUG):
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def control_lines(records: Sequence[ResultRecord]) -> list[str]:
    """Return one line for each record that holds controls, with their scores, the best first."""
    from bend_hf.evaluation.record import member
    from bend_hf.runs.controls import CONTROLS

    lines = []
    for record in records:
        scores = {name: member(one, "metrics", record.main_metric, "value") for name, one in record.controls.items()}
        known = {name: value for name, value in scores.items() if isinstance(value, int | float)}
        best_first = sorted(scores, key=lambda name: (-known.get(name, -math.inf), name))
        titles = {name: CONTROLS.get(name).title if name in CONTROLS else name for name in best_first}
        shown = ", ".join(f"{titles[name]} {number(scores[name])}" for name in best_first)
        if shown:
            about = f"{record.task}, {record.model.get('model')}, seed {record.config.get('seed')}"
            lines.append(f"{about}: controls: {shown}")
    return ["", *lines] if lines else []
