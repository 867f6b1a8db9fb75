"""``bend-hf audit``: what test rows share with training rows and with pretraining data."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bend_hf.cli import Command
from bend_hf.cli._output import show
from bend_hf.config import DataConfig, add_flags, flag_group, given_values

if TYPE_CHECKING:
    from bend_hf.evaluation.audit.task_audit import Pretraining


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "tasks", nargs="*", metavar="TASK", help="tasks or groups of tasks, or a data folder to audit every task of it"
    )
    add_flags(parser, DataConfig)
    data, model, output = flag_group(parser, "data"), flag_group(parser, "model"), flag_group(parser, "output")
    data.add_argument(
        "--predictions",
        nargs="+",
        type=Path,
        default=[],
        metavar="RECORD",
        help="records of runs to score again on the part without leaks",
    )
    model.add_argument("--model", help="model whose pretraining data are compared: a key, or a folder with them")
    model.add_argument(
        "--pretraining",
        type=Path,
        metavar="FILE",
        help="BED file of pretraining regions, or FASTA file of their sequence",
    )
    model.add_argument(
        "--pretraining-genome",
        type=Path,
        metavar="FASTA",
        help="genome that the BED file of --pretraining refers to; default: the task's",
    )
    data.add_argument(
        "--homology",
        choices=["auto", "mmseqs", "minimap2", "off"],
        default="auto",
        help="aligner that looks for homologs with gaps; auto takes the first of mmseqs and minimap2 that is installed "
        "(default: auto)",
    )
    output.add_argument("--out", type=Path, default=Path("audit"), help="folder to write (default: audit)")


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.data.dataset import task_openers
    from bend_hf.data.sources import TaskFiles, sources_of
    from bend_hf.evaluation.audit.leak_free import check_same_data, read_run, score_part
    from bend_hf.evaluation.audit.pretraining import seen_in_words
    from bend_hf.evaluation.audit.task_audit import audit_in_words, audit_task, keep_for_records, write_audit
    from bend_hf.evaluation.record import check_writable

    config = _config(parsed)
    check_writable(parsed.out)
    runs = [read_run(path) for path in parsed.predictions]
    openers = task_openers(config)
    genomes = {source.key: source.genome for source, _ in sources_of(config) if isinstance(source, TaskFiles)}
    for number, (key, open_one) in enumerate(openers.items()):
        data = open_one()
        mine = [run for run in runs if run.record.task == key or len(openers) == 1]
        for run in mine:
            check_same_data(run, key, data.facts)
        audit = audit_task(data, pretraining=_pretraining(parsed, genomes.get(key)), homology=parsed.homology)
        keep_for_records(data, audit)
        scores = [score_part(run, audit.items, ~audit.leaks, "without leaks") for run in mine]
        if "homolog" in audit.rows.column_names:
            scores += [score_part(run, audit.items, ~audit.leaks & ~audit.homologs, "without homologs") for run in mine]
        if "pretraining" in audit.summary:
            scores += [score_part(run, audit.items, audit.unseen, "unseen in pretraining") for run in mine]
        audit = audit.with_scores(scores)
        if parsed.model and "pretraining" not in audit.summary:
            audit = replace(audit, summary={**audit.summary, "pretraining_of_model": seen_in_words(parsed.model)})
        found, files = audit.as_json(), [str(path) for path in write_audit(audit, parsed.out)]
        text = "\n".join([*([""] if number else []), audit_in_words(found), *files])
        show(parsed, text, [{**found, "written": files}])
    return 0


def _pretraining(parsed: argparse.Namespace, genome: Path | None) -> Pretraining | None:
    """The pretraining data that are named, or those next to the model."""
    from bend_hf.evaluation.audit.pretraining import pretraining_of_model
    from bend_hf.evaluation.audit.task_audit import Pretraining

    source = parsed.pretraining or (pretraining_of_model(parsed.model) if parsed.model else None)
    return None if source is None else Pretraining(source=source, genome=parsed.pretraining_genome or genome)


def _config(parsed: argparse.Namespace) -> DataConfig:
    """Read the flags. A positional argument that is a folder stands for ``--data`` and all of its tasks."""
    from bend_hf.data.sources import tasks_in
    from bend_hf.errors import ConfigError

    values = given_values(DataConfig, parsed)
    folders = [name for name in parsed.tasks if Path(name).is_dir()]
    names = [*parsed.tasks, *values.get("task", ())]
    if folders:
        if len(names) > 1 or "data" in values:
            raise ConfigError(f"{folders[0]} is a folder; give it alone, or as --data with the names of tasks")
        folder, tasks = tasks_in(Path(folders[0]))
        return DataConfig(**{**values, "task": tuple(task.key for task in tasks), "data": str(folder)})
    return DataConfig(**{**values, "task": tuple(names)})


COMMANDS = (
    Command(
        key="audit",
        text="find copies of test rows in the training rows, and what rules without a model score",
        example="bend-hf audit gene_finding --data sample --out audit",
        has_records=True,
        add_flags=_add_flags,
        run=_run,
    ),
)
