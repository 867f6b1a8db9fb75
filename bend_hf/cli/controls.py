"""``bend-hf controls``: the rows that every model is to be compared with, as ordinary result records."""

from __future__ import annotations

import argparse

from bend_hf.cli import Command
from bend_hf.config import RunConfig, add_run_flags, config_from_flags
from bend_hf.tables import number, text_table


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add_run_flags(parser)
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="CONTROL",
        help="prevalence, gc, cpg, kmer, onehot, random_twin (of --model); default: all that say something",
    )


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.runs.controls import CONTROLS
    from bend_hf.runs.controls._run import run_controls
    from bend_hf.runs.run import key_of, open_embedder, open_tasks, run_task
    from bend_hf.training.launch import start_accelerator

    config = config_from_flags(RunConfig, parsed)
    keys = parsed.only and [CONTROLS.get(key).key for key in parsed.only]
    opened = open_tasks(config)
    accelerator = start_accelerator(config)
    lines, paths = [], []
    for data in opened:
        for ran in run_controls(config, data, accelerator, run_task, open_embedder, key_of, keys):
            metric = ran.record.main_metric
            lines.append((data.task.key, ran.key, metric, number(ran.record.value), str(ran.record.coverage["scored"])))
            paths.append(ran.path)
    if accelerator.is_main_process:
        print("\n" + text_table(("task", "control", "metric", "score", "items"), lines) + "\n")
        for path in paths:
            print(f"record: {path}")
    return 0


COMMANDS = (
    Command(
        key="controls",
        text="run the controls of tasks: prevalence, GC and CpG content, k-mers, one-hot, the model's random twin",
        add_flags=_add_flags,
        run=_run,
    ),
)
