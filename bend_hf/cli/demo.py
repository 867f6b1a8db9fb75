"""``bend-hf demo``: run a model and its controls on every task of the bundled sample, and write a report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from bend_hf.cli import Command

EPOCHS: Final = 3  # enough to beat chance on the sample, and done in minutes on two cores
BATCH_SIZE: Final = 16  # at BEND's batch size of 64, an epoch of gene finding on the sample would be one step
FOLDS: Final = (1,)  # of a task with ten folds, each of which trains a head
CONTROLS: Final = ("kmer", "onehot", "random_twin")


def _add_flags(parser: argparse.ArgumentParser) -> None:
    from bend_hf.config import DEFAULT_MODEL, MAX_SEED, flag_group, number_between

    output, training, model = flag_group(parser, "output"), flag_group(parser, "training"), flag_group(parser, "model")
    output.add_argument(
        "--out", type=Path, default=Path("demo_results"), help="folder for records and report (default: demo_results)"
    )
    training.add_argument(
        "--epochs", type=number_between(1, kind=int), default=EPOCHS, help=f"epochs per head (default: {EPOCHS})"
    )
    model.add_argument("--model", default=DEFAULT_MODEL, help=f"key of the model (default: {DEFAULT_MODEL})")
    training.add_argument("--seed", type=number_between(0, MAX_SEED, kind=int), default=0, help="seed (default: 0)")


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.config import RunConfig
    from bend_hf.data.sources import sample_tasks
    from bend_hf.files import write_bytes
    from bend_hf.publishing.report import write_report
    from bend_hf.publishing.report.plots import TaskScore, overview_plot, overview_text
    from bend_hf.runs import controls
    from bend_hf.runs.demo import compare_with_controls
    from bend_hf.tasks import Folds

    print("Data: the bundled sample, real human sequence with stand-in labels. These are not BEND scores.")
    folds = ", ".join(map(str, FOLDS))
    print(f"Each head trains for {parsed.epochs} epochs. Of tasks with folds, only fold {folds} is run.")
    results, outcomes = parsed.out / "results", []
    for has_folds in (False, True):
        tasks = tuple(task.key for task in sample_tasks() if isinstance(task.partition, Folds) is has_folds)
        if not tasks:
            continue
        config = RunConfig(
            task=tasks,
            data="sample",
            model=parsed.model,
            epochs=parsed.epochs,
            batch_size=BATCH_SIZE,
            out=results,
            seed=parsed.seed,
            controls=True,
            fold=FOLDS if has_folds else (),
        )
        outcomes += compare_with_controls(config, CONTROLS)
    outcomes.sort(key=lambda outcome: outcome.record.task)
    names = [parsed.model if one.control is None else controls.CONTROLS.get(one.control).title for one in outcomes]
    scores = [TaskScore.of(one.record, name) for one, name in zip(outcomes, names, strict=True)]
    print("\n" + overview_text(scores) + "\n")
    report = parsed.out / "report"
    write_report([results], report)
    title = f"{parsed.model} and its controls on the bundled sample (not BEND's data)"
    for name, content in overview_plot(scores, title).items():
        print(f"plot: {write_bytes(parsed.out / name, content)}")
    print(f"report: {report / 'index.html'}")
    return 0


COMMANDS = (
    Command(
        key="demo",
        text="run a model and its controls on all tasks of the bundled sample, and write a report",
        example="bend-hf demo --model onehot",
        add_flags=_add_flags,
        run=_run,
    ),
)
