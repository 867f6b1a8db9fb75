"""Which trained weights a run keeps next to its record, what they take, and what their header says of the run."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bend_hf.embedders.cache.open import worth_caching
from bend_hf.errors import RecordError
from bend_hf.registry import names_file
from bend_hf.runs.settings import embedder_config
from bend_hf.tables import n_bytes
from bend_hf.training.heads import build_head, head_entry

if TYPE_CHECKING:
    from torch import Tensor

    from bend_hf.embedders._embedder import Embedder
    from bend_hf.runs.run import ModelRun
    from bend_hf.runs.train_head import Trained
    from bend_hf.tasks._spec import Head
    from bend_hf.training.gene_grammar import Grammar
    from bend_hf.training.kept_head import KeptHead

log = logging.getLogger(__name__)


def announce_kept(run: ModelRun, heads: Sequence[Head], embedder: Embedder, width: int) -> None:
    """Say what the trained weights will take on the disk, before anything is trained.

    Args:
        run: The run.
        heads: The heads that are tried, of which one is kept.
        embedder: The embedder, with the weights that are trained too.
        width: Width of its embeddings.

    Raises:
        RecordError: The disk cannot hold them.
    """
    from bend_hf.training.kept_head import trained_bytes

    outputs = run.data.task.n_outputs
    size = max(trained_bytes(build_head(head, width, outputs)) for head in heads)
    if run.config.tune != "head" and embedder.model is not None:
        size += trained_bytes(embedder.model)
    run.config.out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(run.config.out).free
    if size > free:
        raise RecordError(
            f"the trained weights take {n_bytes(size)}, but {run.config.out} has {n_bytes(free)} free; free some "
            "space, or give --keep none"
        )
    if run.accelerator.is_main_process:
        log.info(
            "%s: the weights of the %s epoch are kept next to the record, %s; --keep none keeps none",
            run.data.task.key,
            run.keep,
            n_bytes(size),
        )


def kept_head(
    run: ModelRun,
    trained: Trained,
    width: int,
    fold: int | None,
    *,
    last: Mapping[str, Tensor] | None = None,
    grammar: Grammar | None = None,
) -> KeptHead | None:
    """Return the trained weights to keep with their configuration; None if none are kept. Every process must call it.

    Args:
        run: The run.
        trained: The trial that was best on the validation split.
        width: Width of the embeddings.
        fold: Counted from 1; None if the task has no folds.
        last: Weights of the last epoch, if these are kept.
        grammar: With which genes are decoded; None if they are not.
    """
    from bend_hf.training.finetuning import LORA
    from bend_hf.training.kept_head import HeadConfig, KeptHead, stored_flags

    task, config, head, fitted = run.data.task, run.config, trained.trial.head, trained.fitted
    if run.keep == "none" or task.training is None:
        return None
    is_best = last is None
    final = fitted.history[-1] if fitted.history else None
    cached = config.tune == "head" and not config.no_cache and worth_caching(run.embedder)
    source = (head_entry(head) or {}).get("source_sha256")
    return KeptHead(
        config=HeadConfig(
            task=task.key,
            label=task.label,
            window_bp=task.window_bp,
            stranded=task.stranded,
            loss=task.training.loss,
            head=head,
            head_file=config.head if config.head is not None and names_file(config.head) else None,
            head_source=None if source is None else str(source),
            width=width,
            n_outputs=task.n_outputs,
            tune=config.tune,
            rounded_to=config.cache_dtype if cached else None,
            model=stored_flags(embedder_config(config)),
            is_object=run.is_object,
            identity=dict(run.identity),
            kept="best" if is_best else "last",
            epoch=fitted.best_epoch if is_best else len(fitted.history),
            validation=fitted.best if is_best else None if final is None else final.validation,
            fold=fold,
            seed=config.seed,
            grammar=None if grammar is None else grammar.as_json(),
            lora=dict(LORA) if config.tune == "lora" else {},
        ),
        tensors=fitted.state if last is None else last,
    )
