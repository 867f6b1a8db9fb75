"""The readers that are fuzzed. Each either reads its file or raises a ``BendError``; all else is a fault.

>>> read("bed", b"chromosome\\tstart\\tend\\nchr1\\t1\\t2\\n")
'read'
>>> sorted(TARGETS)
['bed', 'fai', 'hdf5', 'record', 'toml', 'vcf']
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

import h5py
import numpy as np

from bend_hf.config import RunConfig, kinds_of, read_toml
from bend_hf.data.bed import read_bed
from bend_hf.data.genome import Genome
from bend_hf.data.labels import labels_from_hdf5
from bend_hf.data.vcf import read_vcf
from bend_hf.errors import BendError
from bend_hf.evaluation.record import read_record, record_text
from bend_hf.tasks._labels import BinClasses, NucleotideClasses
from tests.records import record

FOUND: Final = Path(__file__).parent / "found"
_LENGTHS_BP: Final = np.array([6, 6, 6, 6])
_NINE: Final = NucleotideClasses(names=tuple("abcdefghi"))
_BINS: Final = BinClasses(names=("no", "yes"), bin_bp=1)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A reader.

    Attributes:
        ending: Of the file that it reads.
        reads: Reads a file.
        seeds: Whole files to start from, by name.
    """

    ending: str
    reads: Callable[[Path], object]
    seeds: Callable[[], dict[str, bytes]]


def _bed_seeds() -> dict[str, bytes]:
    return {
        "labels": b"chromosome\tstart\tend\tstrand\tlabel\tsplit\n"
        b"chr1\t10\t522\t+\t0,3\ttrain\nchr2\t0\t512\t-\t\ttest\n",
        "variants": b"chromosome\tstart\tend\tref\talt\tlabel\r\nchr1\t10\t11\tA\tC\t1\r\n",
        "marked": b"\xef\xbb\xbf#chrom\tchromStart\tchromEnd\n\nchrX\t5\t9\n",
    }


def _vcf_seeds() -> dict[str, bytes]:
    head = b'##fileformat=VCFv4.2\n##INFO=<ID=label,Number=A,Type=Integer,Description="x">\n'
    columns = b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    return {
        "alleles": head + columns + b"chr1\t11\trs1\tA\tG,T\t.\tPASS\tlabel=1,0;full_label=x%2Cy\n",
        "indel": head + columns + b"chr2\t5\t.\tAC\tA\t50\tq10\t.\nchr2\t9\t.\tN\t<DEL>\t.\t.\tlabel=.\n",
    }


def _toml_seeds() -> dict[str, bytes]:
    return {
        "flags": b'task = ["gene_finding"]\nmodel = "onehot"\nlearning-rate = 0.01\nbatch-size = 8\nfold = [1]\n',
        "paths": b"out = 'results'\ndata = \"data\"\nseed = 0x1f\ncontrols = true # yes\n",
    }


@cache
def _record_seeds() -> dict[str, bytes]:
    made = (("plain", record()), ("undefined", record(value=None)), ("genes", record("gene_finding", value=0.5)))
    return {name: record_text(one).encode() for name, one in made}


@cache
def _hdf5_seeds() -> dict[str, bytes]:
    labels = np.arange(24).reshape(4, 6) % 2

    def ragged(file: h5py.File) -> None:
        made = file.create_dataset("labels", (4,), dtype=h5py.vlen_dtype(np.int64))
        for row in range(4):
            made[row] = labels[row]

    kinds: dict[str, Callable[[h5py.File], object]] = {
        "plain": lambda file: file.create_dataset("labels", data=labels.astype(np.int8)),
        "chunks": lambda file: file.create_dataset("labels", data=labels, chunks=(2, 3), compression="gzip"),
        "ragged": ragged,
        "link": lambda file: (file.create_dataset("a", data=labels), file.__setitem__("labels", h5py.SoftLink("/a"))),
    }
    made = {}
    for name, write in kinds.items():
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            write(file)
        made[name] = buffer.getvalue()
    return made


def _fai_seeds() -> dict[str, bytes]:
    return {"two": b"chr1\t12\t6\t8\t9\nchr2\t4\t26\t4\t5\n", "one": b"chr1\t12\t6\t8\t9\n"}


def _read_with_index(path: Path) -> None:
    genome = path.with_name("genome.fa")
    genome.write_bytes(b">chr1\nACGTACGT\nACGT\n>chr2\nGGCC\n")
    shutil.copyfile(path, path.with_name("genome.fa.fai"))
    read = Genome(genome).fetch(["chr1", "chr2"], [4, 0], [12, 4]).to_arrow().to_pylist()
    if read != ["ACGTACGT", "GGCC"]:
        raise AssertionError(f"the genome was read as {read}")


def _read_labels(path: Path) -> None:
    refusals = []
    for kind in (_NINE, _BINS):
        try:
            table = labels_from_hdf5(path, kind, _LENGTHS_BP)
        except BendError as error:
            refusals.append(error)
            continue
        if len(table.values) != _LENGTHS_BP.sum():
            raise AssertionError(f"{len(table.values)} labels were read")
    if len(refusals) == 2:
        raise refusals[0]


TARGETS: Final = {
    "bed": Target(ending=".bed", reads=read_bed, seeds=_bed_seeds),
    "fai": Target(ending=".fai", reads=_read_with_index, seeds=_fai_seeds),
    "hdf5": Target(ending=".hdf5", reads=_read_labels, seeds=_hdf5_seeds),
    "record": Target(ending=".json", reads=read_record, seeds=_record_seeds),
    "toml": Target(ending=".toml", reads=lambda path: read_toml(path, kinds_of(RunConfig)), seeds=_toml_seeds),
    "vcf": Target(ending=".vcf", reads=read_vcf, seeds=_vcf_seeds),
}


@cache
def _place(process: int) -> Path:
    """A folder in memory, if there is one, for the files of a process."""
    shared = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="bend_hf_fuzz_", dir=shared if os.access(shared, os.W_OK) else None))


def read(name: str, content: bytes) -> Literal["read", "refused"]:
    """Let a reader read a file with this content, and say whether it did.

    Raises:
        Exception: Anything but a ``BendError``, which is what a reader is to raise.
    """
    target = TARGETS[name]
    path = _place(os.getpid()) / f"case{target.ending}"
    path.write_bytes(content)
    try:
        target.reads(path)
    except BendError:
        return "refused"
    return "read"


def clean_up() -> None:
    """Remove the files of this process."""
    shutil.rmtree(_place(os.getpid()), ignore_errors=True)
