"""``bend-hf run``: run a grid of tasks, models and seeds."""

from __future__ import annotations

import argparse
from typing import Final

from bend_hf.cli import Command
from bend_hf.config import RunConfig, add_run_flags, given_values

_SEVERAL: Final = ("model",)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add_run_flags(parser, _SEVERAL)


def _run(parsed: argparse.Namespace) -> int:
    from accelerate import PartialState

    from bend_hf.runs.grid import failures, grid_table, run_grid

    values = given_values(RunConfig, parsed, _SEVERAL)
    models = values.pop("model", ()) or (RunConfig.model,)
    results = run_grid(RunConfig(**values), models)
    if PartialState().is_main_process:
        print("\n" + grid_table(results))
    return 1 if failures(results) else 0


COMMANDS = (
    Command(
        key="run",
        text="run a grid of tasks, models and seeds; skip finished runs, and continue after a failed one",
        add_flags=_add_flags,
        run=_run,
    ),
)
