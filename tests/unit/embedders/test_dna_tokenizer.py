"""Tokens of any tokenizer have the lengths that its offsets say, which are asked for only where they are needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bend_hf.embedders._dna_tokenizer import DnaTokenizer
from tests.shared_data import SHARED, needs_shared

SPECIALS = {"[PAD]": 0, "[UNK]": 1, "[MASK]": 2}
MERGES = [("A", "C"), ("G", "T"), ("AC", "GT"), ("T", "T")]
SEQUENCES = st.lists(
    st.text("ACGT" * 4 + "NRYMASK", min_size=1, max_size=60) | st.integers(1, 30).map(lambda n: "N" * n),
    min_size=1,
    max_size=6,
)


def numbered(*words: str) -> dict[str, int]:
    return SPECIALS | {word: len(SPECIALS) + place for place, word in enumerate(words)}


def letters() -> Tokenizer:
    made = Tokenizer(models.WordLevel(numbered(*"ACGTN"), unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return made


def merged(*, unknown: bool = True, fused: bool = False) -> Tokenizer:
    words = numbered(*"ACGT", *("".join(pair) for pair in MERGES))
    return Tokenizer(models.BPE(words, MERGES, **({"unk_token": "[UNK]", "fuse_unk": fused} if unknown else {})))


def behind_a_blank() -> Tokenizer:
    words = numbered(*"▁ACGTN", "▁A", "▁AC", *("".join(pair) for pair in MERGES))
    made = Tokenizer(models.BPE(words, [("▁", "A"), *MERGES], unk_token="[UNK]"))
    made.normalizer = normalizers.Prepend("▁")
    return made


def of_bytes() -> Tokenizer:
    words = numbered(*pre_tokenizers.ByteLevel.alphabet(), *("".join(pair) for pair in MERGES))
    made = Tokenizer(models.BPE(words, MERGES))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    return made


def word_pieces() -> Tokenizer:
    words = numbered(*"ACGTNRYMSK", *(f"##{one}" for one in (*"ACGTNRYMSK", "ACG", "TT")), "ACGT")
    return Tokenizer(models.WordPiece(words, unk_token="[UNK]", max_input_chars_per_word=10_000))


def shortening() -> Tokenizer:
    """Runs of N become one token of another letter."""
    made = merged()
    made.normalizer = normalizers.Replace(Regex("N+"), "A")
    return made


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "letters": letters,
    "byte pairs": merged,
    "byte pairs, unknown ones fused": lambda: merged(fused=True),
    "byte pairs that drop N": lambda: merged(unknown=False),
    "behind a blank": behind_a_blank,
    "bytes": of_bytes,
    "word pieces": word_pieces,
    "shortening": shortening,
}


@cache
def opened(kind: str) -> DnaTokenizer:
    made = PreTrainedTokenizerFast(
        tokenizer_object=KINDS[kind](), unk_token="[UNK]", pad_token="[PAD]", mask_token="[MASK]"
    )
    return DnaTokenizer(made, name=kind, cannot=str)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(sequences=SEQUENCES)
def test_lengths_are_those_of_the_offsets(kind: str, sequences: list[str]) -> None:
    tokenizer = opened(kind)
    expected, found = tokenizer._by_offsets(list(sequences)), tokenizer.stream(list(sequences))
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.token_bp, expected.token_bp)
    np.testing.assert_array_equal(found.starts, expected.starts)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "shortening"])
def test_sequences_of_known_letters_need_no_offsets(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = opened(kind)
    known = ["".join(np.random.default_rng(place).choice(list("ACGT"), 200)) for place in range(5)]
    asked: list[str] = []
    by_offsets = tokenizer._by_offsets
    monkeypatch.setattr(tokenizer, "_by_offsets", lambda given: (asked.extend(given), by_offsets(given))[1])
    assert tokenizer.stream(known).starts[-1] > 0
    assert asked == []
    if kind == "byte pairs that drop N":
        dropped = known[0][:50] + "NN" + known[0][50:]
        tokenizer.stream([known[1], dropped, known[2]])
        assert asked == [dropped]


@needs_shared
@pytest.mark.parametrize("name", ["dnabert2", "gena_t2t_1000h_multi_32k", "gena_human_BPE_32k"])
def test_published_vocabularies_have_the_lengths_of_their_offsets(name: str) -> None:
    made = PreTrainedTokenizerFast(
        tokenizer_file=str(SHARED / "tokenizers" / name / "tokenizer.json"), unk_token="[UNK]", pad_token="[PAD]"
    )
    tokenizer = DnaTokenizer(made, name=name, cannot=str)
    random = np.random.default_rng(0)
    sequences = ["".join(random.choice(list("ACGT" * 30 + "NR"), n)) for n in (1, 30, 700, 2500)] + ["A" + "N" * 40]
    expected, found = tokenizer._by_offsets(sequences), tokenizer.stream(sequences)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.token_bp, expected.token_bp)
