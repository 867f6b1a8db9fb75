"""Omni-DNA: a causal model over byte pairs, with the blocks of OLMo.

    embedder = load_embedder("omni-dna-116m")
    embeddings = embedder("ACGTACGTN", upsample_embeddings=True)          # (9, 768)

The published weights have the names and the joined matrices of ai2-olmo. They are split here for the networks of
transformers: OLMo if norms have no weights, which is a Llama if they have. The tokens, and what frames a sequence, are
those of ``tokenizer.json``. Both protocols give the same embeddings. Remote code next to the weights is not run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bend_hf.embedders._bpe import vocabulary_size
from bend_hf.embedders._checkpoint_files import read_json
from bend_hf.embedders._spec import TINY_CONTEXT_TOKENS, Direction, ModelSpec, TinyCheckpoint
from bend_hf.embedders._stock import BpeStockEmbedder, tiny_framed_bpe
from bend_hf.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

# Fields of config.json with their defaults (ai2-olmo 0.6.0, olmo/config.py) and the value that is supported.
_DEFAULTS: Final[dict[str, object]] = {
    "activation_type": "swiglu",
    "alibi": False,
    "attention_layer_norm": False,
    "bias_for_layer_norm": None,
    "block_group_size": 1,
    "block_type": "sequential",
    "clip_qkv": None,
    "embedding_layer_norm": False,
    "include_bias": True,
    "layer_norm_eps": 1e-5,
    "layer_norm_type": "default",
    "layer_norm_with_affine": True,
    "mlp_hidden_size": None,
    "mlp_ratio": 4,
    "multi_query_attention": None,
    "n_kv_heads": None,
    "norm_after": False,
    "rope": False,
    "rope_theta": 10_000,
    "scale_logits": False,
    "weight_tying": True,
}
_SUPPORTED: Final[dict[str, tuple[object, ...]]] = {
    "activation_type": ("swiglu",),
    "alibi": (False,),
    "attention_layer_norm": (False,),
    "bias_for_layer_norm": (False, None),
    "block_group_size": (1,),
    "block_type": ("sequential",),
    "clip_qkv": (None,),
    "embedding_layer_norm": (False,),
    "include_bias": (False,),
    "multi_query_attention": (False, None),
    "n_kv_heads": (None,),
    "norm_after": (False,),
    "rope": (True,),
    "scale_logits": (False,),
}
_SIZES: Final = ("d_model", "n_heads", "n_layers", "max_sequence_length", "vocab_size")
_FIXED_EPSILON: Final = 1e-5  # of the OLMo of transformers
_BLOCK: Final = re.compile(r"transformer\.blocks\.(\d+)\.(\w+)\.weight")
# Matrices that hold several of transformers, one below the other, and those that are renamed.
_JOINED: Final[dict[str, tuple[str, ...]]] = {
    "att_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "ff_proj": ("mlp.up_proj", "mlp.gate_proj"),
    "attn_out": ("self_attn.o_proj",),
    "ff_out": ("mlp.down_proj",),
    "attn_norm": ("input_layernorm",),
    "ff_norm": ("post_attention_layernorm",),
}
_OUTSIDE: Final = {
    "transformer.wte.weight": "model.embed_tokens.weight",
    "transformer.ln_f.weight": "model.norm.weight",
    "transformer.ff_out.weight": "lm_head.weight",
}


def _tiny(*, norm: str) -> TinyCheckpoint:
    tokenizer = tiny_framed_bpe("ACGT", gap=False)
    n_tokens = vocabulary_size(tokenizer)
    config = {
        "model_type": "olmo-gfm",
        "activation_type": "swiglu",
        "block_type": "sequential",
        "d_model": 16,
        "n_heads": 2,
        "n_layers": 2,
        "mlp_ratio": 8,
        "include_bias": False,
        "bias_for_layer_norm": False,
        "layer_norm_type": norm,
        "layer_norm_with_affine": norm == "rms",
        "layer_norm_eps": 1e-5,
        "rope": True,
        "rope_theta": 10_000,
        "weight_tying": True,
        "max_sequence_length": TINY_CONTEXT_TOKENS,
        "vocab_size": n_tokens,
        "embedding_size": n_tokens,
        "initializer_range": 0.2,
    }
    return TinyCheckpoint(config=config, tokenizer=tokenizer)


# Addresses, widths, context and license: the authors' repository Zehui127/Omni-DNA. Parameters of the largest: counted
# from its width, depth and feed-forward width with a vocabulary of 4,096, which gives the size of its published file.
_omni = partial(
    ModelSpec,
    embedder="omnidna:OmniDNAEmbedder",
    family="Omni-DNA",
    context_tokens=250,
    tokenization="byte-pair encoding, 4,096 tokens",
    direction="causal",
    training_data="DNA of many species (which ones is unknown), 300 billion tokens",
    trained_on_human_genome=True,
    license="MIT",
    paper="https://arxiv.org/abs/2502.03499",
    verified="transformers",
    tiny=partial(_tiny, norm="default"),
)

MODELS: Final = (
    _omni(key="omni-dna-20m", checkpoint="zehui127/Omni-DNA-20M", width=256),
    _omni(key="omni-dna-60m", checkpoint="zehui127/Omni-DNA-60M", width=512),
    _omni(key="omni-dna-116m", checkpoint="zehui127/Omni-DNA-116M", width=768),
    _omni(key="omni-dna-300m", checkpoint="zehui127/Omni-DNA-300M", width=1024, tiny=partial(_tiny, norm="rms")),
    _omni(key="omni-dna-700m", checkpoint="zehui127/Omni-DNA-700M", width=1536),
    _omni(key="omni-dna-1b", checkpoint="zehui127/Omni-DNA-1B", width=2048, n_parameters=1_082_130_432),
)


class OmniDNAEmbedder(BpeStockEmbedder):
    """Omni-DNA and its fine-tuned copies."""

    direction: Direction = "causal"

    def _load(self) -> None:
        largest = self._read_tokens()
        norm = read_json(self.folder / "config.json").get("layer_norm_type", "default")
        self._build_stock("LlamaForCausalLM" if norm == "rms" else "OlmoForCausalLM", largest=largest)

    def _fields(self) -> dict[str, object]:
        return stock_fields(read_json(self.folder / "config.json"))

    def _read_state(self, paths: Sequence[Path], *, nested: str | None) -> dict[str, Tensor]:
        """Read weights, those of joined matrices as tensors of their own."""
        return stock_weights(super()._read_state(paths, nested=nested))


def stock_fields(fields: Mapping[str, object]) -> dict[str, object]:
    """Turn the configuration of ai2-olmo into that of transformers, of OLMo or of Llama.

    Raises:
        ModelError: The configuration lacks a size, or describes another network than that of the published models.
    """
    missing = [name for name in _SIZES if not isinstance(fields.get(name), int)]
    if missing:
        raise ModelError(f"config.json lacks {', '.join(missing)}; expected the configuration of an Omni-DNA")
    known = {**_DEFAULTS, **fields}
    odd = {name: known[name] for name, values in _SUPPORTED.items() if known[name] not in values}
    norm, weighted, epsilon = (known[f"layer_norm_{name}"] for name in ("type", "with_affine", "eps"))
    if (norm, weighted) not in (("default", False), ("rms", True)):
        odd |= {"layer_norm_type": norm, "layer_norm_with_affine": weighted}
    if norm == "default" and epsilon != _FIXED_EPSILON:
        odd |= {"layer_norm_eps": epsilon}
    if odd:
        raise ModelError(
            f"config.json has {', '.join(f'{name}={value!r}' for name, value in odd.items())}, also where it leaves a "
            f"field out; expected the values of the published Omni-DNA models"
        )
    width, joined = fields["d_model"], known["mlp_hidden_size"]
    if joined is None:
        joined = int(str(known["mlp_ratio"])) * int(str(width))
    return {
        "vocab_size": fields.get("embedding_size") or fields["vocab_size"],
        "hidden_size": width,
        "intermediate_size": int(str(joined)) // 2,
        "num_hidden_layers": fields["n_layers"],
        "num_attention_heads": fields["n_heads"],
        "hidden_act": "silu",
        "max_position_embeddings": fields["max_sequence_length"],
        "rms_norm_eps": epsilon,
        "rope_theta": known["rope_theta"],
        "tie_word_embeddings": known["weight_tying"],
        "attention_bias": False,
        "initializer_range": fields.get("initializer_range", 0.02),
        "bos_token_id": None,  # transformers has defaults that are not in this vocabulary
        "eos_token_id": None,
    }


def stock_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of ai2-olmo to those of transformers, and split the joined matrices.

    ``word_embeddings.weight`` of the published class is another name of the input embeddings.
    """
    stock: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.removeprefix("model.")
        block = _BLOCK.fullmatch(name)
        if block is not None and block[2] in _JOINED:
            parts = _JOINED[block[2]]
            for part, piece in zip(parts, value.chunk(len(parts)), strict=True):
                stock[f"model.layers.{block[1]}.{part}.weight"] = piece
        elif name != "word_embeddings.weight":
            stock[_OUTSIDE.get(name, key)] = value
    return stock
