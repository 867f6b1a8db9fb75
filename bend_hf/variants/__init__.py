"""Variant effects: how a model's view of a sequence changes where one base does.

    from bend_hf.variants import score_zero_shot, probe

Each idea has its file: ``alleles`` writes out what a model sees, ``rows_on_device`` finds the variant's row,
``scores`` and ``likelihood`` compare, ``zero_shot`` does all of it for many variants, ``probe`` trains on the rows,
``reading`` takes a bed or a VCF, ``summary`` counts, ``plots`` draws, ``bend_csv`` writes BEND's own form.
"""

from __future__ import annotations

from bend_hf.variants.scores import SCORE_COLUMNS, ScoreColumn, cosine_distance
from bend_hf.variants.zero_shot import ScoreSettings, score_variants, score_zero_shot

__all__ = [
    "SCORE_COLUMNS",
    "ScoreColumn",
    "ScoreSettings",
    "cosine_distance",
    "score_variants",
    "score_zero_shot",
]
