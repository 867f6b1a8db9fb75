"""``bend-hf tasks``, ``bend-hf models`` and ``bend-hf status``: what there is."""

from __future__ import annotations

import argparse

from bend_hf.cli._command import Command


def _tasks(parsed: argparse.Namespace) -> int:
    from bend_hf.cli.tables import task_table

    print(task_table())
    return 0


def _models(parsed: argparse.Namespace) -> int:
    from bend_hf.cli.tables import model_table

    print(f"{model_table()}\n\nTrained from scratch on the letters, with --model too:\n\n{baseline_table()}")
    return 0


def baseline_table() -> str:
    """Every supervised baseline: what it is made of and what it can learn."""
    from bend_hf.cli.tables import markdown_table
    from bend_hf.training.heads.baselines import BASELINES

    return markdown_table(
        ("model", "reads", "head", "parameters", "tasks", "source"),
        [
            (key, one.model, one.head, f"{one.n_parameters:,} + labels", one.tasks, one.paper)
            for key, one in BASELINES.items()
        ],
    )


def _status(parsed: argparse.Namespace) -> int:
    from bend_hf.cli.status import status

    for line in status():
        print(line)
    return 0


COMMANDS = (
    Command(key="tasks", text="list the tasks", run=_tasks),
    Command(key="models", text="list the models and the supervised baselines", run=_models),
    Command(key="status", text="say what is installed, which device there is, and where data was found", run=_status),
)
