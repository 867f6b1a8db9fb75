"""A small file that inflates without end is refused, wherever compressed files are read."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from bend_hf.data import gzip_files
from bend_hf.data.bed import read_bed
from bend_hf.data.genome import Genome
from bend_hf.data.gzip_files import open_gzip
from bend_hf.data.vcf import read_vcf
from bend_hf.errors import BendError, InputError

SAID = "inflates to more than 200 times its size"
BED = b"chromosome\tstart\tend\n"
VCF = b"##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


@pytest.fixture(autouse=True)
def _small_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip_files, "UNCHECKED_BYTES", 1 << 16)


def bomb(path: Path, head: bytes, piece: bytes) -> Path:
    """8 MB in about 8 kB."""
    path.write_bytes(gzip.compress(head + piece * ((8 << 20) // len(piece)), 9))
    return path


@pytest.mark.parametrize("piece", [b"chr1\t1\t2\n", b"\n", b"x"], ids=["rows", "blank lines", "one line"])
def test_a_bed_that_inflates_without_end_is_refused(piece: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=SAID):
        read_bed(bomb(tmp_path / "a.bed.gz", BED, piece))


@pytest.mark.parametrize("head", [VCF, b"##fileformat=VCFv4.2\n"], ids=["rows", "header"])
def test_a_vcf_that_inflates_without_end_is_refused(head: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=SAID):
        read_vcf(bomb(tmp_path / "a.vcf.gz", head, b"##x\n" if head != VCF else b"chr1\t1\t.\tA\tC\t.\t.\t.\n"))


def test_a_genome_that_inflates_without_end_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEND_HF_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BendError, match=SAID):
        Genome(bomb(tmp_path / "a.fa.gz", b">chr1\n", b"N" * 60 + b"\n"))
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


WAYS: dict[str, Callable[[gzip.GzipFile], object]] = {
    "read": lambda file: file.read(),
    "read a piece": lambda file: file.read(1 << 16),
    "read1": lambda file: file.read1(1 << 16),
    "readinto": lambda file: file.readinto(bytearray(1 << 16)),
    "readline": lambda file: file.readline(),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_read_is_bounded(way: str, tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.gz", b"", b"x")

    def read_all() -> None:
        with open_gzip(path) as file:
            while WAYS[way](file):
                pass

    with pytest.raises(InputError, match=SAID):
        read_all()


def test_what_is_small_or_repeats_less_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with open_gzip(bomb(tmp_path / "a.gz", b"", b"N")) as file:  # 8 MB of N, such as a small chromosome may be
        assert file.read() == b"N" * (8 << 20)
    lines = b"".join(b"chr1\t%d\t%d\n" % (at, at + 512) for at in range(1000))
    path = tmp_path / "a.bed.gz"
    path.write_bytes(gzip.compress(BED + lines))
    assert len(read_bed(path)) == 1000
