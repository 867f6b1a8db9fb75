"""Processes that fill the caches of several layers together, some of which die while they do.

    python -m tests.e2e.layer_lives FOLDER

Imports once and forks each process. Prints, for each group of processes, how they ended and what they left.

>>> sorted(MOMENTS)[0]
'between the records of two layers'
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path

import datasets

from bend_hf.embedders import MODELS, load_embedder
from bend_hf.embedders._embedder import Embedder
from bend_hf.embedders.cache import CacheSettings
from bend_hf.embedders.cache import layers as cache_layers
from bend_hf.embedders.cache.fill import RankSlice
from bend_hf.embedders.cache.open import CacheEntry, find_entry
from bend_hf.embedders.cache.shards import ShardFiles
from bend_hf.embedders.cache.stream import Claim, ShardStream
from bend_hf.embedders.layers import layer_view
from tests.cached import arrow_bytes, leftovers, random_sequences
from tests.killing import before, die

N_ITEMS = 12
LAYERS = (0, 1)  # of bend-mini: the embedded nucleotides, and its network
MOMENTS = {
    "with the lease of one layer": (cache_layers, "take", 2),
    "while both layers are written": (ShardFiles, "finish", 1),
    "between the records of two layers": (ShardFiles, "_write_record", 2),
    "in its second shard": (ShardStream, "_start", 2),
}


def layer_entries(folder: Path) -> tuple[Embedder, dict[int, CacheEntry]]:
    """The entry of each layer, of several shards, planned and not filled."""
    embedder = load_embedder("bend-mini", device="cpu")
    data = datasets.Dataset.from_dict({"sequence": random_sequences([40] * N_ITEMS), "item": list(range(N_ITEMS))})
    settings = CacheSettings(folder=folder, dtype="float32", show_progress=False, shard_bytes=150_000)
    return embedder, {
        layer: find_entry(data, layer_view(embedder, layer), settings, label=f"small layer {layer}") for layer in LAYERS
    }


def fill_layers_and_die(folder: Path, rank: int, n_processes: int, moment: str | None) -> None:
    """Fill all layers as one of several processes; die by SIGKILL at a moment. What it embeds is kept in a file."""
    if moment is not None:
        where, name, number = MOMENTS[moment]
        setattr(where, name, before(getattr(where, name), number, die))
    embedder, entries = layer_entries(folder)
    embedded: list[tuple[int, int]] = []
    layer_of = {entry.folder: layer for layer, entry in entries.items()}
    real = ShardStream._start

    def watched(stream: ShardStream, claim: Claim) -> None:
        embedded.extend((layer_of[files.folder], files.number) for files in claim.files)
        real(stream, claim)

    ShardStream._start = watched  # type: ignore[method-assign]
    cache_layers.fill_layers(entries, embedder, RankSlice(rank=rank, n_processes=n_processes))
    (folder / f"embedded{rank}.txt").write_text(json.dumps(embedded))


def start(folder: Path, rank: int, n_processes: int, moment: str | None) -> int:
    """Fork a process; return its number."""
    folder.mkdir(exist_ok=True)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            fill_layers_and_die(folder, rank, n_processes, moment)
            status = 0
        finally:
            os._exit(status)
    return pid


def ended(*pids: int) -> list[int]:
    """Wait for processes and return how they ended, as ``subprocess`` says it."""
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def start_one_that_dies(folder: Path, moment: str) -> tuple[int, int]:
    """Start a process that dies, and another one as soon as the first holds a lease."""
    first = start(folder, 0, 2, moment)
    while not list(folder.glob("*/*.lock")):
        if os.waitid(os.P_PID, first, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            raise SystemExit(f"{moment}: the first process ended without a lease")
        time.sleep(0.001)
    return first, start(folder, 1, 2, None)


def main(folder: Path) -> None:
    """Run all groups of processes, one after the other."""
    for module in ("accelerate", "bend_hf.embedders.from_config", "bend_hf.embedders.networks.bend_mini"):
        importlib.import_module(module)  # once, before the forks
    list(MODELS)
    statuses = {"alone": ended(start(folder / "alone", 0, 1, None))}
    statuses["three"] = ended(*[start(folder / "three", rank, 3, None) for rank in range(3)])
    for moment in MOMENTS:
        statuses[moment] = ended(*start_one_that_dies(folder / moment, moment))
    found = {}
    for name, status in statuses.items():
        entries = layer_entries(folder / name)[1].values()
        embedded = [one for path in (folder / name).glob("embedded*.txt") for one in json.loads(path.read_text())]
        found[name] = {
            "ended": status,
            "embedded": sorted(embedded),
            "bytes": [arrow_bytes(entry) for entry in entries],
            "left": [name for entry in entries for name in leftovers(entry)],
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
