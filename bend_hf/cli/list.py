"""``bend-hf tasks``, ``models`` and ``status``: list tasks and models, and show what is installed.

The tables of tasks and models are also in the README and in ``docs/``.

>>> str(task_table()).splitlines()[0].split("|")[1].strip()
'task'
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from dataclasses import asdict, fields
from importlib import metadata

from bend_hf import __version__
from bend_hf.cli import Command
from bend_hf.cli._output import show
from bend_hf.data.sources import default_data
from bend_hf.embedders import MODELS, ModelSpec
from bend_hf.errors import BendError
from bend_hf.tables import Table
from bend_hf.tasks import TASKS, Folds, NamedSplits, TaskSpec
from bend_hf.tasks._labels import BinClasses, MultiLabel, NucleotideClasses, RealValues
from bend_hf.types import Json


def task_table() -> Table:
    """A Markdown table of all tasks: labels, sequences, genome, split, head and metric."""
    header = ("task", "labels", "sequence", "genome", "strand", "split", "head", "metric")
    return Table(header=header, rows=[_task_row(task) for task in TASKS], markdown=True)


def _task_row(task: TaskSpec) -> tuple[str, ...]:
    match task.label:
        case NucleotideClasses():
            labels = f"{len(task.label_names)} classes per nucleotide"
        case BinClasses():
            labels = f"yes or no per {task.label.bin_bp}-bp bin"
        case MultiLabel():
            labels = f"{len(task.label_names)} labels"
        case RealValues():
            labels = f"{len(task.label_names)} real values"
        case _:
            labels = "yes or no per variant" if task.variant else "one class"
    match task.partition:
        case NamedSplits():
            split = "train, validation, test"
        case Folds():
            split = f"{task.partition.n} folds"
        case _:
            split = "zero-shot"
    length = f"{task.window_bp:,} bp" if task.window_bp else "varies"
    if task.variant:
        length = f"{task.variant.context_bp} bp on each side"
    head = "none" if task.head is None else task.head.key.upper()
    strand = "read" if task.stranded else "plus"
    return (task.key, labels, length, task.assembly, strand, split, head, task.metric)


def model_table() -> Table:
    """A Markdown table of all models with their checkpoints and properties."""
    header = (
        "model",
        "parameters",
        "context",
        "width",
        "direction",
        "license",
        "verified",
        "tokens",
        "checkpoint",
        "also",
    )
    return Table(
        header=header,
        rows=[
            (
                spec.key,
                f"{spec.n_parameters:,}" if spec.n_parameters else "",
                f"{spec.context_tokens:,}" if spec.context_tokens else "",
                str(spec.width or ""),
                spec.direction,
                spec.license,
                spec.verified,
                spec.tokenization,
                spec.checkpoint or spec.source,
                ", ".join(spec.aliases),
            )
            for spec in MODELS
        ],
        markdown=True,
    )


_PACKAGES = ("torch", "transformers", "datasets", "accelerate", "evaluate", "huggingface_hub", "pyarrow", "numpy")


def status() -> Iterator[tuple[str, dict[str, Json]]]:
    """Yield versions, devices and where the data of each task was found, each as a line and as a record."""
    python, system = platform.python_version(), platform.platform()
    yield (
        f"bend_hf {__version__}, Python {python}, {system}",
        {"kind": "package", "name": "bend_hf", "version": __version__},
    )
    for name in _PACKAGES:
        version = _version(name)
        line = f"{name} {version}" if version else f"{name} is not installed; run 'pip install bend-hf'"
        yield line, {"kind": "package", "name": name, "version": version}
    for device, what in _devices():
        yield f"device {device}: {what}", {"kind": "device", "name": device, "what": what}
    yield from _places()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _places() -> Iterator[tuple[str, dict[str, Json]]]:
    """Yield where the data of each task was found, the tasks of the bundled sample in one line."""
    in_sample = []
    for task in TASKS:
        about: dict[str, Json] = {"kind": "data", "tasks": [task.key]}
        try:
            found = default_data(task)
        except BendError as error:
            yield f"{task.key}: {error}", {**about, "data": None, "error": str(error)}
            continue
        if found.data == "sample":
            in_sample.append(task.key)
        else:
            yield found.message, {**about, "data": str(found.data)}
    if in_sample:
        sample = f"bundled sample (NOT BEND's DATA, its labels are stand-ins): {', '.join(in_sample)}"
        yield sample, {"kind": "data", "tasks": list(in_sample), "data": "sample"}


def _devices() -> Iterator[tuple[str, str]]:
    try:
        import torch
    except ImportError:
        return
    for index in range(torch.cuda.device_count()):
        yield f"cuda:{index}", torch.cuda.get_device_name(index)
    yield "cpu", f"{torch.get_num_threads()} threads"


def _tasks(parsed: argparse.Namespace) -> int:
    show(parsed, [task_table()], ({"task": task.key, **asdict(task)} for task in TASKS))
    return 0


def _models(parsed: argparse.Namespace) -> int:
    from bend_hf.training.heads import BASELINES, HEADS

    intro = "\nSupervised baselines, trained from scratch on one-hot sequences (--model):\n"
    heads = f"\nHeads (--head): {', '.join(HEADS.names())}, or a .py file."
    text = [model_table(), intro, baseline_table(), heads]
    records = [{"kind": "model", "model": spec.key, **_facts(spec)} for spec in MODELS]
    records += [{"kind": "baseline", "model": key, **asdict(one)} for key, one in BASELINES.items()]
    records += [{"kind": "head", "head": head.key, "text": head.text} for head in HEADS]
    show(parsed, text, records)
    return 0


def _facts(spec: ModelSpec) -> dict[str, object]:
    """The fields of a declaration but for its code."""
    return {item.name: getattr(spec, item.name) for item in fields(spec) if item.name != "tiny"}


def baseline_table() -> Table:
    """A Markdown table of the supervised baselines."""
    from bend_hf.training.heads import BASELINES

    return Table(
        header=("model", "reads", "head", "parameters", "tasks", "source"),
        rows=[
            (key, one.model, one.head, f"{one.n_parameters:,} + labels", one.tasks, one.paper)
            for key, one in BASELINES.items()
        ],
        markdown=True,
    )


def _status(parsed: argparse.Namespace) -> int:
    found = list(status())
    lines = [line for line, _ in found]
    if any(record.get("data") == "sample" for _, record in found):
        lines.append("For the real tasks pass --data FOLDER or --data hub, or run 'bend-hf download'.")
    show(parsed, "\n".join(lines), (record for _, record in found))
    return 0


COMMANDS = (
    Command(key="tasks", text="list the tasks", example="bend-hf tasks", has_records=True, run=_tasks),
    Command(
        key="models",
        text="list the models and the supervised baselines",
        example="bend-hf models",
        has_records=True,
        run=_models,
    ),
    Command(
        key="status",
        example="bend-hf status",
        text="show versions, devices and where data was found",
        has_records=True,
        run=_status,
    ),
)
