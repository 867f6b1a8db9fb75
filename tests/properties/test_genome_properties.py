"""Whatever the FASTA looks like, sequences read in bulk are the slices that plain Python would take."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyfaidx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bend_hf.data import fasta as fasta_gather
from bend_hf.data.genome import Genome
from bend_hf.data.sequences import reverse_complement
from tests.bgzip import bgzip

LETTERS = "ACGTNRYKMSWBVDHacgtnrykmswbvdh"
PAIRS = dict(zip("ACGTNRYKMSWBVDH", "TGCANYRMKSWVBHD", strict=True))


@dataclass(frozen=True)
class Case:
    """A FASTA text, what it says, and intervals on it."""

    text: bytes
    contigs: dict[str, str]
    rows: list[tuple[str, int, int, int]]


@st.composite
def cases(draw: st.DrawFn, *, overhang_bp: int = 0) -> Case:
    """Contigs of all sizes, wrapped at all widths, with both line ends, the last of which may be missing."""
    line_end = draw(st.sampled_from(["\n", "\r\n"]))
    contigs: dict[str, str] = {}
    text = ""
    for number in range(draw(st.integers(1, 4))):
        name = f"chr{number}"
        contigs[name] = draw(st.text(LETTERS, min_size=1, max_size=700))
        width = draw(st.sampled_from([1, 2, 7, 60, 61, 255, 256, 257, 400, 1000]))
        lines = [contigs[name][at : at + width] for at in range(0, len(contigs[name]), width)]
        header = f">{name}{draw(st.sampled_from(['', ' of a species', chr(9) + 'x']))}"
        text += line_end.join([header, *lines]) + line_end
    if draw(st.booleans()):
        text = text.removesuffix(line_end)
    rows = []
    one_length = draw(st.none() | st.integers(1, 300))
    for _ in range(draw(st.integers(0, 30))):
        name = draw(st.sampled_from(sorted(contigs)))
        n_bp = len(contigs[name])
        start = draw(st.integers(-overhang_bp, n_bp))
        end = draw(st.integers(start, n_bp + overhang_bp)) if one_length is None else start + one_length
        if overhang_bp or end <= n_bp:
            rows.append((name, start, end, draw(st.sampled_from([1, -1]))))
    return Case(text.encode(), contigs, rows)


def plainly(case: Case) -> list[str]:
    """The sequences by slicing, N where the contig has nothing."""
    found = []
    for name, start, end, strand in case.rows:
        contig = case.contigs[name].upper()
        bases = "".join(contig[at] if 0 <= at < len(contig) else "N" for at in range(start, end))
        found.append(bases if strand == 1 else "".join(PAIRS[base] for base in reversed(bases)))
    return found


def columns(case: Case) -> tuple[list[str], list[int], list[int], list[int]]:
    names, starts, ends, strands = zip(*case.rows, strict=True) if case.rows else ((), (), (), ())
    return list(names), list(starts), list(ends), list(strands)


relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@relaxed
@given(cases(), st.sampled_from([50, 700, 1 << 20]))
def test_fetch_is_slicing(case: Case, batch_bytes: int) -> None:
    before, fasta_gather._BATCH_BYTES = fasta_gather._BATCH_BYTES, batch_bytes
    try:
        with tempfile.TemporaryDirectory() as folder:
            fasta = Path(folder) / "random.fa"
            fasta.write_bytes(case.text)
            batch = Genome(fasta).fetch(*columns(case))
    finally:
        fasta_gather._BATCH_BYTES = before
    assert batch.to_arrow().to_pylist() == plainly(case)


@relaxed
@given(cases(overhang_bp=50))
def test_padding_is_slicing_with_n_around_the_contig(case: Case) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fasta = Path(folder) / "random.fa"
        fasta.write_bytes(case.text)
        batch = Genome(fasta).fetch(*columns(case), out_of_bounds="pad")
    overhangs = [sum(not 0 <= at < len(case.contigs[name]) for at in range(s, e)) for name, s, e, _ in case.rows]
    assert batch.to_arrow().to_pylist() == plainly(case)
    assert (batch.n_padded_bp, batch.n_padded_rows) == (sum(overhangs), sum(n > 0 for n in overhangs))


@relaxed
@given(cases(overhang_bp=50))
def test_dropping_leaves_out_exactly_what_reaches_past_an_end(case: Case) -> None:
    inside = [start >= 0 and end <= len(case.contigs[name]) for name, start, end, _ in case.rows]
    with tempfile.TemporaryDirectory() as folder:
        fasta = Path(folder) / "random.fa"
        fasta.write_bytes(case.text)
        batch = Genome(fasta).fetch(*columns(case), out_of_bounds="drop")
    assert batch.kept.tolist() == inside
    kept = [bases for bases, ok in zip(plainly(case), inside, strict=True) if ok]
    assert batch.to_arrow().to_pylist() == kept
    assert batch.n_dropped_rows == len(inside) - len(kept)


@relaxed
@given(cases(), st.sampled_from([3, 64, 1000, 65280]))
def test_bgzip_reads_like_plain(case: Case, block_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fasta = Path(folder) / "random.fa.gz"
        fasta.write_bytes(bgzip(case.text, block_bytes))
        batch = Genome(fasta).fetch(*columns(case))
    assert batch.to_arrow().to_pylist() == plainly(case)


@relaxed
@given(cases(), st.integers(1, 7))
def test_batches_join_to_the_whole(case: Case, rows_per_batch: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fasta = Path(folder) / "random.fa"
        fasta.write_bytes(case.text)
        batches = list(Genome(fasta).fetch_iter(*columns(case), rows_per_batch=rows_per_batch))
    assert [bases for batch in batches for bases in batch.to_arrow().to_pylist()] == plainly(case)
    assert all(len(batch) <= rows_per_batch for batch in batches)


@relaxed
@given(cases())
def test_the_index_is_the_one_that_pyfaidx_makes(case: Case) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fasta = Path(folder) / "random.fa"
        fasta.write_bytes(case.text)
        Genome(fasta)
        ours = (Path(folder) / "random.fa.fai").read_text()
        theirs = Path(folder) / "theirs.fai"
        pyfaidx.Faidx(str(fasta), indexname=str(theirs)).close()
        assert ours == theirs.read_text()


@given(st.text(LETTERS))
def test_reverse_complement_twice_is_identity(sequence: str) -> None:
    assert reverse_complement(reverse_complement(sequence)) == sequence.upper()


@given(st.lists(st.sampled_from(LETTERS), min_size=1), st.data())
def test_reverse_complement_pairs_each_letter(letters: list[str], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(letters) - 1))
    turned = reverse_complement("".join(letters))
    assert turned[len(letters) - 1 - at] == PAIRS[letters[at].upper()]


@relaxed
@given(cases())
def test_base_at_is_indexing(case: Case) -> None:
    rows = [(name, start) for name, start, _, _ in case.rows if start < len(case.contigs[name])]
    with tempfile.TemporaryDirectory() as folder:
        fasta = Path(folder) / "random.fa"
        fasta.write_bytes(case.text)
        found = Genome(fasta).base_at([name for name, _ in rows], [start for _, start in rows])
    assert found.dtype == np.uint8
    assert found.tobytes().decode() == "".join(case.contigs[name][at].upper() for name, at in rows)
