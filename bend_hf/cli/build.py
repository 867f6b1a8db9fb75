"""``bend-hf build`` and ``bend-hf verify``: Hub-shaped dataset folders, written and checked."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from bend_hf.cli import Command
from bend_hf.config import DataConfig, add_flags


def _data_config(parsed: argparse.Namespace) -> DataConfig:
    names = {item.name for item in fields(DataConfig)}
    given = {name: value for name, value in vars(parsed).items() if name in names}
    given["task"] = (*parsed.tasks, *given.get("task", ()))
    return DataConfig(**given)


def _add_data_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="tasks or groups of tasks")
    add_flags(parser, DataConfig)


def _add_build_flags(parser: argparse.ArgumentParser) -> None:
    _add_data_flags(parser)
    parser.add_argument("--out", type=Path, default=Path("bend"), help="folder to write (default: bend)")
    parser.add_argument("--num-proc", type=int, help="processes that read and write one task")


def _build(parsed: argparse.Namespace) -> int:
    from bend_hf.publishing.dataset_folder import build

    built = build(_data_config(parsed), parsed.out, num_proc=parsed.num_proc, log=print)
    for task in built:
        print(f"{task.folder}: {task.key}, {task.n_items:,} items, {task.n_bytes / 1e6:,.1f} MB")
    print(f"datasets and metrics stand in {parsed.out}; load_dataset({str(built[0].folder)!r}) works offline from here")
    return 0


def _add_verify_flags(parser: argparse.ArgumentParser) -> None:
    _add_data_flags(parser)
    parser.add_argument("--built", type=Path, default=Path("bend"), help="the built folder (default: bend)")


def _verify(parsed: argparse.Namespace) -> int:
    from bend_hf.publishing.verify_dataset import verify

    for line in verify(_data_config(parsed), parsed.built):
        print(line)
    return 0


COMMANDS = (
    Command(
        key="build",
        text="write tasks as Hub-shaped dataset folders, and the metrics beside them",
        add_flags=_add_build_flags,
        run=_build,
    ),
    Command(
        key="verify",
        text="read a built folder again and check it against bed, labels and genome",
        add_flags=_add_verify_flags,
        run=_verify,
    ),
)
