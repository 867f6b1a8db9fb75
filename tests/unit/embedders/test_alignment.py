"""Cut tokens into chunks, and find the token that gives the embedding of each nucleotide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bend_hf.embedders._alignment import (
    Tokenized,
    TokenMap,
    TokenStream,
    Window,
    assemble,
    merge_sections,
    output_tokens,
)
from bend_hf.embedders._tokens import (
    Nucleotides,
    cut_nucleotides,
    greedy_kmers,
    kmer_codes,
    nucleotide_table,
    single_nucleotides,
    stream_from_ids,
    stream_from_offsets,
)
from bend_hf.embedders._windows import starts_of
from bend_hf.errors import AlignmentError, ConfigError

CLS, SEP = 901, 902
TABLE = nucleotide_table({nucleotide: ord(nucleotide) for nucleotide in "ACGTN"}, unknown=7)


def stream_of(counts: list[int]) -> TokenStream:
    """Tokens 0, 1, 2, ... of one nucleotide each."""
    n = sum(counts)
    return TokenStream(ids=np.arange(n), token_bp=np.ones(n, dtype=np.int64), starts=starts_of(counts))


def pieces(tokenized: Tokenized) -> list[list[int]]:
    return [part.tolist() for part in np.split(tokenized.ids, tokenized.chunk_starts[1:-1])]


def test_each_chunk_gets_its_own_specials() -> None:
    cut = assemble(stream_of([5, 1]), Window(context_tokens=4, prefix=(CLS,), suffix=(SEP,)))
    assert pieces(cut) == [[CLS, 0, 1, SEP], [CLS, 2, 3, SEP], [CLS, 4, SEP], [CLS, 5, SEP]]
    assert cut.chunk_sequence.tolist() == [0, 0, 0, 1]
    assert cut.ids[cut.embedding_token].tolist() == [0, 1, 2, 3, 4, 5]


def test_mid_sequence_adds_specials_once_and_then_cuts() -> None:
    window = Window(context_tokens=3, prefix=(CLS,), suffix=(SEP,), cut="mid-sequence")
    cut = assemble(stream_of([4, 1]), window)
    assert pieces(cut) == [[CLS, 0, 1], [2, 3, SEP], [CLS, 4, SEP]]
    assert cut.ids[cut.special].tolist() == [CLS, SEP, CLS, SEP]


def test_mid_sequence_may_end_in_a_chunk_of_specials_alone() -> None:
    window = Window(context_tokens=3, prefix=(CLS,), suffix=(SEP,), cut="mid-sequence")
    cut = assemble(stream_of([2]), window)
    assert pieces(cut) == [[CLS, 0, 1], [SEP]]
    cut.check([2])


def test_exact_context_is_one_chunk_and_one_more_is_two() -> None:
    window = Window(context_tokens=6, prefix=(CLS,), suffix=(SEP,))
    assert len(pieces(assemble(stream_of([4]), window))) == 1
    assert len(pieces(assemble(stream_of([5]), window))) == 2


def test_no_context_limit_keeps_sequences_whole() -> None:
    cut = assemble(stream_of([3, 2]), Window(context_tokens=None, suffix=(SEP,)))
    assert pieces(cut) == [[0, 1, 2, SEP], [3, 4, SEP]]


def test_sliding_takes_each_embedding_from_where_it_has_most_context() -> None:
    cut = assemble(stream_of([8]), Window(context_tokens=5, prefix=(CLS,), overlap_tokens=2))
    assert pieces(cut) == [[CLS, 0, 1, 2, 3], [CLS, 2, 3, 4, 5], [CLS, 4, 5, 6, 7]]
    piece_of_row = np.searchsorted(cut.chunk_starts, cut.embedding_token, side="right") - 1
    assert piece_of_row.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


def test_sliding_causal_gives_the_overlap_to_the_earlier_chunk() -> None:
    cut = assemble(stream_of([8]), Window(context_tokens=4, overlap_tokens=2, causal=True))
    piece_of_row = np.searchsorted(cut.chunk_starts, cut.embedding_token, side="right") - 1
    assert piece_of_row.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]


def test_sliding_last_chunk_slides_back_to_be_full() -> None:
    cut = assemble(stream_of([7]), Window(context_tokens=4, overlap_tokens=1))
    assert pieces(cut) == [[0, 1, 2, 3], [3, 4, 5, 6]]
    cut = assemble(stream_of([8]), Window(context_tokens=4, overlap_tokens=1))
    assert pieces(cut) == [[0, 1, 2, 3], [3, 4, 5, 6], [4, 5, 6, 7]]


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    content=st.integers(1, 12),
    n_prefix=st.integers(0, 2),
    n_suffix=st.integers(0, 2),
    overlap=st.integers(0, 11),
    causal=st.booleans(),
    mid=st.booleans(),
)
def test_every_token_gives_its_embedding_once_however_it_is_cut(
    counts: list[int], content: int, n_prefix: int, n_suffix: int, overlap: int, causal: bool, mid: bool
) -> None:
    window = Window(
        context_tokens=content + n_prefix + n_suffix,
        prefix=(CLS,) * n_prefix,
        suffix=(SEP,) * n_suffix,
        cut="mid-sequence" if mid else "each-chunk",
        overlap_tokens=0 if mid else min(overlap, content - 1),
        causal=causal,
    )
    cut = assemble(stream_of(counts), window)
    cut.check(counts)
    assert cut.ids[cut.embedding_token].tolist() == list(range(sum(counts)))
    assert not cut.special[cut.embedding_token].any()
    assert np.diff(cut.chunk_starts).max() <= content + n_prefix + n_suffix
    assert (np.diff(cut.chunk_sequence) >= 0).all()


def test_overlap_must_be_smaller_than_the_chunk() -> None:
    with pytest.raises(ConfigError, match="overlap_tokens=3 does not fit a chunk of 3 tokens"):
        Window(context_tokens=4, prefix=(CLS,), overlap_tokens=3)


def test_overlap_needs_specials_of_each_chunk() -> None:
    with pytest.raises(ConfigError, match="needs special tokens in each chunk"):
        Window(context_tokens=4, cut="mid-sequence", overlap_tokens=1)


def test_context_without_room_raises() -> None:
    with pytest.raises(ConfigError, match="a context of 2 tokens has no room for a token besides 2 special tokens"):
        Window(context_tokens=2, prefix=(CLS,), suffix=(SEP,))


def test_check_names_the_sequence_that_is_short() -> None:
    cut = assemble(stream_of([3, 2]), Window(context_tokens=None))
    with pytest.raises(AlignmentError, match=r"toy returned embeddings for 2 nucleotides of sequence 1, which has 5"):
        cut.check([3, 5], name="toy")


def test_check_rejects_another_number_of_sequences() -> None:
    cut = assemble(stream_of([3, 2]), Window(context_tokens=None))
    with pytest.raises(AlignmentError, match="returned tokens of 2 sequences; expected 1"):
        cut.check([5])


def test_check_rejects_embeddings_of_no_nucleotide() -> None:
    cut = assemble(stream_of([3]), Window(context_tokens=None))
    with pytest.raises(AlignmentError, match="an embedding for 0 nucleotides"):
        replace(cut, embedding_bp=np.array([2, 0, 1])).check([3])


def test_check_rejects_a_embedding_out_of_another_sequence() -> None:
    cut = assemble(stream_of([2, 2]), Window(context_tokens=None))
    with pytest.raises(AlignmentError, match="takes embedding 1 from a token of another sequence"):
        replace(cut, embedding_token=np.array([0, 2, 2, 3])).check([2, 2])


def test_a_sequence_without_tokens_raises() -> None:
    with pytest.raises(AlignmentError, match="sequence 1 has no tokens"):
        assemble(stream_of([2, 0]), Window(context_tokens=None))


def test_embedding_map_may_repeat_a_embedding_out_of_order() -> None:
    rows = TokenMap(token=np.array([0, 0, 1, 2, 0, 2]), bp=np.ones(6, dtype=np.int64), starts=np.array([0, 6]))
    cut = assemble(stream_of([3]), Window(context_tokens=4, prefix=(CLS,), suffix=(SEP,)), token_map=rows)
    cut.check([6])
    assert cut.ids[cut.embedding_token].tolist() == [0, 0, 1, 2, 0, 2]


def test_output_embeddings_with_specials_keeps_each_where_it_stands() -> None:
    cut = assemble(stream_of([3, 1]), Window(context_tokens=4, prefix=(CLS,), suffix=(SEP,)))
    rows = output_tokens(cut, specials=True, per_nucleotide=False)
    assert cut.ids[rows.token].tolist() == cut.ids.tolist()
    assert rows.starts.tolist() == [0, 7, 10]


def test_output_embeddings_per_nucleotide_with_specials_survive_an_out_of_order_embedding() -> None:
    map_ = TokenMap(token=np.array([0, 0, 1, 0, 1]), bp=np.ones(5, dtype=np.int64), starts=np.array([0, 5]))
    cut = assemble(stream_of([2]), Window(context_tokens=None, prefix=(CLS,), suffix=(SEP,)), token_map=map_)
    rows = output_tokens(cut, specials=True, per_nucleotide=True)
    assert cut.ids[rows.token].tolist() == [CLS, 0, 0, 1, 0, 1, SEP]


def test_output_embeddings_leave_out_overlap_that_gives_no_embedding() -> None:
    cut = assemble(stream_of([6]), Window(context_tokens=4, overlap_tokens=2))
    rows = output_tokens(cut, specials=True, per_nucleotide=False)
    assert cut.ids[rows.token].tolist() == [0, 1, 2, 3, 4, 5]


def test_cut_nucleotides_and_merge_give_the_sequences_back() -> None:
    letters = Nucleotides.of(["ACGTA", "CG"])
    chunks = cut_nucleotides(letters, 2)
    cut = assemble(single_nucleotides(chunks.nucleotides, TABLE), Window(context_tokens=None, prefix=(CLS,)))
    merged = merge_sections(cut, chunks.section_starts)
    merged.check([5, 2])
    assert pieces(merged) == [[CLS, *map(ord, chunk)] for chunk in ("AC", "GT", "A", "CG")]
    assert merged.chunk_sequence.tolist() == [0, 0, 0, 1]


def test_single_nucleotides_turn_unknown_ones_into_one_token_each() -> None:
    stream = single_nucleotides(Nucleotides.of(["ARn"]), TABLE)
    assert stream.ids.tolist() == [ord("A"), 7, 7]


@pytest.mark.parametrize("numbers", [(0, 4), (-1, 3), (200, 255), (255, 256), (5, 70_000)])
def test_single_nucleotides_may_have_any_number(numbers: tuple[int, int]) -> None:
    known, unknown = numbers
    stream = single_nucleotides(Nucleotides.of(["ANA"]), nucleotide_table({"A": known}, unknown))
    assert stream.ids.tolist() == [known, unknown, known]
    assert stream.ids.dtype == np.int32


@given(
    sequences=st.lists(st.text(alphabet="ACGTNR", min_size=1, max_size=20), min_size=1, max_size=4),
    k=st.integers(1, 4),
)
def test_kmer_codes_agree_with_a_plain_loop(sequences: list[str], k: int) -> None:
    expected = []
    for sequence in sequences:
        for i in range(len(sequence)):
            word = sequence[i : i + k]
            good = len(word) == k and set(word) <= set("ATCG")
            code = 0
            for nucleotide in word:
                code = code * 4 + "ATCG".find(nucleotide)
            expected.append(code if good else -1)
    assert kmer_codes(Nucleotides.of(sequences), k, "ATCG").tolist() == expected


def greedy_by_hand(sequence: str, k: int) -> list[str]:
    words, i = [], 0
    while i < len(sequence):
        word = sequence[i : i + k]
        take = k if len(word) == k and set(word) <= set("ACGT") else 1
        words.append(sequence[i : i + take])
        i += take
    return words


@given(
    sequences=st.sampled_from(["ACGT", "ACGTACGTACGTNR"]).flatmap(
        lambda letters: st.lists(st.text(alphabet=letters, min_size=1, max_size=30), min_size=1, max_size=4)
    ),
    k=st.integers(2, 6),
)
def test_greedy_kmers_agree_with_reading_left_to_right(sequences: list[str], k: int) -> None:
    kmer_ids = np.arange(4**k, dtype=np.int32) + 1000
    stream = greedy_kmers(Nucleotides.of(sequences), k=k, alphabet="ACGT", kmer_ids=kmer_ids, nucleotide_ids=TABLE)
    for i, sequence in enumerate(sequences):
        words = _words_with_frames(sequence, k)
        found = slice(stream.starts[i], stream.starts[i + 1])
        assert stream.token_bp[found].tolist() == [len(word) for word in words]
        assert [int(x) for x in stream.ids[found]] == [
            1000 + int("".join(str("ACGT".index(c)) for c in word), 4) if len(word) == k else int(TABLE[ord(word)])
            for word in words
        ]


def _words_with_frames(sequence: str, k: int) -> list[str]:
    """Clean runs are cut into words of k from their start; what is left of a run is single letters."""
    words: list[str] = []
    run = ""
    for nucleotide in [*sequence, "."]:
        if nucleotide in "ACGT":
            run += nucleotide
            continue
        words += greedy_by_hand(run, k)
        run = ""
        if nucleotide != ".":
            words.append(nucleotide)
    return words


def test_stream_from_ids_uses_the_lengths_of_the_texts() -> None:
    bp_of_id = np.array([1, 2, 4])
    stream = stream_from_ids([[2, 1], [0]], bp_of_id, lengths_bp=np.array([6, 1]), name="toy")
    assert stream.token_bp.tolist() == [4, 2, 1]


def test_stream_from_ids_rejects_texts_that_do_not_fill_the_sequence() -> None:
    with pytest.raises(AlignmentError, match="tokens of toy have 2 nucleotides for sequence 1, which has 3"):
        stream_from_ids([[0], [1]], np.array([1, 2]), lengths_bp=np.array([1, 3]), name="toy")


def test_offsets_give_dropped_nucleotides_to_the_token_in_front() -> None:
    stream = stream_from_offsets([[5, 6]], [[(1, 3), (5, 6)]], lengths_bp=np.array([8]), name="toy")
    assert stream.token_bp.tolist() == [5, 3]


def test_offsets_of_several_sequences_start_anew() -> None:
    stream = stream_from_offsets([[5], [6, 7]], [[(0, 4)], [(0, 1), (1, 2)]], lengths_bp=np.array([4, 2]), name="toy")
    assert stream.token_bp.tolist() == [4, 1, 1]
    assert stream.starts.tolist() == [0, 1, 3]


@pytest.mark.parametrize("offsets", [[(0, 2), (0, 3)], [(2, 3), (1, 2)], [(0, 1), (1, 9)]])
def test_offsets_that_do_not_follow_each_other_raise(offsets: list[tuple[int, int]]) -> None:
    with pytest.raises(AlignmentError, match="that do not overlap"):
        stream_from_offsets([[5, 6]], [offsets], lengths_bp=np.array([3]), name="toy")
