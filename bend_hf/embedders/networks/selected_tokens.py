"""Hidden states and scores of an encoder at a few tokens, without what the last layer computes for the others.

A token's state needs the keys and values of all tokens in the last layer, and nothing else there but its own. For
networks of transformers whose layers are known here, and for those of this package with a ``hidden_at`` of their own.
The layers of ESM run with the fused GELU besides, where transformers takes five passes over the widest tensor.

    states_BQD = hidden_at(model.esm, ids_BT, None, -1, tokens_BQ)

>>> take(torch.arange(6.0).view(1, 3, 2), torch.tensor([[2, 0]])).tolist()
[[[4.0, 5.0], [0.0, 1.0]]]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention


class HasHiddenAt(Protocol):
    """A network of this package that knows how to leave tokens out."""

    def hidden_at(
        self, input_ids: Tensor, attention_mask: Tensor | None, depth: int, tokens_BQ: Tensor | None
    ) -> Tensor:
        """State behind ``depth`` layers at some tokens, the last one's through the final norm, (batch, Q, width)."""
        ...


def take(x_BTD: Tensor, tokens_BQ: Tensor | None) -> Tensor:
    """Some tokens of each sequence, shape (batch, Q, D); all of them for None."""
    if tokens_BQ is None:
        return x_BTD
    return x_BTD.gather(1, tokens_BQ[..., None].expand(-1, -1, x_BTD.shape[2]))


def hidden_at(
    encoder: nn.Module, ids_BT: Tensor, mask_BT: Tensor | None, layer: int, tokens_BQ: Tensor | None
) -> Tensor | None:
    """Hidden states at some tokens; None for a network, or a layer, that is not known here.

    Args:
        encoder: The network without its head.
        ids_BT: Token ids, shape (batch, tokens).
        mask_BT: 1 for tokens, 0 for padding on the right; None where nothing is padded.
        layer: Which hidden state: 0 are the embeddings, -1 is the last.
        tokens_BQ: Which tokens of each sequence, int64, shape (batch, Q); None: all.

    Returns:
        Shape (batch, Q, width), what the whole forward has there.
    """
    layers = getattr(getattr(encoder, "encoder", None), "layer", ())
    if not len(layers) or not -len(layers) - 1 <= layer <= len(layers):
        return None
    depth = layer % (len(layers) + 1)
    if hasattr(encoder, "hidden_at"):
        return cast("HasHiddenAt", encoder).hidden_at(ids_BT, mask_BT, depth, tokens_BQ)
    run = _NETWORKS.get(f"{type(encoder).__module__}.{type(encoder).__qualname__}")
    if run is None or not _is_plain(encoder):
        return None
    return run(encoder, ids_BT, mask_BT, depth, tokens_BQ)


def logits_at(network: nn.Module, ids_BT: Tensor, mask_BT: Tensor | None, tokens_BQ: Tensor | None) -> Tensor | None:
    """Language-model scores at some tokens, shape (batch, Q, vocabulary); None for a network not known here."""
    head = getattr(network, "lm_head", None) or getattr(network, "cls", None)
    states = None if head is None else hidden_at(cast("nn.Module", network.base_model), ids_BT, mask_BT, -1, tokens_BQ)
    if head is None or states is None:
        return None
    scores: Tensor = head(states)
    return scores


def _is_plain(encoder: nn.Module) -> bool:
    """Whether it is what it was built as: an encoder with torch's attention and positions that are looked up."""
    config: Any = encoder.config
    return (
        not encoder.training
        and getattr(config, "_attn_implementation", None) == "sdpa"
        and not getattr(config, "is_decoder", False)
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
    )


def _mixed(attention: Any, x_BTD: Tensor, asked_BQD: Tensor, mask_B11T: Tensor | None) -> Tensor:
    """What attention gathers for the tokens that ask, shape (batch, Q, width)."""

    def heads(values: Tensor) -> Tensor:
        return values.view(*values.shape[:2], attention.num_attention_heads, -1).transpose(1, 2)

    query, key, value = attention.query(asked_BQD), attention.key(x_BTD), attention.value(x_BTD)
    mixed = scaled_dot_product_attention(heads(query), heads(key), heads(value), attn_mask=mask_B11T)
    return mixed.transpose(1, 2).flatten(2)


def _esm_layer(layer: Any, x_BTD: Tensor, mask_B11T: Tensor | None, tokens_BQ: Tensor | None) -> Tensor:
    """A layer whose norms stand in front."""
    normed = layer.attention.LayerNorm(x_BTD)
    asked, own = take(normed, tokens_BQ), take(x_BTD, tokens_BQ)
    own = layer.attention.output.dense(_mixed(layer.attention.self, normed, asked, mask_B11T)).add_(own)
    out: Tensor = layer.output.dense(gelu(layer.intermediate.dense(layer.LayerNorm(own)))).add_(own)
    return out


def _bert_layer(layer: Any, x_BTD: Tensor, mask_B11T: Tensor | None, tokens_BQ: Tensor | None) -> Tensor:
    """A layer whose norms stand behind, within its ``output`` modules."""
    asked = take(x_BTD, tokens_BQ)
    own = layer.attention.output(_mixed(layer.attention.self, x_BTD, asked, mask_B11T), asked)
    out: Tensor = layer.output(layer.intermediate(own), own)
    return out


def _through(
    encoder: Any,
    one_layer: Callable[[Any, Tensor, Tensor | None, Tensor | None], Tensor],
    x_BTD: Tensor,
    mask_BT: Tensor | None,
    depth: int,
    tokens_BQ: Tensor | None,
) -> Tensor:
    mask_B11T = None if mask_BT is None else mask_BT.to(torch.bool)[:, None, None, :]
    if depth == 0:
        return take(x_BTD, tokens_BQ)
    for layer in encoder.encoder.layer[: depth - 1]:
        x_BTD = one_layer(layer, x_BTD, mask_B11T, None)
    return one_layer(encoder.encoder.layer[depth - 1], x_BTD, mask_B11T, tokens_BQ)


def _esm(encoder: Any, ids_BT: Tensor, mask_BT: Tensor | None, depth: int, tokens_BQ: Tensor | None) -> Tensor:
    x_BTD = encoder.embeddings(input_ids=ids_BT, attention_mask=mask_BT)
    states = _through(encoder, _esm_layer, x_BTD, mask_BT, depth, tokens_BQ)
    if depth < len(encoder.encoder.layer):
        return states
    normed: Tensor = encoder.encoder.emb_layer_norm_after(states)
    return normed


def _bert(encoder: Any, ids_BT: Tensor, mask_BT: Tensor | None, depth: int, tokens_BQ: Tensor | None) -> Tensor:
    return _through(encoder, _bert_layer, encoder.embeddings(input_ids=ids_BT), mask_BT, depth, tokens_BQ)


# By the class's full name, so that neither is imported for the other; a class derived from one may differ.
_NETWORKS: Final[dict[str, Callable[[Any, Tensor, Tensor | None, int, Tensor | None], Tensor]]] = {
    "transformers.models.esm.modeling_esm.EsmModel": _esm,
    "transformers.models.bert.modeling_bert.BertModel": _bert,
}
