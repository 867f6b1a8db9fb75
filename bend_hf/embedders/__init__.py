"""Turn sequences into token embeddings with any registered DNA language model.

In go sequences and the name of a model; out come token embeddings, or one embedding per nucleotide. ``_embedder``
holds what all families share, ``_alignment`` is the only place that maps tokens to nucleotides, ``networks`` holds the
architectures that transformers lacks, and ``cache`` stores token embeddings. To add a model, add one module with a
tuple ``MODELS`` of ``ModelSpec`` and its embedder class.

>>> from bend_hf.embedders import load_embedder
>>> load_embedder("onehot").embed(["ACGT"], upsample_embeddings=True)[0].shape
(4, 5)
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, Unpack

from bend_hf.embedders._spec import ModelSpec
from bend_hf.registry import Registry, names_file
from bend_hf.user_code import load_file

if TYPE_CHECKING:
    from bend_hf.embedders._embedder import Embedder
    from bend_hf.embedders._spec import EmbedderOptions
    from bend_hf.embedders.auto import AutoEmbedder
    from bend_hf.embedders.awdlstm import AWDLSTMEmbedder
    from bend_hf.embedders.caduceus import CaduceusEmbedder
    from bend_hf.embedders.convnet import ConvNetEmbedder
    from bend_hf.embedders.dnabert import DNABertEmbedder
    from bend_hf.embedders.dnabert2 import DNABert2Embedder
    from bend_hf.embedders.evo2 import Evo2Embedder
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
    "Evo2Embedder": "evo2",
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
    "Evo2Embedder",
    "GENALMEmbedder",
    "GPNEmbedder",
    "GROVEREmbedder",
    "HyenaDNAEmbedder",
    "ModelSpec",
    "NucleotideTransformerEmbedder",
    "OneHotEmbedder",
    "declared_model",
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
    """Import the class that a declaration names."""
    loaded: type[Embedder] = getattr(importlib.import_module(spec.module), spec.class_name)
    return loaded


def load_embedder(
    model: str | Path, *, checkpoint: str | Path | None = None, **options: Unpack[EmbedderOptions]
) -> Embedder:
    """Load an embedder by registry key, Python file, Hub id or folder.

    Args:
        model: One of

            - a key of ``MODELS``, an alias, or the Hub id that an entry declares;
            - the path of a Python file, which is run: it declares ``MODELS``, or holds an object, a class or a
              function with ``embed`` (see ``bend_hf.embedders.user_model``);
            - any other Hub id or folder: its configuration says which family of this package reads it, and
              ``AutoEmbedder`` loads the others.
        checkpoint: With a key: the folder or Hub id to read instead of the declared one.
        options: The keywords that every embedder takes, see ``Embedder``.

    Returns:
        The embedder with its weights loaded. It moves to its device at first use.

    Raises:
        RegistryError: The name is not a key and not a path or Hub id (``owner/name``) either.
        ModelError: The model cannot be loaded.
    """
    spec = declared_model(str(model))
    if spec is not None:
        keywords = {**spec.options, **options}
        # mypy does not know that the declared options are keywords of the class
        return embedder_class(spec)(checkpoint, spec=spec, **keywords)  # type: ignore[arg-type]  # see above
    if str(model).endswith(".py"):
        from bend_hf.embedders.user_model import load_user_model

        return load_user_model(Path(model), checkpoint=checkpoint, **options)
    if "/" not in str(model) and not Path(model).exists():
        MODELS.get(str(model))  # a misspelled key: raises and names the nearest one
    return _by_configuration(checkpoint or model, **options)


def _by_configuration(checkpoint: str | Path, **options: Unpack[EmbedderOptions]) -> Embedder:
    """Load a folder or Hub id with the family that its configuration names, or with ``AutoEmbedder``."""
    from bend_hf.embedders._checkpoint_files import resolve_checkpoint
    from bend_hf.embedders._family import family_of

    folder = resolve_checkpoint(checkpoint, revision=options.get("revision"), with_weights=False)
    module, _, name = (family_of(folder) or "auto:AutoEmbedder").partition(":")
    loaded: type[Embedder] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    return loaded(checkpoint, **options)


def declared_model(name: str) -> ModelSpec | None:
    """Return the declaration that a key, an alias, a Hub id or a Python file names, if there is one."""
    if name in MODELS:
        return MODELS.get(name)
    if names_file(name):
        path = Path(name.rpartition(":")[0] if not name.endswith(".py") else name).expanduser()
        return MODELS.get(name) if path.is_file() and hasattr(load_file(path), MODELS.attribute) else None
    if Path(name).exists():
        return None
    return next((spec for spec in MODELS if spec.source == "hub" and spec.checkpoint == name), None)
