"""Train the heads of several layers of one model together, as ``train_head`` trains that of one layer.

One read of the data serves all layers; see ``training.stacked``. The results of each layer are those of a run with
``--layer``, up to the rounding of float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bend_hf.errors import ConfigError
from bend_hf.evaluation.layer_choice import layers_entry, validation_of
from bend_hf.evaluation.record import jsonable
from bend_hf.evaluation.uncertainty.bootstrap import with_fold
from bend_hf.files import TRAINING_STATE, json_sha256
from bend_hf.runs.kept import announce_kept, kept_head
from bend_hf.runs.outcome import FoldResult, RunResults, cached_bytes, scores_of
from bend_hf.runs.train_head import (
    Inputs,
    Trained,
    budget_entry,
    cache_settings,
    fit_config,
    inputs_of,
    new_model,
    run_batch_size,
    shared_datasets,
)
from bend_hf.training.heads import HEADS, head_entry
from bend_hf.training.progress import Bar
from bend_hf.training.recipe import Trial, search_entry, searched_entry, trials_of
from bend_hf.training.trackers import tracking
from bend_hf.types import Json

if TYPE_CHECKING:
    from torch import Tensor

    from bend_hf.embedders._embedder import Embedder
    from bend_hf.evaluation.predictions import Predictions
    from bend_hf.runs.run import ModelRun
    from bend_hf.training.batches import Split
    from bend_hf.training.head_trainer import Fitted
    from bend_hf.training.losses import Loss
    from bend_hf.training.stacked import StackedHeads


def train_layers(
    runs: Mapping[int, ModelRun], embedder: Embedder, tried: Sequence[int], name: str
) -> dict[int, RunResults]:
    """Train and test a head on each layer and each fold.

    Args:
        runs: The run of each layer, which differ in the layer only.
        embedder: The model, whose views the runs hold.
        tried: All layers of the sweep, of which ``runs`` may be those that were not run before.
        name: Name of the run for trackers.
    """
    first = next(iter(runs.values()))
    folds = [_train_fold(runs, embedder, fold, name) for fold in first.folds]
    found = {}
    for layer, run in runs.items():
        own, entry = [fold[layer] for fold in folds], head_entry(run.head)
        results = RunResults(
            folds=own,
            head=None if entry is None else searched_entry(entry, run.searched),
            loss=jsonable(run.data.task.training),
            search=search_entry(
                run.searched, metric=run.data.task.metric, protocol=run.config.protocol, tune=run.config.tune
            ),
            probabilities=run.data.task.training is not None and run.data.task.training.loss == "bce",
            cache_bytes=cached_bytes(own),
            model=run.description,
            alignment=run.alignment,
        )
        validation = validation_of({"runs": [dict(fold.training or {}) for fold in own]})
        layers = layers_entry(tried, validation, results.predictions, run.data.task.metric)
        found[layer] = replace(results, layers=layers)
    return found


@dataclass(frozen=True, kw_only=True)
class _Fold:
    """What the trials of a fold share."""

    fold: int | None
    name: str
    runs: Mapping[int, ModelRun]
    inputs: Mapping[str, Mapping[int, Inputs]]
    splits: Mapping[str, Mapping[int, Split]]
    loss: Loss

    @property
    def first(self) -> ModelRun:
        """The run of the first layer, for what all share."""
        return next(iter(self.runs.values()))

    @property
    def width(self) -> int:
        """Width of an embedding."""
        return next(iter(self.inputs["train"].values())).width

    def folder(self, number: int | None) -> Path:
        """The folder of the training state of a trial."""
        folder = state_folder(self.runs) / f"fold{self.fold or 0}"
        return folder if number is None else folder / f"trial{number}"


@dataclass(frozen=True, kw_only=True)
class _TrainedTogether:
    """One trial with the heads of all layers."""

    trial: Trial
    heads: StackedHeads
    fitted: Mapping[int, Fitted]
    last: Mapping[int, Mapping[str, Tensor]]

    def value(self, layer: int) -> float:
        """The best validation score of a layer."""
        best = self.fitted[layer].best
        return -math.inf if best is None else best


def state_folder(runs: Mapping[int, ModelRun]) -> Path:
    """Return the folder of the training state of a sweep, from which it resumes when it is interrupted."""
    first = next(iter(runs.values()))
    return first.config.out / TRAINING_STATE / json_sha256([run.key for run in runs.values()])[:32]


def _train_fold(runs: Mapping[int, ModelRun], embedder: Embedder, fold: int | None, name: str) -> dict[int, FoldResult]:
    """Train on one fold, or on the task's own split; each layer keeps its best trial on validation."""
    from bend_hf.embedders.cache.layers import open_layers
    from bend_hf.embedders.token_embeddings import Targets
    from bend_hf.training.batches import Split
    from bend_hf.training.losses import build_loss

    run = next(iter(runs.values()))
    task, layers = run.data.task, tuple(runs)
    if task.training is None or run.head is None:
        raise ConfigError(f"{task.key} declares no training, so no head can be trained on it")
    datasets, shared = run.data.splits(fold), shared_datasets(run, fold)
    inputs: dict[str, dict[int, Inputs]] = {}
    splits: dict[str, dict[int, Split]] = {}
    for split, dataset in datasets.items():
        sources = open_layers(
            shared[split],
            embedder,
            layers,
            cache_settings(run),
            accelerator=run.accelerator,
            label=f"{task.key} {split}",
        )
        targets = Targets(dataset, task.label)
        inputs[split] = {layer: inputs_of(source, run.accelerator) for layer, source in sources.items()}
        splits[split] = {
            layer: Split(dataset=dataset, embeddings=one.source, targets=targets)
            for layer, one in inputs[split].items()
        }
    loss = build_loss(task.training.loss, positive_weight=task.training.positive_weight)
    shares = _Fold(fold=fold, name=name, runs=runs, inputs=inputs, splits=splits, loss=loss)
    trials = trials_of(run.head, run.searched, run.config.learning_rate)
    if run.keep != "none" and fold == run.folds[0]:
        announce_kept(run, [trial.head for trial in trials], embedder, shares.width)
    trained = [
        _train_trial(shares, trial, number if len(trials) > 1 else None) for number, trial in enumerate(trials, start=1)
    ]
    best = {layer: _best(trained, layer) for layer in layers}
    predictions = _predictions(shares, best)
    return {
        layer: _result(shares, layer, best[layer], trained, with_fold(predictions[layer], fold)) for layer in layers
    }


def _train_trial(shares: _Fold, trial: Trial, number: int | None) -> _TrainedTogether:
    """Train one head of the search on every layer. A trial that an interrupted run finished is read back."""
    from bend_hf.training.checkpoints import Checkpoints, random_states
    from bend_hf.training.stacked import (
        StackedCallbacks,
        StackedData,
        StackedHeads,
        StackedMember,
        fit_stacked,
        predict_stacked,
    )

    run, layers, accelerator = shares.first, tuple(shares.runs), shares.first.accelerator
    members = []
    for layer, of_layer in shares.runs.items():
        head = new_model(of_layer, trial.head, shares.fold, of_layer.embedder, shares.width)
        members.append(
            StackedMember(
                name=f"layer {layer}",
                head=head,
                train=shares.splits["train"][layer],
                config=fit_config(of_layer.config, trial.learning_rate),
                random=random_states(),
            )
        )
    heads = StackedHeads(
        [one.head for one in members],
        batched=HEADS.get(trial.head.key).batched,
        random=[one.random or {} for one in members],
    )

    def validate(model: StackedHeads, chosen: Sequence[int]) -> list[float | None]:
        found = predict_stacked(
            model,
            [shares.splits["validation"][layers[place]] for place in chosen],
            accelerator,
            batch_size=run_batch_size(run),
            values_of=shares.loss.predict,
            members=chosen,
        )
        values = [scores_of(run.data.task, one, main_only=True)[0].value for one in found]
        return [value if np.isfinite(value) else None for value in values]

    title = run.data.task.key + (f" fold {shares.fold}" if shares.fold else "") + (f" trial {number}" if number else "")
    trackers = run.config.tracker if accelerator.is_main_process else ()
    with Bar(accelerator, f"{title}, {len(layers)} layers", unit="step") as bar, ExitStack() as opened:
        told = [
            opened.enter_context(
                tracking(
                    trackers,
                    run="__".join([shares.name, title.replace(" ", ""), f"layer{layer}"]),
                    settings={**asdict(one.config), **trial.chosen},
                    folder=run.config.out / "trackers",
                )
            )
            for layer, one in shares.runs.items()
        ]
        fitted = fit_stacked(
            heads,
            members,
            StackedData(loss=shares.loss, validate=validate),
            accelerator,
            checkpoints=Checkpoints(shares.folder(number), writes=accelerator.is_main_process),
            callbacks=StackedCallbacks(
                on_progress=lambda done, total, _: bar.at(done, total),
                on_epoch=lambda place, epoch: told[place](epoch),
            ),
        )
    last = {layer: heads.state_of(place) for place, layer in enumerate(layers)} if run.keep == "last" else {}
    heads.load([one.state for one in fitted])
    return _TrainedTogether(trial=trial, heads=heads, fitted=dict(zip(layers, fitted, strict=True)), last=last)


def _best(trained: Sequence[_TrainedTogether], layer: int) -> _TrainedTogether:
    """Return the trial with the highest validation score of a layer, the first of equals."""
    return max(trained, key=lambda one: one.value(layer))


def _predictions(shares: _Fold, best: Mapping[int, _TrainedTogether]) -> dict[int, Predictions]:
    """Predict the test split with the best head of each layer; layers that keep the same trial share one read."""
    from bend_hf.training.stacked import predict_stacked

    run, places = shares.first, {layer: place for place, layer in enumerate(shares.runs)}
    found: dict[int, Predictions] = {}
    for trained in {id(one): one for one in best.values()}.values():
        layers = [layer for layer, one in best.items() if one is trained]
        predictions = predict_stacked(
            trained.heads,
            [shares.splits["test"][layer] for layer in layers],
            run.accelerator,
            batch_size=run_batch_size(run),
            values_of=shares.loss.predict,
            members=[places[layer] for layer in layers],
        )
        found |= dict(zip(layers, predictions, strict=True))
    return found


def _result(
    shares: _Fold, layer: int, best: _TrainedTogether, trained: Sequence[_TrainedTogether], predictions: Predictions
) -> FoldResult:
    run, place, fitted = shares.runs[layer], list(shares.runs).index(layer), best.fitted[layer]
    datasets = run.data.splits(shares.fold)
    entries: list[Json] = [
        {
            **one.trial.chosen,
            "validation": one.fitted[layer].best,
            "best_epoch": one.fitted[layer].best_epoch,
        }
        for one in trained
    ]
    kept = Trained(trial=best.trial, fitted=fitted, model=best.heads.head(place))
    return FoldResult(
        fold=shares.fold,
        predictions=predictions,
        scores=scores_of(run.data.task, predictions, datasets["test"]),
        training={
            **budget_entry(run, best.trial, fitted, n_rows=len(datasets["train"])),
            **({"chosen": dict(best.trial.chosen), "trials": entries} if len(trained) > 1 else {}),
            "best_epoch": fitted.best_epoch,
            "resumed_at_step": fitted.resumed_at,
            "history": jsonable(fitted.history),
        },
        cache_files=frozenset(file for of_split in shares.inputs.values() for file in of_split[layer].files),
        head=kept_head(run, kept, shares.width, shares.fold, last=best.last.get(layer)),
    )
