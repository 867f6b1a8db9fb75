"""``bend-hf run``: run a grid of tasks, models and seeds."""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from bend_hf.cli import Command
from bend_hf.cli._output import add_dry_run, has_colors, show, show_forecast
from bend_hf.cli._records import control_lines
from bend_hf.config import RunConfig, add_run_flags, given_values

if TYPE_CHECKING:
    from bend_hf.runs.grid import CellResult
    from bend_hf.tables import Mark

log = logging.getLogger(__name__)

_SEVERAL: Final = ("model",)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add_run_flags(parser, _SEVERAL)
    add_dry_run(parser)


def _run(parsed: argparse.Namespace) -> int:
    values = given_values(RunConfig, parsed, _SEVERAL)
    models = values.pop("model", ()) or (RunConfig.model,)
    config = RunConfig(**values)
    if parsed.dry_run:
        from bend_hf.runs.forecast import HEADS_NOTE, forecast_runs

        return show_forecast(parsed, forecast_runs(config, list(dict.fromkeys(models))), [HEADS_NOTE])
    from accelerate import PartialState

    from bend_hf.runs.grid import failures, grid_lines, grid_rows, run_grid

    results = run_grid(config, models)
    if PartialState().is_main_process:
        table = grid_rows(results)
        if has_colors():
            table = replace(table, marks=_marks(results))
        records = [cell.record for cell in results if cell.record is not None]
        text = ["", table, *control_lines(records), *grid_lines(results)]
        show(parsed, text, (cell.as_json() for cell in results))
        out = shlex.quote(str(config.out))
        log.info("records are in %s; 'bend-hf report %s' writes tables and plots of them", config.out, out)
    return 1 if failures(results) else 0


def _marks(results: Sequence[CellResult]) -> dict[int, Mark]:
    """Mark the cells of the best model of each task, and of those that cannot be told from it, as a report does."""
    from bend_hf.publishing.leaderboard import leaderboards
    from bend_hf.publishing.ties import prediction_files

    found = {id(cell.record): number for number, cell in enumerate(results) if cell.record is not None}
    known = [cell for cell in results if cell.record is not None and cell.path is not None]
    records = [cell.record for cell in known if cell.record is not None]
    files = prediction_files([cell.path for cell in known if cell.path is not None], records)
    marks: dict[int, Mark] = {}
    for board in leaderboards(records, files):
        for row in board.rows if len(board.rows) > 1 else ():
            if row.rank == 1 or row.tied:
                mark: Mark = "best" if row.rank == 1 else "tied"
                marks |= {found[id(record)]: mark for record in row.result.records}
    return marks


COMMANDS = (
    Command(
        key="run",
        text="run a grid of tasks, models and seeds; skip finished runs, and continue after a failed one",
        example="bend-hf run all --model bend-mini onehot --seeds 0 1 2 --controls",
        has_records=True,
        add_flags=_add_flags,
        run=_run,
    ),
)
