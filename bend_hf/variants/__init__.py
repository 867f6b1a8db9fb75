"""Variant effects: how much a model's view of a sequence changes if one base does.

In goes a BED, a VCF or a dataset of variants and an embedder; out come predictions with one column per score.
``read`` reads and checks variants, ``alleles`` writes REF and ALT, ``batch`` holds what the model computes for them
(``allele_embeddings``, ``allele_segments``, ``allele_likelihoods``), ``score`` scores all variants and resumes from
``checkpoint``, ``supervised_head`` trains heads on the embeddings (``allele_store``), ``summary`` computes metrics,
``plots`` and ``bend_csv`` write them. Add a score in ``scores/``. ``bend_hf.score_file`` does all of it for a file.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bend_hf.variants.config import ScoreSettings, VariantRun
    from bend_hf.variants.plots import draw_score
    from bend_hf.variants.read import DatasetSource, ReadSettings, read_variants
    from bend_hf.variants.score import ScoringResult, score_variants
    from bend_hf.variants.scores import SCORES, VariantScore
    from bend_hf.variants.scores.embedding import cosine_distance
    from bend_hf.variants.summary import summarize_scores
    from bend_hf.variants.supervised_head import VariantHeadSettings, cross_validate_heads

_MODULE_OF: Final = {
    "SCORES": "scores",
    "DatasetSource": "read",
    "ReadSettings": "read",
    "ScoreSettings": "config",
    "ScoringResult": "score",
    "VariantHeadSettings": "supervised_head",
    "VariantRun": "config",
    "VariantScore": "scores",
    "cosine_distance": "scores.embedding",
    "cross_validate_heads": "supervised_head",
    "draw_score": "plots",
    "read_variants": "read",
    "score_variants": "score",
    "summarize_scores": "summary",
}

__all__ = [
    "SCORES",
    "DatasetSource",
    "ReadSettings",
    "ScoreSettings",
    "ScoringResult",
    "VariantHeadSettings",
    "VariantRun",
    "VariantScore",
    "cosine_distance",
    "cross_validate_heads",
    "draw_score",
    "read_variants",
    "score_variants",
    "summarize_scores",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
