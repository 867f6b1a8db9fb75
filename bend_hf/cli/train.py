"""``bend-hf train``: train and score one model on tasks; the same as ``python -m bend_hf.train``."""

from __future__ import annotations

import argparse

from bend_hf.cli import Command
from bend_hf.cli._output import add_dry_run, show, show_forecast
from bend_hf.cli._records import control_lines
from bend_hf.config import RunConfig, add_run_flags, config_from_flags


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add_run_flags(parser)
    add_dry_run(parser)


def _run(parsed: argparse.Namespace) -> int:
    config = config_from_flags(RunConfig, parsed)
    if parsed.dry_run:
        from bend_hf.runs.forecast import HEADS_NOTE, forecast_runs

        return show_forecast(parsed, forecast_runs(config, [config.model]), [HEADS_NOTE])
    from accelerate import PartialState

    from bend_hf.runs.outcome import outcome_lines, outcome_rows
    from bend_hf.runs.run import run

    outcomes = run(config)
    if PartialState().is_main_process:
        paths = (f"record: {outcome.path}" for outcome in outcomes)
        controls = control_lines([outcome.record for outcome in outcomes])
        text = ["", outcome_rows(outcomes), *controls, *outcome_lines(outcomes), "", *paths]
        show(parsed, text, (outcome.as_json() for outcome in outcomes))
    return 0


COMMANDS = (
    Command(
        key="train",
        text="train and score one model on tasks; the same as python -m bend_hf.train",
        example="bend-hf train gene_finding --model bend-mini --data sample",
        has_records=True,
        add_flags=_add_flags,
        run=_run,
    ),
)
