"""ModernBERT over byte pairs: ModernGENA and ModernBERT-DNA.

    embedder = load_embedder("moderngena-large")
    embeddings = embedder("ACGTACGTN", upsample_embeddings=True)          # (9, 1024)

The network is the ModernBERT of transformers. Two of three layers attend to neighbors only; the configuration says how
far, and which rotary base the layers have (ModernGENA: 10,000 in all layers, where the default of transformers differs
between them). The tokens, and what frames a sequence, are those of ``tokenizer.json``. ModernGENA has those of
GENA-LM's t2t models, which make one token of a run of at least 10 N.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Final

from bend_hf.embedders._bpe import vocabulary_size
from bend_hf.embedders._spec import TINY_CONTEXT_TOKENS, ModelSpec, TinyCheckpoint
from bend_hf.embedders._stock import BpeStockEmbedder, tiny_framed_bpe

_SPECIALS: Final = {"pad_token_id": 0, "cls_token_id": 2, "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3}


def _tiny(*, gap: bool) -> TinyCheckpoint:
    tokenizer = tiny_framed_bpe("ACGTN" if gap else "ACGT", gap=gap)
    config = {
        "model_type": "modernbert",
        "vocab_size": vocabulary_size(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "local_attention": 8,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 10000.0,
        "local_rope_theta": 10000.0,
        "norm_eps": 1e-5,
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "initializer_range": 0.2,
        "initializer_cutoff_factor": 2.0,
        "max_position_embeddings": TINY_CONTEXT_TOKENS,
        "tie_word_embeddings": True,
        **_SPECIALS,
    }
    return TinyCheckpoint(config=config, tokenizer=tokenizer)


_modernbert = partial(
    ModelSpec,
    embedder="modernbert:ModernBertEmbedder",
    training_data="unknown",
    trained_on_human_genome=True,
    verified="transformers",
)
_gena = partial(
    _modernbert,
    family="ModernGENA",
    context_tokens=1024,
    tokenization="byte-pair encoding, 32,000 tokens",
    tiny=partial(_tiny, gap=True),
)

# Sizes of the large model: those for which the ModernBERT of transformers has the published number of parameters.
MODELS: Final = (
    _gena(key="moderngena-base", checkpoint="AIRI-Institute/moderngena-base", width=None),
    _gena(key="moderngena-large", checkpoint="AIRI-Institute/moderngena-large", width=1024, n_parameters=377_841_664),
    _modernbert(
        key="modernbert-dna",
        family="ModernBERT-DNA",
        source="unknown",
        width=None,
        tokenization="byte-pair encoding",
        tiny=partial(_tiny, gap=False),
    ),
)


class ModernBertEmbedder(BpeStockEmbedder):
    """A ModernBERT of DNA."""

    architecture = "ModernBertForMaskedLM"
    head_keys: ClassVar[tuple[str, ...]] = ("head.*", "decoder.*")
