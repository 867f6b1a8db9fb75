"""The audit agrees with a naive comparison of all pairs, and with coordinates counted one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bend_hf.data.sequences import reverse_complement
from bend_hf.evaluation.audit import kmers
from bend_hf.evaluation.audit.copies import NEAR_BP, SEED_BP, SEEN_BP, Thresholds, find_copies
from bend_hf.evaluation.audit.kmers import Sequences, shared_kmers
from bend_hf.evaluation.audit.places import FAR, Places
from bend_hf.evaluation.audit.rows import read_rows
from tests.audit_tasks import Row, mutated, random_sequence, task_data

SETTINGS = settings(max_examples=25, deadline=None)


def words(sequence: str, k: int) -> list[str]:
    """The canonical k-mers of a sequence, one per position that holds no N."""
    found = (sequence[at : at + k] for at in range(len(sequence) - k + 1))
    return [min(word, reverse_complement(word)) for word in found if "N" not in word]


@SETTINGS
@given(
    st.lists(st.text("ACGTN", max_size=60), min_size=1, max_size=6), st.integers(1, 31), st.sampled_from([64, 1 << 23])
)
def test_shared_kmers_are_those_that_occur_twice(rows: list[str], k: int, part_size: int) -> None:
    sequences = Sequences.of([row.encode() for row in rows])
    everywhere = [word for row in rows for word in words(row, k)]
    expected = sorted(word for word in everywhere if everywhere.count(word) > 1)
    size, kmers.PART_SIZE = kmers.PART_SIZE, part_size  # several parts on disk, or one in memory
    try:
        found = list(shared_kmers(sequences, k))
    finally:
        kmers.PART_SIZE = size
    got = []
    text = "".join("ACGTN"[code] for code in sequences.codes.tolist())
    for part in found:
        for code, at, forward in zip(part.code.tolist(), part.position.tolist(), part.forward.tolist(), strict=True):
            word = text[at : at + k]
            letters = "".join("ACGT"[code >> 2 * step & 3] for step in range(k - 1, -1, -1))
            assert letters == (word if forward else reverse_complement(word))
            got.append(letters)
    assert sorted(got) == expected


def naive_best(row: str, other: str) -> tuple[bool, bool]:
    """Whether two rows are near copies or shifted windows, from every way to lay one over the other."""
    limits, near, shifted = Thresholds(), False, False
    in_pair: dict[str, int] = {}
    for strand in (other, reverse_complement(other)):
        for offset in range(-len(strand) + 1, len(row)):
            start, end = max(0, offset), min(len(row), len(strand) + offset)
            pairs = list(zip(row[start:end], strand[start - offset : end - offset], strict=True))
            equal = [a == b and a != "N" for a, b in pairs]
            seeds = sum(all(equal[at : at + SEED_BP]) for at in range(len(equal) - SEED_BP + 1))
            if not seeds or seeds < 0.002 * len(equal):
                continue
            identity, coverage = sum(equal) / len(equal), len(equal) / len(row)
            near |= identity >= limits.near_identity and coverage >= limits.near_coverage
            long = len(equal) >= limits.shifted_bp and len(equal) >= limits.shifted_coverage * min(len(row), len(other))
            shifted |= long and len(equal) < len(row) and identity >= limits.shifted_identity
            whole = sum(all(equal[at : at + NEAR_BP]) for at in range(len(equal) - NEAR_BP + 1))
            in_pair["all"] = in_pair.get("all", 0) + whole
    near |= in_pair.get("all", 0) >= limits.near_kmers * max(len(row) - NEAR_BP + 1, 1)
    return near, shifted


@st.composite
def related_rows(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Training rows, and test rows that are copies of some of them: cut, extended, mutated, on either strand."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    train = [random_sequence(rng, int(rng.integers(60, 120))) for _ in range(draw(st.integers(1, 5)))]
    test = []
    for _ in range(draw(st.integers(1, 5))):
        row = train[int(rng.integers(len(train)))]
        cut = int(rng.integers(0, len(row)))
        row = row[cut:] + random_sequence(rng, int(rng.integers(0, 60)))
        row = mutated(rng, row, draw(st.sampled_from([0.0, 0.02, 0.1, 0.2, 0.3]))) if row else "A"
        if draw(st.booleans()):
            row = row[: len(row) // 3] + "N" * int(rng.integers(0, 5)) + row[len(row) // 3 :]
        test.append(reverse_complement(row) if draw(st.booleans()) else row)
    return train, test


@settings(max_examples=15, deadline=None)
@given(related_rows())
def test_copies_are_those_of_a_comparison_of_all_pairs(rows: tuple[list[str], list[str]]) -> None:
    train, test = rows
    data = task_data({"train": [Row(sequence=row) for row in train], "test": [Row(sequence=row) for row in test]})
    found = find_copies(read_rows(data), Thresholds())
    for number, row in enumerate(test, len(train)):
        pairs = [naive_best(row, other) for other in train]
        exact = any(row in (other, reverse_complement(other)) for other in train)
        shifted = any(pair[1] for pair in pairs) and not exact
        assert found.exact[number, 0] == exact
        assert found.shifted[number, 0] == shifted
        assert found.near[number, 0] == (exact or (any(pair[0] for pair in pairs) and not shifted))
        known = {word for other in train for word in words(other, SEEN_BP)}
        mine = words(row, SEEN_BP)
        share = sum(word in known for word in mine) / len(mine) if mine else 0.0
        assert abs(found.seen_share[number] - share) < 1e-12


intervals = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 60), st.integers(0, 12)), min_size=1, max_size=12)


@SETTINGS
@given(intervals, intervals)
def test_places_are_counted_by_the_nucleotide(
    mine: list[tuple[int, int, int]], theirs: list[tuple[int, int, int]]
) -> None:
    def places(chosen: list[tuple[int, int, int]]) -> Places:
        chromosome, start, length = np.array(chosen, np.int64).T
        return Places(chromosome=chromosome, start_bp=start, end_bp=start + length)

    theirs = [one for one in theirs if one[2]]
    held = {(chromosome, at) for chromosome, start, length in theirs for at in range(start, start + length)}
    if not theirs:
        return
    covered, distance = places(mine).covered_bp(places(theirs)), places(mine).distance_bp(places(theirs))
    for number, (chromosome, start, length) in enumerate(mine):
        assert covered[number] == sum((chromosome, at) in held for at in range(start, start + length))
        gaps = [
            max(begin - start - length, start - begin - long, 0) for one, begin, long in theirs if one == chromosome
        ]
        assert distance[number] == min(gaps, default=FAR)
