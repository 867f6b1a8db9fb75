"""All scores of a piece of the variants, as a table; one process makes it whole, whichever that is.

    maker = PieceMaker.of(embedder, spec, settings)
    maker.score(source.table(rows))["score"]

>>> REF_ROW, ALT_ROW
('ref_row', 'alt_row')
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bend_hf.errors import ModelError
from bend_hf.shapes import Ints, Json
from bend_hf.tasks import VariantSpec
from bend_hf.variants.alleles import Alleles, Context
from bend_hf.variants.by_embedding import by_embedding
from bend_hf.variants.by_likelihood import LikelihoodScores, Sites
from bend_hf.variants.likelihood import Scorer
from bend_hf.variants.rows_on_device import tokens_overlap
from bend_hf.variants.scores import SCORE_COLUMNS
from bend_hf.variants.settings import ScoreSettings

if TYPE_CHECKING:
    from bend_hf.embedders._base import Embedder

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
