"""GENA-LM's published byte-pair tokenizers: their ids, and the nucleotides of each token."""

from __future__ import annotations

import json
import re
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bend_hf.embedders._bpe import BpeTokenizer, GapRule
from bend_hf.embedders._tokens import Nucleotides
from bend_hf.embedders.genalm import GENALMEmbedder
from bend_hf.errors import AlignmentError, ModelError
from tests.shared_data import GOLDEN, SHARED, needs_shared

T2T, HUMAN = "gena_t2t_1000h_multi_32k", "gena_human_BPE_32k"
PUBLISHED = {"GENA_LM t2t_1000h_multi_32k": T2T, "GENA_LM human BPE_32k": HUMAN}
FOLDERS = (T2T, HUMAN, "gena_human_BPE_32k_all_chr_10M")
GAP = 5  # the t2t tokenizers' id of "-"
UNKNOWN = 0
TINY = {
    "vocab_size": 32000,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 8,
    "pad_token_id": 3,
}

_RUN = st.integers(1, 25).map(lambda n: "N" * n)
SEQUENCES = st.lists(
    st.lists(st.text("ACGT", min_size=1, max_size=20) | _RUN | st.sampled_from("RYSWKMBDHV"), min_size=1).map("".join),
    min_size=1,
    max_size=4,
)


@cache
def tokenizer(folder: str) -> BpeTokenizer:
    return BpeTokenizer.read(SHARED / "tokenizers" / folder / "tokenizer.json")


@needs_shared
@pytest.mark.parametrize("name", PUBLISHED)
def test_ids_are_the_published_tokenizers(name: str) -> None:
    recorded = json.loads((GOLDEN / "more" / "real_tokenizer_ids.json").read_text())[name]["ids"]
    sequences = json.loads((GOLDEN / "more" / "sequences.json").read_text())
    stream = tokenizer(PUBLISHED[name]).stream([sequences[key] for key in recorded])
    for key, first, last in zip(recorded, stream.starts, stream.starts[1:], strict=False):
        assert [1, *stream.ids[first:last].tolist(), 2] == recorded[key], key


@needs_shared
@pytest.mark.parametrize("folder", FOLDERS)
@settings(deadline=None)
@given(sequences=SEQUENCES)
@example(sequences=["N" * 9, "N" * 10, "A" + "N" * 10 + "A", "NNN" + "A" * 3 + "N" * 40, "R"])
@example(sequences=["N" * 12, "N" * 12])
def test_tokens_cover_each_sequence(folder: str, sequences: list[str]) -> None:
    stream = tokenizer(folder).stream(sequences)
    covered = [int(stream.token_bp[a:b].sum()) for a, b in zip(stream.starts, stream.starts[1:], strict=False)]
    assert covered == [len(sequence) for sequence in sequences]
    assert stream.token_bp.min() >= 1


@needs_shared
@settings(deadline=None)
@given(sequences=SEQUENCES)
def test_a_run_of_ten_or_more_n_is_one_token_of_its_length(sequences: list[str]) -> None:
    stream = tokenizer(T2T).stream(sequences)
    expected = [len(run) for sequence in sequences for run in re.findall("N{10,}", sequence)]
    assert stream.token_bp[stream.ids == GAP].tolist() == expected


@needs_shared
@settings(deadline=None)
@given(sequences=SEQUENCES)
def test_an_unknown_nucleotide_is_one_token_of_one_nucleotide(sequences: list[str]) -> None:
    stream = tokenizer(HUMAN).stream(sequences)
    n_unknown = sum(len(re.findall("[^ACGT]", sequence)) for sequence in sequences)
    assert stream.token_bp[stream.ids == UNKNOWN].tolist() == [1] * n_unknown


@needs_shared
@pytest.mark.parametrize("folder", [T2T, HUMAN])
@settings(deadline=None)
@given(sequences=SEQUENCES)
def test_lengths_by_text_and_by_offsets_agree(folder: str, sequences: list[str]) -> None:
    by_text = tokenizer(folder).stream(sequences)
    by_offsets = tokenizer(folder)._by_offsets(sequences, Nucleotides.of(sequences))
    np.testing.assert_array_equal(by_text.ids, by_offsets.ids)
    np.testing.assert_array_equal(by_text.token_bp, by_offsets.token_bp)
    np.testing.assert_array_equal(by_text.starts, by_offsets.starts)


@needs_shared
def test_the_gap_rule_is_read_from_the_file() -> None:
    assert tokenizer(T2T).gap == GapRule(token=GAP, character="-", n_min=10)
    assert tokenizer(HUMAN).gap is None
    tiny = BpeTokenizer.read(GOLDEN / "ckpt" / "gena-bert_tiny" / "tokenizer.json")
    assert tiny.gap == GapRule(token=5, character="-", n_min=11)


def test_gap_lengths_do_not_run_over_the_end_of_a_sequence() -> None:
    rule = GapRule(token=5, character="-", n_min=3)
    assert rule.lengths_bp(Nucleotides.of(["ANNN", "NNNNA", "NN", "N-NNN"])).tolist() == [3, 4, 1, 3]


def write_bpe(path: Path, *, unknown: str | None, fuse: bool = False) -> None:
    from tokenizers import Tokenizer, models

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "A", "C", "G", "T", "AC", "GT"]
    vocabulary = {word: number for number, word in enumerate(words)}
    bpe = models.BPE(vocabulary, [("A", "C"), ("G", "T")], unk_token=unknown, fuse_unk=fuse)
    Tokenizer(bpe).save(str(path))


@pytest.mark.parametrize("unknown", [None, "[UNK]"])
def test_unknown_nucleotides_are_tokens_that_nothing_merges_across(unknown: str | None, tmp_path: Path) -> None:
    write_bpe(tmp_path / "tokenizer.json", unknown=unknown)
    stream = BpeTokenizer.read(tmp_path / "tokenizer.json").stream(["ACNNGT", "N", "RACA", "ANC"])
    assert stream.ids.tolist() == [9, 1, 1, 10, 1, 1, 9, 5, 5, 1, 6]
    assert stream.token_bp.tolist() == [2, 1, 1, 2, 1, 1, 2, 1, 1, 1, 1]
    assert stream.starts.tolist() == [0, 4, 5, 8, 11]


def test_a_fused_unknown_token_stands_for_all_its_nucleotides(tmp_path: Path) -> None:
    write_bpe(tmp_path / "tokenizer.json", unknown="[UNK]", fuse=True)
    stream = BpeTokenizer.read(tmp_path / "tokenizer.json").stream(["ACNNNGT"])
    assert (stream.ids.tolist(), stream.token_bp.tolist()) == ([9, 1, 10], [2, 3, 2])


@needs_shared
def test_an_unsupported_normalizer_raises() -> None:
    from dataclasses import replace

    odd = replace(tokenizer(T2T), gap=GapRule(token=GAP, character="-", n_min=12))
    with pytest.raises(AlignmentError, match="made 1 tokens for runs of N; expected 0"):
        odd.stream(["A" + "N" * 11])


@pytest.mark.parametrize("content", [None, "{", '{"model": 1}'])
def test_a_file_that_is_no_tokenizer_raises(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        BpeTokenizer.read(path)


@needs_shared
@pytest.mark.parametrize("model_type", ["bert", "big_bird"])
@pytest.mark.parametrize("protocol", ["bend-2024", "bend-hf-1"])
@pytest.mark.parametrize("folder", [T2T, HUMAN])
def test_every_input_has_one_embedding_per_nucleotide(
    folder: str, protocol: str, model_type: str, tmp_path: Path
) -> None:
    shutil.copy(SHARED / "tokenizers" / folder / "tokenizer.json", tmp_path)
    config = {**TINY, "model_type": model_type, "max_position_embeddings": 16, "block_size": 2, "num_random_blocks": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    embedder = GENALMEmbedder(tmp_path, protocol=protocol, random_init=True, device="cpu")
    unit = "ACGTTGCAAGGCT"
    sequences = ["A", "n", "N" * 9, "N" * 300, "RYSW", unit * 30, unit.lower() * 3, f"{unit}{'N' * 50}{unit}R" * 4]
    full = [embedder.tokenize([unit * 30]).embedding_bp[:n].sum() for n in (13, 14, 15)]  # one chunk holds 14 tokens
    sequences += [(unit * 30)[:n_bp] for n_bp in full]
    rows = embedder.embed(sequences, upsample_embeddings=True)
    assert [one.shape for one in rows] == [(len(sequence), 8) for sequence in sequences]
    assert all(np.isfinite(one).all() for one in rows)


@needs_shared
def test_a_tokenizer_larger_than_the_model_raises(tmp_path: Path) -> None:
    shutil.copy(SHARED / "tokenizers" / T2T / "tokenizer.json", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**TINY, "vocab_size": 100}))
    with pytest.raises(ModelError, match=r"32000 tokens in tokenizer\.json, but vocab_size 100"):
        GENALMEmbedder(tmp_path, random_init=True)
