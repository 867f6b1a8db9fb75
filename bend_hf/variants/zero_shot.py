"""Scores variants without training: every score of every variant, resumable and spread over processes.

    predictions = score_zero_shot(dataset, embedder, spec, ("benign", "pathogenic"), accelerator)
    predictions.score                              # BEND's: the cosine distance at the variant
    predictions.beside["log_likelihood_ratio"]     # and the others, a column each

Variants are taken in the order of the genome, in pieces of a fixed number. A piece is scored whole by one process,
the same way whichever process it is, so that neither the number of processes nor a restart changes a result.
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
from bend_hf.predictions import Predictions, concatenate
from bend_hf.shapes import Ints, Json
from bend_hf.tasks import VariantSpec
from bend_hf.variants.alleles import Alleles, Context, alleles, distinct
from bend_hf.variants.likelihood import BASES, Scorer, entropy_bits
from bend_hf.variants.parts import Parts, content_key
from bend_hf.variants.rows_on_device import RowsOnDevice, embedded_rows, tokens_overlap
from bend_hf.variants.scores import MAIN, SCORE_COLUMNS, distances, mean_distances
from bend_hf.variants.settings import ScoreSettings
from bend_hf.variants.source import CONSEQUENCE, PLACES, DatasetSource, VariantSource

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

    from bend_hf.embedders._base import Embedder

log = logging.getLogger(__name__)

_PART_FORMAT: Final = 1  # raised when a piece's columns or the arithmetic change, so that older ones are left alone
_PART_VARIANTS: Final = 256
_GROUP_BYTES: Final = 1 << 28  # of rows that stay on the device at a time
_CONTEXT_COLUMNS: Final = ("left_bp", "right_bp")
REF_ROW, ALT_ROW = "ref_row", "alt_row"


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What scoring gave.

    Attributes:
        predictions: Every variant with all its scores, by item.
        keys: Keys of the pieces on disk, in the order of the genome; empty where none were kept.
        no_likelihood: Why there are no likelihoods; empty where there are.
    """

    predictions: Predictions
    keys: list[str]
    no_likelihood: str


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
    scoring = _Scoring.of(embedder, spec, settings)
    if scoring.no_likelihood and settings.likelihood:
        log.info("no likelihoods: %s", scoring.no_likelihood)
    chunks = [order[at : at + _PART_VARIANTS] for at in range(0, len(order), _PART_VARIANTS)]
    numbers = range(accelerator.process_index, len(chunks), accelerator.num_processes)
    decides = scoring.identity()
    n_mine, n_done = sum(len(chunks[number]) for number in numbers), 0
    found: list[tuple[int, str, pa.Table]] = []
    for number in numbers:
        given = source.table(chunks[number])
        key = "" if parts is None else content_key(decides, given)
        piece = None if parts is None else parts.read(key, scoring.columns(given.column_names))
        if piece is None:
            piece = scoring.score(given)
            if parts is not None:
                parts.write(key, piece)
        found.append((number, key, _without_rows(piece)))
        n_done += len(given)
        progress(n_done, n_mine)
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        found = gather_object(found)
    found.sort(key=lambda entry: entry[0])
    return Scored(
        predictions=concatenate([_predictions(piece, label_names) for _, _, piece in found]),
        keys=[key for _, key, _ in found if key],
        no_likelihood=scoring.no_likelihood,
    )


@dataclass(frozen=True, kw_only=True)
class _Scoring:
    """One model with the settings it scores by."""

    embedder: Embedder
    context: Context
    indel_context: Context
    settings: ScoreSettings
    scorer: Scorer | None
    no_likelihood: str
    overlaps: bool

    @classmethod
    def of(cls, embedder: Embedder, spec: VariantSpec, settings: ScoreSettings) -> _Scoring:
        causal = embedder.direction == "causal"
        context = Context.of(spec, causal=causal)
        scorer, reason = None, "" if settings.likelihood else "they were not asked for"
        if settings.likelihood:
            try:
                scorer = Scorer.of(embedder)
            except ModelError as error:
                if settings.need_likelihood:
                    raise
                reason = str(error)
        return cls(
            embedder=embedder,
            context=context,
            # what stands behind alleles of different lengths tells them apart, for a causal model too
            indel_context=Context(left_bp=context.left_bp, right_bp=spec.context_bp),
            settings=settings,
            scorer=scorer,
            no_likelihood=reason,
            overlaps=tokens_overlap(embedder),
        )

    def identity(self) -> Json:
        """What decides the scores beside the variants."""
        return {
            "format": _PART_FORMAT,
            "embedder": dict(self.embedder.identity),
            "batch_tokens": self.embedder.batch_tokens,
            "context": asdict(self.context),
            "settings": asdict(self.settings),
        }

    def columns(self, given: Sequence[str]) -> list[str]:
        """Columns that are read from a finished piece: all but the rows, which only a probe wants."""
        kept = [name for name in given if name not in ("sequence", "variant_offset")]
        return [*kept, *(column.name for column in SCORE_COLUMNS), *_CONTEXT_COLUMNS]

    def score(self, given: pa.Table) -> pa.Table:
        """All scores of some variants, beside what was given but for the sequences."""
        longest_bp = self.context.left_bp + self.context.right_bp + 1
        group = max(8, _GROUP_BYTES // (2 * 4 * longest_bp * max(self.embedder.width, 1)))
        pieces = [self._score_group(given.slice(at, group)) for at in range(0, len(given), group)]
        return pa.concat_tables(pieces)

    def _score_group(self, given: pa.Table) -> pa.Table:
        sequences = given["sequence"].to_pylist()
        offset_bp = given["variant_offset"].to_numpy().astype(np.int64)
        ref, alt = given["ref"].to_pylist(), given["alt"].to_pylist()
        pair = alleles(sequences, offset_bp, ref, alt, self.context)
        n = len(given)
        columns = {column.name: np.full(n, np.nan) for column in SCORE_COLUMNS}
        rows = {}
        single = np.flatnonzero(pair.is_substitution)
        if len(single):
            at_variant, kept = self._by_embedding(_taken(pair, single))
            for name, values in at_variant.items():
                columns[name][single] = values
            if self.settings.keep_rows:
                rows = {name: _row_column(values, single, n) for name, values in kept.items()}
            if self.scorer is not None:
                likely = self._by_likelihood(sequences, offset_bp, ref, alt, single)
                for name, values in likely.items():
                    columns[name][single] = values
        others = np.flatnonzero(~pair.is_substitution)
        if len(others):
            columns["log_likelihood_ratio"][others] = self._of_indels(sequences, offset_bp, ref, alt, others)
        table = given.drop_columns(["sequence", "variant_offset"])
        for name, values in columns.items():
            # nan is null: no score of that kind
            table = table.append_column(name, pa.array(values.astype(np.float32), from_pandas=True))
        table = table.append_column("left_bp", pa.array(pair.left_bp.astype(np.int32)))
        table = table.append_column("right_bp", pa.array(pair.right_bp.astype(np.int32)))
        for name, column in rows.items():
            table = table.append_column(name, column)
        return table

    def _by_embedding(self, pair: Alleles) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float32]]]:
        """Scores by the rows of both alleles, and those rows."""
        n = len(pair.ref)
        shown = distinct(pair.ref + pair.alt)
        ref, alt = shown.code[:n], shown.code[n:]
        rows = embedded_rows(self.embedder, shown.texts)
        at_ref, at_alt = (self._row(rows, sequence, pair.offset_bp) for sequence in (ref, alt))
        ref_VD, alt_VD = (_to_host(rows, place) for place in (at_ref, at_alt))
        scores = distances(ref_VD, alt_VD)
        scores |= mean_distances(rows, ref, alt, pair.offset_bp, window_bp=self.settings.window_bp)
        return scores, {REF_ROW: ref_VD, ALT_ROW: alt_VD}

    def _row(self, rows: RowsOnDevice, sequence: Ints, offset_bp: Ints) -> Ints:
        index = self.settings.embedding_idx
        if index is None:
            return rows.at(sequence, offset_bp)
        limit = np.diff(rows.starts if self.overlaps else rows.starts_bp())[sequence]
        if (limit <= index).any() or index < 0:
            raise ConfigError(
                f"--embedding-idx {index} is outside: the shortest sequence has {int(limit.min())} rows; leave it out "
                "to take the row that holds the variant"
            )
        return rows.starts[sequence] + index if self.overlaps else rows.at(sequence, np.full(len(sequence), index))

    def _strands(
        self, sequences: list[str], offset_bp: Ints, ref: list[str], alt: list[str], context: Context
    ) -> list[tuple[Alleles, bool]]:
        """The alleles as the likelihoods see them: on the plus strand, and on the other one where that is asked for."""
        plus = alleles(sequences, offset_bp, ref, alt, context)
        if not self.settings.both_strands:
            return [(plus, False)]
        mirrored = Context(left_bp=context.right_bp, right_bp=context.left_bp)
        minus = alleles(sequences, offset_bp, ref, alt, mirrored).reverse_complement(ref)
        return [(plus, False), (minus, True)]

    def _by_likelihood(
        self, sequences: list[str], offset_bp: Ints, ref: list[str], alt: list[str], chosen: Ints
    ) -> dict[str, NDArray[np.float64]]:
        assert self.scorer is not None
        picked = [sequences[i] for i in chosen], offset_bp[chosen], [ref[i] for i in chosen], [alt[i] for i in chosen]
        codes = [np.array([BASES.index(bases) for bases in column]) for column in picked[2:]]
        ratios, entropies = [], []
        for shown, is_minus in self._strands(*picked, self.context):
            site = distinct([f"{at} {text}" for at, text in zip(shown.offset_bp.tolist(), shown.ref, strict=True)])
            first = np.unique(site.code, return_index=True)[1]
            found = self.scorer.of_bases([shown.ref[i] for i in first], shown.offset_bp[first])
            found = found[:, ::-1] if is_minus else found  # A C G T are the complements of T G C A
            each = np.arange(len(chosen))
            by_variant = found[site.code]
            ratios.append(by_variant[each, codes[1]] - by_variant[each, codes[0]])
            entropies.append(entropy_bits(found)[site.code])
        return {"log_likelihood_ratio": np.mean(ratios, axis=0), "entropy": np.mean(entropies, axis=0)}

    def _of_indels(
        self, sequences: list[str], offset_bp: Ints, ref: list[str], alt: list[str], chosen: Ints
    ) -> NDArray[np.float64]:
        """Log-likelihood ratios of alleles that are not one base each; a longer allele has more to be sure of."""
        if self.scorer is None:
            raise ModelError(
                f"{len(chosen)} variants are insertions or deletions, which only likelihoods can score: "
                f"{self.no_likelihood}"
            )
        picked = [sequences[i] for i in chosen], offset_bp[chosen], [ref[i] for i in chosen], [alt[i] for i in chosen]
        ratios = []
        for shown, _ in self._strands(*picked, self.indel_context):
            texts = [text for pair in zip(shown.ref, shown.alt, strict=True) for text in pair]
            found = self.scorer.of_alleles(texts, shown.offset_bp, n_alleles=2)
            ratios.append(found[:, 1] - found[:, 0])
        return np.asarray(np.mean(ratios, axis=0))


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


def _to_host(rows: RowsOnDevice, place: Ints) -> NDArray[np.float32]:
    import torch

    host: NDArray[np.float32] = rows.values[torch.from_numpy(place).to(rows.values.device)].cpu().numpy()
    return host


def _row_column(values: NDArray[np.float32], chosen: Ints, n: int) -> pa.Array:
    """Rows as a column; zeros, and null, where a variant has none."""
    whole = np.zeros((n, values.shape[1]), np.float32)
    whole[chosen] = values
    missing = np.ones(n, np.bool_)
    missing[chosen] = False
    flat = pa.array(whole.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=pa.array(missing) if missing.any() else None)


def _without_rows(piece: pa.Table) -> pa.Table:
    return piece.drop_columns([name for name in (REF_ROW, ALT_ROW) if name in piece.column_names])


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
