"""Measure size, writing and reading of the embedding cache, against simple ways of doing the same.

    python -m benchmarks.cache

Prints a table and writes ``benchmarks/results/cache.json``; takes two minutes on two cores.

- Size: the Arrow cache in float16 with labels and coordinates, against float32 embeddings per nucleotide.
- Writing: all of ``bend-hf embed`` with a model that costs nothing (hash of the data, plan, conversion from float32,
  Arrow, checksum, flush), against the same bytes written to a raw file. ``embed`` returns once the cache is on disk, so
  the flushed raw file is the fair reference; the unflushed one is still in memory when its time is taken.
- Writing, against BEND's format: float32 embeddings per nucleotide as npy files in a tar.gz.
- Random reading: shuffled batches of 64 samples, against memcpy of the same samples.
- Reading, against tar.gz: sample by sample in the order of the archive, as webdataset reads it, with ``tarfile``.

Both sides take turns, and the best round of each counts, so that the load of other programs matters less.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import torch

from bend_hf.embedders._alignment import Tokenized, TokenStream, Window, assemble
from bend_hf.embedders._embedder import Embedder
from bend_hf.embedders._spec import TokenEmbeddings
from bend_hf.embedders.cache import CacheSettings
from bend_hf.embedders.cache.open import CacheEntry, find_entry
from bend_hf.embedders.cache.reader import CachedEmbeddings

RESULTS = Path(__file__).resolve().parent / "results" / "cache.json"
WINDOW_BP = 512
BATCH = 64
# Mean nucleotides per token of published tokenizers: 6-mers, and byte pairs (DNABERT-2's paper: about 5).
KINDS = {"6-mer, width 2560": (6, 2560), "BPE, width 768": (5, 768)}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One comparison: ``ratio`` is how many times ours is better, ``wanted`` the target."""

    name: str
    ours: float
    reference: float
    unit: str
    ratio: float
    wanted: float


class Costless(Embedder):
    """An embedder that returns prepared token embeddings. Nucleotides that fill no token are tokens of their own."""

    needs_checkpoint = False
    direction = "none"
    token_bp = 6
    n_columns = 2560

    @classmethod
    def of(cls, token_bp: int, width: int) -> Costless:
        """An embedder with tokens of ``token_bp`` nucleotides and embeddings of ``width``."""
        cls.token_bp, cls.n_columns = token_bp, width
        return cls()

    def _load(self) -> None:
        self._rows = np.random.default_rng(0).standard_normal((WINDOW_BP, self.n_columns)).astype(np.float32)

    @property
    def width(self) -> int:
        """Width of the embeddings."""
        return self.n_columns

    @property
    def identity(self) -> dict[str, str]:
        """The identity of an embedder, with the size of its tokens."""
        return {**super().identity, "token_bp": str(self.token_bp)}

    def _lengths(self, sequence: str) -> np.ndarray:
        whole, rest = divmod(len(sequence), self.token_bp)
        return np.repeat([self.token_bp, 1], [whole, rest])

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        lengths = [self._lengths(sequence) for sequence in sequences]
        starts = np.concatenate([[0], np.cumsum([len(one) for one in lengths])])
        ids = np.zeros(int(starts[-1]), np.int32)
        return assemble(
            TokenStream(ids=ids, token_bp=np.concatenate(lengths), starts=starts), Window(context_tokens=None)
        )

    def _hidden(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor | None, layer: int) -> torch.Tensor:
        return torch.from_numpy(self._rows)[: ids_BT.shape[1]].expand(*ids_BT.shape, -1)

    def iter_tokens(self, sequences: Iterable[str]) -> Iterator[TokenEmbeddings]:
        """Yield views of the prepared embeddings."""
        for sequence in sequences:
            lengths = self._lengths(sequence)
            yield TokenEmbeddings(values=self._rows[: len(lengths)], embedding_bp=lengths)


def windows(n: int) -> datasets.Dataset:
    """Random windows with coordinates and labels."""
    rng = np.random.default_rng(0)
    letters = rng.choice(np.frombuffer(b"ACGT", np.uint8), (n, WINDOW_BP))
    return datasets.Dataset.from_dict(
        {
            "item": list(range(n)),
            "chromosome": ["chr1"] * n,
            "start": list(range(n)),
            "end": list(range(WINDOW_BP, n + WINDOW_BP)),
            "sequence": [row.tobytes().decode() for row in letters],
            "labels": [[1, 5]] * n,
        }
    )


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one run, after flushing the disk."""
    os.sync()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turns(rounds: int, *, gone: Path | None = None, **works: Callable[[], object]) -> dict[str, float]:
    """The best time of each function. The folder ``gone`` is removed before each run, outside the timing."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            if gone is not None:
                shutil.rmtree(gone, ignore_errors=True)
            best[name] = min(best[name], seconds(work))
    return best


def embed(folder: Path, dataset: datasets.Dataset, embedder: Embedder) -> CacheEntry:
    """Do what ``bend-hf embed`` does, without reading the files of a task."""
    entry = find_entry(dataset, embedder, CacheSettings(folder=folder, show_progress=False))
    entry.fill()
    return entry


def cache_bytes(entry: CacheEntry) -> int:
    """Bytes of the Arrow files."""
    return sum(files.arrow.stat().st_size for files in entry.shards)


def write_raw(path: Path, data: np.ndarray, *, flush: bool) -> None:
    """Write the bytes to a raw file in blocks of 128 MiB."""
    path.parent.mkdir(exist_ok=True)
    with path.open("wb", buffering=0) as file:
        for start in range(0, len(data), 1 << 27):
            file.write(data[start : start + (1 << 27)])
        if flush:
            os.fsync(file.fileno())


def write_tar(path: Path, dataset: datasets.Dataset, embedder: Embedder) -> None:
    """Write BEND's format: for each sample, float32 embeddings per nucleotide as npy in a tar.gz."""
    with tarfile.open(path, "w:gz") as archive:
        for place, item in enumerate(embedder.embed_tokens(list(dataset["sequence"]))):
            buffer = io.BytesIO()
            np.save(buffer, item.upsampled())
            info = tarfile.TarInfo(f"sample_{place}.input.npy")
            info.size = buffer.tell()
            buffer.seek(0)
            archive.addfile(info, buffer)


def read_tar(path: Path) -> int:
    """Read all samples in the order of the archive and count their nucleotides."""
    count = 0
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            data = archive.extractfile(member)
            if data is None:
                raise SystemExit(f"{member.name} in {path} is not a file")
            count += len(np.load(io.BytesIO(data.read())))
    return count


def better(name: str, unit: str, wanted: float, *, ours: float, reference: float, less_is_better: bool = False) -> Line:
    """One line of the table, with its ratio."""
    ratio = reference / ours if less_is_better else ours / reference
    return Line(name=name, ours=ours, reference=reference, unit=unit, ratio=ratio, wanted=wanted)


def measure(folder: Path, *, n: int, n_tar: int, rounds: int) -> list[Line]:
    """Run all comparisons."""
    lines = []
    sizes = {"6-mer, width 2560": 11.0, "BPE, width 768": 8.0}
    for name, kind in KINDS.items():
        entry = embed(folder / "size", windows(n // 4), Costless.of(*kind))
        plain = n // 4 * WINDOW_BP * kind[1] * 4
        lines.append(
            better(
                f"cache against float32 per nucleotide, {name}",
                "MB",
                sizes[name],
                ours=cache_bytes(entry) / 1e6,
                reference=plain / 1e6,
                less_is_better=True,
            )
        )
        shutil.rmtree(folder / "size")
    dataset, few, embedder = windows(n), windows(n_tar), Costless.of(*KINDS["6-mer, width 2560"])
    entry = embed(folder / "cache", dataset, embedder)
    size = cache_bytes(entry)
    noise = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    best = in_turns(
        rounds,
        gone=folder / "written",
        ours=lambda: embed(folder / "written", dataset, embedder),
        raw=lambda: write_raw(folder / "written" / "raw", noise, flush=False),
        flushed=lambda: write_raw(folder / "written" / "raw", noise, flush=True),
    )
    shutil.rmtree(folder / "written")
    speed = {name: size / 1e9 / value for name, value in best.items()}
    lines += [
        better(name, "GB/s", 0.5, ours=speed["ours"], reference=speed[kind])
        for name, kind in (
            ("write, against a raw file flushed too", "flushed"),
            ("write, against a raw file left unflushed", "raw"),
        )
    ]
    tar_s = in_turns(1, tar=lambda: write_tar(folder / "samples.tar.gz", few, embedder))["tar"]
    lines.append(
        better("write, against npy in tar.gz", "samples/s", 15, ours=n / best["ours"], reference=n_tar / tar_s)
    )
    source = CachedEmbeddings.of(entry.shards, dtype="float16")
    lines.append(random_read(source, rounds))
    order = np.random.default_rng(0).permutation(len(source))
    reads = in_turns(2, ours=lambda: read_batches(source, order), tar=lambda: read_tar(folder / "samples.tar.gz"))
    lines.append(
        better("read, against npy in tar.gz", "samples/s", 30, ours=n / reads["ours"], reference=n_tar / reads["tar"])
    )
    return lines


def read_batches(source: CachedEmbeddings, order: np.ndarray) -> None:
    """Read every sample in shuffled batches, as training does."""
    for start in range(0, len(order), BATCH):
        source.rows(order[start : start + BATCH])


def random_read(source: CachedEmbeddings, rounds: int) -> Line:
    """Compare shuffled batches of token embeddings with memcpy of the same bytes."""
    order = np.random.default_rng(1).permutation(len(source))
    samples = np.stack([source.item(item).values for item in range(len(source))])
    into = np.empty((BATCH, *samples.shape[1:]), samples.dtype)

    def copies() -> None:
        for start in range(0, len(order), BATCH):
            for place, item in enumerate(order[start : start + BATCH].tolist()):
                into[place] = samples[item]

    read_batches(source, order)
    best = in_turns(2 * rounds, ours=lambda: read_batches(source, order), memcpy=copies)
    speed = {name: samples.nbytes / 1e9 / value for name, value in best.items()}
    return better("random read, warm, against memcpy", "GB/s", 0.8, ours=speed["ours"], reference=speed["memcpy"])


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2_000, help="512-bp windows in the cache")
    parser.add_argument("--tar-samples", type=int, default=40, help="number of them that are written to the tar.gz")
    parser.add_argument("--rounds", type=int, default=8, help="number of rounds; the best counts")
    parser.add_argument("--folder", type=Path, help="folder for the files; default: a temporary folder")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
        lines = measure(Path(folder), n=flags.samples, n_tar=flags.tar_samples, rounds=flags.rounds)
    print(f"{'what':<58} {'bend_hf':>10} {'reference':>10} {'ratio':>8} {'wanted':>7}  unit")
    for line in lines:
        numbers = f"{line.ours:>10,.2f} {line.reference:>10,.2f} {line.ratio:>8.2f} {line.wanted:>7.1f}"
        print(f"{line.name:<58} {numbers}  {line.unit}")
    result = {
        "samples": flags.samples,
        "tar_samples": flags.tar_samples,
        "rounds": flags.rounds,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "machine": f"{platform.machine()}, {sys.platform}",
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "pyarrow": pa.__version__,
            "datasets": datasets.__version__,
            "torch": torch.__version__,
        },
        "lines": [asdict(line) for line in lines],
    }
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    flags.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
