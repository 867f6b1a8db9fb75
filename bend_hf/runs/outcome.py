"""Scores as text for the terminal: several seeds as mean and deviation.

What the folds of a run gave, or the run as a whole, and the entries of the result record that they become.

>>> part = FoldResult(fold=None, predictions=None, scores=(Score(metric="mcc", value=0.5, detail={}),), fitted=None)
>>> summarise([part])["mcc"]["value"]
0.5
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bend_hf.data.dataset import TaskData
from bend_hf.errors import BendError
from bend_hf.evaluation.metrics import Score, score
from bend_hf.evaluation.predictions import Predictions
from bend_hf.evaluation.record import ResultRecord, jsonable
from bend_hf.tables import number
from bend_hf.tasks import TaskSpec
from bend_hf.training.heads import head_entry
from bend_hf.types import Json

if TYPE_CHECKING:
    from accelerate import Accelerator

    from bend_hf.tasks._spec import Head
    from bend_hf.training.trainer import Fitted


def seed_lines(records: Sequence[ResultRecord]) -> list[str]:
    """For each task and model of several seeds a line: the mean, its deviation and which seeds; empty otherwise."""
    groups: dict[tuple[str, str], list[ResultRecord]] = {}
    for record in records:
        groups.setdefault((record.task, str(record.model.get("model"))), []).append(record)
    lines = []
    for (task, model), group in groups.items():
        if len(group) < 2:
            continue
        values = np.array([record.value for record in group if record.value is not None])
        mean = number(float(values.mean()) if len(values) else None)
        spread = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
        lines.append(f"{task}, {model}: {group[0].main_metric} {mean}{spread} over {len(values)} of {len(group)} seeds")
    return ["", *lines] if lines else []


@dataclass(frozen=True, kw_only=True)
class FoldResult:
    """Predictions and training of one fold, or of the whole task where there are none.

    Attributes:
        fold: Which; None where there are none.
        predictions: Of its test split.
        scores: Of them.
        fitted: What training gave; None where nothing is trained.
        cached: Files of the embedding cache that were read.
    """

    fold: int | None
    predictions: Predictions
    scores: tuple[Score, ...]
    fitted: Fitted | None
    cached: frozenset[Path] = frozenset()


def scores_of(task: TaskSpec, predictions: Predictions, *, main_only: bool = False) -> tuple[Score, ...]:
    """The metrics of a task over some predictions, or the main one alone."""
    said: NDArray[Any] | None = predictions.predicted if predictions.score is None else predictions.score
    assert said is not None
    names = predictions.label_names if predictions.score is None or said.ndim == 2 else None
    wanted = task.metrics[:1] if main_only else task.metrics
    return tuple(score(metric, said, predictions.target, names=names) for metric in wanted)


def summarise(parts: list[FoldResult]) -> dict[str, Json]:
    """Each metric's value and detail; over folds the mean, with the deviation and how many folds it is over."""
    metrics: dict[str, Json] = {}
    for index, first in enumerate(parts[0].scores):
        if parts[0].fold is None:
            metrics[first.metric] = {"value": jsonable(first.value), "detail": jsonable(first.detail)}
            continue
        values = np.array([part.scores[index].value for part in parts], np.float64)
        defined = values[np.isfinite(values)]
        metrics[first.metric] = {
            "value": float(defined.mean()) if len(defined) else None,
            "detail": {
                "deviation": float(defined.std(ddof=1)) if len(defined) > 1 else None,
                "n_folds": len(values),
                "n_folds_undefined": int(len(values) - len(defined)),
            },
        }
    return metrics


def fold_entries(parts: list[FoldResult]) -> list[Json]:
    """The metrics of each fold; empty where there are none."""
    return [
        {
            "fold": part.fold,
            "items": len(part.predictions),
            "metrics": {s.metric: {"value": jsonable(s.value), "detail": jsonable(s.detail)} for s in part.scores},
        }
        for part in parts
        if part.fold is not None
    ]


def coverage(predictions: Predictions, data: TaskData, parts: list[FoldResult]) -> dict[str, Json]:
    """How many items were scored of how many.

    Raises:
        BendError: Not all.
    """
    items = sum(len(data.splits(part.fold)["test"]) for part in parts)
    if len(predictions) != items:
        raise BendError(f"{data.task.key}: {len(predictions)} of {items} items were scored; this is a defect")
    return {
        "scored": len(predictions),
        "items": items,
        "windows": int(predictions.windows[-1]),
        "item_sha256": predictions.item_sha256,
    }


def training_entry(parts: list[FoldResult], task: TaskSpec, head: Head | None) -> dict[str, Json] | None:
    """Head, loss and the history of each fold; None where nothing is trained."""
    if task.training is None:
        return None
    return {
        "head": head_entry(head),
        "loss": jsonable(task.training),
        "runs": [
            {
                "fold": part.fold,
                "best_epoch": part.fitted.best_epoch,
                "resumed_at_step": part.fitted.resumed_at,
                "history": jsonable(part.fitted.history),
            }
            for part in parts
            if part.fitted is not None
        ],
    }


def cached_bytes(parts: list[FoldResult]) -> int:
    """Size of the cached embeddings that the parts were made of, each file once; 0 where none were kept."""
    return sum(path.stat().st_size for path in frozenset[Path]().union(*(part.cached for part in parts)))


def cost(seconds: float, accelerator: Accelerator, *, cache_bytes: int = 0) -> dict[str, Json]:
    """Time, memory, disk and what it ran on.

    Args:
        seconds: Of the run.
        accelerator: What it ran on.
        cache_bytes: Of the embeddings that it kept on disk.
    """
    import resource

    import torch

    kilobyte = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, kilobytes on Linux
    entry: dict[str, Json] = {
        "seconds": seconds,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte,
        "cache_bytes": cache_bytes,
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
    }
    if accelerator.device.type == "cuda":
        entry["device_name"] = torch.cuda.get_device_name(accelerator.device)
        entry["peak_device_memory_bytes"] = torch.cuda.max_memory_allocated(accelerator.device)
    return entry
