"""``bend-hf tasks``, ``models`` and ``status``: list tasks and models, and show what is installed.

The tables of tasks and models are also in the README and in ``docs/``.

>>> task_table().splitlines()[0].split("|")[1].strip()
'task'
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from importlib import metadata

from bend_hf import __version__
from bend_hf.cli import Command
from bend_hf.data.sources import default_data
from bend_hf.embedders import MODELS
from bend_hf.errors import BendError
from bend_hf.tables import markdown_table
from bend_hf.tasks import TASKS, Folds, NamedSplits, TaskSpec
from bend_hf.tasks._labels import BinClasses, MultiLabel, NucleotideClasses, RealValues


def task_table() -> str:
    """A Markdown table of all tasks: labels, sequences, genome, split, head and metric."""
    header = ("task", "labels", "sequence", "genome", "strand", "split", "head", "metric")
    return markdown_table(header, [_task_row(task) for task in TASKS], padded=True)


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


def model_table() -> str:
    """A Markdown table of all models with their checkpoints and properties."""
    header = ("model", "also", "checkpoint", "width", "parameters", "context", "tokens", "direction", "license")
    return markdown_table(
        header,
        [
            (
                spec.key,
                ", ".join(spec.aliases),
                spec.checkpoint or "none",
                str(spec.width),
                f"{spec.n_parameters:,}" if spec.n_parameters else "",
                f"{spec.context_tokens:,}" if spec.context_tokens else "",
                spec.tokenization,
                spec.direction,
                spec.license,
            )
            for spec in MODELS
        ],
        padded=True,
    )


_PACKAGES = ("torch", "transformers", "datasets", "accelerate", "evaluate", "huggingface_hub", "pyarrow", "numpy")


def status() -> Iterator[str]:
    """Yield lines on versions, devices and where the data of each task was found."""
    yield f"bend_hf {__version__}, Python {platform.python_version()}, {platform.platform()}"
    for name in _PACKAGES:
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield f"{name} is not installed; run 'pip install bend-hf'"
    yield from _devices()
    yield from _places()


def _places() -> Iterator[str]:
    """Yield where the data of each task was found, the tasks of the bundled sample in one line."""
    in_sample = []
    for task in TASKS:
        try:
            found = default_data(task)
        except BendError as error:
            yield f"{task.key}: {error}"
            continue
        if found.data == "sample":
            in_sample.append(task.key)
        else:
            yield found.message
    if in_sample:
        yield f"bundled sample (NOT BEND's DATA, its labels are stand-ins): {', '.join(in_sample)}"
        yield "For the real tasks pass --data FOLDER or --data hub, or run 'bend-hf download'."


def _devices() -> Iterator[str]:
    try:
        import torch
    except ImportError:
        return
    for index in range(torch.cuda.device_count()):
        yield f"device cuda:{index}: {torch.cuda.get_device_name(index)}"
    yield f"device cpu: {torch.get_num_threads()} threads"


def _tasks(parsed: argparse.Namespace) -> int:
    print(task_table())
    return 0


def _models(parsed: argparse.Namespace) -> int:
    from bend_hf.training.heads import HEADS

    print(model_table())
    print(f"\nSupervised baselines, trained from scratch on one-hot sequences (--model):\n\n{baseline_table()}")
    print(f"\nHeads (--head): {', '.join(HEADS.names())}, or a .py file.")
    return 0


def baseline_table() -> str:
    """A Markdown table of the supervised baselines."""
    from bend_hf.training.heads import BASELINES

    return markdown_table(
        ("model", "reads", "head", "parameters", "tasks", "source"),
        [
            (key, one.model, one.head, f"{one.n_parameters:,} + labels", one.tasks, one.paper)
            for key, one in BASELINES.items()
        ],
        padded=True,
    )


def _status(parsed: argparse.Namespace) -> int:
    for line in status():
        print(line)
    return 0


COMMANDS = (
    Command(key="tasks", text="list the tasks", run=_tasks),
    Command(key="models", text="list the models and the supervised baselines", run=_models),
    Command(key="status", text="show versions, devices and where data was found", run=_status),
)
