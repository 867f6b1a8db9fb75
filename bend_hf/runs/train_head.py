"""Train a head on each fold of a task: open the embeddings of each split, fit a new head, predict the test split.

>>> fold_seed(7, None), fold_seed(7, 1) == fold_seed(7, 2)
(7, False)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bend_hf.data.builder import n_outputs
from bend_hf.data.dataset import fold_subsets
from bend_hf.errors import ConfigError
from bend_hf.evaluation.record import jsonable
from bend_hf.evaluation.uncertainty.bootstrap import with_fold
from bend_hf.runs.outcome import FoldResult, RunResults, cached_bytes, scores_of
from bend_hf.training.heads import build_head, head_entry
from bend_hf.training.progress import Bar
from bend_hf.training.trackers import tracking

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import nn

    from bend_hf.config import RunConfig
    from bend_hf.embedders._embedder import Embedder
    from bend_hf.runs.run import ModelRun
    from bend_hf.training.batches import InputSource
    from bend_hf.training.head_trainer import FitConfig


def train_head(run: ModelRun, name: str) -> RunResults:
    """Train and test a head on each fold.

    Args:
        run: The run; its task declares how it is trained.
        name: Name of the run for trackers.
    """
    folds = [_train_fold(run, fold, name) for fold in run.folds]
    return RunResults(
        folds=folds,
        head=head_entry(run.head),
        loss=jsonable(run.data.task.training),
        cache_bytes=cached_bytes(folds),
    )


def _train_fold(run: ModelRun, fold: int | None, name: str) -> FoldResult:
    """Train on one fold, or on the task's own split, and predict the test split."""
    from bend_hf.embedders.token_embeddings import Targets
    from bend_hf.training.batches import Split
    from bend_hf.training.checkpoints import Checkpoints, load_trained
    from bend_hf.training.head_trainer import Callbacks, HeadData, fit
    from bend_hf.training.losses import build_loss
    from bend_hf.training.predict import predict

    task, config, accelerator = run.data.task, run.config, run.accelerator
    settings = fit_config(config)
    if task.training is None:
        raise ConfigError(f"{task.key} declares no training, so no head can be trained on it")
    embedder = _embedder_for(run, fold)
    datasets, shared = run.data.splits(fold), _shared_datasets(run, fold)
    inputs = {split: _open_inputs(run, embedder, shared[split], split) for split in datasets}
    splits = {
        split: Split(dataset=dataset, embeddings=inputs[split].source, targets=Targets(dataset, task.label))
        for split, dataset in datasets.items()
    }
    model = _new_model(run, fold, embedder)
    loss = build_loss(task.training.loss, positive_weight=task.training.positive_weight)
    predict_split = partial(predict, accelerator=accelerator, batch_size=settings.batch_size, values_of=loss.predict)

    def validate(model: nn.Module) -> float | None:
        predictions = predict_split(model, splits["validation"])
        value = scores_of(task, predictions, main_only=True)[0].value
        return value if np.isfinite(value) else None

    trackers = config.tracker if accelerator.is_main_process else ()  # each run is tracked once
    with (
        Bar(accelerator, task.key + (f" fold {fold}" if fold else ""), unit="step") as bar,
        tracking(
            trackers,
            run=name + (f"__fold{fold}" if fold else ""),
            settings=asdict(config),
            folder=config.out / "trackers",
        ) as log_epoch,
    ):
        fitted = fit(
            model,
            HeadData(
                train=splits["train"],
                loss=loss,
                validate=validate,
            ),
            settings,
            accelerator,
            checkpoints=Checkpoints(run.checkpoints / f"fold{fold or 0}", writes=accelerator.is_main_process),
            callbacks=Callbacks(on_progress=bar.with_loss, on_epoch=log_epoch),
        )
    load_trained(model, fitted.state)
    predictions = with_fold(predict_split(model, splits["test"]), fold)
    return FoldResult(
        fold=fold,
        predictions=predictions,
        scores=scores_of(task, predictions),
        training={
            "best_epoch": fitted.best_epoch,
            "resumed_at_step": fitted.resumed_at,
            "history": jsonable(fitted.history),
        },
        cache_files=frozenset(file for one in inputs.values() for file in one.files),
    )


def fit_config(config: RunConfig) -> FitConfig:
    """Return how a head is trained, from a resolved configuration.

    Raises:
        ConfigError: A number is missing, as the task declares no training.
    """
    from bend_hf.training.head_trainer import FitConfig

    epochs, batch_size, learning_rate = config.epochs, config.batch_size, config.learning_rate
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


def _shared_datasets(run: ModelRun, fold: int | None) -> dict[str, list[Dataset]]:
    """Return the datasets that each split consists of. Folds share them, so that each is embedded once."""
    parts = list(run.data.subsets.values())
    if fold is None:
        return {name: [part] for name, part in run.data.subsets.items()}
    test, validation, train = fold_subsets(len(parts), fold=fold)
    return {"train": [parts[k] for k in train], "validation": [parts[validation]], "test": [parts[test]]}


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """What a split gives to the model, and the cache files that it is read from."""

    source: InputSource
    files: tuple[Path, ...] = ()


def _open_inputs(run: ModelRun, embedder: Embedder, datasets: list[Dataset], split: str) -> _Inputs:
    """Open the inputs of a split: cached or new embeddings, or token ids if the embedder is fine-tuned."""
    config = run.config
    if config.tune != "head":
        from datasets import concatenate_datasets

        from bend_hf.training.finetuning import TokenSource

        return _Inputs(source=TokenSource(concatenate_datasets(datasets), embedder))
    from bend_hf.embedders.cache import CacheSettings, open_embeddings
    from bend_hf.embedders.cache.reader import CachedEmbeddings, DeviceEmbeddings

    source = open_embeddings(
        datasets,
        embedder,
        CacheSettings(folder=config.cache, dtype=config.cache_dtype, no_cache=config.no_cache),
        accelerator=run.accelerator,
        label=f"{run.data.task.key} {split}",
    )
    device = run.accelerator.device
    if not isinstance(source, CachedEmbeddings):
        return _Inputs(source=source)
    on_device = DeviceEmbeddings(source, device) if DeviceEmbeddings.fits(source, device) else source
    return _Inputs(source=on_device, files=source.files)


def _new_model(run: ModelRun, fold: int | None, embedder: Embedder) -> nn.Module:
    """Return the model to train. Its first weights depend on seed and fold only."""
    import torch
    from accelerate.utils import set_seed

    from bend_hf.training.sharding import choose_units

    if run.head is None:
        raise ConfigError(f"{run.data.task.key} is scored without training and has no head")
    set_seed(fold_seed(run.config.seed, fold))
    model = build_head(run.head, embedder.width, n_outputs(run.data.task))
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
