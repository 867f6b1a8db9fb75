"""A small genome and small task folders in BEND's layout, made afresh from a seed.

>>> from pathlib import Path; from tempfile import mkdtemp
>>> folder = Path(mkdtemp()); write_genome(folder / "genome.fa").keys()
dict_keys(['chr1', 'chr2'])
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from bend_hf.tasks import Folds, TaskSpec, select_tasks
from bend_hf.tasks._labels import BinClasses, MultiLabel, NucleotideClasses

CONTIGS = {"chr1": 120_000, "chr2": 140_000}


def write_genome(path: Path, *, seed: int = 0, prefix: str = "chr") -> dict[str, str]:
    """Writes a random FASTA of two contigs; returns their sequences."""
    rng = np.random.default_rng(seed)
    contigs = {
        prefix + name.removeprefix("chr"): rng.choice(np.frombuffer(b"ACGT", np.uint8), length).tobytes().decode()
        for name, length in CONTIGS.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for name, sequence in contigs.items():
            file.write(f">{name}\n")
            file.writelines(sequence[at : at + 60] + "\n" for at in range(0, len(sequence), 60))
    return contigs


def write_bed(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """Writes a bed with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(header), *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_task(folder: Path, name: str, *, n: int = 20, seed: int = 0) -> Path:
    """Writes one task of BEND with random labels into a folder that has the genome already."""
    task = select_tasks([name])[0]
    rng = np.random.default_rng(seed)
    sequences = (folder / "genomes" / "genome.fa").read_text().split(">")[1:]
    genome = {part.split("\n", 1)[0]: part.split("\n", 1)[1].replace("\n", "") for part in sequences}
    bed = folder / task.group / f"{task.key}.bed"
    if task.variant is not None:
        positions = np.sort(rng.choice(100_000, n, replace=False))
        rows = [
            ("chr1", at, at + 1, genome["chr1"][at], "ACGT"[("ACGT".index(genome["chr1"][at]) + 1) % 4], i % 2)
            for i, at in enumerate(positions.tolist())
        ]
        return write_bed(bed, ("chromosome", "start", "end", "ref", "alt", "label"), rows)
    lengths = [task.window_bp or int(rng.integers(50, 200)) for _ in range(n)]
    starts = [int(rng.integers(0, CONTIGS["chr2"] - length)) for length in lengths]
    places = [("chr2", start, start + length) for start, length in zip(starts, lengths, strict=True)]
    splits = [f"part{i % 10}" if isinstance(task.partition, Folds) else _split(i) for i in range(n)]
    strands = ["+-"[i % 2] for i in range(n)]
    if isinstance(task.label, MultiLabel):
        labels = [",".join(map(str, np.flatnonzero(rng.random(len(task.label_names)) < 0.4))) for _ in range(n)]
        rows = [(*p, s, text, split) for p, s, text, split in zip(places, strands, labels, splits, strict=True)]
        return write_bed(bed, ("chromosome", "start", "end", "strand", "label", "split"), rows)
    _write_hdf5(bed.with_suffix(".hdf5"), task, lengths, rng)
    return write_bed(
        bed, ("chromosome", "start", "end", "split"), [(*p, s) for p, s in zip(places, splits, strict=True)]
    )


def _split(row: int) -> str:
    return ("train", "train", "valid", "test")[row % 4]


def _write_hdf5(path: Path, task: TaskSpec, lengths: list[int], rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        if isinstance(task.label, NucleotideClasses):
            dataset = file.create_dataset("labels", (len(lengths),), dtype=h5py.vlen_dtype(np.int64))
            for row, length in enumerate(lengths):
                dataset[row] = rng.integers(0, len(task.label_names), length)
        else:
            assert isinstance(task.label, BinClasses)
            bins = lengths[0] // task.label.bin_bp
            file["labels"] = (rng.random((len(lengths), bins)) < 0.1).astype(np.int8)


def write_data(folder: Path, names: Sequence[str], *, n: int = 20, seed: int = 0) -> Path:
    """Writes a data folder in BEND's layout with some tasks and a genome."""
    write_genome(folder / "genomes" / "genome.fa", seed=seed)
    for name in names:
        write_task(folder, name, n=n, seed=seed)
    return folder
