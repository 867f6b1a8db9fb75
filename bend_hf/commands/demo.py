"""``bend-hf demo``: all seven tasks on the bundled sample, and a table of scores."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from bend_hf.commands._command import Command

EPOCHS: Final = 10  # enough to leave chance behind on the sample, few enough for minutes on two cores
BATCH_SIZE: Final = 16  # the sample is a thousandth of BEND: at its batch of 64 an epoch of genes would be one step


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo_results"), help="folder of the result records")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"passes over the training data (default: {EPOCHS})")
    parser.add_argument("--model", default="onehot", help="model key (default: onehot)")
    parser.add_argument("--seed", type=int, default=0, help="seed (default: 0)")


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.config import RunConfig
    from bend_hf.tasks import TASKS
    from bend_hf.train import report, run

    config = RunConfig(
        task=tuple(task.key for task in TASKS),
        data="sample",
        model=parsed.model,
        epochs=parsed.epochs,
        batch_size=BATCH_SIZE,
        out=parsed.out,
        seed=parsed.seed,
    )
    print("The bundled sample: real human sequence with stand-in labels. These scores are not BEND's.")
    report(run(config))
    return 0


COMMANDS = (
    Command(
        key="demo",
        text="run all seven tasks on the bundled sample and print a table of scores",
        add_flags=_add_flags,
        run=_run,
    ),
)
