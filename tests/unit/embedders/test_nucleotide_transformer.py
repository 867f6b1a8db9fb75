"""The Nucleotide Transformer's k-mers, inputs and embeddings, compared with a tokenizer that loops over nucleotides."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import EsmConfig, EsmModel

from bend_hf.embedders import MODELS, NucleotideTransformerEmbedder
from bend_hf.embedders._alignment import TokenStream
from bend_hf.embedders._tokens import Nucleotides
from bend_hf.embedders.networks.nucleotide_transformer_v2 import (
    NucleotideTransformerV2Config,
    NucleotideTransformerV2ForMaskedLM,
    NucleotideTransformerV2Model,
)
from bend_hf.embedders.nucleotide_transformer import KmerVocabulary, join_runs
from bend_hf.errors import ConfigError, ModelError
from bend_hf.types import PROTOCOLS

WORDS = ["".join(nucleotides) for nucleotides in product("ATCG", repeat=6)]
TOKENS = {
    "v1": ["<unk>", "<pad>", "<mask>", "<cls>", *WORDS, *"ATCGN", "<eos>", "<bos>"],
    "v2": ["<unk>", "<pad>", "<mask>", "<cls>", "<eos>", "<bos>", *WORDS, *"ATCGN"],
}
CONTEXT = 20  # tokens; 19 words of 6 nucleotides beside <cls>
CLEAN_BP = 6 * (CONTEXT - 1)
SIZES = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": CONTEXT + 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 1,
    "mask_token_id": 2,
    "emb_layer_norm_before": False,
    "tie_word_embeddings": False,
}
FIELDS = {
    "v1": SIZES
    | {"model_type": "esm", "vocab_size": 4105, "position_embedding_type": "absolute", "token_dropout": True},
    "v2": SIZES
    | {"add_bias_fnn": False, "vocab_size": 4107, "position_embedding_type": "rotary", "token_dropout": False},
}
CODES = st.text(alphabet="ACGTacgtNnRYKM", min_size=1, max_size=400)
CLEAN = st.text(alphabet="ACGT", min_size=1, max_size=400)


def write_checkpoint(folder: Path, version: str, **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    fields = {key: value for key, value in (FIELDS[version] | changes).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "vocab.txt").write_text("\n".join(TOKENS[version]))
    return folder


@pytest.fixture(scope="module")
def embedders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], NucleotideTransformerEmbedder]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {
        (version, protocol): NucleotideTransformerEmbedder(
            write_checkpoint(root / version, version),
            random_init=True,
            device="cpu",
            batch_tokens=256,
            protocol=protocol,
        )
        for version in TOKENS
        for protocol in PROTOCOLS
    }


def words_of(nucleotides: str, *, join_unknown: bool) -> list[str]:
    odd = r"[^ACGTN]+" if join_unknown else r"[^ACGTN]"
    return re.findall(rf"[ACGT]{{6}}|[ACGTN]|{odd}", nucleotides)


def pieces_of(nucleotides: str, version: str, protocol: str) -> list[list[int]]:
    """Ids of each input, one nucleotide after the other: what the embedder does for all sequences at once."""
    id_of = {token: index for index, token in enumerate(TOKENS[version])}
    nucleotides = nucleotides.upper()
    chunks: list[list[int]] = []
    if protocol == "bend-2024":
        for start in range(0, len(nucleotides), CLEAN_BP):
            words = words_of(nucleotides[start : start + CLEAN_BP], join_unknown=True)
            ids = [id_of["<cls>"], *(id_of.get(word, 0) for word in words)]
            chunks += [ids[first : first + CONTEXT] for first in range(0, len(ids), CONTEXT)]
    else:
        ids = [id_of.get(word, 0) for word in words_of(nucleotides, join_unknown=False)]
        for first in range(0, len(ids), CONTEXT - 1):
            chunks.append([id_of["<cls>"], *ids[first : first + CONTEXT - 1]])
    return chunks


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("version", list(TOKENS))
@given(sequences=st.lists(CODES | CLEAN, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_inputs_equal_those_made_nucleotide_by_nucleotide(
    embedders: Any, version: str, protocol: str, sequences: list[str]
) -> None:
    tokenized = embedders[version, protocol].tokenize(sequences)
    chunks = [chunk.tolist() for chunk in np.split(tokenized.ids, tokenized.chunk_starts[1:-1])]
    expected = [pieces_of(nucleotides, version, protocol) for nucleotides in sequences]
    assert chunks == [chunk for one in expected for chunk in one]
    assert tokenized.chunk_sequence.tolist() == [i for i, one in enumerate(expected) for _ in one]
    assert (np.diff(tokenized.chunk_starts) <= CONTEXT).all()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("version", list(TOKENS))
@given(sequences=st.lists(CODES, min_size=1, max_size=3))
@settings(max_examples=15, deadline=None)
def test_every_nucleotide_has_one_embedding_whatever_the_nucleotides(
    embedders: Any, version: str, protocol: str, sequences: list[str]
) -> None:
    embedder = embedders[version, protocol]
    rows = embedder.embed(sequences, upsample_embeddings=True)
    assert [one.shape for one in rows] == [(len(nucleotides), 8) for nucleotides in sequences]
    assert all(np.isfinite(one).all() for one in rows)
    assert [tokens.embedding_bp.sum() for tokens in embedder.embed_tokens(sequences)] == [len(one) for one in sequences]
    assert [len(loss) for loss in embedder.loss(sequences, upsample_embeddings=True)] == [len(s) for s in sequences]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("version", list(TOKENS))
@pytest.mark.parametrize(
    "nucleotides",
    ["A", "ACGTA", "N" * 500, "R", "RYRYR", "acgtacgtacgt", "A" * CLEAN_BP, "A" * (CLEAN_BP + 1), "ACGTN" * 90],
)
def test_edge_of_the_promise_has_one_embedding_per_nucleotide(
    embedders: Any, version: str, protocol: str, nucleotides: str
) -> None:
    assert embedders[version, protocol](nucleotides, upsample_embeddings=True).shape == (len(nucleotides), 8)


@pytest.mark.parametrize(
    ("protocol", "length_bp", "tokens"),
    [
        ("bend-2024", CLEAN_BP, [20]),
        ("bend-hf-1", CLEAN_BP, [20]),
        ("bend-2024", CLEAN_BP + 1, [20, 2]),
        ("bend-hf-1", CLEAN_BP + 1, [20, 2]),
        ("bend-2024", CLEAN_BP - 1, [20, 4]),  # the last five nucleotides are a token each; 24 with <cls>
        ("bend-hf-1", CLEAN_BP - 1, [20, 5]),  # and one more <cls>
    ],
)
def test_clean_nucleotides_fill_the_context_and_one_more_opens_a_chunk(
    embedders: Any, protocol: str, length_bp: int, tokens: list[int]
) -> None:
    tokenized = embedders["v1", protocol].tokenize([("GATTACA" * 20)[:length_bp]])
    assert np.diff(tokenized.chunk_starts).tolist() == tokens


@pytest.mark.parametrize("version", list(TOKENS))
def test_sliding_windows_keep_one_embedding_per_nucleotide(version: str, tmp_path: Path) -> None:
    embedder = NucleotideTransformerEmbedder(
        write_checkpoint(tmp_path / version, version), random_init=True, device="cpu", overlap_tokens=5
    )
    nucleotides = "ACGTTGCANRR" * 40
    tokenized = embedder.tokenize([nucleotides])
    assert (tokenized.ids[tokenized.chunk_starts[:-1]] == 3).all()  # each chunk has its own <cls>
    assert embedder(nucleotides, upsample_embeddings=True).shape == (len(nucleotides), 8)


@pytest.mark.parametrize("version", list(TOKENS))
def test_embeddings_do_not_depend_on_padding(embedders: Any, version: str) -> None:
    embedder = embedders[version, "bend-hf-1"]
    nucleotides = ["ACGTAC" * 19, "ACG", "N", "GATTACAGATTACA"]
    for together, alone in zip(embedder.embed(nucleotides), map(embedder, nucleotides), strict=True):
        np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)


def test_v2_network_ignores_what_stands_in_padding() -> None:
    torch.manual_seed(0)
    config = NucleotideTransformerV2Config(hidden_size=8, num_hidden_layers=2, num_attention_heads=2)
    network = NucleotideTransformerV2Model(config).eval()
    ids = torch.tensor([[3, 10, 11, 12, 1, 1]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    with torch.inference_mode():
        plain = network(ids, mask).last_hidden_state[:, :4]
        other = network(torch.tensor([[3, 10, 11, 12, 99, 4000]]), mask).last_hidden_state[:, :4]
        alone = network(ids[:, :4]).last_hidden_state
    torch.testing.assert_close(plain, other, atol=1e-6, rtol=0)
    torch.testing.assert_close(plain, alone, atol=1e-6, rtol=0)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=5))
def test_joined_runs_cover_the_same_nucleotides(sequences: list[list[int]]) -> None:
    ids = np.concatenate([np.array(one) for one in sequences])
    starts = np.cumsum([0, *map(len, sequences)])
    joined = join_runs(TokenStream(ids=ids, token_bp=ids + 1, starts=starts), 0)
    for index, one in enumerate(sequences):
        own = slice(joined.starts[index], joined.starts[index + 1])
        expected = re.sub("0+", "0", "".join(map(str, one)))
        assert "".join(map(str, joined.ids[own])) == expected
        assert joined.token_bp[own].sum() == sum(value + 1 for value in one)


@pytest.mark.parametrize("version", list(TOKENS))
def test_losses_compete_among_kmers_and_nucleotides(embedders: Any, version: str) -> None:
    embedder = embedders[version, "bend-2024"]
    first = TOKENS[version].index("AAAAAA")
    assert embedder._loss_tokens() == range(first, FIELDS[version]["vocab_size"])
    loss = embedder.loss(["ACGTACNR"])[0]
    assert np.isnan(loss).tolist() == [False, False, True]  # <unk> competes with nothing


def test_vocabulary_of_other_kmers_is_read_by_its_kmer_length() -> None:
    words = ["".join(nucleotides) for nucleotides in product("ATCG", repeat=3)]
    vocabulary = KmerVocabulary.of(["<unk>", "<pad>", "<mask>", "<cls>", *words, *"ATCGN"])
    stream = vocabulary.stream(Nucleotides.of(["ATCGN"]), join_unknown=True)
    assert (vocabulary.k, stream.token_bp.tolist()) == (3, [3, 1, 1])
    assert stream.ids[0] == 4 + words.index("ATC")


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["<unk>", "<pad>", "<mask>", *WORDS, *"ATCGN"], "lacks <cls>"),
        (["<unk>", "<pad>", "<mask>", "<cls>", *WORDS, *"ATCG"], "lacks N"),
        (["<unk>", "<pad>", "<mask>", "<cls>", *WORDS[1:], *"ATCGN"], "has 4095 6-mers; expected all 4096"),
    ],
)
def test_vocabulary_that_is_not_whole_raises(tokens: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        KmerVocabulary.of(tokens)


@pytest.mark.parametrize(
    ("version", "changes", "message"),
    [
        ("v1", {"model_type": "bert"}, "is not of a Nucleotide Transformer"),
        ("v1", {"vocab_size": 4000}, "the files do not belong together"),
        ("v2", {"add_bias_fnn": True}, "has {'add_bias_fnn': True}"),
        ("v2", {"position_embedding_type": "absolute"}, "has {'position_embedding_type': 'absolute'}"),
        ("v2", {"hidden_size": None}, "lacks hidden_size"),
    ],
)
def test_configuration_of_another_network_raises(
    version: str, changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path / version, version, **changes)
    with pytest.raises(ModelError, match=re.escape(message)):
        NucleotideTransformerEmbedder(folder, random_init=True)


def test_missing_vocabulary_raises(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "v1", "v1")
    (folder / "vocab.txt").unlink()
    with pytest.raises(ModelError, match=r"has neither vocab\.txt nor tokenizer\.json"):
        NucleotideTransformerEmbedder(folder, random_init=True)


def test_layer_past_the_last_raises(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "v2", "v2")
    with pytest.raises(ConfigError, match="has no layer 3"):
        NucleotideTransformerEmbedder(folder, random_init=True, layer=3, device="cpu")


# (layers, heads, feed-forward width) of each published config.json.
SHAPES = {
    "nt_transformer_ms": (32, 20, 10240),
    "nt_transformer_human_ref": (24, 20, 5120),
    "nt_transformer_1000g": (32, 20, 10240),
    "nt_transformer_500m_1000g": (24, 20, 5120),
    "nt_transformer_v2_50m": (12, 16, 2048),
    "nt_transformer_v2_100m": (22, 16, 2048),
    "nt_transformer_v2_250m": (24, 16, 3072),
    "nt_transformer_v2_500m": (29, 16, 4096),
}


@pytest.mark.parametrize("key", list(SHAPES))
def test_declared_size_is_that_of_the_network(key: str) -> None:
    from transformers import EsmConfig, EsmForMaskedLM

    spec = MODELS.get(key)
    assert spec.context_tokens is not None
    layers, heads, feed_forward = SHAPES[key]
    version = "v2" if "v2" in key else "v1"
    fields: dict[str, Any] = FIELDS[version] | {
        "hidden_size": spec.width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": feed_forward,
        "max_position_embeddings": spec.context_tokens + 2,
    }
    with torch.device("meta"):
        network = (
            NucleotideTransformerV2ForMaskedLM(NucleotideTransformerV2Config.published(fields))
            if version == "v2"
            else EsmForMaskedLM(EsmConfig.from_dict(fields))
        )
    assert sum(weight.numel() for weight in network.parameters()) == spec.n_parameters


def test_a_copy_saved_as_esm_model_with_its_pooler_has_the_same_embeddings(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "v1", "v1")
    drawn = NucleotideTransformerEmbedder(folder, random_init=True, device="cpu")
    bare = EsmModel(EsmConfig.from_pretrained(folder))  # with a pooler
    bare.load_state_dict({**bare.state_dict(), **drawn.model.esm.state_dict()})
    bare.save_pretrained(folder)
    loaded = NucleotideTransformerEmbedder(folder, device="cpu")
    np.testing.assert_array_equal(loaded("ACGTACGTN"), drawn("ACGTACGTN"))


def test_a_copy_of_v2_may_have_the_model_type_esm(tmp_path: Path) -> None:
    published, copy = (
        NucleotideTransformerEmbedder(
            write_checkpoint(tmp_path / name, "v2", model_type=model_type), random_init=True, device="cpu"
        )
        for name, model_type in (("published", None), ("copy", "esm"))
    )
    np.testing.assert_array_equal(copy("ACGTACGTN"), published("ACGTACGTN"))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_vocabulary_may_be_in_tokenizer_json(version: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / version, version)
    first = NucleotideTransformerEmbedder(folder, random_init=True, device="cpu")
    (folder / "vocab.txt").unlink()
    words = {token: number for number, token in enumerate(TOKENS[version])}
    Tokenizer(models.WordLevel(words, unk_token="<unk>")).save(str(folder / "tokenizer.json"))
    again = NucleotideTransformerEmbedder(folder, random_init=True, device="cpu")
    np.testing.assert_array_equal(again("ACGTACGTN"), first("ACGTACGTN"))
