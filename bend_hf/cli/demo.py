"""``bend-hf demo``: run a model and its controls on every task of the bundled sample, and write a report."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bend_hf.cli import Command
from bend_hf.cli._output import fits_terminal, show
from bend_hf.cli._records import log_without_data_sources

if TYPE_CHECKING:
    from bend_hf.publishing.overview import Overview
    from bend_hf.runs.outcome import Outcome

CONTROLS: Final = ("kmer", "random_twin")
COST: Final = {  # benchmarks/demo.py measures it
    False: "about 110 seconds on 2 cores and less than 1 GB of disk",
    True: "about 25 seconds on 2 cores and less than 0.01 GB of disk",
}

_N_TASKS: Final = {False: 7, True: 2}

# What a task imports when it needs it; imported once, before the processes of the tasks start.
_IMPORTS: Final = (
    "bend_hf.runs.demo",
    "bend_hf.embedders.bend_mini",
    "bend_hf.embedders.networks.bend_mini",
    "bend_hf.embedders.cache.open",
    "bend_hf.embedders.cache.reader",
    "bend_hf.training.head_trainer",
    "bend_hf.training.heads.cnn",
    "bend_hf.training.heads.linear",
    "bend_hf.training.heads.resnet",
    "bend_hf.training.predict",
    "bend_hf.variants.scores.embedding",
    "sklearn.linear_model",
)

# What the report imports; imported on another core meanwhile.
_REPORT_IMPORTS: Final = (
    "bend_hf.publishing.overview",
    "bend_hf.publishing.report",
    "bend_hf.training.heads.linear",  # records are checked against the heads and the data
    "datasets",
    "matplotlib.font_manager",
)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    from bend_hf.config import DEFAULT_MODEL, MAX_SEED, ComputeFlags, add_flags, flag_group, number_between

    output, training, model = flag_group(parser, "output"), flag_group(parser, "training"), flag_group(parser, "model")
    output.add_argument(
        "--out", type=Path, default=Path("demo_results"), help="folder for records and report (default: demo_results)"
    )
    output.add_argument("--keep", action="store_true", help="keep the embeddings in OUT/cache")
    training.add_argument("--quick", action="store_true", help="two tasks with few items")
    training.add_argument(
        "--epochs", type=number_between(1, kind=int), default=None, help="epochs per head (default: by task)"
    )
    model.add_argument("--model", default=DEFAULT_MODEL, help=f"key of the model (default: {DEFAULT_MODEL})")
    add_flags(parser, ComputeFlags)
    training.add_argument("--seed", type=number_between(0, MAX_SEED, kind=int), default=0, help="seed (default: 0)")


def _run(parsed: argparse.Namespace) -> int:
    cache = parsed.out / "cache"
    end = "which --keep keeps" if parsed.keep else "which is removed at the end (--keep keeps it)"
    print(f"This takes {COST[parsed.quick]} in {cache}, {end}.")
    print("Data: the bundled sample, real human sequence with stand-in labels. These are not BEND scores.")
    print(
        "Heads are linear: few rows are not enough for BEND's. Variant effects are scored without training.", flush=True
    )
    outcomes, left_out = _compare(parsed, cache)
    _show(parsed, outcomes, left_out, cache)
    if not parsed.keep:
        shutil.rmtree(cache, ignore_errors=True)
    print(_next_steps())
    return 0


def _import() -> None:
    """Import what tasks import when they need it."""
    for module in _IMPORTS:
        importlib.import_module(module)
    from bend_hf.evaluation.evaluate_import import load_evaluate

    load_evaluate()


def _compare(parsed: argparse.Namespace, cache: Path) -> tuple[list[Outcome], list[str]]:
    """Run the model and its controls, several tasks at once; return the outcomes, and the tasks that are left out."""
    from bend_hf.runs.processes import Processes, n_at_once

    with Processes(prepare=_import, n=n_at_once(_N_TASKS[parsed.quick])) as processes:
        with contextlib.suppress(ImportError):  # matplotlib is optional
            for module in _REPORT_IMPORTS:
                importlib.import_module(module)
        from tqdm.auto import tqdm
        from tqdm.contrib.logging import logging_redirect_tqdm

        from bend_hf.config import ComputeFlags, given_values
        from bend_hf.data.sources import sample_tasks
        from bend_hf.files import shows_progress
        from bend_hf.runs.demo import DemoSettings, DemoTask, compare_in_folder, demo_config, recipe_of

        settings = DemoSettings(
            model=parsed.model,
            out=parsed.out / "results",
            cache=cache / "embeddings",
            seed=parsed.seed,
            epochs=parsed.epochs,
            quick=parsed.quick,
            compute=ComputeFlags(**given_values(ComputeFlags, parsed)),
        )
        of_sample = {task.key: task for task in sorted(sample_tasks(), key=lambda task: task.key)}
        configs = {key: demo_config(task, settings) for key, task in of_sample.items()}
        tasks = {
            key: DemoTask(config=config, controls=CONTROLS, datasets=cache / "datasets")
            for key, config in configs.items()
            if config is not None
        }
        costs = [recipe_of(of_sample[key]).cost for key in tasks]
        compared = processes.map(compare_in_folder, list(tasks.values()), costs=costs)
        with logging_redirect_tqdm():  # log lines go above the bar
            found = list(tqdm(compared, desc="demo", total=len(tasks), unit="task", disable=not shows_progress()))
    return [outcome for of_task in found for outcome in of_task], [key for key in configs if key not in tasks]


def _show(parsed: argparse.Namespace, outcomes: Sequence[Outcome], left_out: Sequence[str], cache: Path) -> None:
    """Print the table, and write its picture and the report."""
    from bend_hf.evaluation.predictions import read_predictions
    from bend_hf.files import write_bytes
    from bend_hf.publishing.overview import Overview
    from bend_hf.publishing.report import write_report
    from bend_hf.runs import controls
    from bend_hf.runs.demo import datasets_below

    results, predictions = [], {}
    for one in outcomes:
        name = parsed.model if one.control is None else controls.CONTROLS.get(one.control).title.lower()
        results.append((one.record, name, one.control is not None))
        predictions[one.record.task, name] = read_predictions(one.path.parent / str(one.record.predictions["file"]))
    overview = Overview.of(results, predictions)
    print()
    _print_overview(parsed, overview)
    if left_out:
        _print_wrapped(f"Left out of the quick demo: {', '.join(left_out)}. Its few items tell little.")
    print(flush=True)
    title = f"{parsed.model} and its controls on the bundled sample (not BEND's data)"
    for name, content in overview.plot_files("side_by_side", title).items():
        print(f"plot: {write_bytes(parsed.out / name, content)}")
    write_bytes(parsed.out / "side_by_side.json", overview.json().encode())
    with datasets_below(cache / "datasets"), log_without_data_sources():  # records are checked against the data
        write_report([parsed.out / "results"], parsed.out / "report")
    print(f"report: {parsed.out / 'report' / 'index.html'}")


def _print_overview(parsed: argparse.Namespace, overview: Overview) -> None:
    """Print the table with its legend, fitted to a terminal."""
    from bend_hf.publishing.overview import LEGEND
    from bend_hf.tables import Table, metric_title

    if not fits_terminal():
        print(overview.text())
        return
    cells = {(one.task, one.model): one.cell for one in overview.scores}
    chance = {one.task: "-" if one.chance is None else f"{one.chance:.3f}" for one in overview.scores}
    names = [name for name, _ in overview.models]
    table = Table(
        header=[
            "task",
            "metric",
            "chance",
            *(f"control: {name}" if control else name for name, control in overview.models),
        ],
        rows=[
            [task, metric_title(metric), chance[task], *(cells.get((task, name), "-") for name in names)]
            for task, metric in overview.tasks
        ],
    )
    show(parsed, [table, ""], [])
    for line in (LEGEND.format(best="*"), *overview.sentences):
        _print_wrapped(line)


def _print_wrapped(text: str) -> None:
    """Print a paragraph, in a terminal in lines of its width."""
    if fits_terminal():
        text = textwrap.fill(text, shutil.get_terminal_size().columns, break_on_hyphens=False)
    print(text)


def _next_steps() -> str:
    """Say how to run the next command, also if ``bend-hf`` is not on the path."""
    command = "bend-hf train --task cpg_methylation --model onehot --data sample --epochs 10 --batch-size 16"
    program = Path(sys.executable).with_name("bend-hf")
    found = shutil.which("bend-hf")
    if not program.is_file() or (found is not None and Path(found).absolute() == program.absolute()):
        return f"Next, evaluate a model:\n  {command}"
    with contextlib.suppress(ValueError):
        program = program.relative_to(Path.cwd())
    return (
        f"Next, evaluate a model:\n  source {program.with_name('activate')}\n  {command}\n"
        f"or, without activating the environment, type {program} instead of bend-hf."
    )


COMMANDS = (
    Command(
        key="demo",
        text="run a model and its controls on all tasks of the bundled sample, and write a report",
        example="bend-hf demo --model onehot",
        add_flags=_add_flags,
        run=_run,
    ),
)
