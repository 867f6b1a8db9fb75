"""DNA language models as embedders: sequences in, one row a token or one row a nucleotide out.

>>> from bend_hf.embedders import load_embedder
>>> load_embedder("onehot").embed(["ACGT"], upsample_embeddings=True)[0].shape
(4, 5)
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, Unpack

from bend_hf.embedders._spec import ModelSpec
from bend_hf.registry import Registry

if TYPE_CHECKING:
    from bend_hf.embedders._embedder import Embedder
    from bend_hf.embedders._spec import EmbedderOptions
    from bend_hf.embedders.auto import AutoEmbedder
    from bend_hf.embedders.awdlstm import AWDLSTMEmbedder
    from bend_hf.embedders.caduceus import CaduceusEmbedder
    from bend_hf.embedders.convnet import ConvNetEmbedder
    from bend_hf.embedders.dnabert import DNABertEmbedder
    from bend_hf.embedders.dnabert2 import DNABert2Embedder
    from bend_hf.embedders.genalm import GENALMEmbedder
    from bend_hf.embedders.gpn import GPNEmbedder
    from bend_hf.embedders.grover import GROVEREmbedder
    from bend_hf.embedders.hyenadna import HyenaDNAEmbedder
    from bend_hf.embedders.nucleotide_transformer import NucleotideTransformerEmbedder
    from bend_hf.embedders.onehot import OneHotEmbedder

MODELS: Final[Registry[ModelSpec]] = Registry(kind="model", package="bend_hf.embedders", attribute="MODELS")

_MODULE_OF: Final = {
    "AWDLSTMEmbedder": "awdlstm",
    "AutoEmbedder": "auto",
    "CaduceusEmbedder": "caduceus",
    "ConvNetEmbedder": "convnet",
    "DNABert2Embedder": "dnabert2",
    "DNABertEmbedder": "dnabert",
    "Embedder": "_embedder",
    "GENALMEmbedder": "genalm",
    "GPNEmbedder": "gpn",
    "GROVEREmbedder": "grover",
    "HyenaDNAEmbedder": "hyenadna",
    "NucleotideTransformerEmbedder": "nucleotide_transformer",
    "OneHotEmbedder": "onehot",
}

__all__ = [
    "MODELS",
    "AWDLSTMEmbedder",
    "AutoEmbedder",
    "CaduceusEmbedder",
    "ConvNetEmbedder",
    "DNABert2Embedder",
    "DNABertEmbedder",
    "Embedder",
    "GENALMEmbedder",
    "GPNEmbedder",
    "GROVEREmbedder",
    "HyenaDNAEmbedder",
    "ModelSpec",
    "NucleotideTransformerEmbedder",
    "OneHotEmbedder",
    "embedder_class",
    "load_embedder",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def embedder_class(spec: ModelSpec) -> type[Embedder]:
    """The class that a declaration names."""
    loaded: type[Embedder] = getattr(importlib.import_module(spec.module), spec.class_name)
    return loaded


def load_embedder(
    model: str | Path, *, checkpoint: str | Path | None = None, **options: Unpack[EmbedderOptions]
) -> Embedder:
    """An embedder by registry key, by the path of a file of your own, or by a Hub name or folder.

    Args:
        model: A key of ``MODELS``, an alias or the Hub id of one, so that a model has one key however it was named;
            or a path ending in ``.py`` whose code is run and which holds an object, a class or a function with
            ``embed`` (see ``bend_hf.embedders.user_model``); any other Hub id or folder goes to ``AutoEmbedder``.
        checkpoint: With a key: the folder or Hub id to read instead of the declared one.
        options: The keywords that every embedder takes, see ``Embedder``.

    Returns:
        The embedder, its weights read; it moves to its device when it is first used.

    Raises:
        RegistryError: There is no such key, and it is no path or Hub id with an owner (``owner/name``) either.
        ModelError: What it names cannot be loaded.
    """
    spec = MODELS.get(str(model)) if str(model) in MODELS else _declared_at(str(model))
    if spec is not None:
        keywords = {**spec.options, **options}
        return embedder_class(spec)(checkpoint, spec=spec, **keywords)  # type: ignore[arg-type]
    if str(model).endswith(".py"):
        from bend_hf.embedders.user_model import load_user_model

        return load_user_model(Path(model), checkpoint=checkpoint, **options)
    if "/" not in str(model) and not Path(model).exists():
        MODELS.get(str(model))  # a key that is mistyped: raises with the nearest one
    from bend_hf.embedders.auto import AutoEmbedder

    return AutoEmbedder(checkpoint or model, **options)


def _declared_at(checkpoint: str) -> ModelSpec | None:
    """The declaration of a Hub id; None where there is none, or where a folder of that name is meant."""
    if Path(checkpoint).exists():
        return None
    return next((spec for spec in MODELS if spec.source == "hub" and spec.checkpoint == checkpoint), None)
