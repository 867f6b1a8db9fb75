"""``bend-hf build``: write dataset folders."""

from __future__ import annotations

import argparse
from pathlib import Path

from bend_hf.cli import Command
from bend_hf.cli._output import progress_of
from bend_hf.config import DataConfig, add_flags, add_task_words, flag_group, given_values, number_between


def _add_build_flags(parser: argparse.ArgumentParser) -> None:
    add_task_words(parser)
    add_flags(parser, DataConfig)
    flag_group(parser, "output").add_argument(
        "--out", type=Path, default=Path("bend"), help="folder to write (default: bend)"
    )
    flag_group(parser, "output").add_argument(
        "--num-proc", type=number_between(1, kind=int), help="number of processes per task"
    )


def _build(parsed: argparse.Namespace) -> int:
    from bend_hf.publishing.dataset_folder import build

    config = DataConfig(**given_values(DataConfig, parsed))
    built = build(config, parsed.out, num_proc=parsed.num_proc, log=progress_of(parsed))
    for task in built:
        print(f"{task.folder}: {task.key}, {task.n_items:,} items, {task.n_bytes / 1e6:,.1f} MB")
    print(f"datasets and metrics are in {parsed.out}; load_dataset({str(built[0].folder)!r}) now works offline")
    return 0


COMMANDS = (
    Command(
        key="build",
        text="build tasks and metrics into folders that load_dataset and evaluate.load can read",
        example="bend-hf build gene_finding --data sample --out bend",
        add_flags=_add_build_flags,
        run=_build,
    ),
)
