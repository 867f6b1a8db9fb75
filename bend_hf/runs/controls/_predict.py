"""Predict with a control that is not a model, fold by fold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bend_hf.errors import ConfigError
from bend_hf.evaluation.predictions import concatenate
from bend_hf.evaluation.shots import SHOTS, FewHeads
from bend_hf.evaluation.uncertainty.bootstrap import with_fold
from bend_hf.runs.controls._spec import ControlResult
from bend_hf.runs.few_shots import few_of_control, heads_of_folds, shots_entry
from bend_hf.runs.outcome import FoldResult, RunResults, scores_of
from bend_hf.types import Json

if TYPE_CHECKING:
    from bend_hf.runs.run import ControlRun


def predict_control(run: ControlRun) -> RunResults:
    """Fit and predict each fold of a run."""
    task, control = run.data.task, run.control
    if control.predict is None:
        raise ConfigError(f"control {control.key!r} declares neither predict nor model; declare one of the two")
    folds, predicted, few = [], [], list[tuple[int | None, FewHeads]]()
    for fold in run.folds:
        splits = run.data.splits(fold)
        result = control.predict(task, splits, run.config.seed)
        predictions = with_fold(result.predictions, fold)
        if run.config.shots:
            few.append((fold, few_of_control(control, task, splits, run.config.shots)))
        scores = scores_of(task, predictions, splits["test"])
        folds.append(FoldResult(fold=fold, predictions=predictions, scores=scores, training=result.learned))
        predicted.append(result)
    head: Json = None if task.variant is not None else {"kind": control.head}
    heads = heads_of_folds(concatenate([one.predictions for one in folds]), few) if few else None
    n_rows = len(run.data.splits(run.folds[0]).get("train", ()))
    return RunResults(
        folds=folds,
        further={} if heads is None else {SHOTS: heads.table()},
        shots=None if heads is None else shots_entry(run, heads, [one for _, one in few], n_rows),
        shot_heads=heads,
        model=_description(run, predicted),
        head=head,
        search=control.search,
        probabilities=head is not None,
    )


def _description(run: ControlRun, predicted: Sequence[ControlResult]) -> dict[str, Json]:
    """Return the control in place of an embedder's description."""
    provenance = run.control.provenance
    return {
        "model": run.control.key,
        "family": "control",
        "description": run.control.text,
        "checkpoint": "",
        "revision": None,
        "width": max(predicted[0].n_features, 1),
        "n_parameters": max(one.n_parameters for one in predicted),
        "protocol": run.config.protocol,
        "layer": -1,
        "dtype": "float64",
        "random_init": False,
        **({} if provenance is None else {"provenance": provenance.facts()}),
    }
