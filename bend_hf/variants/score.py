"""Scores variants without training: every score of every variant, resumable and spread over processes.

    predictions = score_zero_shot(dataset, embedder, spec, ("benign", "pathogenic"), accelerator)
    predictions.score                              # BEND's: the cosine distance at the variant
    predictions.columns["log_likelihood_ratio"]     # and the others, a column each

Variants are taken in the order of the genome, in pieces of a fixed number. A piece is scored whole by one process,
the same way whichever process it is, so that neither the number of processes nor a restart changes a result.

All scores of a piece of the variants, as a table; one process makes it whole, whichever that is.

    maker = PieceMaker.of(embedder, spec, settings)
    maker.score(source.table(rows))["score"]

>>> REF_ROW, ALT_ROW
('ref_row', 'alt_row')
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bend_hf.errors import ConfigError, ModelError
from bend_hf.evaluation.predictions import Predictions, concatenate
from bend_hf.tasks import VariantSpec
from bend_hf.types import Ints, Json
from bend_hf.variants.allele_embeddings import tokens_overlap
from bend_hf.variants.alleles import Alleles, Context
from bend_hf.variants.checkpoint import ScoringCheckpoint, content_key
from bend_hf.variants.config import ScoreSettings
from bend_hf.variants.embedding_scores import MAIN, SCORE_COLUMNS, by_embedding
from bend_hf.variants.likelihood_scores import LikelihoodScores, Scorer, Sites
from bend_hf.variants.read import CONSEQUENCE, PLACES, DatasetSource, VariantSource

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

    from bend_hf.embedders._embedder import Embedder

_FORMAT: Final = 2  # raised when a piece's columns or the arithmetic change, so that older ones are left alone
_GROUP_BYTES: Final = 1 << 28  # of rows that stay on the device at a time
CONTEXT_COLUMNS: Final = ("left_bp", "right_bp")
REF_ROW, ALT_ROW = "ref_row", "alt_row"


@dataclass(frozen=True, kw_only=True)
class PieceMaker:
    """One model with the settings it scores by.

    Attributes:
        embedder: The model.
        context: What it sees around a variant.
        settings: What is scored.
        likelihood: Its likelihoods; None where it has none, or they were not asked for.
        no_likelihood: Why there are none; empty where there are.
        overlaps: Whether its tokens share letters.
    """

    embedder: Embedder
    context: Context
    settings: ScoreSettings
    likelihood: LikelihoodScores | None
    no_likelihood: str
    overlaps: bool

    @classmethod
    def of(cls, embedder: Embedder, spec: VariantSpec, settings: ScoreSettings) -> PieceMaker:
        """For one model.

        Raises:
            ModelError: Likelihoods are needed and the model has none.
        """
        context = Context.of(spec, causal=embedder.direction == "causal")
        likelihood, reason = None, "" if settings.likelihood else "they were not asked for"
        if settings.likelihood:
            try:
                likelihood = LikelihoodScores(
                    scorer=Scorer.of(embedder),
                    context=context,
                    indel_context=Context(left_bp=context.left_bp, right_bp=spec.context_bp),
                    both_strands=settings.both_strands,
                )
            except ModelError as error:
                if settings.need_likelihood:
                    raise
                reason = str(error)
        return cls(
            embedder=embedder,
            context=context,
            settings=settings,
            likelihood=likelihood,
            no_likelihood=reason,
            overlaps=tokens_overlap(embedder),
        )

    def identity(self) -> Json:
        """What decides the scores beside the variants."""
        return {
            "format": _FORMAT,
            "embedder": dict(self.embedder.identity),
            "batch_tokens": self.embedder.batch_tokens,
            "context": asdict(self.context),
            "settings": asdict(self.settings),
        }

    def columns(self, given: Sequence[str]) -> list[str]:
        """Columns that are read from a finished piece: all but the rows, which only a probe wants."""
        kept = [name for name in given if name not in ("sequence", "variant_offset")]
        return [*kept, *(column.name for column in SCORE_COLUMNS), *CONTEXT_COLUMNS]

    def score(self, given: pa.Table) -> pa.Table:
        """All scores of some variants, beside what was given but for the sequences."""
        longest_bp = self.context.left_bp + self.context.right_bp + 1
        group = max(8, _GROUP_BYTES // (2 * 4 * longest_bp * max(self.embedder.width, 1)))
        return pa.concat_tables([self._score_group(given.slice(at, group)) for at in range(0, len(given), group)])

    def _score_group(self, given: pa.Table) -> pa.Table:
        sites = Sites(
            sequences=given["sequence"].to_pylist(),
            offset_bp=given["variant_offset"].to_numpy().astype(np.int64),
            ref=given["ref"].to_pylist(),
            alt=given["alt"].to_pylist(),
        )
        pair = sites.shown(self.context)
        n = len(given)
        columns = {column.name: np.full(n, np.nan) for column in SCORE_COLUMNS}
        rows = {}
        single = np.flatnonzero(pair.is_substitution)
        if len(single):
            compared = by_embedding(self.embedder, _taken(pair, single), self.settings, overlaps=self.overlaps)
            found = dict(compared.scores)
            if self.likelihood is not None:
                found |= self.likelihood.of_substitutions(sites.taken(single))
            for name, values in found.items():
                columns[name][single] = values
            if self.settings.keep_rows:
                rows = {REF_ROW: _row_column(compared.ref, single, n), ALT_ROW: _row_column(compared.alt, single, n)}
        others = np.flatnonzero(~pair.is_substitution)
        if len(others):
            columns["log_likelihood_ratio"][others] = self._of_indels(sites.taken(others))
        table = given.drop_columns(["sequence", "variant_offset"])
        for name, values in columns.items():
            # nan is null: no score of that kind
            table = table.append_column(name, pa.array(values.astype(np.float32), from_pandas=True))
        table = table.append_column("left_bp", pa.array(pair.left_bp.astype(np.int32)))
        table = table.append_column("right_bp", pa.array(pair.right_bp.astype(np.int32)))
        for name, column in rows.items():
            table = table.append_column(name, column)
        return table

    def _of_indels(self, sites: Sites) -> NDArray[np.float64]:
        if self.likelihood is None:
            raise ModelError(
                f"{len(sites.ref)} variants are insertions or deletions, which only likelihoods can score: "
                f"{self.no_likelihood}"
            )
        return self.likelihood.of_indels(sites)


def without_rows(piece: pa.Table) -> pa.Table:
    """A piece without the rows of its alleles."""
    return piece.drop_columns([name for name in (REF_ROW, ALT_ROW) if name in piece.column_names])


def _taken(pair: Alleles, chosen: Ints) -> Alleles:
    if len(chosen) == len(pair.ref):
        return pair
    return Alleles(
        ref=[pair.ref[i] for i in chosen],
        alt=[pair.alt[i] for i in chosen],
        offset_bp=pair.offset_bp[chosen],
        left_bp=pair.left_bp[chosen],
        right_bp=pair.right_bp[chosen],
        is_substitution=pair.is_substitution[chosen],
    )


def _row_column(values: NDArray[np.float32], chosen: Ints, n: int) -> pa.Array:
    """Rows as a column; zeros, and null, where a variant has none."""
    whole = np.zeros((n, values.shape[1]), np.float32)
    whole[chosen] = values
    missing = np.ones(n, np.bool_)
    missing[chosen] = False
    flat = pa.array(whole.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=pa.array(missing) if missing.any() else None)


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
        parts=None if parts is None else ScoringCheckpoint(parts),
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
    parts: ScoringCheckpoint | None = None,
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
    left, right = (predictions.columns[name].to_numpy() for name in CONTEXT_COLUMNS)
    return int(((left < context.left_bp) | (right < context.right_bp)).sum())


def _predictions(piece: pa.Table, label_names: tuple[str, ...]) -> Predictions:
    kept = [name for name in piece.column_names if name not in ("item", "label", MAIN)]
    columns = {name: piece[name].combine_chunks() for name in [*PLACES, *(n for n in kept if n not in PLACES)]}
    return Predictions(
        item=piece["item"].to_numpy(),
        windows=np.arange(len(piece) + 1),
        target=piece["label"].to_numpy().astype(np.int16),
        score=piece[MAIN].to_numpy().astype(np.float32),
        predicted=None,
        label_names=label_names,
        columns=columns,
    )
