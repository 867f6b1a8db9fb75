"""Score variants without training, resumable and spread over processes.

    result = score_variants(DatasetSource(dataset, ("benign", "pathogenic")), embedder, accelerator)
    result.predictions.score                               # BEND's: the cosine distance at the variant
    result.predictions.columns["log_likelihood_ratio"]     # each other score is a column

Variants are sorted by position and cut into batches of a fixed size. One process scores a batch as a whole, so neither
the number of processes nor a restart changes a result.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bend_hf.embedders._pipeline import prefetch
from bend_hf.errors import InputError, ModelError, NotFiniteError
from bend_hf.evaluation.predictions import Predictions, concatenate
from bend_hf.types import Ints, Json
from bend_hf.variants.alleles import Context, StoredVariants
from bend_hf.variants.batch import VariantBatch, VariantModel
from bend_hf.variants.checkpoint import ScoringCheckpoint, content_key
from bend_hf.variants.config import ScoreSettings
from bend_hf.variants.read import COORDINATES, VariantSource
from bend_hf.variants.scores import MAIN, SCORES, score_keys

if TYPE_CHECKING:
    from accelerate import Accelerator

    from bend_hf.embedders._embedder import Embedder

log = logging.getLogger(__name__)

_FORMAT: Final = 4  # raised when a batch's columns or the arithmetic change, so that older batches are left alone
_BATCH_VARIANTS: Final = 256
_DEVICE_BYTES: Final = 1 << 28  # of embeddings that stay on the device at a time
_CONTEXT_COLUMNS: Final = ("left_bp", "right_bp")
REF_EMBEDDING, ALT_EMBEDDING = "ref_row", "alt_row"


@dataclass(frozen=True, kw_only=True)
class ScoringResult:
    """The scores of all variants.

    Attributes:
        predictions: Every variant with all its scores, ordered by item.
        keys: Keys of the batches on disk, in the order of the genome; empty if none were kept.
        no_likelihood: Why there are no likelihoods; empty if there are.
        short_context: Number of variants so near the end of a contig that the model was shown less context.
    """

    predictions: Predictions
    keys: list[str]
    no_likelihood: str
    short_context: int


def score_variants(
    source: VariantSource,
    embedder: Embedder,
    accelerator: Accelerator,
    settings: ScoreSettings | None = None,
    *,
    checkpoint: ScoringCheckpoint | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ScoringResult:
    """Compute every score of every variant, spread over the processes.

    Args:
        source: The variants.
        embedder: The model.
        accelerator: The processes.
        settings: What is scored; by default everything but the average over both strands.
        checkpoint: Keeps finished batches, from which an interrupted run resumes; None keeps none.
        on_progress: Called with the number of this process's variants that are done, and their total.

    Raises:
        InputError: There is no variant.
        ModelError: Likelihoods are needed and the model has none.
    """
    settings = settings or ScoreSettings()
    order = source.by_site()
    if not len(order):
        raise InputError("there is no variant to score; check the input file")
    model = VariantModel.of(embedder, settings)
    if model.no_likelihood and settings.likelihood:
        log.info("no likelihoods: %s", model.no_likelihood)
    batches = _cut(order)
    numbers = range(accelerator.process_index, len(batches), accelerator.num_processes)
    n_mine, n_done = sum(len(batches[number]) for number in numbers), 0
    affects = _affecting(model, checkpoint)
    found: list[tuple[int, str, pa.Table]] = []

    def scored(batch: tuple[int, pa.Table]) -> tuple[int, str, pa.Table]:
        number, given = batch
        key, table = _resume_or_score(model, given, checkpoint, affects)
        return number, key, without_embeddings(table)

    given = ((number, source.table(batches[number])) for number in numbers)
    n_threads = embedder.n_threads
    n_ahead = n_threads if n_threads > 1 else 0
    with closing(prefetch(scored, given, n_ahead=n_ahead, n_threads=n_threads)) as each:
        for one in each:
            found.append(one)
            n_done += len(one[2])
            on_progress(n_done, n_mine)
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        found = gather_object(found)
    found.sort(key=lambda entry: entry[0])
    predictions = concatenate([_predictions(scored, source.label_names) for _, _, scored in found])
    return ScoringResult(
        predictions=predictions,
        keys=[key for _, key, _ in found if key],
        no_likelihood=model.no_likelihood,
        short_context=_count_short_contexts(predictions, model.context),
    )


def batch_keys(
    source: VariantSource, embedder: Embedder, settings: ScoreSettings, checkpoint: ScoringCheckpoint
) -> list[str]:
    """Return the keys that ``score_variants`` gives its batches on disk, without scoring them.

    Args:
        source: The variants.
        embedder: The model.
        settings: What is scored.
        checkpoint: Where the batches are, if a scoring was interrupted.
    """
    affects = _affecting(VariantModel.of(embedder, settings), checkpoint)
    return [content_key(affects, source.table(batch)) for batch in _cut(source.by_site())]


def _cut(order: Ints) -> list[Ints]:
    return [order[at : at + _BATCH_VARIANTS] for at in range(0, len(order), _BATCH_VARIANTS)]


def _affecting(model: VariantModel, checkpoint: ScoringCheckpoint | None) -> dict[str, Json]:
    """Return what is hashed with the variants of a batch to name it in the checkpoint."""
    affects: dict[str, Json] = {"format": _FORMAT, "scores": list(score_keys())}
    return affects if checkpoint is None else affects | model.identity_in(checkpoint.folder)


def _resume_or_score(
    model: VariantModel, given: pa.Table, checkpoint: ScoringCheckpoint | None, affects: dict[str, Json]
) -> tuple[str, pa.Table]:
    """Return a batch's key in the checkpoint, empty without one, and its scores."""
    if checkpoint is None:
        return "", score_batch(model, given)
    key = content_key(affects, given)
    kept = [name for name in given.column_names if name not in ("sequence", "variant_offset")]
    scored = checkpoint.read(key, [*kept, *score_keys(), *_CONTEXT_COLUMNS])
    if scored is None:
        scored = score_batch(model, given)
        checkpoint.write(key, scored)
    return key, scored


def score_batch(model: VariantModel, given: pa.Table) -> pa.Table:
    """Compute all scores of some variants.

    Args:
        model: The model.
        given: Variants as ``VariantSource.table`` returns them.

    Returns:
        The given columns except the sequences, and a float32 column per score, null if a variant has no such score.
    """
    longest_bp = model.context.left_bp + model.context.right_bp + 1
    group = max(8, _DEVICE_BYTES // (2 * 4 * longest_bp * max(model.embedder.width, 1)))
    return pa.concat_tables([_score_or_name(model, given.slice(at, group)) for at in range(0, len(given), group)])


def _score_or_name(model: VariantModel, given: pa.Table) -> pa.Table:
    """Score some variants; if the model gives nan or infinity, find the first variant that it gives it for.

    Raises:
        ModelError: It does; the message names the variant.
    """
    try:
        return _score_group(model, given)
    except NotFiniteError as error:
        half = len(given) // 2
        if half:
            for part in (given.slice(0, half), given.slice(half)):
                _score_or_name(model, part)
        row = given.slice(0, 1).select(list(COORDINATES)).to_pylist()[0]
        place = f"{row['chromosome']}:{row['start'] + 1} {row['ref']}>{row['alt']}"
        where = place if len(given) == 1 else f"{len(given)} variants from {place} on, scored together"
        raise ModelError(f"{where}: {error}") from error


def _score_group(model: VariantModel, given: pa.Table) -> pa.Table:
    stored = StoredVariants.of(given)
    shown = stored.alleles(model.context)
    n = len(given)
    columns = {key: np.full(n, np.nan) for key in score_keys()}
    table = given.drop_columns(["sequence", "variant_offset"])
    substitutions, others = np.flatnonzero(shown.is_substitution), np.flatnonzero(~shown.is_substitution)
    batch = VariantBatch(model=model, stored=_take(stored, substitutions))
    if len(substitutions):
        for key, values in _substitution_scores(batch):
            columns[key][substitutions] = values
    if len(others):
        if model.likelihoods is None:
            raise ModelError(
                f"{len(others)} variants are insertions or deletions, which only likelihoods can score: "
                f"{model.no_likelihood}"
            )
        indels = VariantBatch(model=model, stored=stored.take(others))
        for score in SCORES:
            if score.scores_indels:
                columns[score.key][others] = score.compute(indels)
    for key, values in columns.items():
        table = table.append_column(key, pa.array(values.astype(np.float32), from_pandas=True))  # nan becomes null
    table = table.append_column("left_bp", pa.array(shown.left_bp.astype(np.int32)))
    table = table.append_column("right_bp", pa.array(shown.right_bp.astype(np.int32)))
    if model.settings.keep_embeddings and len(substitutions):
        for name, embeddings in ((REF_EMBEDDING, batch.ref_embeddings), (ALT_EMBEDDING, batch.alt_embeddings)):
            table = table.append_column(name, _embedding_column(embeddings, substitutions, n))
    return table


def _substitution_scores(batch: VariantBatch) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Compute each score that the settings ask for and the model has."""
    for score in SCORES:
        if score.needs == "sequence" and not batch.settings.averages:
            continue
        if score.needs == "likelihood" and batch.model.likelihoods is None:
            continue
        yield score.key, score.compute(batch)


def without_embeddings(scored: pa.Table) -> pa.Table:
    """Drop the embeddings of both alleles."""
    return scored.drop_columns([name for name in (REF_EMBEDDING, ALT_EMBEDDING) if name in scored.column_names])


def _take(stored: StoredVariants, chosen: Ints) -> StoredVariants:
    return stored if len(chosen) == len(stored) else stored.take(chosen)


def _embedding_column(values: NDArray[np.float64], chosen: Ints, n: int) -> pa.Array:
    """Lay embeddings out as a column of n variants; null if a variant has none."""
    width = values.shape[1]
    whole = np.zeros((n, width), np.float32)
    whole[chosen] = values
    missing = np.ones(n, np.bool_)
    missing[chosen] = False
    flat = pa.array(whole.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, width, mask=pa.array(missing) if missing.any() else None)


def _count_short_contexts(predictions: Predictions, context: Context) -> int:
    left, right = (predictions.columns[name].to_numpy() for name in _CONTEXT_COLUMNS)
    return int(((left < context.left_bp) | (right < context.right_bp)).sum())


def _predictions(scored: pa.Table, label_names: tuple[str, ...]) -> Predictions:
    kept = [name for name in scored.column_names if name not in ("item", "label", MAIN)]
    further = [name for name in kept if name not in COORDINATES]
    return Predictions(
        item=scored["item"].to_numpy(),
        windows=np.arange(len(scored) + 1),
        target=scored["label"].to_numpy().astype(np.int16),
        score=scored[MAIN].to_numpy().astype(np.float32),
        predicted=None,
        label_names=label_names,
        columns={name: scored[name].combine_chunks() for name in (*COORDINATES, *further)},
    )
