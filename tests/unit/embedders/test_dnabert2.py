"""DNABERT-2's byte-pair tokens, inputs and embeddings, with a small vocabulary and the published one."""

from __future__ import annotations

import json
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor

from bend_hf.embedders import DNABert2Embedder
from bend_hf.embedders._bpe import BpeTokenizer
from bend_hf.embedders.dnabert2 import SECTION_BP, SLIDING_TOKENS
from bend_hf.embedders.networks.dnabert2 import AttentionBias, DNABert2Config, DNABert2Model, alibi_slopes
from bend_hf.errors import ModelError
from bend_hf.types import PROTOCOLS
from tests.shared_data import SHARED, needs_shared

SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
PAIRS = [*product("ACGT", repeat=2), ("AC", "GT"), ("GA", "T")]
VOCABULARY = [*SPECIAL, *"ACGT", *("".join(pair) for pair in PAIRS)]
FIELDS: dict[str, object] = {
    "alibi_starting_size": 512,
    "model_type": "bert",
    "vocab_size": len(VOCABULARY),
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 8,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
CODES = st.text(alphabet="ACGTacgtNnRYKM", min_size=1, max_size=300)


def write_checkpoint(folder: Path, **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(FIELDS | changes))
    ids = {token: index for index, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(BPE(vocab=ids, merges=PAIRS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def embedders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DNABert2Embedder]:
    folder = write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "dnabert2")
    return {
        protocol: DNABert2Embedder(folder, random_init=True, device="cpu", batch_tokens=512, protocol=protocol)
        for protocol in PROTOCOLS
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(sequences=st.lists(CODES, min_size=1, max_size=3))
@settings(max_examples=20, deadline=None)
def test_every_nucleotide_has_one_embedding_whatever_the_nucleotides(
    embedders: Any, protocol: str, sequences: list[str]
) -> None:
    embedder = embedders[protocol]
    rows = embedder.embed(sequences, upsample_embeddings=True)
    assert [one.shape for one in rows] == [(len(nucleotides), 12) for nucleotides in sequences]
    losses = embedder.loss(sequences, upsample_embeddings=True)
    assert [len(loss) for loss in losses] == [len(nucleotides) for nucleotides in sequences]
    assert all(np.isfinite(one).all() for one in [*rows, *losses])


@given(sequences=st.lists(CODES, min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_tokens_spell_the_sequence_and_a_nucleotide_without_one_is_unknown(
    embedders: Any, sequences: list[str]
) -> None:
    tokenized = embedders["bend-2024"].tokenize(sequences)
    chunks = np.split(tokenized.ids, tokenized.chunk_starts[1:-1])
    for nucleotides, chunk in zip(sequences, chunks, strict=True):
        assert (chunk[0], chunk[-1]) == (VOCABULARY.index("[CLS]"), VOCABULARY.index("[SEP]"))
        texts = ["?" if token == 0 else VOCABULARY[token] for token in chunk[1:-1]]
        assert "".join(texts) == "".join(one if one in "ACGT" else "?" for one in nucleotides.upper())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("length_bp", [SECTION_BP, SECTION_BP + 1, 2 * SECTION_BP + 7])
def test_long_sequence_is_cut_every_ten_thousand_nucleotides(embedders: Any, protocol: str, length_bp: int) -> None:
    nucleotides = ("ACGTTGCAN" * (length_bp // 9 + 1))[:length_bp]
    tokenized = embedders[protocol].tokenize([nucleotides])
    edges = [tokenized.ids[tokenized.chunk_starts[:-1]], tokenized.ids[tokenized.chunk_starts[1:] - 1]]
    assert [edge.tolist() for edge in edges] == [[1] * len(edges[0]), [2] * len(edges[0])]
    cuts = np.searchsorted(tokenized.embedding_token, tokenized.chunk_starts[1:-1])
    assert np.cumsum(tokenized.embedding_bp)[cuts - 1].tolist() == list(range(SECTION_BP, length_bp, SECTION_BP))
    kept = {"bend-2024": 2, "bend-hf-1": 2 * len(edges[0])}[protocol]
    assert tokenized.special.sum() == kept


def test_sliding_windows_keep_one_embedding_per_nucleotide(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "dnabert2")
    embedder = DNABert2Embedder(folder, random_init=True, device="cpu", overlap_tokens=100)
    nucleotides = "ACGTTGCANR" * 300
    tokenized = embedder.tokenize([nucleotides])
    assert np.diff(tokenized.chunk_starts).max() == SLIDING_TOKENS
    assert (tokenized.ids[tokenized.chunk_starts[:-1]] == 1).all()
    assert embedder(nucleotides, upsample_embeddings=True).shape == (len(nucleotides), 12)


def test_embeddings_do_not_depend_on_padding(embedders: Any) -> None:
    nucleotides = ["ACGTAC" * 50, "ACG", "N", "GATTACAGATTACA"]
    embedder = embedders["bend-2024"]
    for together, alone in zip(embedder.embed(nucleotides), map(embedder, nucleotides), strict=True):
        np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)


def test_network_ignores_what_stands_in_padding() -> None:
    torch.manual_seed(0)
    config = DNABert2Config(vocab_size=16, hidden_size=12, num_hidden_layers=2, num_attention_heads=3)
    network = DNABert2Model(config).eval()
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    with torch.inference_mode():
        plain = network(torch.tensor([[1, 6, 7, 2, 3, 3]]), mask).last_hidden_state[:, :4]
        other = network(torch.tensor([[1, 6, 7, 2, 9, 5]]), mask).last_hidden_state[:, :4]
        alone = network(torch.tensor([[1, 6, 7, 2]])).last_hidden_state
    torch.testing.assert_close(plain, other, atol=1e-6, rtol=0)
    torch.testing.assert_close(plain, alone, atol=1e-6, rtol=0)


# Worked by hand from the rule: powers of 2^(-8/n); for six heads the four of n = 4, then the odd ones of n = 8.
@pytest.mark.parametrize(
    ("heads", "exponents"),
    [(1, [8]), (4, [2, 4, 6, 8]), (6, [2, 4, 6, 8, 1, 3]), (12, [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5])],
)
def test_slopes_follow_the_rule(heads: int, exponents: list[float]) -> None:
    assert alibi_slopes(heads) == pytest.approx([2.0**-exponent for exponent in exponents])


def test_bias_falls_with_distance_and_shuts_padding_out() -> None:
    bias: Tensor = AttentionBias(3, 2, torch.tensor([[1, 1, 0]]), like=torch.zeros(1)).of(slice(0, 3))
    slope = 2.0**-4
    assert bias.shape == (1, 2, 3, 3)
    assert bias[0, 0].tolist() == [[0, -slope, -np.inf], [-slope, 0, -np.inf], [-2 * slope, -slope, -np.inf]]


def test_vocabulary_larger_than_the_network_raises(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "dnabert2", vocab_size=10)
    with pytest.raises(ModelError, match=r"has 27 tokens in tokenizer\.json, but vocab_size 10 in config\.json"):
        DNABert2Embedder(folder, random_init=True)


@pytest.mark.parametrize("lost", ["alibi_starting_size", "hidden_size"])
def test_configuration_of_another_network_raises(lost: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "dnabert2")
    fields = {key: value for key, value in FIELDS.items() if key != lost}
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ModelError, match=f"lacks {lost}; expected the config.json of the published model"):
        DNABert2Embedder(folder, random_init=True)


@cache
def real() -> BpeTokenizer:
    return BpeTokenizer.read(SHARED / "tokenizers" / "dnabert2" / "tokenizer.json")


@needs_shared
@given(sequences=st.lists(CODES | st.text("ACGT", min_size=1, max_size=1000), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_published_vocabulary_covers_every_sequence_exactly(sequences: list[str]) -> None:
    stream = real().stream(sequences)
    assert np.add.reduceat(stream.token_bp, stream.starts[:-1]).tolist() == [
        len(nucleotides) for nucleotides in sequences
    ]
    unknown = stream.ids == real().special["[UNK]"]
    assert unknown.sum() == sum(nucleotide not in "ACGT" for nucleotides in sequences for nucleotide in nucleotides)
    assert (stream.token_bp[unknown] == 1).all()
