"""DNABERT's k-mers, compared with slices of the sequence, and its embeddings."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from bend_hf.embedders._checkpoint_files import mask_in_files, read_vocabulary
from bend_hf.embedders._tokens import Nucleotides
from bend_hf.embedders.dnabert import DNABertEmbedder, KmerVocabulary, kmer_token_map
from bend_hf.errors import ModelError
from tests.fake_checkpoints import make_tiny
from tests.shared_data import SHARED, needs_shared

SEQUENCES = st.lists(st.text("ACGTACGTACGTNRYacgtn", min_size=1, max_size=40), min_size=1, max_size=5)
TINY = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}


def kmers_by_slicing(sequence: str, k: int, words: dict[str, int]) -> list[int]:
    kmers = [sequence[i : i + k] for i in range(len(sequence) - k + 1)] or ["[UNK]"]
    return [words.get(kmer, words["[UNK]"]) for kmer in kmers]


def rows_of(n_kmers: int, length_bp: int, *, as_bend: bool) -> list[int]:
    """K-mer numbers from 1, one for each nucleotide."""
    rows = kmer_token_map(np.array([n_kmers]), np.array([length_bp]), as_bend=as_bend)
    return (np.repeat(rows.token, rows.bp) + 1).tolist()


@needs_shared
@pytest.mark.parametrize("k", [3, 4, 5, 6])
@settings(deadline=None)
@given(sequences=SEQUENCES)
def test_ids_are_those_of_the_published_vocabulary(k: int, sequences: list[str]) -> None:
    path = SHARED / "tokenizers" / f"dnabert{k}" / "vocab.txt"
    words = {word: number for number, word in enumerate(path.read_text().split())}
    stream = vocabulary(k).stream(Nucleotides.of(sequences))
    expected = [kmers_by_slicing(sequence, k, words) for sequence in sequences]
    assert [stream.ids[a:b].tolist() for a, b in zip(stream.starts, stream.starts[1:], strict=False)] == expected


@cache
def vocabulary(k: int) -> KmerVocabulary:
    return KmerVocabulary.read(SHARED / "tokenizers" / f"dnabert{k}")


@needs_shared
def test_the_published_vocabularies_are_complete() -> None:
    assert [vocabulary(k).size for k in (3, 4, 5, 6)] == [69, 261, 1029, 4101]
    assert all(len(np.unique(vocabulary(k).ids)) == 4**k for k in (3, 4, 5, 6))


@pytest.mark.parametrize(
    ("k", "n_kmers", "expected"),
    [
        (3, 5, [1, 1, 2, 3, 4, 5, 5]),
        (4, 5, [1, 1, 2, 3, 4, 5, 5, 5]),
        (5, 3, [1, 1, 2, 3, 1, 3, 3]),
        (6, 7, [1, 1, 2, 3, 4, 5, 6, 7, 1, 7, 7, 7]),  # as recorded in the golden references
        (6, 1, [1, 1, 1, 1, 1, 1]),
    ],
)
def test_embeddings_as_bend_by_hand(k: int, n_kmers: int, expected: list[int]) -> None:
    assert rows_of(n_kmers, n_kmers + k - 1, as_bend=True) == expected


@pytest.mark.parametrize(
    ("k", "n_kmers", "expected"),
    [(5, 3, [1, 1, 1, 2, 3, 3, 3]), (6, 7, [1, 1, 1, 2, 3, 4, 5, 6, 7, 7, 7, 7]), (3, 2, [1, 1, 2, 2])],
)
def test_embeddings_by_hand(k: int, n_kmers: int, expected: list[int]) -> None:
    assert rows_of(n_kmers, n_kmers + k - 1, as_bend=False) == expected


@pytest.mark.parametrize("as_bend", [True, False])
def test_embeddings_of_a_sequence_shorter_than_k_are_one(as_bend: bool) -> None:
    assert rows_of(1, 4, as_bend=as_bend) == [1, 1, 1, 1]


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6), k=st.integers(3, 6), as_bend=st.booleans())
def test_embeddings_of_a_batch_are_those_of_its_sequences(lengths: list[int], k: int, as_bend: bool) -> None:
    lengths_bp = np.array(lengths)
    n_kmers = np.maximum(lengths_bp - k + 1, 1)
    rows = kmer_token_map(n_kmers, lengths_bp, as_bend=as_bend)
    offsets = np.cumsum(n_kmers) - n_kmers
    for i, (first, last) in enumerate(zip(rows.starts, rows.starts[1:], strict=False)):
        numbers = np.repeat(rows.token[first:last] - offsets[i], rows.bp[first:last]) + 1
        assert numbers.tolist() == rows_of(int(n_kmers[i]), lengths[i], as_bend=as_bend)


@needs_shared
@pytest.mark.parametrize("protocol", ["bend-2024", "bend-hf-1"])
@pytest.mark.parametrize("k", [3, 4, 5, 6])
def test_every_input_has_one_embedding_per_nucleotide(k: int, protocol: str, tmp_path: Path) -> None:
    shutil.copy(SHARED / "tokenizers" / f"dnabert{k}" / "vocab.txt", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**TINY, "vocab_size": 4**k + 5}))
    embedder = DNABertEmbedder(tmp_path, kmer=k, protocol=protocol, random_init=True, device="cpu")
    longest = 510 + k - 1  # nucleotides of a full chunk
    lengths = [1, k - 1, k, k + 1, longest - 1, longest, longest + 1, 512, 513, 1025]
    sequences = [("ACGTTGCANRacgtn" * 80)[:length] for length in lengths] + ["N" * 700, "n", "RYSWKM"]
    rows = embedder.embed(sequences, upsample_embeddings=True)
    assert [one.shape for one in rows] == [(len(sequence), 8) for sequence in sequences]
    assert all(np.isfinite(one).all() for one in rows)


@needs_shared
def test_lower_case_is_upper_cased_first(tmp_path: Path) -> None:
    shutil.copy(SHARED / "tokenizers" / "dnabert6" / "vocab.txt", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**TINY, "vocab_size": 4101}))
    embedder = DNABertEmbedder(tmp_path, random_init=True, device="cpu")
    np.testing.assert_array_equal(embedder("acgtTGCAac"), embedder("ACGTTGCAAC"))


@pytest.mark.parametrize("content", ["[PAD]\n[UNK]\n[CLS]\n[SEP]\nAC\nACG\n", "AC\nAG\n"])
def test_a_file_that_is_no_kmer_vocabulary_raises(content: str, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text(content)
    with pytest.raises(ModelError, match="does not have a vocabulary of k-mers"):
        KmerVocabulary.read(tmp_path)


def test_a_missing_vocabulary_raises(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has neither vocab\.txt nor tokenizer\.json"):
        KmerVocabulary.read(tmp_path)


@pytest.mark.parametrize("k", [3, 6])
def test_a_copy_saved_by_transformers_5_has_the_same_embeddings(k: int, tmp_path: Path) -> None:
    published = make_tiny(f"dnabert{k}", tmp_path / "published")
    BertForMaskedLM(BertConfig.from_pretrained(published)).save_pretrained(published)
    (published / "tokenizer_config.json").write_text('{"do_lower_case": false, "tokenizer_class": "BertTokenizer"}')
    BertForMaskedLM.from_pretrained(published).save_pretrained(tmp_path / "again")
    AutoTokenizer.from_pretrained(published).save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again" / "vocab.txt").exists()
    first, again = (DNABertEmbedder(folder, kmer=k) for folder in (published, tmp_path / "again"))
    np.testing.assert_array_equal(again("ACGTTGCANGAC"), first("ACGTTGCANGAC"))
    assert again.mask_id == first.mask_id


@pytest.mark.parametrize("text", ["{lines}\n", "{lines}", "{crlf}", "\ufeff{lines}\n", "{lines}\n\n"])
def test_the_number_of_a_line_is_the_id_of_its_token(text: str, tmp_path: Path) -> None:
    lines = ["[PAD]", "[UNK]", "[CLS]", "", "[SEP]", "[MASK]", "AAA", " ACG ", "", "TTT"]
    written = text.format(lines="\n".join(lines), crlf="\r\n".join(lines))
    (tmp_path / "vocab.txt").write_bytes(written.encode())
    assert read_vocabulary(tmp_path) == [line.strip() for line in lines]
    assert mask_in_files(tmp_path) == 5
    vocabulary = KmerVocabulary.read(tmp_path)
    assert vocabulary.stream(Nucleotides.of(["AAA", "ACG", "TTT", "CCC"])).ids.tolist() == [6, 7, 9, 1]
    assert vocabulary.size == len(lines)
