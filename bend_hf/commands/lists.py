"""``bend-hf tasks``, ``bend-hf models`` and ``bend-hf status``: what there is."""

from __future__ import annotations

import argparse

from bend_hf.commands._command import Command


def _tasks(parsed: argparse.Namespace) -> int:
    from bend_hf.tables import task_table

    print(task_table())
    return 0


def _models(parsed: argparse.Namespace) -> int:
    from bend_hf.tables import model_table

    print(model_table())
    return 0


def _status(parsed: argparse.Namespace) -> int:
    from bend_hf.status import status

    for line in status():
        print(line)
    return 0


COMMANDS = (
    Command(key="tasks", text="list the tasks", run=_tasks),
    Command(key="models", text="list the models", run=_models),
    Command(key="status", text="say what is installed, which device there is, and where data was found", run=_status),
)
