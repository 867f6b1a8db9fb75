"""Every file of text that a user gives is read alike however an editor saved it, or refused with its line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bend_hf.config import RunConfig, kinds_of, read_toml
from bend_hf.data.bed import read_bed
from bend_hf.data.genome import Genome
from bend_hf.data.labels import read_label_names
from bend_hf.data.published_files import _read_sums_text
from bend_hf.data.vcf import read_vcf
from bend_hf.embedders._checkpoint_files import mask_in_files, read_json, read_vocabulary
from bend_hf.errors import BendError
from bend_hf.evaluation.record import read_record
from bend_hf.training.pretraining.regions import Regions
from tests.records import record


@dataclass(frozen=True)
class Reader:
    """A reader of text files.

    Attributes:
        name: Name of the file.
        text: A valid file, with a place for a word in which an accent may stand: ``WORD``.
        read: Reads the file into something comparable.
        skips_words: Whether the word stands where nothing is read, so that its encoding does not matter.
    """

    name: str
    text: str
    read: Callable[[Path], object]
    skips_words: bool = False


def _bed(path: Path) -> object:
    return read_bed(path).columns.to_pydict()


def _vcf(path: Path) -> object:
    return read_vcf(path).columns.to_pydict()


def _fasta(path: Path) -> object:
    genome = Genome(path)
    return genome.contigs, genome.fetch(["chr1"], [0], [10]).bases.tobytes()


def _regions(path: Path) -> object:
    genome = path.with_name("genome.fa")
    genome.write_text(">chr1\n" + "ACGT" * 10 + "\n")
    return Regions.of_bed(path, Genome(genome)).places()


def _config(path: Path) -> object:
    return read_toml(path, kinds_of(RunConfig))


VCF_COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
VCF = f"##fileformat=VCFv4.2\n##note=WORD\n{VCF_COLUMNS}chr1\t3\trs1\tA\tC\t.\tPASS\t.\n"
READERS = [
    Reader("run.toml", '# WORD\ntask = ["gene_finding"]\nepochs = 3\n', _config),
    Reader("a.bed", "chromosome\tstart\tend\tlabel\tname\nchr1\t0\t4\t1\tWORD\nchr1\t4\t8\t0\tx\n", _bed),
    Reader("regions.bed", "chromosome\tstart\tend\nchr1\t0\t4\nchr1\t6\t8\n", _regions),
    Reader("a.vcf", VCF, _vcf, skips_words=True),
    Reader("a.fa", ">chr1 WORD\nACGTACGTAC\nGT\n>chr2\nAC\n", _fasta, skips_words=True),
    Reader("a.labels.txt", "first\nWORD\nlast\n", read_label_names),
    Reader("sha256.txt", f"{'a' * 64}  WORD.bed\n{'b' * 64}  b.bed\n", _read_sums_text),
    Reader("config.json", '{\n"model_type": "bert",\n"name": "WORD"\n}\n', read_json),
    Reader("vocab.txt", "[PAD]\nWORD\n[MASK]\nACG\n", lambda path: read_vocabulary(path.parent)),
    Reader("mask/vocab.txt", "[MASK]\nWORD\nACG\n", lambda path: mask_in_files(path.parent)),
    Reader("x__seed0.json", json.dumps(record().as_json(), indent=1).replace("135 genomes", "WORD"), read_record),
]
SAVED: dict[str, Callable[[str], bytes]] = {
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "no last line end": lambda text: text.rstrip("\n").encode(),
    "blank last line": lambda text: (text + "\n").encode(),
    "blanks at the end": lambda text: (text + "  \n\n").encode(),
    "all of a Windows editor": lambda text: b"\xef\xbb\xbf" + (text + "\n").replace("\n", "\r\n").encode(),
}


def _write(folder: Path, reader: Reader, content: bytes) -> Path:
    path = folder / reader.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("saved", SAVED)
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_the_same_is_read_however_an_editor_saves_the_file(reader: Reader, saved: str, tmp_path: Path) -> None:
    for word in ("plain", "é"):
        text = reader.text.replace("WORD", word)
        expected = reader.read(_write(tmp_path / "as_is", reader, text.encode()))
        assert reader.read(_write(tmp_path / "saved", reader, SAVED[saved](text))) == expected


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_text_of_another_encoding_is_refused_with_its_line_unless_it_is_not_read(
    reader: Reader, tmp_path: Path
) -> None:
    if "WORD" not in reader.text:
        pytest.skip("the file holds numbers only")
    path = _write(tmp_path / "latin1", reader, reader.text.replace("WORD", "Andr\xe9").encode("latin-1"))
    if reader.skips_words:
        plain = _write(tmp_path / "plain", reader, reader.text.replace("WORD", "Andre").encode())
        assert reader.read(path) == reader.read(plain)
        return
    with pytest.raises(BendError, match=r"line \d+: byte 0xe9 is not UTF-8, which is expected") as raised:
        reader.read(path)
    assert path.name in str(raised.value)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_utf_16_is_refused_by_name(reader: Reader, tmp_path: Path) -> None:
    path = _write(tmp_path, reader, reader.text.replace("WORD", "x").encode("utf-16"))
    with pytest.raises(BendError) as raised:
        reader.read(path)
    assert path.name in str(raised.value)


@pytest.mark.parametrize("saved", SAVED)
@pytest.mark.parametrize("name", ["a.bed", "a.vcf"])
def test_compressed_tables_are_read_alike(name: str, saved: str, tmp_path: Path) -> None:
    (reader,) = (reader for reader in READERS if reader.name == name)
    text = reader.text.replace("WORD", "é")
    expected = reader.read(_write(tmp_path, reader, text.encode()))
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(SAVED[saved](text)))
    assert reader.read(packed) == expected
