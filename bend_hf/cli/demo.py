"""``bend-hf demo``: all seven tasks on the bundled sample, the model beside its controls, as a table and a report."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Final

from bend_hf.cli import Command

EPOCHS: Final = 3  # enough to leave chance behind on the sample, few enough for minutes on two cores
BATCH_SIZE: Final = 16  # the sample is a thousandth of BEND: at its batch of 64 an epoch of genes would be one step
FOLDS: Final = (1,)  # of a task that has ten, each a training of its own
CONTROLS: Final = ("kmer", "onehot", "random_twin")


def _add_flags(parser: argparse.ArgumentParser) -> None:
    from bend_hf.config import DEFAULT_MODEL

    parser.add_argument("--out", type=Path, default=Path("demo_results"), help="folder of records and report")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"passes over the training data (default: {EPOCHS})")
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"model key (default: {DEFAULT_MODEL})")
    parser.add_argument("--seed", type=int, default=0, help="seed (default: 0)")


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.config import RunConfig
    from bend_hf.data.sources import sample_tasks
    from bend_hf.files import write_bytes
    from bend_hf.publishing.report import write_report
    from bend_hf.publishing.report.plots import TaskScore, overview_plot, overview_text
    from bend_hf.runs import controls
    from bend_hf.runs.demo import compare_with_controls
    from bend_hf.tasks import Folds

    tasks = sample_tasks()
    config = RunConfig(
        task=tuple(task.key for task in tasks if not isinstance(task.partition, Folds)),
        data="sample",
        model=parsed.model,
        epochs=parsed.epochs,
        batch_size=BATCH_SIZE,
        out=parsed.out / "results",
        seed=parsed.seed,
        controls=True,
    )
    print("The bundled sample: real human sequence with stand-in labels. These scores are not BEND's.")
    print(f"{parsed.epochs} epochs a head; of tasks with ten folds only fold {' and '.join(map(str, FOLDS))}.")
    folded = replace(config, task=tuple({task.key for task in tasks} - set(config.task)), fold=FOLDS)
    found = [one for part in (config, folded) for one in compare_with_controls(part, CONTROLS)]
    found.sort(key=lambda one: one.record.task)
    names = [parsed.model if one.control is None else controls.CONTROLS.get(one.control).title for one in found]
    scores = [TaskScore.of(one.record, name) for one, name in zip(found, names, strict=True)]
    print("\n" + overview_text(scores) + "\n")
    report = parsed.out / "report"
    write_report([config.out], report)
    title = f"{parsed.model} and what needs no training on genomes, on the bundled sample (not BEND's data)"
    for name, content in overview_plot(scores, title).items():
        print(f"picture: {write_bytes(parsed.out / name, content)}")
    print(f"report: {report / 'index.html'}")
    return 0


COMMANDS = (
    Command(
        key="demo",
        text="run all seven tasks on the bundled sample, a model beside its controls; a table and a report",
        add_flags=_add_flags,
        run=_run,
    ),
)
