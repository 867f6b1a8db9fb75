"""Offsets and counts beyond 2^31 are read as they are; files with holes stand for the large ones."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from bend_hf.data.bed import read_bed
from bend_hf.data.fasta_index import FastaIndex
from bend_hf.data.genome import Genome
from bend_hf.embedders.cache.dtypes import COLUMN_OF
from bend_hf.embedders.cache.reader import CachedEmbeddings
from bend_hf.embedders.cache.writer import LENGTH_COLUMN

CONTIG_BP = 5_000_000_000
WIDTH = 4096


@pytest.fixture
def genome(tmp_path: Path) -> Path:
    """A contig of 5 Gbp in one line, whose ends alone are written, and a small one after it."""
    path = tmp_path / "large.fa"
    with path.open("wb") as file:
        file.write(b">chr1\nGATTACA")
        file.seek(len(b">chr1\n") + CONTIG_BP - 8)
        file.write(b"CCATGGTT\n>chr2\nACGTACGT\nTTTT\n")
    first = len(b">chr1\n")
    second = first + CONTIG_BP + len(b"\n>chr2\n")
    lines = (("chr1", CONTIG_BP, first, CONTIG_BP, CONTIG_BP + 1), ("chr2", 12, second, 8, 9))
    path.with_name("large.fa.fai").write_text("".join("\t".join(map(str, line)) + "\n" for line in lines))
    return path


def test_a_contig_of_five_gigabases_is_read_at_its_ends_and_behind_it(genome: Path) -> None:
    far = CONTIG_BP - 8
    batch = Genome(genome).fetch(
        ["chr1", "chr1", "chr1", "chr2"], [0, far, far, 6], [7, CONTIG_BP, CONTIG_BP, 12], [1, 1, -1, 1]
    )
    assert batch.to_arrow().to_pylist() == ["GATTACA", "CCATGGTT", "AACCATGG", "GTTTTT"]


def test_coordinates_beyond_two_to_the_31_are_read_from_a_bed_file(tmp_path: Path) -> None:
    path = tmp_path / "far.bed"
    path.write_text(f"chromosome\tstart\tend\nchr1\t{CONTIG_BP - 8}\t{CONTIG_BP}\n")
    table = read_bed(path)
    assert (table.start_bp.tolist(), table.end_bp.tolist()) == ([CONTIG_BP - 8], [CONTIG_BP])


def test_the_byte_of_a_nucleotide_is_computed_in_64_bits() -> None:
    index = FastaIndex.parse(f"chr1\t{CONTIG_BP}\t6\t60\t61\n")
    last = np.array([CONTIG_BP - 1])
    assert index.byte_of(np.array([0]), last).tolist() == [6 + (CONTIG_BP - 1) // 60 * 61 + (CONTIG_BP - 1) % 60]


def test_cached_embeddings_beyond_two_to_the_31_values_are_found(tmp_path: Path) -> None:
    n_tokens = (1 << 31) // WIDTH + 5
    path = tmp_path / "values"
    with path.open("wb") as file:
        file.truncate(n_tokens * WIDTH * 2)
        file.seek((n_tokens * WIDTH - 3) * 2)
        file.write(np.array([1, 2, 3], np.float16).tobytes())
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    flat = pa.Array.from_buffers(pa.float16(), n_tokens * WIDTH, [None, pa.py_buffer(mapped)])
    offsets = pa.array([0, n_tokens - 2, n_tokens], pa.int64())
    embeddings = pa.LargeListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(flat, WIDTH))
    lengths = pa.LargeListArray.from_arrays(offsets, pa.array(np.ones(n_tokens, np.int32)))
    table = pa.table({COLUMN_OF["float16"]: embeddings, LENGTH_COLUMN: lengths})
    cached = CachedEmbeddings([table], dtype="float16")
    assert cached.n_tokens.tolist() == [n_tokens - 2, 2]
    assert cached.item(1).values[-1, -3:].tolist() == [1, 2, 3]
    batch = cached.rows(np.array([1]))
    assert batch.x_BTD.shape == (1, 2, WIDTH)
    assert batch.x_BTD[0, -1, -3:].tolist() == [1, 2, 3]
