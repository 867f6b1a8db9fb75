"""Time reading the sequences of whole BED files, against one pyfaidx fetch per row.

    python -m benchmarks.genome --genome GRCh38.fa
    python -m benchmarks.genome                        # a random chromosome of 60 Mb

Prints a table and writes ``benchmarks/results/genome.json``. All three references use pyfaidx, fetch row by row and
reverse-complement the minus strand:

- ``upstream``: the steps of upstream BEND: rows from ``iterrows`` of a pandas frame, the fetch, ``upper()``, and the
  complement of each nucleotide from a dictionary.
- ``pyfaidx``: ``fasta[name][start:end]`` over prepared lists, with pyfaidx's own ``-sequence``.
- ``leanest``: the same with ``as_raw=True`` and ``str.translate``, the fastest loop with pyfaidx.

Both sides run on one core and take turns of three runs each. The processor time of the best run counts, so that the
load of other programs, and the price of touching memory first on a virtual machine, matter less. All sides must read
the same sequences. Peak memory is measured by tracemalloc, which includes numpy arrays; the pages of the mapped FASTA
file belong to the page cache of the operating system.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyfaidx

from bend_hf.data.genome import Genome
from bend_hf.data.sequences import SequenceBatch
from tests.bgzip import bgzip

RESULTS = Path(__file__).resolve().parent / "results" / "genome.json"
RANDOM_BP = 60_000_000
WINDOW_BP = 512
GENE_BP = (1_433, 14_000)  # shortest and longest row of BEND's gene finding task
PAIRS = dict(zip("ACGTN", "TGCAN", strict=True))
TABLE = str.maketrans("ACGTNRYKMSWBVDH", "TGCANYRMKSWVBHD")


@dataclass(frozen=True, kw_only=True)
class Bed:
    """Intervals on one contig, in the order of the genome or shuffled."""

    name: str
    chromosome: str
    start_bp: np.ndarray
    end_bp: np.ndarray
    strand: np.ndarray

    def __len__(self) -> int:
        return len(self.start_bp)

    def head(self, n_rows: int) -> Bed:
        """Rows spread evenly over all intervals, in their order."""
        at = np.linspace(0, len(self) - 1, min(n_rows, len(self))).astype(int)
        return Bed(
            name=self.name,
            chromosome=self.chromosome,
            start_bp=self.start_bp[at],
            end_bp=self.end_bp[at],
            strand=self.strand[at],
        )


@dataclass(frozen=True, kw_only=True)
class Line:
    """One comparison."""

    name: str
    reference: str
    rows: int
    ours: float
    reference_value: float
    ratio: float
    unit: str


def make_bed(name: str, genome: Genome, n_rows: int, length_bp: tuple[int, int], *, in_order: bool) -> Bed:
    """Draw intervals on the longest contig, half of them on the minus strand."""
    rng = np.random.default_rng(0)
    chromosome = max(genome.contigs, key=lambda contig: genome.contigs[contig])
    start_bp = rng.integers(0, genome.contigs[chromosome] - length_bp[1], n_rows)
    if in_order:
        start_bp.sort()
    end_bp = start_bp + rng.integers(length_bp[0], length_bp[1] + 1, n_rows)
    return Bed(
        name=name,
        chromosome=chromosome,
        start_bp=start_bp,
        end_bp=end_bp,
        strand=rng.choice(np.array([1, -1], np.int8), n_rows),
    )


def ours(genome: Genome, bed: Bed) -> SequenceBatch:
    """Read all rows in one call."""
    names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(bed), np.int32)), pa.array([bed.chromosome]))
    return genome.fetch(names, bed.start_bp, bed.end_bp, bed.strand)


def upstream(fasta: Path, bed: Bed) -> list[str]:
    """Read row by row as upstream BEND does."""
    frame = pd.DataFrame({"chromosome": bed.chromosome, "start": bed.start_bp, "end": bed.end_bp, "strand": bed.strand})
    found = []
    with pyfaidx.Fasta(str(fasta), as_raw=True) as reference:
        for _, row in frame.iterrows():
            bases = reference[row["chromosome"]][row["start"] : row["end"]].upper()
            found.append(bases if row["strand"] > 0 else "".join([PAIRS.get(base, "N") for base in reversed(bases)]))
    return found


def pyfaidx_rows(fasta: Path, bed: Bed) -> list[str]:
    """Read row by row as users of pyfaidx do."""
    found = []
    with pyfaidx.Fasta(str(fasta)) as reference:
        rows = zip(bed.start_bp.tolist(), bed.end_bp.tolist(), bed.strand.tolist(), strict=True)
        for start, end, strand in rows:
            bases = reference[bed.chromosome][start:end]
            found.append((bases if strand > 0 else -bases).seq.upper())
    return found


def leanest(fasta: Path, bed: Bed) -> list[str]:
    """Read row by row in the fastest loop with pyfaidx."""
    found = []
    with pyfaidx.Fasta(str(fasta), as_raw=True) as reference:
        contig = reference[bed.chromosome]
        rows = zip(bed.start_bp.tolist(), bed.end_bp.tolist(), bed.strand.tolist(), strict=True)
        for start, end, strand in rows:
            bases = contig[start:end].upper()
            found.append(bases if strand > 0 else bases.translate(TABLE)[::-1])
    return found


REFERENCES: dict[str, Callable[[Path, Bed], list[str]]] = {
    "upstream": upstream,
    "pyfaidx": pyfaidx_rows,
    "leanest": leanest,
}


def seconds(work: Callable[[], object]) -> float:
    """Processor time of the best of three runs."""
    best = float("inf")
    for _ in range(3):
        gc.collect()
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def compare(genome: Genome, plain: Path, bed: Bed, *, rounds: int, rows_of_reference: int) -> list[Line]:
    """Rows per second of both sides; the references read a sample of the rows."""
    part = bed.head(rows_of_reference)
    expected = {name: reference(plain, part) for name, reference in REFERENCES.items()}
    found = ours(genome, part).to_arrow().to_pylist()
    for name, sequences in expected.items():
        if sequences != found:
            raise SystemExit(f"{bed.name}: {name} and bend_hf read different sequences")
    del expected, found
    best = dict.fromkeys([*REFERENCES, "ours"], float("inf"))
    for _ in range(rounds):
        best["ours"] = min(best["ours"], seconds(lambda: ours(genome, bed)) / len(bed))
        for name, reference in REFERENCES.items():
            best[name] = min(best[name], seconds(lambda read=reference: read(plain, part)) / len(part))
    return [
        Line(
            name=bed.name,
            reference=name,
            rows=len(bed),
            ours=1 / best["ours"],
            reference_value=1 / best[name],
            ratio=best[name] / best["ours"],
            unit="rows/s",
        )
        for name in REFERENCES
    ]


def peak_memory(genome: Genome, bed: Bed) -> Line:
    """Peak of the memory that Python and numpy allocate, against the bytes of the sequences."""
    ours(genome, bed.head(1))
    tracemalloc.start()
    batch = ours(genome, bed)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return Line(
        name=f"{bed.name}, peak memory",
        reference="sequence bytes",
        rows=len(bed),
        ours=peak_bytes / 1e6,
        reference_value=batch.bases.nbytes / 1e6,
        ratio=peak_bytes / batch.bases.nbytes,
        unit="MB",
    )


def random_fasta(path: Path) -> None:
    """Write a random chromosome, a fifth of it soft-masked."""
    rng = np.random.default_rng(0)
    letters = np.frombuffer(b"ACGT" * 4 + b"acgt", np.uint8)
    lines = np.full((RANDOM_BP // 60, 61), ord("\n"), np.uint8)
    lines[:, :60] = letters[rng.integers(0, len(letters), (len(lines), 60), dtype=np.uint8)]
    path.write_bytes(b">chr1\n" + lines.tobytes())


def plain_copy(fasta: Path | None, folder: Path) -> Path:
    """Write the genome uncompressed into a folder, so that no index is left next to the original."""
    path = folder / "genome.fa"
    if fasta is None:
        random_fasta(path)
        return path
    with fasta.open("rb") as source, path.open("wb") as target:
        if source.read(2) == b"\x1f\x8b":
            source.seek(0)
            inflate = zlib.decompressobj(wbits=31)
            while chunk := source.read(1 << 20):
                target.write(inflate.decompress(chunk))
                while inflate.eof and inflate.unused_data:
                    rest, inflate = inflate.unused_data, zlib.decompressobj(wbits=31)
                    target.write(inflate.decompress(rest))
        else:
            source.seek(0)
            shutil.copyfileobj(source, target, 1 << 22)
    return path


def measure(fasta: Path | None, *, n_rows: int, rounds: int, rows_of_reference: int) -> list[Line]:
    """Run all comparisons."""
    with tempfile.TemporaryDirectory() as folder:
        plain = plain_copy(fasta, Path(folder))
        packed = plain.with_name("genome.bgzip.fa.gz")
        packed.write_bytes(bgzip(plain.read_bytes()))
        os.environ["BEND_HF_CACHE"] = folder  # where the compressed genome is inflated
        genome, genome_bgzip = Genome(plain), Genome(packed)
        window = (WINDOW_BP, WINDOW_BP)
        in_order = make_bed("512-bp windows in genome order", genome, n_rows, window, in_order=True)
        shuffled = make_bed("512-bp windows shuffled", genome, n_rows, window, in_order=False)
        genes = make_bed("genes of 1.4 to 14 kb", genome, max(1, n_rows // 16), GENE_BP, in_order=True)
        effort = {"rounds": rounds, "rows_of_reference": rows_of_reference}
        lines = [
            *compare(genome, plain, in_order, **effort),
            *compare(genome, plain, shuffled, **effort),
            *compare(genome, plain, genes, rounds=rounds, rows_of_reference=max(1, rows_of_reference // 16)),
        ]
        from_bgzip = Bed(**{**vars(in_order), "name": "512-bp windows in genome order, bgzip"})
        lines += compare(genome_bgzip, plain, from_bgzip, **effort)
        return (
            lines
            + [peak_memory(genome, bed) for bed in (in_order, shuffled, genes)]
            + [peak_memory(genome_bgzip, from_bgzip)]
        )


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genome", type=Path, help="FASTA file, plain, gzip or bgzip; default: a random chromosome")
    parser.add_argument("--rows", type=int, default=100_000, help="number of windows")
    parser.add_argument("--reference-rows", type=int, default=10_000, help="number of them that the references read")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    flags = parser.parse_args()
    lines = measure(flags.genome, n_rows=flags.rows, rounds=flags.rounds, rows_of_reference=flags.reference_rows)
    print(f"{'what':<44} {'against':<14} {'bend_hf':>12} {'reference':>12} {'ratio':>7}  unit")
    for line in lines:
        value = f"{line.ours:>12,.0f} {line.reference_value:>12,.0f} {line.ratio:>7.2f}"
        print(f"{line.name:<44} {line.reference:<14} {value}  {line.unit}")
    result = {
        "genome": flags.genome.name if flags.genome else f"random, {RANDOM_BP} bp",
        "cores": os.cpu_count(),
        "cores_used": 1,
        "machine": f"{platform.machine()}, {sys.platform}",
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "pyarrow": pa.__version__,
            "pyfaidx": pyfaidx.__version__,
        },
        "lines": [asdict(line) for line in lines],
    }
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    flags.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
