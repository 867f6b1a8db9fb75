"""``bend-hf controls``: run the controls that every model should be compared with, as ordinary result records."""

from __future__ import annotations

import argparse

from bend_hf.cli import Command
from bend_hf.cli._output import show
from bend_hf.config import RunConfig, add_run_flags, config_from_flags, flag_group
from bend_hf.tables import Table, number


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add_run_flags(parser)
    chosen = flag_group(parser, "model").add_mutually_exclusive_group()
    chosen.add_argument(
        "--only",
        "--control",
        nargs="+",
        metavar="CONTROL",
        help="keys of controls, such as kmer onehot (docs/controls.md describes each; an unknown key lists them); "
        "default: all that apply to the task and need no further installation",
    )
    chosen.add_argument(
        "--installed",
        action="store_true",
        help="run instead the controls that need a further installation, and have it",
    )


def _run(parsed: argparse.Namespace) -> int:
    from accelerate import PartialState

    from bend_hf.runs.run import run_controls

    outcomes = run_controls(config_from_flags(RunConfig, parsed), parsed.only, installed=parsed.installed)
    if PartialState().is_main_process:
        rows = [
            (
                outcome.record.task,
                str(outcome.control),
                outcome.record.main_metric,
                number(outcome.record.value),
                str(outcome.record.coverage["scored"]),
            )
            for outcome in outcomes
        ]
        table = Table(header=("task", "control", "metric", "score", "items"), rows=rows)
        paths = (f"record: {outcome.path}" for outcome in outcomes)
        show(parsed, ["", table, "", *paths], (outcome.as_json() for outcome in outcomes))
    return 0


COMMANDS = (
    Command(
        key="controls",
        text="run the controls of tasks: prevalence, GC and CpG content, k-mers, one-hot, random weights",
        example="bend-hf controls cpg_methylation --data sample --only kmer onehot",
        has_records=True,
        add_flags=_add_flags,
        run=_run,
    ),
)
