"""Scores variants without training: every score of every variant, resumable and spread over processes.

    predictions = score_zero_shot(dataset, embedder, spec, ("benign", "pathogenic"), accelerator)
    predictions.score                              # BEND's: the cosine distance at the variant
    predictions.beside["log_likelihood_ratio"]     # and the others, a column each

Variants are taken in the order of the genome, in pieces of a fixed number. A piece is scored whole by one process,
the same way whichever process it is, so that neither the number of processes nor a restart changes a result.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from bend_hf.errors import ConfigError
from bend_hf.evaluation.predictions import Predictions, concatenate
from bend_hf.tasks import VariantSpec
from bend_hf.variants.alleles import Context
from bend_hf.variants.parts import Parts, content_key
from bend_hf.variants.piece import CONTEXT_COLUMNS, PieceMaker, without_rows
from bend_hf.variants.scores import MAIN
from bend_hf.variants.settings import ScoreSettings
from bend_hf.variants.source import CONSEQUENCE, PLACES, DatasetSource, VariantSource

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

    from bend_hf.embedders._base import Embedder

log = logging.getLogger(__name__)

_PART_VARIANTS: Final = 256


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What scoring gave.

    Attributes:
        predictions: Every variant with all its scores, by item.
        keys: Keys of the pieces on disk, in the order of the genome; empty where none were kept.
        no_likelihood: Why there are no likelihoods; empty where there are.
        short_context: Variants so near a contig's end that the model saw less context than of the others.
    """

    predictions: Predictions
    keys: list[str]
    no_likelihood: str
    short_context: int


def score_zero_shot(
    dataset: Dataset,
    embedder: Embedder,
    spec: VariantSpec,
    label_names: tuple[str, ...],
    accelerator: Accelerator,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    settings: ScoreSettings | None = None,
    parts: Path | None = None,
    keep: tuple[str, ...] = (CONSEQUENCE,),
) -> Predictions:
    """Scores every variant of a dataset, spread over the processes.

    Causal models see the sequence up to the variant and no further; the others the same on either side.

    Args:
        dataset: Variants with ``sequence``, ``variant_offset``, ``ref``, ``alt`` and ``label``.
        embedder: What embeds the alleles.
        spec: How much context they get.
        label_names: Names of the two classes.
        accelerator: The processes.
        progress: Told how many of this process's variants are done, and how many there are.
        settings: What is scored; the scores at the variant and around it, and likelihoods, by default.
        parts: Folder for finished pieces, which a killed run goes on from; None keeps none.
        keep: Further columns that are kept beside the scores where there are any of that name.

    Raises:
        ConfigError: There is no variant.
        ModelError: Likelihoods are needed and the model has none.
    """
    return score_variants(
        DatasetSource(dataset, keep),
        embedder,
        spec,
        label_names,
        accelerator,
        settings or ScoreSettings(),
        parts=None if parts is None else Parts(parts),
        progress=progress,
    ).predictions


def score_variants(
    source: VariantSource,
    embedder: Embedder,
    spec: VariantSpec,
    label_names: tuple[str, ...],
    accelerator: Accelerator,
    settings: ScoreSettings,
    *,
    parts: Parts | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scored:
    """As ``score_zero_shot``, for variants from anywhere; says more of how it went."""
    order = source.by_site()
    if not len(order):
        raise ConfigError("there is no variant to score; check the bed")
    maker = PieceMaker.of(embedder, spec, settings)
    if maker.no_likelihood and settings.likelihood:
        log.info("no likelihoods: %s", maker.no_likelihood)
    chunks = [order[at : at + _PART_VARIANTS] for at in range(0, len(order), _PART_VARIANTS)]
    numbers = range(accelerator.process_index, len(chunks), accelerator.num_processes)
    decides = maker.identity()
    n_mine, n_done = sum(len(chunks[number]) for number in numbers), 0
    found: list[tuple[int, str, pa.Table]] = []
    for number in numbers:
        given = source.table(chunks[number])
        key = "" if parts is None else content_key(decides, given)
        piece = None if parts is None else parts.read(key, maker.columns(given.column_names))
        if piece is None:
            piece = maker.score(given)
            if parts is not None:
                parts.write(key, piece)
        found.append((number, key, without_rows(piece)))
        n_done += len(given)
        progress(n_done, n_mine)
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        found = gather_object(found)
    found.sort(key=lambda entry: entry[0])
    predictions = concatenate([_predictions(piece, label_names) for _, _, piece in found])
    return Scored(
        predictions=predictions,
        keys=[key for _, key, _ in found if key],
        no_likelihood=maker.no_likelihood,
        short_context=_short_context(predictions, maker.context),
    )


def _short_context(predictions: Predictions, context: Context) -> int:
    left, right = (predictions.beside[name].to_numpy() for name in CONTEXT_COLUMNS)
    return int(((left < context.left_bp) | (right < context.right_bp)).sum())


def _predictions(piece: pa.Table, label_names: tuple[str, ...]) -> Predictions:
    kept = [name for name in piece.column_names if name not in ("item", "label", MAIN)]
    beside = {name: piece[name].combine_chunks() for name in [*PLACES, *(n for n in kept if n not in PLACES)]}
    return Predictions(
        item=piece["item"].to_numpy(),
        windows=np.arange(len(piece) + 1),
        target=piece["label"].to_numpy().astype(np.int16),
        score=piece[MAIN].to_numpy().astype(np.float32),
        predicted=None,
        label_names=label_names,
        beside=beside,
    )
