"""Shared by the tests of the cache: a fast and exact embedder, small datasets, and processes to kill.

>>> Triplets().embed_tokens(["ACGTA"])[0].embedding_bp.tolist()
[3, 1, 1]
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import FrameType

import datasets
import numpy as np
import torch  # here, so that the fork server has it

from bend_hf.embedders._alignment import Tokenized, Window, assemble
from bend_hf.embedders._embedder import Embedder
from bend_hf.embedders._spec import TokenEmbeddings
from bend_hf.embedders._tokens import Nucleotides, greedy_kmers, nucleotide_table
from bend_hf.embedders.cache import CacheSettings
from bend_hf.embedders.cache.fill import RankSlice
from bend_hf.embedders.cache.open import CacheEntry, find_entry
from bend_hf.errors import CacheError
from bend_hf.types import Floats

WIDTH = 4
SHARD_BYTES = 4_000


class Triplets(Embedder):
    """3-mers; an embedding holds the token's id, position and sequence length, so that any mix-up shows."""

    needs_checkpoint = False
    direction = "none"
    scale = 1.0

    def _load(self) -> None:
        self._table = nucleotide_table({letter: index for index, letter in enumerate("ACGT")}, 4)

    def _tokenize(self, sequences: list[str]) -> Tokenized:
        stream = greedy_kmers(
            Nucleotides.of(sequences),
            k=3,
            alphabet="ACGT",
            kmer_ids=np.arange(5, 69, dtype=np.int32),
            nucleotide_ids=self._table,
        )
        return assemble(stream, Window(context_tokens=None))

    def _hidden(self, ids_BT: torch.Tensor, mask_BT: torch.Tensor | None, layer: int) -> torch.Tensor:
        raise NotImplementedError

    @property
    def width(self) -> int:
        """Four."""
        return WIDTH

    def iter_tokens(self, sequences: Iterable[str]) -> Iterator[TokenEmbeddings]:
        """Embed each sequence."""
        for sequence in sequences:
            tokens = self._tokenize([sequence])
            yield TokenEmbeddings(values=self.rows_of(tokens.ids, len(sequence)), embedding_bp=tokens.embedding_bp)

    def rows_of(self, ids: np.ndarray, n_bp: int) -> Floats:
        """Return one embedding per token: its id, its position, the sequence's length, and a third."""
        columns = [ids, np.arange(len(ids)), np.full(len(ids), n_bp), np.full(len(ids), 1 / 3)]
        return np.stack(columns, axis=1).astype(np.float32) * np.float32(self.scale)


def random_sequences(lengths_bp: Iterable[int], seed: int = 0) -> list[str]:
    """Draw sequences of those lengths."""
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("ACGTN"), n, p=[0.24, 0.24, 0.24, 0.24, 0.04])) for n in lengths_bp]


def small_dataset(n: int = 40, seed: int = 0) -> datasets.Dataset:
    """Draw items with coordinates and labels, of 1 to 200 nucleotides."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 200, n)
    return datasets.Dataset.from_dict(
        {
            "item": list(range(n)),
            "chromosome": ["chr1"] * n,
            "start": rng.integers(0, 1000, n).tolist(),
            "sequence": random_sequences(lengths.tolist(), seed),
            "labels": [rng.integers(0, 5, length).tolist() for length in lengths],
        },
        features=datasets.Features(
            {
                "item": datasets.Value("int64"),
                "chromosome": datasets.Value("string"),
                "start": datasets.Value("int64"),
                "sequence": datasets.Value("large_string"),
                "labels": datasets.List(datasets.ClassLabel(num_classes=5)),
            }
        ),
    )


def small_entry(folder: Path, dataset: datasets.Dataset | None = None, embedder: Embedder | None = None) -> CacheEntry:
    """Plan an entry of a few shards without filling it."""
    return find_entry(
        small_dataset() if dataset is None else dataset,
        embedder or Triplets(),
        CacheSettings(folder=folder, shard_bytes=SHARD_BYTES, show_progress=False),
        label="small train",
    )


def made(folder: Path, dataset: datasets.Dataset | None = None, embedder: Embedder | None = None) -> CacheEntry:
    """Fill an entry."""
    entry = small_entry(folder, dataset, embedder)
    entry.fill()
    return entry


def arrow_bytes(entry: CacheEntry) -> dict[str, str]:
    """Hash each Arrow file of an entry."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(entry.folder.glob("*.arrow"))}


def leftovers(entry: CacheEntry) -> list[str]:
    """List the files that do not belong to a finished entry."""
    wanted = {
        "about.json",
        "state.json",
        "dataset_info.json",
        *(name for files in entry.shards for name in (files.arrow.name, files.record.name)),
    }
    return sorted(path.name for path in entry.folder.iterdir() if path.name not in wanted)


# Processes. A fork server has imported everything, so that a process costs milliseconds.


def server() -> ForkServerContext:
    """Return the fork server that processes are started from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.cached"])
    return context


def start(target: Callable[..., None], *arguments: object) -> multiprocessing.process.BaseProcess:
    """Start a process."""
    process = server().Process(target=target, args=arguments)
    process.start()
    return process


def make_and_die(folder: Path, rank: int, n_processes: int, calls: int | None) -> None:
    """Fill the small entry as one rank of several; die by SIGKILL at a function call, in any thread."""
    dataset = small_dataset()
    if calls is not None:
        _die_at(calls)
    small_entry(folder, dataset).fill(here=RankSlice(rank=rank, n_processes=n_processes))


def make_within(folder: Path, n_bytes: int) -> None:
    """Fill the small entry with a limit on file sizes, and write the error's text into the folder."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        small_entry(folder).fill()
    except CacheError as error:
        (folder / "error.txt").write_text(str(error)[:500])


def _die_at(calls: int) -> None:
    left = calls

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(count)
    sys.setprofile(count)


def calls_of_a_run(folder: Path) -> int:
    """Count the calls and returns of a whole run: the moments at which a process can be killed."""
    folder.mkdir(exist_ok=True)
    dataset = small_dataset()
    made(folder / "imports", dataset)
    seen = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal seen
        seen += 1

    threading.setprofile(count)
    sys.setprofile(count)
    try:
        made(folder, dataset)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return seen
