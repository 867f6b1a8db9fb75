"""Open the embedder that a configuration names.

Used by every command that opens a model, so that the same flags give the same numbers.

>>> open_model(ModelFlags(model="onehot")).width, open_model(ModelFlags()).width  # the default is bend-mini
(5, 296)
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from bend_hf.config import ModelFlags

if TYPE_CHECKING:
    from bend_hf.embedders._embedder import Embedder
    from bend_hf.embedders._spec import EmbedderOptions


def embedder_options(config: ModelFlags) -> EmbedderOptions:
    """Return the keywords that differ from the defaults of embedders; a user's model takes no others."""
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
    if config.device is not None:
        options["device"] = config.device
    if config.batch_tokens is not None:
        options["batch_tokens"] = config.batch_tokens
    if config.offload != "none":
        options["offload"] = config.offload
    if config.overlap_tokens:
        options["overlap_tokens"] = config.overlap_tokens
    return options


def open_model(config: ModelFlags, *, lazy: bool = False) -> Embedder:
    """Load the embedder that a configuration names.

    Args:
        config: The configuration.
        lazy: Load a model of this package when it is first needed, which it is not if everything is cached.

    Raises:
        RegistryError: The model is unknown; the message names the nearest one.
        ModelError: The model cannot be loaded.
    """
    from bend_hf.embedders import load_embedder
    from bend_hf.embedders._loaded_model import lazily

    with lazily() if lazy else nullcontext():
        return load_embedder(config.model, checkpoint=config.checkpoint, **embedder_options(config))
