"""``bend-hf demo``: run a model and its controls on every task of the bundled sample, and write a report."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bend_hf.cli import Command

CONTROLS: Final = ("kmer", "random_twin")
COST: Final = {  # benchmarks/demo.py measures it
    False: "about 4 minutes on 2 cores and less than 1 GB of disk",
    True: "about 35 seconds on 2 cores and less than 0.01 GB of disk",
}


def _add_flags(parser: argparse.ArgumentParser) -> None:
    from bend_hf.config import DEFAULT_MODEL, MAX_SEED, flag_group, number_between

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
    training.add_argument("--seed", type=number_between(0, MAX_SEED, kind=int), default=0, help="seed (default: 0)")


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.data.sources import sample_tasks
    from bend_hf.evaluation.predictions import read_predictions
    from bend_hf.files import write_bytes
    from bend_hf.publishing.overview import Overview
    from bend_hf.publishing.report import write_report
    from bend_hf.runs import controls
    from bend_hf.runs.demo import DemoSettings, compare_with_controls, demo_config

    cache = parsed.out / "cache"
    end = "which --keep keeps" if parsed.keep else "which is removed at the end (--keep keeps it)"
    print(f"This takes {COST[parsed.quick]} in {cache}, {end}.")
    print("Data: the bundled sample, real human sequence with stand-in labels. These are not BEND scores.")
    print("Heads are linear: few rows are not enough for BEND's. Variant effects are scored without training.")
    settings = DemoSettings(
        model=parsed.model,
        out=parsed.out / "results",
        cache=cache / "embeddings",
        seed=parsed.seed,
        epochs=parsed.epochs,
        quick=parsed.quick,
    )
    outcomes, left_out = [], []
    with _datasets_below(cache / "datasets"):
        for task in sorted(sample_tasks(), key=lambda task: task.key):
            config = demo_config(task, settings)
            if config is None:
                left_out.append(task.key)
            else:
                outcomes += compare_with_controls(config, CONTROLS)
    results, predictions = [], {}
    for one in outcomes:
        name = parsed.model if one.control is None else controls.CONTROLS.get(one.control).title.lower()
        results.append((one.record, name, one.control is not None))
        predictions[one.record.task, name] = read_predictions(one.path.parent / str(one.record.predictions["file"]))
    overview = Overview.of(results, predictions)
    print("\n" + overview.text())
    if left_out:
        print(f"Left out of the quick demo: {', '.join(left_out)}. Its few items tell little.")
    print()
    title = f"{parsed.model} and its controls on the bundled sample (not BEND's data)"
    for name, content in overview.plot_files("side_by_side", title).items():
        print(f"plot: {write_bytes(parsed.out / name, content)}")
    write_bytes(parsed.out / "side_by_side.json", overview.json().encode())
    write_report([settings.out], parsed.out / "report")
    print(f"report: {parsed.out / 'report' / 'index.html'}")
    if not parsed.keep:
        shutil.rmtree(cache, ignore_errors=True)
    print(_next_steps())
    return 0


@contextlib.contextmanager
def _datasets_below(folder: Path) -> Iterator[None]:
    """Let ``datasets`` build in a folder, and not in its cache in the home folder."""
    import datasets

    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = folder.absolute()
    try:
        yield
    finally:
        datasets.config.HF_DATASETS_CACHE = before


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
