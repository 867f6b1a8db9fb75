"""Controls that learn a linear model on words, and how scores of windows become predictions.

For a control's module: ``predict=learner(lambda task: words)``.

>>> share_of(np.array([[1, 0], [1, 1]], np.int16), n_outputs=2).tolist()
[1.0, 0.5]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.data.builder import n_outputs
from bend_hf.evaluation.predictions import Predictions, concatenate
from bend_hf.evaluation.scoring import score
from bend_hf.runs.controls._logistic import Linear, choose_c, fit_linear
from bend_hf.runs.controls._spec import Said
from bend_hf.runs.controls._windows import WindowBatch, Windows, Words
from bend_hf.shapes import Ints, Json
from bend_hf.tasks import TaskSpec
from bend_hf.tasks._labels import MultiLabel

if TYPE_CHECKING:
    from datasets import Dataset

MOST_WINDOWS: Final = 30_000  # that are learned from, and as many to choose C on; drawn with the run's seed
_PLACES: Final = ("chromosome", "start", "end", "strand", "ref", "alt")


def learner(words_of: Callable[[TaskSpec], Words]) -> Callable[[TaskSpec, dict[str, Dataset], int], Said]:
    """A control that learns from the shares of words in each window."""

    def predict(task: TaskSpec, splits: dict[str, Dataset], seed: int) -> Said:
        words, outputs = words_of(task), n_outputs(task)
        train, validation, test = (Windows(splits[name], task.label, words) for name in ("train", "validation", "test"))
        x, y = train.sample(MOST_WINDOWS, seed)
        x_validation, y_validation = validation.sample(MOST_WINDOWS, seed)

        def value(linear: Linear) -> float:
            return score(task.metric, said(linear.scores(x_validation), task), y_validation).value

        c, linear, values = choose_c(lambda c: fit_linear(x, y, n_outputs=outputs, c=c), value)
        learned: dict[str, Json] = {
            "windows": len(x),
            "c": c,
            "validation": {name: found if np.isfinite(found) else None for name, found in values.items()},
        }
        scored = ((batch, linear.scores(batch.features)) for batch in test.batches())
        return Said(
            predictions=collect(task, splits["test"], test.counts, scored),
            n_features=train.n_features,
            n_parameters=linear.weights.size + linear.bias.size,
            learned=learned,
        )

    return predict


def said(logits: NDArray[np.float64], task: TaskSpec) -> NDArray[np.float32] | NDArray[np.int16]:
    """Scores between 0 and 1 of labels and yes-or-no windows; the likeliest class otherwise."""
    if is_scored(task):
        likely: NDArray[np.float32] = (1 / (1 + np.exp(-np.clip(logits, -60, 60)))).astype(np.float32)
        return likely if isinstance(task.label, MultiLabel) else likely[:, 0]
    classes: NDArray[np.int16] = logits.argmax(axis=1).astype(np.int16)
    return classes


def is_scored(task: TaskSpec) -> bool:
    """Whether predictions of the task are scores, and not classes."""
    return isinstance(task.label, MultiLabel) or n_outputs(task) == 1 or task.variant is not None


def collect(
    task: TaskSpec, dataset: Dataset, counts: Ints, scored: Iterator[tuple[WindowBatch, NDArray[np.float64]]]
) -> Predictions:
    """Predictions of a split out of the logits of its windows, batch by batch."""
    return concatenate(
        [
            of_windows(task, dataset, batch.rows, counts[batch.rows], batch.target, said(logits, task))
            for batch, logits in scored
        ]
    )


def of_windows(
    task: TaskSpec,
    dataset: Dataset,
    rows: Ints,
    counts: Ints,
    target: NDArray[np.int16],
    values: NDArray[np.float32] | NDArray[np.int16],
) -> Predictions:
    """Predictions of some items.

    Args:
        task: What was predicted.
        dataset: The split.
        rows: Items of it, shape (n,).
        counts: Windows of each, shape (n,).
        target: What is true of each window.
        values: What was said of each window.
    """
    names = [name for name in _PLACES if name in dataset.column_names]
    table = dataset.select_columns(["item", *names]).with_format("arrow")[rows]
    scores = is_scored(task)
    return Predictions(
        item=table["item"].to_numpy(),
        windows=np.concatenate([[0], np.cumsum(counts)]),
        target=target,
        score=values.astype(np.float32) if scores else None,
        predicted=None if scores else values.astype(np.int16),
        label_names=task.label_names,
        beside={name: table[name].combine_chunks() for name in names},
    )


def share_of(target: NDArray[np.int16], *, n_outputs: int) -> NDArray[np.float64]:
    """How frequent each label or class is among windows, shape (outputs,); of a yes-or-no class the yes."""
    if target.ndim == 2:
        return np.asarray(target.mean(axis=0, dtype=np.float64))
    counts = np.bincount(target, minlength=max(n_outputs, 2)) / max(len(target), 1)
    return counts[1:2] if n_outputs == 1 else counts
