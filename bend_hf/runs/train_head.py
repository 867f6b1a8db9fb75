"""Trains what a run trains, fold by fold: opens each split's embeddings, fits a fresh head, predicts the test split.

>>> fold_seed(7, None), fold_seed(7, 1) == fold_seed(7, 2)
(7, False)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bend_hf.config import RunConfig
from bend_hf.data.builder import n_outputs
from bend_hf.data.dataset import TaskData, fold_parts
from bend_hf.errors import ConfigError
from bend_hf.evaluation.uncertainty.bootstrap import with_fold
from bend_hf.runs.outcome import FoldResult, scores_of
from bend_hf.training.progress import Bar
from bend_hf.training.trackers import tracking

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset
    from torch import nn

    from bend_hf.embedders._embedder import Embedder
    from bend_hf.tasks._spec import Head
    from bend_hf.training.batches import InputSource


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What a run will do.

    Attributes:
        config: Resolved for the task.
        head: What is trained; None where nothing is.
        key: Of the run; see ``bend_hf.evaluation.run_key``.
    """

    config: RunConfig
    head: Head | None
    key: str


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What gives a split's inputs, and the files of the cache that it reads; none where nothing is kept."""

    source: InputSource
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the folds of a run share.

    Attributes:
        plan: What is trained, and how.
        kept: Folder of the run's checkpoints.
        name: What to call the run.
    """

    plan: RunPlan
    data: TaskData
    embedder: Embedder
    accelerator: Accelerator
    kept: Path
    name: str

    def fold(self, fold: int | None) -> FoldResult:
        """Trains on one fold, or on the task's own split, and predicts the test split."""
        from bend_hf.embedders.token_embeddings import Targets
        from bend_hf.training.batches import Split
        from bend_hf.training.checkpoints import Checkpoints, load_trained
        from bend_hf.training.losses import build_loss
        from bend_hf.training.predict import predict
        from bend_hf.training.trainer import FitConfig, fit

        task, config, accelerator = self.data.task, self.plan.config, self.accelerator
        settings = FitConfig.of(config)
        assert task.training is not None
        datasets = self.data.splits(fold)
        for name in ("train", "validation", "test"):
            if not len(datasets.get(name, ())):
                raise ConfigError(f"{task.key} has no item in its split {name!r}; check the split column of the bed")
        embedder = self.embedder
        if config.tune != "head":
            from accelerate.utils import set_seed

            from bend_hf.training.finetuning import check_shardable, open_for_tuning

            if accelerator.is_fsdp2:
                check_shardable(embedder)
            set_seed(fold_seed(config.seed, fold))  # adapters start with random weights
            embedder = open_for_tuning(embedder, config.tune)
        opened = {
            name: self._inputs(embedder, dataset, self._parts(fold)[name], name) for name, dataset in datasets.items()
        }
        splits = {
            name: Split(dataset=dataset, embeddings=opened[name].source, targets=Targets(dataset, task.label))
            for name, dataset in datasets.items()
        }
        model = self._fresh_model(fold, embedder)

        def validate(model: nn.Module) -> float | None:
            predictions = predict(model, splits["validation"], accelerator, batch_size=settings.batch_size)
            value = scores_of(task, predictions, main_only=True)[0].value
            return value if np.isfinite(value) else None

        run = self.name + (f"__fold{fold}" if fold else "")
        trackers = config.tracker if accelerator.is_main_process else ()  # a run is told of once
        with (
            Bar(accelerator, task.key + (f" fold {fold}" if fold else ""), unit="step") as bar,
            tracking(trackers, run=run, config=config, folder=config.out / "trackers") as tell,
        ):
            fitted = fit(
                model,
                splits["train"],
                build_loss(task.training.loss, positive_weight=task.training.positive_weight),
                settings,
                accelerator,
                validate,
                bar.with_loss,
                checkpoints=Checkpoints(self.kept / f"fold{fold or 0}", writes=accelerator.is_main_process),
                on_epoch=tell,
            )
        load_trained(model, fitted.state)
        predictions = predict(model, splits["test"], accelerator, batch_size=settings.batch_size)
        predictions = with_fold(predictions, fold)
        return FoldResult(
            fold=fold,
            predictions=predictions,
            scores=scores_of(task, predictions),
            fitted=fitted,
            cached=frozenset(file for one in opened.values() for file in one.files),
        )

    def _parts(self, fold: int | None) -> dict[str, list[Dataset]]:
        """The datasets that each split consists of; folds share theirs, which are embedded once."""
        parts = list(self.data.parts.values())
        if fold is None:
            return {name: [part] for name, part in self.data.parts.items()}
        test, validation, train = fold_parts(len(parts), fold=fold)
        return {"train": [parts[k] for k in train], "validation": [parts[validation]], "test": [parts[test]]}

    def _inputs(self, embedder: Embedder, dataset: Dataset, parts: list[Dataset], name: str) -> Opened:
        """What a split gives the model: embeddings, out of the cache or made now, or tokens where those learn."""
        config = self.plan.config
        if config.tune != "head":
            from bend_hf.training.finetuning import TokenSource

            return Opened(source=TokenSource(dataset, embedder))
        from bend_hf.embedders.cache import default_folder, open_embeddings
        from bend_hf.embedders.cache.reader import CachedEmbeddings, HeldEmbeddings

        source = open_embeddings(
            parts,
            embedder,
            folder=config.cache or default_folder(),
            dtype=config.cache_dtype,
            no_cache=config.no_cache,
            accelerator=self.accelerator,
            label=f"{self.data.task.key} {name}",
        )
        device = self.accelerator.device
        if not isinstance(source, CachedEmbeddings):
            return Opened(source=source)
        held = HeldEmbeddings(source, device) if HeldEmbeddings.fits(source, device) else source
        return Opened(source=held, files=source.files)

    def _fresh_model(self, fold: int | None, embedder: Embedder) -> nn.Module:
        """What is trained, with its first weights, the same whatever was trained before it."""
        import torch
        from accelerate.utils import set_seed

        from bend_hf.training.heads import build_head
        from bend_hf.training.sharding import choose_units

        seed = self.plan.config.seed
        assert self.plan.head is not None
        set_seed(fold_seed(seed, fold))
        model = build_head(self.plan.head, embedder.width, n_outputs(self.data.task))
        if self.plan.config.tune != "head":
            from bend_hf.training.finetuning import TunedModel

            model = TunedModel(embedder, model)
        choose_units(self.accelerator, model)
        if self.accelerator.process_index:  # the weights are those of the first process, the dropout its own
            torch.manual_seed(fold_seed(seed, fold, self.accelerator.process_index))
        return model


def fold_seed(seed: int, fold: int | None, rank: int = 0) -> int:
    """A seed for each fold and process; the run's own where there is one of both."""
    if fold is None and rank == 0:
        return seed
    return int(np.random.SeedSequence([seed, fold or 0, rank]).generate_state(1)[0])
