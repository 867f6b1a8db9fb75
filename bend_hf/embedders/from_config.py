"""Opens the embedder that a configuration names, with the options that were asked for.

For training, embedding ahead of it, the controls and variants of one's own: the same flags, the same numbers.

>>> open_model(ModelFlags()).width
5
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bend_hf.config import ModelFlags

if TYPE_CHECKING:
    from bend_hf.embedders._embedder import Embedder
    from bend_hf.embedders._spec import EmbedderOptions


def embedder_options(config: ModelFlags) -> EmbedderOptions:
    """The keywords of an embedder that differ from its defaults; an object of the user's takes no others."""
    options: EmbedderOptions = {"protocol": config.protocol}
    if config.revision is not None:
        options["revision"] = config.revision
    if config.layer != -1:
        options["layer"] = config.layer
    if config.model_dtype != "float32":
        options["dtype"] = config.model_dtype
    if config.random_init:
        options |= {"random_init": True, "seed": config.seed}
    if config.reverse_complement_average:
        options["reverse_complement_average"] = True
    if config.overlap_tokens:
        options["overlap_tokens"] = config.overlap_tokens
    return options


def open_model(config: ModelFlags) -> Embedder:
    """The embedder that a configuration names, its weights read.

    Raises:
        RegistryError: There is no such model; the message names the nearest.
        ModelError: It cannot be loaded.
    """
    from bend_hf.embedders import load_embedder

    return load_embedder(config.model, checkpoint=config.checkpoint, **embedder_options(config))
