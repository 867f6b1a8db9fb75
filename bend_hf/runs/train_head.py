"""Train a head on each fold of a task: open the embeddings of each split, fit a new head, predict the test split.

>>> fold_seed(7, None), fold_seed(7, 1) == fold_seed(7, 2)
(7, False)
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bend_hf.data.dataset import fold_subsets
from bend_hf.errors import ConfigError
from bend_hf.evaluation.predictions import LOG_PROBABILITY, Predictions, concatenate
from bend_hf.evaluation.record import jsonable
from bend_hf.evaluation.remarks import FEW_STEPS
from bend_hf.evaluation.shots import SHOTS, FewHeads
from bend_hf.evaluation.strands import without_probabilities
from bend_hf.evaluation.uncertainty.bootstrap import with_fold
from bend_hf.runs.kept import announce_kept, kept_head
from bend_hf.runs.outcome import (
    FoldResult,
    RunResults,
    ScoredPredictions,
    argmax_detail,
    cached_bytes,
    scores_of,
)
from bend_hf.tables import counted
from bend_hf.training.heads import build_head, head_entry, pooled_bp
from bend_hf.training.progress import Bar
from bend_hf.training.recipe import (
    RECIPES,
    Trial,
    fewest_train_rows,
    search_entry,
    searched_entry,
    trials_of,
)
from bend_hf.training.trackers import tracking
from bend_hf.types import Json

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset
    from torch import nn

    from bend_hf.config import RunConfig
    from bend_hf.embedders._embedder import Embedder
    from bend_hf.embedders.cache import CacheSettings
    from bend_hf.embedders.token_embeddings import EmbeddingSource
    from bend_hf.runs.few_shots import FewShotTraining
    from bend_hf.runs.run import ModelRun
    from bend_hf.tasks._labels import LabelKind
    from bend_hf.tasks._spec import Head, TaskSpec
    from bend_hf.training.batches import InputSource, Split
    from bend_hf.training.head_trainer import FitConfig, Fitted
    from bend_hf.training.layer_mix import MixedLayers
    from bend_hf.training.losses import Loss

log = logging.getLogger(__name__)


def train_head(run: ModelRun, name: str) -> RunResults:
    """Train and test a head on each fold.

    Args:
        run: The run; its task declares how it is trained.
        name: Name of the run for trackers.
    """
    folds = [_train_fold(run, fold, name) for fold in run.folds]
    entry = head_entry(run.head)
    of_argmax = [
        replace(one, predictions=one.argmax.predictions, scores=one.argmax.scores) for one in folds if one.argmax
    ]
    results = RunResults(
        folds=folds,
        head=None if entry is None else searched_entry(entry, run.searched),
        loss=jsonable(run.data.task.training),
        search=search_entry(
            run.searched, metric=run.data.task.metric, protocol=run.config.protocol, tune=run.config.tune
        ),
        probabilities=run.data.task.training is not None and run.data.task.training.loss == "bce",
        cache_bytes=cached_bytes(folds),
        detail=argmax_detail(of_argmax),
        further=_argmax_table(of_argmax),
    )
    return _with_shots(run, _with_strands(run, results))


def _argmax_table(folds: Sequence[FoldResult]) -> dict[str, Predictions]:
    if not folds:
        return {}
    from bend_hf.runs.decode_genes import ARGMAX

    return {ARGMAX: concatenate([one.predictions for one in folds])}


def _with_strands(run: ModelRun, results: RunResults) -> RunResults:
    """Add the strand report, if one was asked for."""
    both = [(one.fold, one.strands) for one in results.folds if one.strands is not None]
    if not both:
        return results
    from bend_hf.runs.strand_report import report_of_folds

    report = report_of_folds(both, run.data.task)
    return replace(results, further={**results.further, **report.further}, strands=report.entry)


def _with_shots(run: ModelRun, results: RunResults) -> RunResults:
    """Add the curve over few rows, if one was asked for."""
    few = [(one.fold, one.few) for one in results.folds if one.few is not None]
    if not few:
        return results
    from bend_hf.runs.few_shots import heads_of_folds, shots_entry

    heads = heads_of_folds(concatenate([one.predictions for one in results.folds]), few)
    entry = shots_entry(run, heads, [one for _, one in few], len(run.data.splits(run.folds[0])["train"]))
    return replace(results, further={**results.further, SHOTS: heads.table()}, shots=entry, shot_heads=heads)


@dataclass(frozen=True, kw_only=True)
class OpenFold:
    """What the heads of a fold share.

    Attributes:
        fold: Counted from 1; None if the task has no folds.
        name: Name of the run for trackers.
        embedder: The embedder, or a copy to fine-tune.
        width: Width of an embedding.
        splits: The splits with their embeddings and labels.
        loss: The loss.
        files: Files of the embedding cache that are read.
    """

    fold: int | None
    name: str
    embedder: Embedder
    width: int
    splits: dict[str, Split]
    loss: Loss
    files: frozenset[Path]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trial with its trained head: the weights of the best epoch, and a model with those of the last."""

    trial: Trial
    fitted: Fitted
    model: nn.Module

    @property
    def entry(self) -> dict[str, Json]:
        """The trial as a record holds it."""
        return {**self.trial.chosen, "validation": self.fitted.best, "best_epoch": self.fitted.best_epoch}


def open_fold(run: ModelRun, fold: int | None, name: str) -> OpenFold:
    """Open the embeddings of all splits of a fold, or of the task's own splits.

    Args:
        run: The run.
        fold: Counted from 1; None if the task has no folds.
        name: Name of the run for trackers.

    Raises:
        ConfigError: Nothing is trained on the task.
    """
    from bend_hf.embedders.token_embeddings import Targets
    from bend_hf.training.batches import Split
    from bend_hf.training.losses import build_loss

    task = run.data.task
    if task.training is None or run.head is None:
        raise ConfigError(f"{task.key} declares no training, so no head can be trained on it")
    embedder = _embedder_for(run, fold)
    datasets, shared = run.data.splits(fold), shared_datasets(run, fold)
    inputs = {split: _open_inputs(run, embedder, shared[split], split) for split in datasets}
    splits = {
        split: Split(dataset=dataset, embeddings=inputs[split].source, targets=Targets(dataset, task.label))
        for split, dataset in datasets.items()
    }
    splits["train"] = train_split(datasets["train"], task.label, inputs["train"].source, run.accelerator)
    return OpenFold(
        fold=fold,
        name=name,
        embedder=embedder,
        width=inputs["train"].width,
        splits=splits,
        loss=build_loss(task.training.loss, positive_weight=task.training.positive_weight),
        files=frozenset(file for one in inputs.values() for file in one.files),
    )


def _train_fold(run: ModelRun, fold: int | None, name: str) -> FoldResult:
    """Train on one fold, or on the task's own split, and predict the test split with the best head on validation."""
    from bend_hf.embedders.token_embeddings import Targets
    from bend_hf.training.batches import Split
    from bend_hf.training.checkpoints import load_trained, trained_state
    from bend_hf.training.predict import predict

    task, shares = run.data.task, open_fold(run, fold, name)
    splits, embedder, loss, datasets = shares.splits, shares.embedder, shares.loss, run.data.splits(fold)
    trials = trials_of(run.head, run.searched, run.config.learning_rate) if run.head is not None else ()
    if run.keep != "none" and fold == run.folds[0]:
        announce_kept(run, [trial.head for trial in trials], embedder, shares.width)
    best: Trained | None = None
    entries: list[Json] = []
    for number, trial in enumerate(trials, start=1):
        trained = _train_trial(run, shares, trial, number if len(trials) > 1 else None)
        entries.append(trained.entry)
        if best is None or _value(trained) > _value(best):  # the first of equals stays
            best = trained
    if best is None:
        raise ConfigError(f"{task.key}: the search of the protocol holds no trial; give each searched value one choice")
    last = trained_state(best.model) if run.keep == "last" else None
    load_trained(best.model, best.fitted.state)
    trained_model = best.model

    def predicted(split: str | Split, column: str | None = None) -> Predictions:
        return predict(
            trained_model,
            splits[split] if isinstance(split, str) else split,
            accelerator=run.accelerator,
            batch_size=run_batch_size(run),
            values_of=loss.predict,
            with_log_probabilities=column,
        )

    decoded = None
    if run.config.decode == "grammar":
        from bend_hf.runs.decode_genes import decode_genes

        decoded = decode_genes(lambda split: predicted(split, LOG_PROBABILITY), datasets, task.metric)
    head = kept_head(run, best, shares.width, fold, last=last, grammar=None if decoded is None else decoded.grammar)
    both = None
    if run.config.strand_report:
        from bend_hf.runs.strand_report import dataset_of_other_strand, predict_both

        turned = dataset_of_other_strand(task, datasets["test"])
        source = _open_inputs(run, embedder, [turned], "test, other strand").source
        other = Split(dataset=turned, embeddings=source, targets=Targets(turned, task.label))
        both = predict_both(task, partial(predicted, "test"), partial(predicted, other))
    if decoded is not None:
        predictions = with_fold(decoded.predictions, fold)
    else:
        predictions = with_fold(predicted("test") if both is None else without_probabilities(both.forward), fold)
    return FoldResult(
        fold=fold,
        predictions=predictions,
        scores=scores_of(task, predictions, datasets["test"]),
        argmax=None if decoded is None else _scored(task, with_fold(decoded.argmax, fold), datasets["test"]),
        training={
            **budget_entry(run, best.trial, best.fitted, n_rows=len(datasets["train"])),
            **({} if decoded is None else {"decoding": decoded.as_json(task.metric)}),
            **({"chosen": dict(best.trial.chosen), "trials": entries} if len(trials) > 1 else {}),
            **_mix_entry(best.model),
            "best_epoch": best.fitted.best_epoch,
            "resumed_at_step": best.fitted.resumed_at,
            "history": jsonable(best.fitted.history),
        },
        cache_files=shares.files,
        head=head,
        strands=both,
        few=_train_few(run, shares, trials) if run.config.shots else None,
    )


def _train_few(run: ModelRun, shares: OpenFold, trials: Sequence[Trial]) -> FewHeads:
    from bend_hf.runs.few_shots import train_few

    return train_few(few_shot_training(run, shares, trials), run.config.shots)


def _mix_entry(model: nn.Module) -> dict[str, Json]:
    """Say how much each layer counts, if the head learned it."""
    from bend_hf.training.layer_mix import LayerMix

    shares = model.shares() if isinstance(model, LayerMix) else None
    return {} if shares is None else {"layer_weights": list(shares)}


def few_shot_training(run: ModelRun, shares: OpenFold, trials: Sequence[Trial]) -> FewShotTraining:
    """Return how heads are trained on few rows: as the head of the whole split, with the budget of so many rows.

    Args:
        run: The run.
        shares: The fold.
        trials: The heads and rates that the protocol searches.
    """
    from bend_hf.runs.few_shots import FewShotTraining

    task = run.data.task

    def build(head: Head, seed: int) -> nn.Module:
        seeded = replace(run, config=replace(run.config, seed=seed))
        return new_model(seeded, head, shares.fold, shares.embedder, shares.width)

    def score_of(predictions: Predictions) -> float | None:
        value = scores_of(task, predictions, main_only=True)[0].value
        return value if np.isfinite(value) else None

    return FewShotTraining(
        label=task.label,
        splits=shares.splits,
        loss=shares.loss,
        trials=trials,
        build=build,
        config_of=partial(_few_shot_config, run),
        score=score_of,
        batch_size=run_batch_size(run),
        accelerator=run.accelerator,
        checkpoints=run.checkpoints / f"fold{shares.fold or 0}",
    )


def _few_shot_config(run: ModelRun, trial: Trial, seed: int, n_rows: int) -> FitConfig:
    """Return how a head is trained on so many rows; epochs and batches that the user gave stay as they are."""
    config, task = replace(run.config, seed=seed), run.data.task
    if task.training is not None:
        recipe, accumulation = RECIPES[config.protocol], config.gradient_accumulation
        rows = {name: len(subset) for name, subset in run.data.subsets.items()}
        whole = fewest_train_rows(rows, folds=bool(run.data.n_folds))
        usual = recipe.budget(task.training, whole, accumulation=accumulation)
        if (usual.epochs, usual.batch_size) == (config.epochs, config.batch_size):
            budget = recipe.budget(task.training, n_rows, accumulation=accumulation)
            config = replace(config, epochs=budget.epochs, batch_size=budget.batch_size)
    return fit_config(config, trial.learning_rate)


def _scored(task: TaskSpec, predictions: Predictions, dataset: Dataset) -> ScoredPredictions:
    return ScoredPredictions(predictions=predictions, scores=scores_of(task, predictions, dataset))


def _value(trained: Trained) -> float:
    return -math.inf if trained.fitted.best is None else trained.fitted.best


def budget_entry(run: ModelRun, trial: Trial, fitted: Fitted, *, n_rows: int) -> dict[str, Json]:
    """Say how much the head that was kept learned from."""
    n_steps = fitted.steps_per_epoch * len(fitted.history)
    if n_steps < FEW_STEPS:
        remedy = "give --protocol bend-hf-1" if run.config.protocol == "bend-2024" else "leave --epochs out"
        log.warning(
            "%s: the head took %s of the optimizer, fewer than %d, so its score says little; %s, or give a smaller "
            "--batch-size",
            run.data.task.key,
            counted(n_steps, "step"),
            FEW_STEPS,
            remedy,
        )
    return {
        "rows": n_rows,
        "batch_size": run_batch_size(run),
        "learning_rate": trial.learning_rate,
        "epochs": len(fitted.history),
        "steps": n_steps,
        "few_steps": n_steps < FEW_STEPS,
    }


def _train_trial(run: ModelRun, shares: OpenFold, trial: Trial, number: int | None) -> Trained:
    """Train one head of the search. One that an interrupted run finished is read from its checkpoint."""
    from bend_hf.training.checkpoints import Checkpoints
    from bend_hf.training.head_trainer import Callbacks, HeadData, fit
    from bend_hf.training.predict import predict

    task, accelerator, fold, splits = run.data.task, run.accelerator, shares.fold, shares.splits
    model = new_model(run, trial.head, fold, shares.embedder, shares.width)

    def validate(model: nn.Module) -> float | None:
        predictions = predict(
            model,
            splits["validation"],
            accelerator=accelerator,
            batch_size=run_batch_size(run),
            values_of=shares.loss.predict,
        )
        value = scores_of(task, predictions, main_only=True)[0].value
        return value if np.isfinite(value) else None

    folder, title, tracked = run.checkpoints / f"fold{fold or 0}", task.key, shares.name
    if fold:
        title, tracked = f"{title} fold {fold}", f"{tracked}__fold{fold}"
    if number is not None:
        folder, title, tracked = folder / f"trial{number}", f"{title} trial {number}", f"{tracked}__trial{number}"
    trackers = run.config.tracker if accelerator.is_main_process else ()  # each training is tracked once
    with (
        Bar(accelerator, title, unit="step") as bar,
        tracking(
            trackers,
            run=tracked,
            settings={**asdict(run.config), **trial.chosen},
            folder=run.config.out / "trackers",
        ) as log_epoch,
    ):
        fitted = fit(
            model,
            HeadData(train=splits["train"], loss=shares.loss, validate=validate),
            fit_config(run.config, trial.learning_rate),
            accelerator,
            checkpoints=Checkpoints(folder, writes=accelerator.is_main_process),
            callbacks=Callbacks(on_progress=bar.with_loss, on_epoch=log_epoch),
        )
    return Trained(trial=trial, fitted=fitted, model=model)


def run_batch_size(run: ModelRun) -> int:
    """Return the sequences per batch of a run."""
    return fit_config(run.config, 1.0).batch_size


def fit_config(config: RunConfig, learning_rate: float | None = None) -> FitConfig:
    """Return how a head is trained, from a resolved configuration.

    Args:
        config: The configuration.
        learning_rate: Of the trial; None for that of the configuration.

    Raises:
        ConfigError: A number is missing, as the task declares no training.
    """
    from bend_hf.training.head_trainer import FitConfig

    epochs, batch_size, learning_rate = config.epochs, config.batch_size, learning_rate or config.learning_rate
    if epochs is None or batch_size is None or learning_rate is None or config.weight_decay is None:
        raise ConfigError(
            f"{config.task} declares no training; give --epochs, --batch-size, --learning-rate and --weight-decay"
        )
    return FitConfig(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=config.weight_decay,
        seed=config.seed,
        schedule=config.schedule,
        warmup_steps=config.warmup_steps,
        accumulation=config.gradient_accumulation,
        patience=config.patience,
        checkpoint_every=config.checkpoint_every,
    )


def _embedder_for(run: ModelRun, fold: int | None) -> Embedder:
    """Return the embedder of a fold: the run's own, or a copy to fine-tune."""
    if run.config.tune == "head":
        return run.embedder
    from accelerate.utils import set_seed

    from bend_hf.training.finetuning import check_shardable, open_for_tuning

    if run.accelerator.is_fsdp2:
        check_shardable(run.embedder)
    set_seed(fold_seed(run.config.seed, fold))  # adapters start with random weights
    return open_for_tuning(run.embedder, run.config.tune)


def shared_datasets(run: ModelRun, fold: int | None) -> dict[str, list[Dataset]]:
    """Return the datasets that each split consists of. Folds share them, so that each is embedded once."""
    parts = list(run.data.subsets.values())
    if fold is None:
        return {name: [part] for name, part in run.data.subsets.items()}
    test, validation, train = fold_subsets(len(parts), fold=fold)
    return {"train": [parts[k] for k in train], "validation": [parts[validation]], "test": [parts[test]]}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a split gives to the model, the width of an embedding, and the cache files that it is read from."""

    source: InputSource
    width: int
    files: tuple[Path, ...] = ()


def _open_inputs(run: ModelRun, embedder: Embedder, datasets: list[Dataset], split: str) -> Inputs:
    """Open the inputs of a split: cached or new embeddings, or token ids if the embedder is fine-tuned."""
    config = run.config
    if config.tune != "head":
        from datasets import concatenate_datasets

        from bend_hf.training.finetuning import TokenSource

        return Inputs(source=TokenSource(concatenate_datasets(datasets), embedder), width=embedder.width)
    if run.mix is not None:
        return _open_mixed(run, run.mix, datasets, split)
    from bend_hf.embedders.cache import open_embeddings

    source = open_embeddings(
        datasets,
        embedder,
        cache_settings(run),
        accelerator=run.accelerator,
        label=f"{run.data.task.key} {split}",
    )
    return inputs_of(source, run.accelerator)


def _open_mixed(run: ModelRun, mix: MixedLayers, datasets: list[Dataset], split: str) -> Inputs:
    """Open several layers side by side."""
    from bend_hf.embedders.cache.layers import open_layers
    from bend_hf.embedders.cache.reader import CachedEmbeddings
    from bend_hf.training.layer_mix import SideBySide

    label = f"{run.data.task.key} {split}"
    found = open_layers(
        datasets, run.embedder, mix.layers, cache_settings(run), accelerator=run.accelerator, label=label
    )
    files = [one.files for one in found.values() if isinstance(one, CachedEmbeddings)]
    width = sum(one.width for one in found.values())
    return Inputs(
        source=SideBySide(list(found.values())), width=width, files=tuple(path for paths in files for path in paths)
    )


def cache_settings(run: ModelRun) -> CacheSettings:
    """Return where and how the embeddings of a run are cached."""
    from bend_hf.embedders.cache import CacheSettings

    config = run.config
    return CacheSettings(
        folder=config.cache, dtype=config.cache_dtype, no_cache=config.no_cache, pool_bp=pooled_bp(run.head)
    )


def train_split(dataset: Dataset, kind: LabelKind, source: InputSource, accelerator: Accelerator) -> Split:
    """Return a split to train on, its labels on the device if its embeddings are, so that a step copies none."""
    from bend_hf.embedders.cache.reader import DeviceEmbeddings
    from bend_hf.embedders.token_embeddings import Targets
    from bend_hf.training.batches import DeviceTargets, Split

    targets, held = Targets(dataset, kind), None
    if isinstance(source, DeviceEmbeddings) and DeviceTargets.fits(targets, accelerator.device):
        held = DeviceTargets(targets, accelerator.device)
    return Split(dataset=dataset, embeddings=source, targets=targets, device_targets=held)


def inputs_of(source: EmbeddingSource, accelerator: Accelerator) -> Inputs:
    """Return the inputs of a split: its embeddings, held on the device if they fit."""
    from bend_hf.embedders.cache.pooling import PooledEmbeddings
    from bend_hf.embedders.cache.reader import CachedEmbeddings, DeviceEmbeddings

    device = accelerator.device
    if isinstance(source, PooledEmbeddings):
        return Inputs(source=source, width=source.width, files=source.files)
    if not isinstance(source, CachedEmbeddings):
        return Inputs(source=source, width=source.width)
    on_device = DeviceEmbeddings(source, device) if DeviceEmbeddings.fits(source, device) else source
    return Inputs(source=on_device, width=source.width, files=source.files)


def new_model(run: ModelRun, head: Head, fold: int | None, embedder: Embedder, width: int) -> nn.Module:
    """Return the model to train. Its first weights depend on head, seed and fold only."""
    import torch
    from accelerate.utils import set_seed

    from bend_hf.training.sharding import choose_units

    set_seed(fold_seed(run.config.seed, fold))
    model = build_head(head, width if run.mix is None else width // len(run.mix.layers), run.data.task.n_outputs)
    model = model if run.mix is None else run.mix.over(model)
    if run.config.tune != "head":
        from bend_hf.training.finetuning import TunedModel

        model = TunedModel(embedder, model)
    choose_units(run.accelerator, model)
    if run.accelerator.process_index:  # the weights are those of the first process, the dropout is not
        torch.manual_seed(fold_seed(run.config.seed, fold, run.accelerator.process_index))
    return model


def fold_seed(seed: int, fold: int | None, rank: int = 0) -> int:
    """Return a seed for a fold and a process: that of the run if it has no folds and one process."""
    if fold is None and rank == 0:
        return seed
    return int(np.random.SeedSequence([seed, fold or 0, rank]).generate_state(1)[0])
