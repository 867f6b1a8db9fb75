"""Whatever the genome and the regions, training windows keep out of what is held out, and nothing else is lost."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bend_hf.data.genome import Genome
from bend_hf.data.sequences import reverse_complement
from bend_hf.errors import ConfigError
from bend_hf.training.pretraining import nucleotides as letters
from bend_hf.training.pretraining.objectives import mask, validation_mask
from bend_hf.training.pretraining.regions import Regions
from bend_hf.training.pretraining.splits import HoldOut, split
from bend_hf.training.pretraining.windows import Windows, WindowSampler
from tests.bgzip import bgzip

relaxed = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@dataclass(frozen=True)
class Case:
    """A small genome in plain Python, and places on it."""

    contigs: dict[str, str]
    text: bytes
    some: list[str]
    others: list[str]


@st.composite
def cases(draw: st.DrawFn, *, alphabet: str = "ACGTacgtNn") -> Case:
    """Contigs with runs of N, wrapped at any width, and two lists of places on them, overlaps and doubles allowed."""
    line_end = draw(st.sampled_from(["\n", "\r\n"]))
    contigs: dict[str, str] = {}
    text = ""
    for number in range(draw(st.integers(1, 3))):
        parts = draw(st.lists(st.tuples(st.text(alphabet, min_size=1, max_size=40), st.integers(0, 9)), min_size=1))
        contigs[f"chr{number}"] = "".join(known + "N" * n_unknown for known, n_unknown in parts)
        width = draw(st.sampled_from([1, 7, 60, 1000]))
        sequence = contigs[f"chr{number}"]
        lines = [sequence[at : at + width] for at in range(0, len(sequence), width)]
        text += line_end.join([f">chr{number}", *lines]) + line_end

    def places() -> list[str]:
        found = []
        for _ in range(draw(st.integers(1, 5))):
            name = draw(st.sampled_from(sorted(contigs)))
            start = draw(st.integers(0, len(contigs[name]) - 1))
            found.append(f"{name}:{start}-{draw(st.integers(start + 1, len(contigs[name])))}")
        return found

    return Case(contigs, text.encode(), places(), places())


def opened(case: Case, folder: str) -> Genome:
    path = Path(folder) / "genome.fa"
    path.write_bytes(case.text)
    return Genome(path)


def bases_of(regions: Regions) -> set[tuple[int, int]]:
    columns = zip(regions.contig.tolist(), regions.start_bp.tolist(), regions.end_bp.tolist(), strict=True)
    return {(contig, at) for contig, start, end in columns for at in range(start, end)}


def bases_named(places: list[str]) -> set[tuple[int, int]]:
    found = set()
    for place in places:
        name, span = place.split(":")
        start, end = map(int, span.split("-"))
        found |= {(int(name.removeprefix("chr")), at) for at in range(start, end)}
    return found


def is_tidy(regions: Regions) -> bool:
    """Sorted, not empty, and apart from each other by at least one nucleotide."""
    columns = list(zip(regions.contig.tolist(), regions.start_bp.tolist(), regions.end_bp.tolist(), strict=True))
    return all(start < end for _, start, end in columns) and all(
        before[0] < behind[0] or (before[0] == behind[0] and before[2] < behind[1])
        for before, behind in pairwise(columns)
    )


@relaxed
@given(cases(), st.integers(0, 5))
def test_regions_are_sets_of_nucleotides(case: Case, margin_bp: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        genome = opened(case, folder)
        some, others = Regions.of_places(case.some, genome), Regions.of_places(case.others, genome)
    mine, theirs = bases_named(case.some), bases_named(case.others)
    near = {(contig, at + by) for contig, at in theirs for by in range(-margin_bp, margin_bp + 1)}
    assert bases_of(some) == mine
    assert bases_of(some.plus(others)) == mine | theirs
    assert bases_of(some.within(others)) == mine & theirs
    assert bases_of(some.minus(others, margin_bp)) == mine - near
    assert some.total_bp == len(mine)
    assert all(map(is_tidy, (some, some.plus(others), some.within(others), some.minus(others, margin_bp))))


@relaxed
@given(cases())
def test_overlaps_and_counts_are_those_of_the_sets(case: Case) -> None:
    with tempfile.TemporaryDirectory() as folder:
        genome = opened(case, folder)
        some = Regions.of_places(case.some, genome)
        queries = [Regions.of_places([place], genome) for place in case.others]
    contig, start, end = (
        np.concatenate([getattr(query, name) for query in queries]) for name in ("contig", "start_bp", "end_bp")
    )
    mine = bases_named(case.some)
    assert some.overlaps(contig, start, end).tolist() == [bool(mine & bases_of(query)) for query in queries]
    counted = [sum(base < (c, at) for base in mine) for c, at in zip(contig.tolist(), end.tolist(), strict=True)]
    assert some.count_before(contig, end).tolist() == counted


@relaxed
@given(cases(), st.sampled_from([1, 5, 1 << 22]))
def test_unknown_letters_are_the_runs_of_n(case: Case, chunk_bp: int) -> None:
    before, letters._CHUNK_BP = letters._CHUNK_BP, chunk_bp
    try:
        with tempfile.TemporaryDirectory() as folder:
            genome = opened(case, folder)
            unknown = letters.unknown_runs(genome, Regions.of_places(case.some, genome))
    finally:
        letters._CHUNK_BP = before
    expected = {(c, at) for c, at in bases_named(case.some) if case.contigs[f"chr{c}"][at] in "Nn"}
    assert bases_of(unknown) == expected


@relaxed
@given(cases(), st.sampled_from([1, 5, 1 << 22]), st.integers(0, 4))
def test_pieces_hold_each_word_of_an_interval_once(case: Case, chunk_bp: int, overlap_bp: int) -> None:
    before, letters._CHUNK_BP = letters._CHUNK_BP, chunk_bp
    try:
        with tempfile.TemporaryDirectory() as folder:
            genome = opened(case, folder)
            regions = Regions.of_places(case.some, genome)
            pieces = list(letters.read_codes(genome, regions, overlap_bp=overlap_bp))
    finally:
        letters._CHUNK_BP = before
    length = overlap_bp + 1

    def words(codes: list[int]) -> list[tuple[int, ...]]:
        found = [tuple(codes[at : at + length]) for at in range(len(codes) - length + 1)]
        return [word for word in found if letters.OTHER not in word]

    expected: list[tuple[int, ...]] = []
    for c, start, end in zip(regions.contig.tolist(), regions.start_bp.tolist(), regions.end_bp.tolist(), strict=True):
        expected += words(["ACGTN".index(letter) for letter in case.contigs[f"chr{c}"][start:end].upper()])
    assert sorted(word for piece in pieces for word in words(piece.codes.tolist())) == sorted(expected)


@relaxed
@given(cases(), st.integers(1, 15), st.sampled_from([0.0, 0.1, 0.29, 0.5, 1.0]))
def test_the_sampler_knows_exactly_the_admissible_starts(case: Case, window_bp: int, max_n_fraction: float) -> None:
    """Counted one by one: inside one interval, and few enough N."""
    admissible, rich = [], 0
    with tempfile.TemporaryDirectory() as folder:
        genome = opened(case, folder)
        regions = Regions.of_places(case.some, genome)
        for c, low, high in zip(
            regions.contig.tolist(), regions.start_bp.tolist(), regions.end_bp.tolist(), strict=True
        ):
            for start in range(low, high - window_bp + 1):
                n_unknown = case.contigs[f"chr{c}"][start : start + window_bp].upper().count("N")
                if n_unknown <= round(max_n_fraction * window_bp, 6):
                    admissible.append((c, start))
                else:
                    rich += 1
        assume(admissible)
        sampler = WindowSampler(genome, regions, window_bp=window_bp, max_n_fraction=max_n_fraction)
    contig, start_bp = sampler._starts.place(np.arange(sampler.n_windows))
    assert list(zip(contig.tolist(), start_bp.tolist(), strict=True)) == admissible
    assert sampler.n_left_out == rich
    everywhere = [(c, at) for c in range(len(case.contigs)) for at in range(len(case.contigs[f"chr{c}"]))]
    held = sampler._starts.holds(*np.array(everywhere).T)
    assert [place for place, inside in zip(everywhere, held.tolist(), strict=True) if inside] == admissible


@relaxed
@given(cases(), st.integers(1, 25), st.integers(0, 6), st.booleans(), st.integers(0, 2**63), st.data())
def test_no_training_window_touches_what_is_held_out_or_excluded(
    case: Case, window_bp: int, margin_bp: int, named: bool, seed: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        genome = opened(case, folder)
        try:
            parts = split(
                genome,
                HoldOut(
                    regions=case.some if named else (),
                    fraction=data.draw(st.sampled_from([0.1, 0.5])),
                    block_bp=data.draw(st.sampled_from([1, 4, 30])),
                    seed=seed,
                ),
                exclude=case.others,
                margin_bp=margin_bp,
            )
            sampler = WindowSampler(genome, parts.train, window_bp=window_bp, max_n_fraction=1.0, seed=seed)
        except ConfigError:
            assume(False)
        windows = sampler.batch(data.draw(st.integers(0, 2**40)), 64)
    forbidden = bases_of(parts.held_out) | bases_named(case.others)
    forbidden = {(c, at + by) for c, at in forbidden for by in range(-margin_bp, margin_bp + 1)}
    drawn = zip(windows.contig_B.tolist(), windows.starts_B.tolist(), strict=True)
    assert not forbidden & {(c, start + by) for c, start in drawn for by in range(window_bp)}
    assert not bases_of(parts.held_out) & bases_named(case.others)
    assert not parts.held_out.overlaps(windows.contig_B, windows.starts_B, windows.starts_B + window_bp).any()


def as_text(windows: Windows, row: int) -> str:
    """A window as letters, the soft-masked ones in lower case."""
    both = zip(windows.codes_BL[row].tolist(), windows.repeats_BL[row].tolist(), strict=True)
    return "".join("ACGTN"[code].lower() if repeat else "ACGTN"[code] for code, repeat in both)


@relaxed
@given(cases(), st.integers(1, 30), st.booleans(), st.booleans())
def test_windows_are_slices_with_their_case(case: Case, window_bp: int, flip: bool, packed: bool) -> None:
    assume(max(map(len, case.contigs.values())) >= window_bp)
    with tempfile.TemporaryDirectory() as folder:
        genome = opened(case, folder)
        if packed:
            (Path(folder) / "genome.fa.gz").write_bytes(bgzip(case.text, 100))
            genome = Genome(Path(folder) / "genome.fa.gz")
        sampler = WindowSampler(
            genome, Regions.of_genome(genome), window_bp=window_bp, max_n_fraction=1.0, reverse_complement=flip
        )
        windows = sampler.batch(5, 40)
    assert windows.flipped_B.any() == flip
    for row, (c, start) in enumerate(zip(windows.contig_B.tolist(), windows.starts_B.tolist(), strict=True)):
        plain = case.contigs[f"chr{c}"][start : start + window_bp]
        if windows.flipped_B[row]:
            lower = [letter.islower() for letter in reversed(plain)]
            turned = reverse_complement(plain)
            plain = "".join(x.lower() if low else x for x, low in zip(turned, lower, strict=True))
        assert as_text(windows, row) == plain


@relaxed
@given(cases(), st.integers(0, 2**40), st.integers(0, 20), st.data())
def test_the_rows_of_a_step_do_not_depend_on_how_the_batch_is_cut(
    case: Case, step: int, cut: int, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        genome = opened(case, folder)
        regions = Regions.of_genome(genome)
        sampler = WindowSampler(genome, regions, window_bp=1, max_n_fraction=1.0, reverse_complement=True, seed=3)
        whole = sampler.batch(step, 20)
        parts = [sampler.batch(step, 20, low=0, high=cut), sampler.batch(step, 20, low=cut)]
    for name in ("codes_BL", "repeats_BL", "contig_B", "starts_B", "flipped_B"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert np.array_equal(joined, getattr(whole, name)), name


@relaxed
@given(
    st.integers(0, 12), st.integers(1, 9), st.integers(0, 12), st.integers(0, 2**63), st.sampled_from([0.15, 0.6, 1.0])
)
def test_the_mask_of_a_row_does_not_depend_on_how_the_batch_is_cut(
    n_rows: int, n_letters: int, cut: int, seed: int, rate: float
) -> None:
    codes = np.random.default_rng(n_letters).integers(0, 5, (n_rows, n_letters)).astype(np.uint8)
    cut = min(cut, n_rows)
    for draw in (
        lambda part, first: mask(part, rate=rate, seed=seed, step=11, first_row=first),
        lambda part, first: validation_mask(part, rate=rate, seed=seed, first_row=first),
    ):
        whole, parts = draw(codes, 0), (draw(codes[:cut], 0), draw(codes[cut:], cut))
        for name in ("inputs_BL", "chosen_BL"):
            assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))
        assert not whole.chosen_BL[codes == letters.OTHER].any()
        assert np.array_equal(whole.inputs_BL[~whole.chosen_BL], codes[~whole.chosen_BL])
