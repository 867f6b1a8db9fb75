"""Checkpoints for tests of the registered models.

``make_tiny`` writes the tiny checkpoint that a model declares: real layout, small network, short context. It is enough
for ``random_init=True``. ``golden_checkpoint`` finds a reference checkpoint of the family, with weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bend_hf.embedders import MODELS
from bend_hf.embedders._spec import TINY_CONTEXT_TOKENS as TINY_CONTEXT_TOKENS
from bend_hf.embedders._spec import ModelSpec, TinyCheckpoint
from tests.shared_data import GOLDEN


def make_tiny(model: str | ModelSpec, folder: Path) -> Path:
    """Write the tiny checkpoint of a declaration, or of the registered model of that name, and return the folder."""
    if isinstance(model, ModelSpec):
        assert model.tiny is not None, f"{model.key} declares no tiny checkpoint; give its ModelSpec a tiny="
        return model.tiny().write(folder)
    return _maker_of(model)().write(folder)


def _maker_of(key: str) -> Callable[[], TinyCheckpoint]:
    """Return what makes the tiny checkpoint of a model, or of the first one whose key starts like that."""
    spec = MODELS.get(key) if key in MODELS else next((one for one in MODELS if one.key.startswith(key)), None)
    assert spec is not None, f"no model is called {key!r}"
    assert spec.tiny is not None, f"{spec.key} declares no tiny checkpoint; give its ModelSpec a tiny="
    return spec.tiny


def golden_checkpoint(key: str) -> Path | None:
    """Find a golden checkpoint of the family of a model; None if there is none."""
    if key.startswith("hyenadna") and key.endswith("-hf"):
        key = "hf-" + key
    name = next((name for start, name in _GOLDEN if key.startswith(start)), None)
    return GOLDEN / name if name and (GOLDEN / name).is_dir() else None


# By the beginning of the key, longer beginnings first.
_GOLDEN = (
    ("awdlstm", "ckpt/awdlstm_tiny"),
    ("caduceus-ph", "more/ckpt/caduceus-ph-tiny"),
    ("caduceus-ps", "more/ckpt/caduceus-ps-tiny"),
    ("dnabert-s", "ckpt/dnabert2_tiny"),
    ("dnabert2", "ckpt/dnabert2_tiny"),
    ("dnabert3", "ckpt/dnabert3_tiny"),
    ("dnabert4", "ckpt/dnabert4_tiny"),
    ("dnabert5", "ckpt/dnabert5_tiny"),
    ("dnabert6", "ckpt/dnabert6_tiny"),
    ("evo2_7b_base", "evo2/ckpt/evo2-tiny-8k"),
    ("evo2_7b", "evo2/ckpt/evo2-tiny-1m"),
    ("gena-lm-bert-base-lastln", "more/ckpt/gena-lm-bert-tiny-preln-lastln"),
    ("gena-lm-bert-large", "more/ckpt/gena-lm-bert-tiny-preln-lastln"),
    ("gena-lm-bert", "more/ckpt/gena-lm-bert-tiny-preln"),
    ("gena-lm-bigbird", "ckpt/gena-bigbird_tiny"),
    ("generanno", "new/ckpt/generanno-tiny"),
    ("generator", "new/ckpt/generator-tiny"),
    ("gpn", "more/ckpt/gpn-convnet-tiny"),
    ("grover", "ckpt/grover_tiny"),
    ("hf-hyenadna", "more/ckpt/hyenadna-tiny-1k-seqlen-hf"),
    ("hyenadna", "ckpt/hyenadna-tiny-1k-seqlen"),
    ("mutbert", "new/ckpt/mutbert-tiny"),
    ("ntv3", "new/ckpt/ntv3-tiny"),
    ("plantcad2", "new/ckpt/plantcad2-tiny"),
    ("nt_transformer_v2", "more/ckpt/nucleotide-transformer-v2-tiny"),
    ("nt_transformer", "ckpt/nt_tiny"),
    ("resnetlm", "ckpt/convnet_tiny"),
)
