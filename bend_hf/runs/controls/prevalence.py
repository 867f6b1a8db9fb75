"""Prevalence: the frequency of each label in training, whatever the sequence; the level of chance.

>>> CONTROLS[0].key
'prevalence'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bend_hf.runs.controls._features import Windows
from bend_hf.runs.controls._linear import collect, fraction_of
from bend_hf.runs.controls._spec import ControlResult, ControlSpec, needs_classes
from bend_hf.runs.controls._variants import variant_predictions
from bend_hf.tasks import TaskSpec

if TYPE_CHECKING:
    from datasets import Dataset


def _predict(task: TaskSpec, splits: dict[str, Dataset], seed: int) -> ControlResult:
    if task.variant is not None:  # nothing is learned, so every variant gets the same score
        return ControlResult(predictions=variant_predictions(task, splits["test"], np.zeros(len(splits["test"]))))
    outputs = task.n_outputs
    train, test = Windows(splits["train"], task.label, None), Windows(splits["test"], task.label, None)
    labels = np.concatenate([_with_label(batch.target) for batch in train.batches()])
    fraction = fraction_of(labels, n_outputs=outputs)
    with np.errstate(divide="ignore"):
        logit = np.log(fraction) - np.log1p(-fraction)
    scored = ((batch, np.broadcast_to(logit, (len(batch.target), len(logit)))) for batch in test.batches())
    return ControlResult(
        predictions=collect(task, splits["test"], test.counts, scored),
        n_parameters=len(fraction),
        learned={"windows": len(labels)},
    )


def _with_label(target: np.ndarray) -> np.ndarray:
    return target[target >= 0 if target.ndim == 1 else (target >= 0).all(axis=1)]


CONTROLS = (
    ControlSpec(
        key="prevalence",
        title="Prevalence",
        text="The frequency of each label in training, the same for every item.",
        why_not=needs_classes,
        predict=_predict,
        head="Constant",
    ),
)
