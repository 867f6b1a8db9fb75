"""``bend-hf train``: train and score one model on tasks; the same as ``python -m bend_hf.train``."""

from __future__ import annotations

import argparse

from bend_hf.cli import Command
from bend_hf.config import RunConfig, add_run_flags, config_from_flags


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add_run_flags(parser)


def _run(parsed: argparse.Namespace) -> int:
    from accelerate import PartialState

    from bend_hf.runs.outcome import outcome_table
    from bend_hf.runs.run import run

    outcomes = run(config_from_flags(RunConfig, parsed))
    if PartialState().is_main_process:
        print(f"\n{outcome_table(outcomes)}\n")
        for outcome in outcomes:
            print(f"record: {outcome.path}")
    return 0


COMMANDS = (
    Command(
        key="train",
        text="train and score one model on tasks; the same as python -m bend_hf.train",
        add_flags=_add_flags,
        run=_run,
    ),
)
