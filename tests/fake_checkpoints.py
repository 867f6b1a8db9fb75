"""A tiny checkpoint for every model of the registry: real layout, small network, short context.

``make_fake(key, folder)`` writes configuration and tokenizer, enough for ``random_init=True`` and without any file
from elsewhere; ``golden_checkpoint(key)`` is a golden folder of the same family, with weights, where those are here.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.shared_data import GOLDEN

CONTEXT_TOKENS = 24
_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": CONTEXT_TOKENS,
    "initializer_range": 0.2,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "type_vocab_size": 2,
}
# Words a small byte-pair tokenizer knows beside the letters, and the merges that make them.
_MERGES = [("A", "C"), ("G", "T"), ("T", "T"), ("AC", "GT"), ("ACGT", "ACGT"), ("G", "A"), ("GA", "TT")]


def make_fake(key: str, folder: Path) -> Path:
    """Write the configuration and tokenizer of a tiny twin of a registry entry.

    Args:
        key: Of the registry, or one that begins like it.
        folder: Where to; made where it is missing.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _maker_of(key)(key, folder)
    return folder


def golden_checkpoint(key: str) -> Path | None:
    """A golden checkpoint of that entry's family, or None where there is none."""
    if key.startswith("hyenadna") and key.endswith("-hf"):
        key = "hf-" + key
    name = next((name for start, name in _GOLDEN if key.startswith(start)), None)
    return GOLDEN / name if name and (GOLDEN / name).is_dir() else None


# Longest beginnings first.
_GOLDEN = (
    ("awdlstm", "ckpt/awdlstm_tiny"),
    ("caduceus-ph", "more/ckpt/caduceus-ph-tiny"),
    ("caduceus-ps", "more/ckpt/caduceus-ps-tiny"),
    ("dnabert2", "ckpt/dnabert2_tiny"),
    ("dnabert3", "ckpt/dnabert3_tiny"),
    ("dnabert4", "ckpt/dnabert4_tiny"),
    ("dnabert5", "ckpt/dnabert5_tiny"),
    ("dnabert6", "ckpt/dnabert6_tiny"),
    ("gena-lm-bert-base-lastln", "more/ckpt/gena-lm-bert-tiny-preln-lastln"),
    ("gena-lm-bert-large", "more/ckpt/gena-lm-bert-tiny-preln-lastln"),
    ("gena-lm-bert", "more/ckpt/gena-lm-bert-tiny-preln"),
    ("gena-lm-bigbird", "ckpt/gena-bigbird_tiny"),
    ("gpn", "more/ckpt/gpn-convnet-tiny"),
    ("grover", "ckpt/grover_tiny"),
    ("hf-hyenadna", "more/ckpt/hyenadna-tiny-1k-seqlen-hf"),
    ("hyenadna", "ckpt/hyenadna-tiny-1k-seqlen"),
    ("nt_transformer_v2", "more/ckpt/nucleotide-transformer-v2-tiny"),
    ("nt_transformer", "ckpt/nt_tiny"),
    ("resnetlm", "ckpt/convnet_tiny"),
)


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def _dnabert(key: str, folder: Path) -> None:
    k = int(key[len("dnabert")])
    words = _SPECIALS + ["".join(word) for word in itertools.product("ATCG", repeat=k)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    _write(folder / "config.json", {**_BERT, "model_type": "bert", "vocab_size": len(words), "pad_token_id": 0})


def _byte_pairs(folder: Path, *, letters: str, gap: bool) -> int:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    words = [*_SPECIALS, *(["-"] if gap else []), *letters, *("".join(pair) for pair in _MERGES)]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=_MERGES, unk_token="[UNK]"))
    if gap:
        tokenizer.normalizer = normalizers.Replace(Regex("N{10,}"), "-")
        tokenizer.pre_tokenizer = pre_tokenizers.Split("-", "isolated")
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return len(words)


def _dnabert2(key: str, folder: Path) -> None:
    size = _byte_pairs(folder, letters="ACGT", gap=False)
    config = {**_BERT, "vocab_size": size, "alibi_starting_size": 8, "position_embedding_type": "absolute"}
    _write(folder / "config.json", config)


def _grover(key: str, folder: Path) -> None:
    size = _byte_pairs(folder, letters="ACGT", gap=False)
    _write(folder / "config.json", {**_BERT, "model_type": "bert", "vocab_size": size, "pad_token_id": 0})


def _genalm(key: str, folder: Path) -> None:
    size = _byte_pairs(folder, letters="ACGTNR", gap=True)
    norms = {"pre_layer_norm": True, "last_layer_norm": "lastln" in key or "large" in key}
    _write(folder / "config.json", {**_BERT, **norms, "model_type": "bert", "vocab_size": size, "pad_token_id": 0})


def _bigbird(key: str, folder: Path) -> None:
    size = _byte_pairs(folder, letters="ACGTNR", gap=True)
    sparse = {"attention_type": "block_sparse", "block_size": 2, "num_random_blocks": 1, "hidden_act": "gelu_new"}
    ends = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    _write(folder / "config.json", {**_BERT, **sparse, **ends, "model_type": "big_bird", "vocab_size": size})


def _nucleotide_transformer(key: str, folder: Path) -> None:
    specials = ["<unk>", "<pad>", "<mask>", "<cls>", *(["<eos>", "<bos>"] if "_v2_" in key else [])]
    words = specials + ["".join(word) for word in itertools.product("ATCG", repeat=6)] + list("ATCGN")
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    config: dict[str, Any] = {
        **_BERT,
        "vocab_size": len(words),
        "pad_token_id": 1,
        "mask_token_id": 2,
        "max_position_embeddings": CONTEXT_TOKENS + 2,
        "emb_layer_norm_before": False,
        "token_dropout": False,
        "tie_word_embeddings": False,
    }
    if "_v2_" in key:
        config |= {"add_bias_fnn": False, "position_embedding_type": "rotary"}
    else:
        config |= {"model_type": "esm", "position_embedding_type": "absolute"}
    _write(folder / "config.json", config)
    _write(folder / "tokenizer_config.json", {"model_max_length": CONTEXT_TOKENS})


def _hyenadna(key: str, folder: Path) -> None:
    shared = {"d_model": 16, "n_layer": 2, "d_inner": 64, "vocab_size": 12, "pad_vocab_size_multiple": 8}
    if key.endswith("-hf"):
        own = {"model_type": "hyenadna", "max_seq_len": CONTEXT_TOKENS, "emb_dim": 5, "filter_order": 16}
        _write(folder / "config.json", {**shared, **own, "short_filter_order": 3, "hyena_order": 2})
        return
    layer = {"_name_": "hyena", "emb_dim": 5, "filter_order": 16, "local_order": 3, "l_max": CONTEXT_TOKENS, "w": 10}
    _write(folder / "config.json", {**shared, "layer": layer, "residual_in_fp32": True})


def _caduceus(key: str, folder: Path) -> None:
    pairs = {7: 10, 8: 9, 9: 8, 10: 7}
    config = {
        "model_type": "caduceus",
        "d_model": 16,
        "n_layer": 2,
        "vocab_size": 16,
        "pad_vocab_size_multiple": 8,
        "rms_norm": True,
        "fused_add_norm": True,
        "residual_in_fp32": False,
        "bidirectional": True,
        "bidirectional_strategy": "add",
        "bidirectional_weight_tie": True,
        "norm_epsilon": 1e-5,
        "rcps": "-ps" in key,
        "complement_map": {str(i): pairs.get(i, i) for i in range(16)},
        "ssm_cfg": {"d_state": 4, "d_conv": 4, "expand": 2, "dt_rank": "auto", "conv_bias": True, "bias": False},
    }
    _write(folder / "config.json", config)
    _write(folder / "tokenizer_config.json", {"model_max_length": CONTEXT_TOKENS})


def _letter_tokenizer(folder: Path) -> None:
    vocabulary = {"[PAD]": 0, "[MASK]": 1, "[UNK]": 2, "a": 3, "c": 4, "g": 5, "t": 6}
    _write(
        folder / "tokenizer.json",
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": None,
            "post_processor": None,
            "decoder": None,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
        },
    )


def _convnet(key: str, folder: Path) -> None:
    _letter_tokenizer(folder)
    dilation = {"dilation_cycle": 6, "dilation_double_every": 1, "dilation_max": 32}
    size = {"hidden_size": 16, "n_layers": 3, "kernel_size": 9, "vocab_size": 7}
    _write(folder / "config.json", {**size, **dilation, "model_type": "ConvNet", "initializer_range": 0.2})


def _awdlstm(key: str, folder: Path) -> None:
    _letter_tokenizer(folder)
    config = {
        "model_type": "AWDLSTM",
        "input_size": 16,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "vocab_size": 7,
        "bidirectional": False,
        "batch_first": True,
        "initializer_range": 0.3,
    }
    _write(folder / "config.json", config)


def _twoscale(key: str, folder: Path) -> None:
    _letter_tokenizer(folder)
    sizes = {"kmer": 3, "table_width": 8, "side_kmers": 2, "stride": 4, "body_width": 8, "body_layers": 3}
    rows = {"detail_width": 6, "local_width": 16, "fine_width": 16, "fine_layers": 2, "around_word": 2}
    _write(folder / "config.json", {**sizes, **rows, "model_type": "TwoScale", "vocab_size": 7})


_MAKERS: tuple[tuple[str, Callable[[str, Path], None]], ...] = (
    ("awdlstm", _awdlstm),
    ("bend-mini", _twoscale),
    ("caduceus", _caduceus),
    ("dnabert2", _dnabert2),
    ("dnabert", _dnabert),
    ("gena-lm-bigbird", _bigbird),
    ("gena-lm", _genalm),
    ("gpn", _convnet),
    ("grover", _grover),
    ("hyenadna", _hyenadna),
    ("nt_transformer", _nucleotide_transformer),
    ("onehot", lambda key, folder: None),
    ("resnetlm", _convnet),
)


def _maker_of(key: str) -> Callable[[str, Path], None]:
    for start, make in _MAKERS:
        if key.startswith(start):
            return make
    raise KeyError(f"no fake checkpoint is known for {key!r}; add one to tests/fake_checkpoints.py")
