"""The reference genome: what it reads, and what it says about files and places that are not right."""

from __future__ import annotations

import errno
import gzip
import hashlib
import logging
import multiprocessing
import os
import pickle
import re
import shutil
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyfaidx
import pytest

from bend_hf.data import fasta_index
from bend_hf.data.genome import Genome
from bend_hf.data.sequences import SequenceBatch, reverse_complement
from bend_hf.errors import GenomeError
from bend_hf.files import file_sha256
from tests.bgzip import END, bgzip
from tests.shared_data import CHR20, needs_shared

TEXT = b">chr1 first\nACGTA\nCGTTN\nRY\n>chr2\nggccu\n"
CHR1 = "ACGTACGTTNRY"


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.fa"
    path.write_bytes(TEXT)
    return path


@pytest.fixture(scope="module")
def chr20(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("genome") / "genome.fa"
    with gzip.open(CHR20 / "genome.fa.gz") as packed, path.open("wb") as plain:
        shutil.copyfileobj(packed, plain, 1 << 22)
    return path


def sequences(batch: SequenceBatch) -> list[str]:
    return batch.to_arrow().to_pylist()


def test_contigs_are_names_and_lengths_in_file_order(fasta: Path) -> None:
    assert list(Genome(fasta).contigs.items()) == [("chr1", 12), ("chr2", 5)]


def test_soft_masked_nucleotides_are_read_in_upper_case_and_u_as_t(fasta: Path) -> None:
    assert sequences(Genome(fasta).fetch(["chr2"], [0], [5])) == ["GGCCT"]


def test_the_minus_strand_is_complemented_with_its_ambiguity_codes(fasta: Path) -> None:
    assert sequences(Genome(fasta).fetch(["chr1", "chr1"], [8, 0], [12, 4], [-1, -1])) == ["RYNA", "ACGT"]


def test_rows_keep_their_order(fasta: Path) -> None:
    batch = Genome(fasta).fetch(["chr2", "chr1", "chr2"], [3, 4, 0], [5, 6, 2], [1, -1, 1])
    assert sequences(batch) == ["CT", "GT", "GG"]


def test_an_empty_table_gives_an_empty_batch(fasta: Path) -> None:
    assert sequences(Genome(fasta).fetch([], [], [])) == []
    assert list(Genome(fasta).fetch_iter([], [], [])) == []


def test_an_empty_interval_gives_an_empty_sequence(fasta: Path) -> None:
    assert sequences(Genome(fasta).fetch(["chr1", "chr1", "chr1"], [12, 0, 3], [12, 3, 3])) == ["", "ACG", ""]


@pytest.mark.parametrize(
    "names",
    [
        pa.array(["chr2", "chr1"]),
        pa.array(["chr2", "chr1"]).dictionary_encode(),
        pa.chunked_array([["chr2"], ["chr1"]]),
        pa.chunked_array([pa.array(["chr2"]).dictionary_encode(), pa.array(["chr1"]).dictionary_encode()]),
        pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int8()), pa.array(["chr1", "chr2", "not used"])),
    ],
    ids=["strings", "dictionary", "chunks", "chunked dictionaries", "unused name"],
)
def test_contig_names_come_as_any_arrow_column(fasta: Path, names: pa.Array) -> None:
    assert sequences(Genome(fasta).fetch(names, [0, 0], [2, 2])) == ["GG", "AC"]


def test_one_sequence_of_a_batch(fasta: Path) -> None:
    batch = Genome(fasta).fetch(["chr1", "chr2"], [0, 0], [3, 2])
    assert (batch.one(0), batch.one(-1), batch.lengths_bp.tolist()) == ("ACG", "GG", [3, 2])
    with pytest.raises(IndexError, match="sequence 2 of a batch of 2"):
        batch.one(2)


def test_arrow_shares_the_memory_of_the_batch(fasta: Path) -> None:
    batch = Genome(fasta).fetch(["chr1"], [0], [12])
    assert batch.to_arrow().buffers()[2].address == batch.bases.ctypes.data


def test_reverse_complement_refuses_other_letters() -> None:
    with pytest.raises(ValueError, match="'Q' is not a nucleotide"):
        reverse_complement("ACQT")


def test_past_contig_end_raises_and_names_the_row_and_the_remedy(fasta: Path) -> None:
    with pytest.raises(GenomeError, match=r"my\.bed, line 3 \(chr1:8-13, chr1 has 12 bp\).*out-of-bounds pad"):
        Genome(fasta).fetch(
            ["chr1"] * 2, [0, 8], [3, 13], out_of_bounds="error", describe=lambda row: f"my.bed, line {row + 2}"
        )


def test_a_negative_start_raises(fasta: Path) -> None:
    with pytest.raises(GenomeError, match=r"row 0 \(counted from 0\) \(chr1:-1-3"):
        Genome(fasta).fetch(["chr1"], [-1], [3])


def test_many_bad_rows_are_five_and_a_count(fasta: Path) -> None:
    with pytest.raises(GenomeError, match=r"row 4 \(counted from 0\) \([^)]*\) and 3 more"):
        Genome(fasta).fetch(["chr2"] * 8, [0] * 8, [9] * 8)


def test_padding_fills_with_n_where_the_contig_ends(fasta: Path) -> None:
    batch = Genome(fasta).fetch(["chr2"] * 4, [3, 3, -2, 9], [7, 7, 2, 11], [1, -1, 1, 1], out_of_bounds="pad")
    assert sequences(batch) == ["CTNN", "NNAG", "NNGG", "NN"]
    assert (batch.n_padded_rows, batch.n_padded_bp, batch.kept.tolist()) == (4, 8, [True] * 4)


def test_dropping_leaves_rows_out_and_counts_them(fasta: Path) -> None:
    batch = Genome(fasta).fetch(["chr2", "chr2", "chr1"], [0, 3, 0], [2, 7, 2], out_of_bounds="drop")
    assert (sequences(batch), batch.kept.tolist(), batch.n_dropped_rows) == (["GG", "AC"], [True, False, True], 1)


def test_a_start_after_its_end_raises_whatever_the_policy(fasta: Path) -> None:
    with pytest.raises(GenomeError, match=r"start must not exceed end.*chr1:4-2"):
        Genome(fasta).fetch(["chr1"], [4], [2], out_of_bounds="pad")


def test_a_missing_prefix_is_named(fasta: Path) -> None:
    with pytest.raises(
        GenomeError, match=r"row 1 .*\(1\).*the FASTA calls it 'chr1', only the prefix 'chr' is missing"
    ):
        Genome(fasta).fetch(["chr1", "1"], [0, 0], [1, 1])


def test_an_extra_prefix_is_named(tmp_path: Path) -> None:
    (tmp_path / "plain_names.fa").write_bytes(b">20\nACGT\n")
    with pytest.raises(GenomeError, match="the FASTA calls it '20', only the prefix 'chr' is extra"):
        Genome(tmp_path / "plain_names.fa").fetch(["chr20"], [0], [1])


def test_an_unknown_contig_names_the_nearest_or_all(fasta: Path) -> None:
    with pytest.raises(GenomeError, match=r"'chr11': did you mean 'chr1'\?"):
        Genome(fasta).fetch(["chr11"], [0], [1])
    with pytest.raises(GenomeError, match="'MT': its 2 contigs are chr1, chr2"):
        Genome(fasta).fetch(["MT"], [0], [1], out_of_bounds="drop")


def test_all_rows_are_checked_before_the_first_batch(fasta: Path) -> None:
    with pytest.raises(GenomeError, match="chr1:0-99"):
        Genome(fasta).fetch_iter(["chr1"] * 2, [0, 0], [3, 99], rows_per_batch=1)


@pytest.mark.parametrize("strand", [[1, 0], [1, 2]])
def test_a_strand_is_one_or_minus_one(fasta: Path, strand: list[int]) -> None:
    with pytest.raises(ValueError, match="neither 1 nor -1"):
        Genome(fasta).fetch(["chr1"] * 2, [0, 0], [3, 3], strand)


def test_columns_of_unlike_length_are_refused(fasta: Path) -> None:
    with pytest.raises(ValueError, match="must be of one length"):
        Genome(fasta).fetch(["chr1"] * 2, [0], [3, 3])


@pytest.mark.parametrize("strand", [1, -1])
def test_a_letter_that_is_not_a_nucleotide_raises_with_its_position(tmp_path: Path, strand: int) -> None:
    (tmp_path / "protein.fa").write_bytes(b">p\nACGT\nAELC\n")
    genome = Genome(tmp_path / "protein.fa")
    with pytest.raises(GenomeError, match=r"'E' at p:5 is not a nucleotide \(row 1"):
        genome.fetch(["p"] * 3, [0, 3, 0], [4, 6, 2], [strand] * 3)


# Files


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GenomeError, match=r"none\.fa: the FASTA file cannot be read \(No such file"):
        Genome(tmp_path / "none.fa")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"x\.fa is empty"),
        (END, r"x\.fa is empty; download"),
        (b"chr1\t0\t10\n", r"is not a FASTA file: it begins with b'chr1.*expected '>'"),
        (b"BZh91AY", "is not a FASTA file.*decompress the file"),
        (bytes(range(1, 200)), "is not a FASTA file"),
        (b">\nACGT\n", r"cannot be indexed: the header b.>.n. has no readable name"),
        (b">a\nAC\n>a\nGT\n", r"the contig name 'a' occurs more than once.*Rename or remove"),
        (b">a\nACGT\nAC\nACGT\n", r"the lines of contig 'a' do not have one width, or hold blanks; rewrap"),
        (b">a\nAC\nACGT\n", r"the lines of contig 'a' do not have one width, or hold blanks; rewrap"),
        (b">a\nACGT\nAC T\n", r"the lines of contig 'a' do not have one width, or hold blanks; rewrap"),
        (b">a\nACGT\nACG \nACGT\n", "or hold blanks; rewrap"),
        (b">a\nACG \nACGT\nACGT\n", "or hold blanks; rewrap"),
        (b">a\nACGT\r\nACGTA\nACGT\r\n", "or hold blanks; rewrap"),
        (b">a\rACGT\rACGT\r>b\rAC\r", "its lines end with carriage returns alone; expected line feeds"),
        (gzip.compress(TEXT)[:-9], r"x\.fa is truncated or damaged \(.*end-of-stream marker"),
        (bgzip(TEXT)[: -len(END)], r"truncated or damaged \(the empty block that ends a bgzip file is missing"),
        (bgzip(TEXT)[:-40], r"x\.fa is truncated or damaged"),
        (bgzip(TEXT, 9)[:60] + b"\0" + bgzip(TEXT, 9)[61:], "truncated or damaged"),
        (bgzip(TEXT) + b"more", "truncated or damaged"),
    ],
    ids=[
        "empty", "empty bgzip", "bed", "bzip2", "binary", "no name", "double name", "ragged", "long last line",
        "blank", "blank behind one line", "blank behind the first line", "other line end", "carriage returns",
        "gzip cut",
        "bgzip without end", "bgzip cut", "bgzip damaged", "bgzip with a tail",
    ],
)  # fmt: skip
def test_a_file_that_is_not_a_complete_fasta_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.fa"
    path.write_bytes(content)
    with pytest.raises(GenomeError, match=message):
        Genome(path)
    assert [file.name for file in tmp_path.iterdir()] == ["x.fa"]


# Compressed files


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where inflated genomes go."""
    monkeypatch.setenv("BEND_HF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "genomes"


def inflated_names(cache: Path) -> list[str]:
    return sorted(path.suffix for path in cache.iterdir())


@pytest.mark.parametrize("pack", [gzip.compress, bgzip, lambda text: bgzip(text, 7)], ids=["gzip", "bgzip", "blocks"])
def test_a_compressed_file_is_inflated_once_and_its_folder_stays_as_it_is(
    cache: Path, tmp_path: Path, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "packed" / "x.fa.gz"
    path.parent.mkdir()
    path.write_bytes(pack(TEXT))
    assert sequences(Genome(path).fetch(["chr1"], [0], [12])) == [CHR1]
    assert inflated_names(cache) == [".fa", ".fai", ".sha256"]
    assert [one.name for one in path.parent.iterdir()] == ["x.fa.gz"]
    monkeypatch.setattr(gzip, "open", None)
    assert Genome(path).contigs == {"chr1": 12, "chr2": 5}


def test_a_changed_file_is_inflated_again(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.fa.gz"
    for text, length in ((b">chr1\nACGT\n", 4), (b">chr1\nACGTA\n", 5)):
        path.write_bytes(bgzip(text))
        os.utime(path, ns=(10**9, 10**9))
        assert Genome(path).contigs == {"chr1": length}
    assert inflated_names(cache) == [".fa", ".fa", ".fai", ".fai", ".sha256", ".sha256"]


def test_an_inflated_copy_that_was_altered_is_made_again(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.fa.gz"
    path.write_bytes(bgzip(TEXT))
    Genome(path)
    (copy,) = cache.glob("*.fa")
    stat = copy.stat()
    altered = copy.read_bytes().replace(b"G", b"A")
    with copy.open("r+b") as file:
        file.write(altered)
    os.utime(copy, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert sequences(Genome(path).fetch(["chr1"], [0], [12])) == [CHR1]


def test_processes_that_inflate_at_once_leave_one_copy(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.fa.gz"
    path.write_bytes(bgzip(TEXT))
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("fork")) as pool:
        assert list(pool.map(_open_and_fetch, [path] * 16)) == [[CHR1]] * 16
    assert inflated_names(cache) == [".fa", ".fai", ".sha256"]


def test_a_full_disk_is_an_error_and_leaves_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.fa.gz"
    path.write_bytes(bgzip(TEXT))

    def full(source: object, target: BinaryIO, length: int) -> None:
        target.write(b">chr1\nAC")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(GenomeError, match=r"x\.fa\.gz cannot be inflated into .* \(.*No space left.*free some space"):
        Genome(path)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a file").write_text("no folder")
    monkeypatch.setenv("BEND_HF_CACHE", str(tmp_path / "a file"))
    (tmp_path / "x.fa.gz").write_bytes(bgzip(TEXT))
    with pytest.raises(GenomeError, match="or set BEND_HF_CACHE to another folder"):
        Genome(tmp_path / "x.fa.gz")


def test_the_size_of_a_large_file_is_said_first(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fasta_index, "_WORTH_A_MESSAGE_BYTES", 10)
    (tmp_path / "x.fa.gz").write_bytes(bgzip(TEXT))
    with caplog.at_level(logging.INFO):
        Genome(tmp_path / "x.fa.gz")
    assert re.search(r"x\.fa\.gz \(\d+ bytes\) is inflated once into .*\.fa, about \d+ bytes", caplog.text)


def test_a_plain_file_may_be_called_gz(tmp_path: Path) -> None:
    (tmp_path / "x.fa.gz").write_bytes(TEXT)
    assert Genome(tmp_path / "x.fa.gz").contigs == {"chr1": 12, "chr2": 5}


# The index


def test_the_index_is_left_next_to_the_fasta_for_other_tools(fasta: Path) -> None:
    Genome(fasta)
    assert Path(f"{fasta}.fai").read_text() == "chr1\t12\t12\t5\t6\nchr2\t5\t33\t5\t6\n"
    assert sorted(path.name for path in fasta.parent.iterdir()) == ["tiny.fa", "tiny.fa.fai"]


@pytest.mark.parametrize(
    ("text", "index"),
    [
        (b"; a comment\n\n>a\nACGT\nAC\n", "a\t6\t16\t4\t5\n"),
        (b">a\r\nACGT\r\nAC\r\n>b\r\nA", "a\t6\t4\t4\t6\nb\t1\t18\t1\t1\n"),
        (b">a\nACGT\n>empty\n>b\nAC\nA\n\n\n", "a\t4\t3\t4\t5\nempty\t0\t15\t0\t0\nb\t3\t18\t2\t3\n"),
        (b">a\nACGT\nACGT\n", "a\t8\t3\t4\t5\n"),
        (b">a\nACGT \nACGT \nAC\n", "a\t10\t3\t4\t6\n"),
        (">b\u2028c\nACGT\n>d\x85\nAC\n".encode(), "b\u2028c\t4\t7\t4\t5\nd\x85\t2\t17\t2\t3\n"),
    ],
    ids=["comment", "windows", "empty contig and blank lines", "full last line", "blanks behind", "odd names"],
)
def test_the_index_says_where_each_contig_is(tmp_path: Path, text: bytes, index: str) -> None:
    (tmp_path / "x.fa").write_bytes(text)
    for _ in range(2):  # the second reads the index
        genome = Genome(tmp_path / "x.fa")
        assert (tmp_path / "x.fa.fai").read_text() == index
        assert [(name, n_bp) for name, n_bp in genome.contigs.items()] == [
            (line.split("\t")[0], int(line.split("\t")[1])) for line in index.removesuffix("\n").split("\n")
        ]


def test_blanks_behind_all_lines_move_no_nucleotide(tmp_path: Path) -> None:
    (tmp_path / "x.fa").write_bytes(b">a\nACGT \t\nTTGA \t\nC\n")
    assert Genome(tmp_path / "x.fa").fetch(["a"] * 2, [0, 5], [9, 9]).to_arrow().to_pylist() == ["ACGTTTGAC", "TGAC"]


def test_text_before_the_first_header_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.fa").write_bytes(b"; a comment\nACGT\n>a\nACGT\n")
    with pytest.raises(GenomeError, match="its first line that is not a comment does not begin with '>'"):
        Genome(tmp_path / "x.fa")


def test_a_fitting_index_is_used_as_it_is(fasta: Path) -> None:
    Genome(fasta)
    index = Path(f"{fasta}.fai")
    before = index.stat()
    Genome(fasta)
    assert (index.stat().st_ino, index.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_an_index_older_than_its_fasta_is_made_again(fasta: Path) -> None:
    Genome(fasta)
    os.utime(f"{fasta}.fai", ns=(0, 0))
    fasta.write_bytes(b">chr1\nTTTTT\n")
    assert sequences(Genome(fasta).fetch(["chr1"], [0], [5])) == ["TTTTT"]
    assert Path(f"{fasta}.fai").read_text() == "chr1\t5\t6\t5\t6\n"


@pytest.mark.parametrize(
    "stale",
    [
        "chr1\t12\t12\t5\t6\n",
        "chr1\t12\t12\t5\t6\nchr3\t5\t33\t5\t6\n",
        "chr1\t12\t12\t5\t6\nchr2\t7\t33\t5\t6\n",
        "chr1\t11\t12\t5\t6\nchr2\t5\t33\t5\t6\n",
        "chr1\t12\t12\t6\t7\nchr2\t5\t33\t5\t6\n",
        "chr1\t12\t12\t5\t6\nchr2\t5\t933\t5\t6\n",
        "no index at all\n",
        "",
    ],
    ids=["contig missing", "other name", "past the end", "shorter", "other width", "behind the file", "text", "empty"],
)
def test_an_index_of_another_file_is_made_again(fasta: Path, stale: str) -> None:
    Path(f"{fasta}.fai").write_text(stale)
    genome = Genome(fasta)
    assert genome.contigs == {"chr1": 12, "chr2": 5}
    assert sequences(genome.fetch(["chr1"], [0], [12])) == [CHR1]


def test_a_folder_that_takes_no_index_still_works(fasta: Path) -> None:
    blocked = Path(f"{fasta}.fai")
    blocked.mkdir()
    assert sequences(Genome(fasta).fetch(["chr1"], [0], [12])) == [CHR1]
    assert sorted(path.name for path in fasta.parent.iterdir()) == ["tiny.fa", "tiny.fa.fai"]
    assert blocked.is_dir()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write into any folder")
def test_a_read_only_folder_stays_as_it_is(fasta: Path) -> None:
    fasta.parent.chmod(0o555)
    try:
        assert sequences(Genome(fasta).fetch(["chr1"], [0], [12])) == [CHR1]
    finally:
        fasta.parent.chmod(0o755)
    assert [path.name for path in fasta.parent.iterdir()] == ["tiny.fa"]


def test_a_write_refused_by_the_system_leaves_nothing_behind(fasta: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", refuse)
    assert Genome(fasta).contigs == {"chr1": 12, "chr2": 5}
    assert [path.name for path in fasta.parent.iterdir()] == ["tiny.fa"]


# Several processes


def _fetch_chr1(genome: Genome) -> list[str]:
    return sequences(genome.fetch(["chr1"], [0], [12]))


def _open_and_fetch(path: Path) -> list[str]:
    return _fetch_chr1(Genome(path))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "bgzip"])
def test_one_genome_serves_other_processes(tmp_path: Path, method: str, packed: bool) -> None:
    path = tmp_path / "x.fa"
    path.write_bytes(bgzip(TEXT, 7) if packed else TEXT)
    genome = Genome(path)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        assert list(pool.map(_fetch_chr1, [genome] * 4)) == [[CHR1]] * 4


def test_processes_that_index_at_once_do_not_meet(fasta: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("fork")) as pool:
        assert list(pool.map(_open_and_fetch, [fasta] * 16)) == [[CHR1]] * 16
    assert sorted(path.name for path in fasta.parent.iterdir()) == ["tiny.fa", "tiny.fa.fai"]


def test_a_pickled_genome_notices_that_the_file_was_changed(fasta: Path) -> None:
    pickled = pickle.dumps(Genome(fasta))
    fasta.write_bytes(b">chr1\nTTTTTTT\n")
    assert pickle.loads(pickled).contigs == {"chr1": 7}


@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_a_genome_that_changed_after_it_was_opened_states_no_sha256(fasta: Path, how: str) -> None:
    genome, stat = Genome(fasta), fasta.stat()
    text = fasta.read_bytes().replace(b"A", b"C")
    other = fasta if how == "in place" else fasta.with_name("other.fa")
    other.write_bytes(text)
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(fasta)
    with pytest.raises(GenomeError, match=r"tiny\.fa changed after it was opened; repeat the command"):
        _ = genome.sha256


def test_a_pickled_genome_notices_an_edit_in_place_with_its_time_put_back(fasta: Path) -> None:
    pickled, stat = pickle.dumps(Genome(fasta)), fasta.stat()
    fasta.write_bytes(fasta.read_bytes().replace(b">chr1", b">chr9"))
    os.utime(fasta, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert "chr9" in pickle.loads(pickled).contigs


# Checksums


def test_sha256_is_that_of_the_file(fasta: Path) -> None:
    assert Genome(fasta).sha256 == hashlib.sha256(TEXT).hexdigest()


def test_a_remembered_sha256_is_not_served_for_a_changed_file(tmp_path: Path) -> None:
    path = tmp_path / "old.fa"
    for content, time_ns in ((b"one", 10**9), (b"two", 2 * 10**9)):
        path.write_bytes(content)
        os.utime(path, ns=(time_ns, time_ns))
        assert file_sha256(path) == file_sha256(path) == hashlib.sha256(content).hexdigest()


def test_sha256_of_an_unchanged_file_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bend_hf.files._SETTLED_NS", -1)  # the file may not change any more
    path = tmp_path / "old.fa"
    path.write_bytes(TEXT)
    first = file_sha256(path)
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert file_sha256(path) == first


def test_without_a_usable_cache_sha256_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a file").write_text("no folder")
    monkeypatch.setenv("BEND_HF_CACHE", str(tmp_path / "a file"))
    path = tmp_path / "old.fa"
    path.write_bytes(TEXT)
    os.utime(path, ns=(10**9, 10**9))
    assert file_sha256(path) == hashlib.sha256(TEXT).hexdigest()


# Encodings


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n\r\n", b"  \n\n"])
def test_a_mark_blank_lines_and_other_encodings_change_nothing(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "x.fa"
    path.write_bytes(b"\xef\xbb\xbf>a caf\xe9\nACGT\nAC\n>b\nGG\n" + end)
    for _ in range(2):  # the second time with the index that the first one left
        genome = Genome(path)
        assert genome.contigs == {"a": 6, "b": 2}
        assert sequences(genome.fetch(["a", "b"], [0, 0], [6, 2])) == ["ACGTAC", "GG"]


# Memory


def test_memory_stays_within_twice_the_sequence_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    bases = rng.choice(np.frombuffer(b"ACGT", np.uint8), (50_000, 61))
    bases[:, 60] = ord("\n")
    path = tmp_path / "random.fa"
    path.write_bytes(b">chr1\n" + bases.tobytes())
    genome = Genome(path)
    start = rng.integers(0, 3_000_000 - 512, 50_000)
    names = pa.array(["chr1"] * len(start)).dictionary_encode()
    genome.fetch(names[:1], start[:1], start[:1] + 512)
    tracemalloc.start()
    try:
        batch = genome.fetch(names, start, start + 512, np.where(start % 2, 1, -1))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert batch.bases.nbytes == 50_000 * 512
    assert peak_bytes < 2 * batch.bases.nbytes


# Real data


@needs_shared
def test_chromosome_20_is_read_whole(chr20: Path) -> None:
    batch = Genome(chr20).fetch(["chr20"], [0], [63_025_520])
    # M5 of the record chr20 as the README beside the data gives it
    assert hashlib.md5(batch.bases.tobytes(), usedforsecurity=False).hexdigest() == "0dec9660ec1efaaf33281c0d5ea2560f"


@needs_shared
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "bgzip"])
def test_a_stranded_sample_of_chromosome_20_is_what_pyfaidx_reads(chr20: Path, tmp_path: Path, packed: bool) -> None:
    path = chr20
    if packed:
        path = tmp_path / "genome.fa.gz"
        path.write_bytes(bgzip(chr20.read_bytes()[:8_000_000]))
    rng = np.random.default_rng(1)
    start = rng.integers(0, 7_800_000, 2_000)
    end = start + rng.integers(1, 14_000, 2_000)
    strand = rng.choice([1, -1], 2_000)
    with pyfaidx.Fasta(str(chr20)) as reference:
        expected = [
            reference.get_seq("chr20", first + 1, last, rc=sign < 0).seq.upper()
            for first, last, sign in zip(start.tolist(), end.tolist(), strand.tolist(), strict=True)
        ]
    assert sequences(Genome(path).fetch(["chr20"] * 2_000, start, end, strand)) == expected


@pytest.mark.parametrize("number", ["9" * 25, "-" + "9" * 25, "9" * 5000, "nan", "1e400"])
def test_an_index_with_an_impossible_number_is_made_again(tmp_path: Path, number: str) -> None:
    fasta = tmp_path / "x.fa"
    fasta.write_text(">chr1\nACGTAC\n")
    (tmp_path / "x.fa.fai").write_text(f"chr1\t{number}\t6\t6\t7\n")
    os.utime(fasta, (1e9, 1e9))
    assert Genome(fasta).contigs == {"chr1": 6}
