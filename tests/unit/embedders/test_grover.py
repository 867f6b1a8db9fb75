"""GROVER's longest tokens, compared with a loop that takes one token after the other."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from bend_hf.embedders import load_embedder
from bend_hf.embedders._family import family_of
from bend_hf.embedders._tokens import Nucleotides
from bend_hf.embedders.grover import GROVEREmbedder, LongestTokens
from bend_hf.errors import ModelError
from bend_hf.types import ProtocolName

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
UNKNOWN, CLS, SEP = 1, 2, 3
WORDS = [*SPECIALS, "A", "C", "G", "T", "AA", "AAAA", "AC", "ACGT", "CG", "GTT", "GTTACA", "TT"]
SEQUENCES = st.lists(st.text("ACGTACGTNR", min_size=1, max_size=60), min_size=1, max_size=5)
TINY = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}


def one_word_after_the_other(sequence: str, words: list[str]) -> list[str]:
    longest = max(len(word) for word in words)
    taken, place = [], 0
    while place < len(sequence):
        fits = [n for n in range(longest, 0, -1) if sequence[place : place + n] in words and n <= len(sequence) - place]
        taken.append(sequence[place : place + fits[0]] if fits else "[UNK]")
        place += fits[0] if fits else 1
    return taken


def longest_tokens(tokens: list[str]) -> LongestTokens:
    return LongestTokens.of({word: number for number, word in enumerate(tokens)}, source="test")


def texts(ids: np.ndarray, words: list[str]) -> list[str]:
    return [words[number] for number in ids]


def write_folder(
    folder: Path, *, words: list[str] | None = WORDS, merges: bool = False, n_rows: int = len(WORDS)
) -> Path:
    if words is not None:
        (folder / "vocab.txt").write_text("\n".join(words))
    if merges:
        write_merges(folder / "tokenizer.json")
    (folder / "config.json").write_text(json.dumps({**TINY, "vocab_size": n_rows, "max_position_embeddings": 16}))
    return folder


def write_merges(path: Path) -> None:
    """Byte pairs of which the first learned hides longer words: G + T before A + C, C + G never."""
    from tokenizers import Tokenizer, models

    words = [*SPECIALS, "A", "C", "G", "T", "GT", "AC", "ACGT"]
    bpe = models.BPE({word: number for number, word in enumerate(words)}, [("G", "T"), ("A", "C"), ("AC", "GT")])
    Tokenizer(bpe).save(str(path))
    loaded = json.loads(path.read_text())
    loaded["model"]["vocab"][""] = len(words)  # the published file ends in an empty word that has no row
    path.write_text(json.dumps(loaded))


@settings(deadline=None)
@given(sequences=SEQUENCES)
def test_tokens_are_those_of_one_after_the_other(sequences: list[str]) -> None:
    stream = longest_tokens(WORDS).stream(Nucleotides.of(sequences))
    for sequence, first, last in zip(sequences, stream.starts, stream.starts[1:], strict=False):
        assert texts(stream.ids[first:last], WORDS) == one_word_after_the_other(sequence, WORDS[len(SPECIALS) :])


@settings(deadline=None)
@given(sequences=SEQUENCES)
def test_tokens_cover_each_sequence(sequences: list[str]) -> None:
    stream = longest_tokens(WORDS).stream(Nucleotides.of(sequences))
    covered = [int(stream.token_bp[a:b].sum()) for a, b in zip(stream.starts, stream.starts[1:], strict=False)]
    assert covered == [len(sequence) for sequence in sequences]


def test_a_token_does_not_reach_into_the_next_sequence() -> None:
    stream = longest_tokens(WORDS).stream(Nucleotides.of(["ACG", "TGT", "TACA"]))
    assert texts(stream.ids, WORDS) == ["AC", "G", "T", "G", "T", "T", "AC", "A"]


def test_the_longest_token_wins_over_the_longer_rest() -> None:
    stream = longest_tokens(WORDS).stream(Nucleotides.of(["GTTACAAAAA", "NACGTN"]))
    assert texts(stream.ids, WORDS) == ["GTTACA", "AAAA", "[UNK]", "ACGT", "[UNK]"]


def test_a_vocabulary_without_specials_raises() -> None:
    with pytest.raises(ModelError, match=r"it lacks \[CLS\], \[SEP\], \[PAD\], \[UNK\]"):
        longest_tokens(["A", "C"])


@pytest.mark.parametrize("merges", [True, False])
def test_bend_2024_takes_longest_tokens(merges: bool, tmp_path: Path) -> None:
    embedder = GROVEREmbedder(write_folder(tmp_path, merges=merges), random_init=True, device="cpu")
    assert embedder.segmentation == "longest tokens"
    assert texts(embedder.tokenize(["ACGTT"]).ids[1:-1], WORDS) == ["ACGT", "T"]


def test_bend_2024_reads_the_tokens_out_of_tokenizer_json(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, words=None, merges=True, n_rows=12)
    embedder = GROVEREmbedder(folder, random_init=True, device="cpu")
    assert embedder.tokenize(["GACGTACN"]).ids.tolist() == [CLS, 7, 11, 10, UNKNOWN, SEP]


def test_bend_hf_1_merges_byte_pairs(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, words=None, merges=True, n_rows=12)
    embedder = GROVEREmbedder(folder, protocol="bend-hf-1", random_init=True, device="cpu")
    assert embedder.segmentation == "byte pairs"
    tokenized = embedder.tokenize(["ACGACGTNNT"])
    assert tokenized.ids.tolist() == [CLS, 10, 7, 11, UNKNOWN, UNKNOWN, 8, SEP]
    assert tokenized.embedding_bp.tolist() == [2, 1, 4, 1, 1, 1]


def test_bend_hf_1_without_merges_warns_and_takes_longest_tokens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        embedder = GROVEREmbedder(write_folder(tmp_path), protocol="bend-hf-1", random_init=True, device="cpu")
    assert "no byte-pair merges" in caplog.text
    assert embedder.segmentation == "longest tokens"


def test_a_folder_without_any_vocabulary_raises(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"neither vocab\.txt nor tokenizer\.json"):
        GROVEREmbedder(write_folder(tmp_path, words=None), random_init=True)


def test_a_vocabulary_larger_than_the_model_raises(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="vocabulary of 17 tokens, but vocab_size 12"):
        GROVEREmbedder(write_folder(tmp_path, n_rows=12), random_init=True)


@pytest.mark.parametrize("merges", [True, False])
@pytest.mark.parametrize("protocol", ["bend-2024", "bend-hf-1"])
def test_every_input_has_one_embedding_per_nucleotide(protocol: str, merges: bool, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, merges=merges)
    embedder = GROVEREmbedder(folder, protocol=protocol, random_init=True, device="cpu")
    sequences = ["A", "n", "N" * 40, "acgtt" * 20, "RYKM", *("AC" * n for n in (13, 14, 15, 28, 29)), "GTTACA" * 50]
    rows = embedder.embed(sequences, upsample_embeddings=True)
    assert [one.shape for one in rows] == [(len(sequence), 8) for sequence in sequences]
    assert all(np.isfinite(one).all() for one in rows)


@pytest.mark.parametrize("protocol", ["bend-2024", "bend-hf-1"])
def test_a_copy_that_transformers_5_saved_gives_the_same_rows(tmp_path: Path, protocol: ProtocolName) -> None:
    published, copy = tmp_path / "published", tmp_path / "copy"
    published.mkdir()
    write_folder(published)
    config = BertConfig(**json.loads((published / "config.json").read_text()))
    BertForMaskedLM(config).save_pretrained(published)
    BertForMaskedLM.from_pretrained(published).save_pretrained(copy)
    BertTokenizer.from_pretrained(published, do_lower_case=False).save_pretrained(copy)
    (copy / "vocab.txt").unlink(missing_ok=True)  # transformers before 5 writes both
    assert (copy / "tokenizer.json").is_file()
    found = load_embedder(copy, protocol=protocol, device="cpu")
    assert isinstance(found, GROVEREmbedder)
    assert found.segmentation == "longest tokens"
    expected = load_embedder("grover", checkpoint=published, protocol=protocol, device="cpu")
    for sequence in ("GTTACAGTTACGNACGTAAAACC" * 3, "N", "ACGTR"):
        np.testing.assert_array_equal(found(sequence), expected(sequence))


def test_a_vocabulary_of_wordpiece_is_not_of_grover(tmp_path: Path) -> None:
    config = {"model_type": "bert"}
    write_folder(tmp_path, words=[*WORDS, "##A", "##C"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert family_of(tmp_path) is None
    write_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert family_of(tmp_path) == "grover:GROVEREmbedder"
    write_merges(tmp_path / "tokenizer.json")
    assert family_of(tmp_path) is None
