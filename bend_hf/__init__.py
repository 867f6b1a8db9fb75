"""BEND, the benchmark of DNA language models (ICLR 2024), on the Hugging Face stack.

The public names are loaded when they are first used, so that ``import bend_hf`` is fast and does not import torch.

>>> import bend_hf
>>> bend_hf.load_embedder("onehot").width
5
>>> bend_hf.TASKS.get("gene_finding").metric
'mcc'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bend_hf.config import RunConfig
    from bend_hf.data.dataset import load_task
    from bend_hf.data.genome import Genome
    from bend_hf.embedders import MODELS, load_embedder
    from bend_hf.evaluation.uncertainty.comparison import compare
    from bend_hf.publishing.notebook import Results, evaluate
    from bend_hf.runs.variant_file import score_file
    from bend_hf.tasks import TASKS
    from bend_hf.training.load_head import load_head
    from bend_hf.variants.score import score_variants

__version__ = "0.1.0"

_MODULE_OF: Final = {
    "MODELS": "bend_hf.embedders",
    "TASKS": "bend_hf.tasks",
    "Genome": "bend_hf.data.genome",
    "Results": "bend_hf.publishing.notebook",
    "RunConfig": "bend_hf.config",
    "compare": "bend_hf.evaluation.uncertainty.comparison",
    "evaluate": "bend_hf.publishing.notebook",
    "load_embedder": "bend_hf.embedders",
    "load_head": "bend_hf.training.load_head",
    "load_task": "bend_hf.data.dataset",
    "score_file": "bend_hf.runs.variant_file",
    "score_variants": "bend_hf.variants.score",
}

__all__ = [
    "MODELS",
    "TASKS",
    "Genome",
    "Results",
    "RunConfig",
    "__version__",
    "compare",
    "evaluate",
    "load_embedder",
    "load_head",
    "load_task",
    "score_file",
    "score_variants",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'bend_hf' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
