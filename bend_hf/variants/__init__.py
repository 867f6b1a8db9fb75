"""Variant effects: how a model's view of a sequence changes where one base does.

    from bend_hf.variants import VariantRun, score_file
    done = score_file(Path("mine.vcf"), VariantRun(genome=Path("hg38.fa"), model="dnabert2"))

Each idea has its file: ``reading`` takes a bed or a VCF, ``alleles`` writes out what a model sees, ``rows_on_device``
finds the variant's row, ``scores`` and ``likelihood`` compare, ``zero_shot`` does all of it for many variants,
``probes`` trains on the rows, ``summary`` counts, ``plots`` draws, ``bend_csv`` writes BEND's own form, ``from_file``
goes from the file to the picture. Names are loaded when they are used.

>>> from bend_hf.variants import cosine_distance
>>> cosine_distance.__name__
'cosine_distance'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bend_hf.variants.config import ScoreSettings, VariantRun
    from bend_hf.variants.embedding_scores import SCORE_COLUMNS, ScoreColumn, cosine_distance
    from bend_hf.variants.from_file import score_file
    from bend_hf.variants.plots import draw
    from bend_hf.variants.read import read_variants
    from bend_hf.variants.score import score_variants, score_zero_shot
    from bend_hf.variants.summary import summarise
    from bend_hf.variants.supervised_head import VariantHeadSettings, probe

_MODULE_OF: Final = {
    "SCORE_COLUMNS": "embedding_scores",
    "VariantHeadSettings": "supervised_head",
    "ScoreColumn": "embedding_scores",
    "ScoreSettings": "config",
    "VariantRun": "config",
    "cosine_distance": "embedding_scores",
    "draw": "plots",
    "probe": "supervised_head",
    "read_variants": "read",
    "score_file": "from_file",
    "score_variants": "score",
    "score_zero_shot": "score",
    "summarise": "summary",
}

__all__ = [
    "SCORE_COLUMNS",
    "ScoreColumn",
    "ScoreSettings",
    "VariantHeadSettings",
    "VariantRun",
    "cosine_distance",
    "draw",
    "probe",
    "read_variants",
    "score_file",
    "score_variants",
    "score_zero_shot",
    "summarise",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
