"""Measure what workers that share a cache cost: leases, plans and inventories; simulate up to 256 of them.

    python -m benchmarks.cluster

Writes ``benchmarks/results/cluster.json``; takes about two minutes on two cores.

- Measured on a disk, by the clock: a look at the folder of an entry of 256 shards, a lease that is taken and freed, a
  look at a finished shard when its entry is opened, and the self-test of a folder.
- Measured at 200,000 shards, in 782 entries, in processor time and in a file system in memory: planning them, counting
  the finished ones, that with a rate (``bend-hf submit --status``), and listing them with sizes (``bend-hf cache
  list``); with the peak of the memory that Python allocates.
- Simulated, event by event: 1 to 256 workers over these shards of 30 s each (their times spread by 10 %), as
  ``fill`` goes through them: the worker's own share first, then what is free, then the next entry. Costs are the
  measured ones; in a second row each operation on the file system takes 1 ms more, as on a busy network file system.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import platform
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bend_hf.embedders.cache.manage import inventory, list_entries
from bend_hf.embedders.cache.shards import ShardFiles, ShardPlan, publish_plan, shard_starts
from bend_hf.lease import lease_problem, take
from bend_hf.runs.cluster.config import SubmitConfig
from bend_hf.runs.cluster.plan import Stage
from bend_hf.runs.cluster.submission import Submission, progress_of
from bend_hf.runs.forecast import Forecast

RESULT: Final = Path(__file__).resolve().parent / "results" / "cluster.json"
N_SHARDS: Final = 200_000
PER_ENTRY: Final = 256  # the most shards of an entry
N_WINDOWS: Final = 2_000_000
MEMORY: Final = Path("/dev/shm")  # noqa: S108  a file system in memory, if there is one
SHARD_S: Final = 30.0
SPREAD: Final = 0.1
WORKERS: Final = (1, 4, 16, 64, 256)
NETWORK_S: Final = 0.001  # assumed for one operation on a busy network file system
# Operations on the file system: a look; a lease (written, linked, unlinked, read, unlinked); the look at a finished
# shard (its record, its file) when an entry is opened.
OPERATIONS: Final = {"look": 1, "lease": 5, "open_shard": 2}


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Seconds of a worker's operations.

    Attributes:
        look: A look at the folder of an entry.
        lease: A lease that is taken and freed.
        open_shard: The look at one finished shard when its entry is opened.
    """

    look: float
    lease: float
    open_shard: float

    def on_network(self) -> Costs:
        """Return the costs on a network file system."""
        return Costs(**{name: value + OPERATIONS[name] * NETWORK_S for name, value in asdict(self).items()})


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """What workers did.

    Attributes:
        n_workers: Their number.
        overhead: Share of the time of a shard that its lease and its looks cost.
        efficiency: Time that workers embed, as a share of the time until the last one ends.
        fewest: Shards of the worker with the fewest, as a share of the mean.
        idle_s: The longest time from the end of a worker to the end of all.
    """

    n_workers: int
    overhead: float
    efficiency: float
    fewest: float
    idle_s: float


def seconds_of(action: Callable[[], object], n: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the median time of an action."""
    times = []
    for _ in range(n):
        started = clock()
        action()
        times.append(clock() - started)
    return float(np.median(times))


def simulate(n_workers: int, costs: Costs, *, n_shards: int = N_SHARDS, per_entry: int = PER_ENTRY) -> Simulated:
    """Simulate workers that go through the entries of a cache."""
    rng = np.random.default_rng(n_workers)
    duration = SHARD_S * np.exp(rng.normal(0, SPREAD, n_shards) - SPREAD**2 / 2)
    ends = [*range(per_entry, n_shards, per_entry), n_shards]
    starts = [0, *ends[:-1]]
    taken = bytearray(n_shards)
    next_free = list(starts)  # of each entry: no shard before it is free
    entry, own = [0] * n_workers, list(range(n_workers))  # of each worker: where it is, and its next own shard
    count, ended, spent = np.zeros(n_workers, int), np.zeros(n_workers), 0.0
    busy = 0.0
    finished = np.full(n_shards, np.inf)  # when
    clock = [(0.0, worker) for worker in range(n_workers)]
    heapq.heapify(clock)
    while clock:
        now, worker = heapq.heappop(clock)
        here = entry[worker]
        if here == len(starts):
            ended[worker] = now
            continue
        first, last = starts[here], ends[here]
        shard = first + own[worker]
        while shard < last and taken[shard]:
            own[worker] += n_workers
            shard += n_workers
        if shard >= last:
            while next_free[here] < last and taken[next_free[here]]:
                next_free[here] += 1
            shard = next_free[here]
        cost = costs.look
        if shard >= last:
            entry[worker], own[worker] = here + 1, worker
            if here + 1 < len(starts):  # CacheEntry.fill and fill look at those that are finished
                n_there = int((finished[starts[here + 1] : ends[here + 1]] <= now).sum())
                cost += 2 * (costs.look + n_there * costs.open_shard)
        else:
            taken[shard] = 1
            count[worker] += 1
            cost += costs.lease
            busy += duration[shard]
            now = finished[shard] = now + duration[shard]
        spent += cost
        heapq.heappush(clock, (now + cost, worker))
    return Simulated(
        n_workers=n_workers,
        overhead=spent / n_shards / SHARD_S,
        efficiency=float(busy / (n_workers * ended.max())),
        fewest=float(count.min() / count.mean()),
        idle_s=float(ended.max() - ended.min()),
    )


def make_cache(folder: Path) -> None:
    """Make the entries of a finished cache with empty shards."""
    for number, plan in enumerate(plans_of(-(-N_SHARDS // PER_ENTRY))):
        entry = folder / f"model-float16-{number:032x}"
        entry.mkdir()
        publish_plan(entry, plan)
        for files in ShardFiles.of_entry(entry, plan.n_shards):
            for path in (files.arrow, files.record):
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY))


def plans_of(n_entries: int) -> list[ShardPlan]:
    """Plan entries that hold all windows together."""
    each = N_WINDOWS // n_entries
    lengths_bp = np.full(each, 512)
    return [
        ShardPlan(
            key=f"{number:032x}",
            parts={},
            label=f"task{number} train",
            model="model",
            dtype="float16",
            width=768,
            items=each,
            nucleotides=each * 512,
            shard_starts=tuple(shard_starts(lengths_bp, shard_bp=each * 512 // PER_ENTRY).tolist()),
            rows_per_bp=1.0,
        )
        for number in range(n_entries)
    ]


def submission_of(cache: Path) -> Submission:
    """Return a submission that expects what ``make_cache`` made, and was created before it."""
    plans = plans_of(-(-N_SHARDS // PER_ENTRY))
    expected = tuple(
        Forecast(
            task=plan.label.split()[0],
            split="train",
            model=plan.model,
            n_items=plan.items,
            n_bp=plan.nucleotides,
            n_shards=plan.n_shards,
        )
        for plan in plans
    )
    stage = Stage(name="embed", commands=(("embed",),), expected=expected)
    return Submission(folder=cache, command="", where=SubmitConfig(), stages=(stage,), cache=cache, created=0.0)


def measured(action: Callable[[], object]) -> dict[str, float]:
    """Return the processor time of an action, best of three, and the peak of what it allocates, from another run."""
    seconds = min(seconds_of(action, 1, clock=time.process_time) for _ in range(3))
    tracemalloc.start()
    action()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"seconds": seconds, "peak_mb": peak / 1e6}


def measure_costs(folder: Path) -> Costs:
    """Measure the operations of a worker in the folder of an entry with small shards."""
    entry = folder / "entry"
    entry.mkdir()
    files = ShardFiles.of_entry(entry, PER_ENTRY)
    for one in files:
        one.arrow.write_bytes(b"made")
        stat = one.arrow.stat()
        facts = {"size_bytes": 4, "xxh3_128": "0", "changed_ns": stat.st_mtime_ns, "items": 1, "rows": 1}
        state = (stat.st_ino, stat.st_ctime_ns)
        one.record.write_text(json.dumps({**facts, "nucleotides": 1, "state": state}), encoding="utf-8")

    def lease() -> None:
        held = take(entry / "other.lock")
        if held is not None:
            held.release()

    return Costs(
        look=seconds_of(lambda: frozenset(os.listdir(entry)), 200),  # noqa: PTH208  as fill does
        lease=seconds_of(lease, 200),
        open_shard=seconds_of(lambda: [one.state() for one in files], 20) / PER_ENTRY,
    )


def main(words: Sequence[str] | None = None) -> None:
    """Measure, simulate, print and write."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args(words)
    n_entries = -(-N_SHARDS // PER_ENTRY)
    with tempfile.TemporaryDirectory() as name:
        costs = measure_costs(Path(name))
        self_test = seconds_of(lambda: lease_problem(Path(name)), 50)
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
        folder = Path(name)
        make_cache(folder)
        large = {
            "plan": measured(lambda: plans_of(n_entries)),
            "inventory": measured(lambda: inventory(folder)),
            "status": measured(lambda: progress_of(submission_of(folder), [])),
            "list": measured(lambda: list_entries(folder)),
        }
    result = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "n_shards": N_SHARDS,
        "n_entries": n_entries,
        "n_windows": N_WINDOWS,
        "shard_s": SHARD_S,
        "network_s": NETWORK_S,
        "costs_s": asdict(costs) | {"self_test": self_test},
        "large": large,
        "local": [asdict(simulate(n, costs)) for n in WORKERS],
        "network": [asdict(simulate(n, costs.on_network())) for n in WORKERS],
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
