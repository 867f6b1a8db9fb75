"""Measure the peak memory of embed, train, metrics and report over 1, 4 and 16 times the rows.

    python -m benchmarks.memory
    python -m benchmarks.memory --only report      # measures some and keeps the other lines of the results

Prints a table and writes ``benchmarks/results/memory.json``. Each command runs in a process of its own. Its peak is
read from ``/proc``: the resident set, which includes the pages of the files that it maps, and the anonymous part of it,
which is what it allocated. If it starts other processes, the peak is that of the largest. Linux only.

- ``embed``: 512-bp windows of a small genome with a model file of 32 numbers per nucleotide, into an empty cache.
- ``train``: one epoch of a linear head on that cache.
- ``metrics``: MCC and AUROC of class scores that are in memory; these arrays are part of the peak.
- ``report``: records of 20 models, seven tasks and more and more seeds, with and without plots. The size of the plots
  follows from models and tasks.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bend_hf.tables import text_table
from tests.records import record, write
from tests.tiny import write_data

RESULTS: Final = Path(__file__).resolve().parent / "results" / "memory.json"
TIMES: Final = (1, 4, 16)
WINDOWS: Final = 500
SCORES: Final = 250_000
N_MODELS: Final = 20
TASKS: Final = (
    *("gene_finding", "enhancer_annotation", "chromatin_accessibility", "histone_modification"),
    *("cpg_methylation", "variant_effects_disease", "variant_effects_expression"),
)
MODEL: Final = """
import numpy as np

_WEIGHTS = np.random.default_rng(0).random((256, 32), np.float32)

def embed(sequences):
    return [_WEIGHTS[np.frombuffer(one.encode(), np.uint8)] for one in sequences]
"""
METRICS: Final = """
import sys
import numpy as np
from bend_hf.evaluation.metrics import score

n = int(sys.argv[1])
rng = np.random.default_rng(0)
classes = rng.integers(0, 9, n).astype(np.int16)
score("mcc", rng.integers(0, 9, n).astype(np.int16), classes, names=[str(number) for number in range(9)])
score("auroc", rng.random(n, np.float32), (classes > 4).astype(np.int16))
"""


@dataclass(frozen=True, kw_only=True)
class Line:
    """The peak of one command.

    Attributes:
        what: The command.
        times: How many times the rows of the smallest run.
        rows: Windows, scores or records.
        resident_mb: Peak of the resident set.
        anonymous_mb: Peak of its anonymous part, looked at every 20 ms.
        seconds: Wall-clock time, with that of the start.
        processor_seconds: Processor time, with that of processes it started; None in results of earlier versions.
    """

    what: str
    times: int
    rows: int
    resident_mb: float
    anonymous_mb: float
    seconds: float
    processor_seconds: float | None = None


def measure(what: str, times: int, rows: int, command: list[str], folder: Path) -> Line:
    """Run a command and look at its memory."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HOME": str(folder / "home"),
        "BEND_HF_CACHE": str(folder / "home"),
        "HF_HUB_OFFLINE": "1",
    }
    start, before, anonymous, resident = time.perf_counter(), os.times(), 0, 0
    with (folder / "said.txt").open("w") as said:
        child = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        while child.poll() is None:
            for one in (child.pid, *_children(child.pid)):
                with contextlib.suppress(OSError):  # it ended
                    status = Path(f"/proc/{one}/status").read_text()
                    found = dict(re.findall(r"^(RssAnon|VmHWM):\s+(\d+) kB", status, re.MULTILINE))
                    anonymous = max(anonymous, int(found.get("RssAnon", 0)))
                    resident = max(resident, int(found.get("VmHWM", 0)))
            time.sleep(0.02)
        status_code = child.wait()
    if status_code:
        raise SystemExit(f"{what} ended with {status_code}: {(folder / 'said.txt').read_text()[-2000:]}")
    seconds, after = round(time.perf_counter() - start, 2), os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return Line(
        what=what,
        times=times,
        rows=rows,
        resident_mb=round(resident * 1024 / 1e6, 1),
        anonymous_mb=round(anonymous * 1024 / 1e6, 1),
        seconds=seconds,
        processor_seconds=round(processor, 2),
    )


def _children(pid: int) -> list[int]:
    """Return the processes that a process started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = stat.read_text().rpartition(")")[2].split()[1]  # after the name, which may hold spaces
            found += [int(stat.parent.name)] if parent == str(pid) else []
    return found


def windows(times: int, folder: Path) -> list[Line]:
    """Embed windows, and train on them."""
    rows = WINDOWS * times
    data = write_data(folder / "data", ["cpg_methylation"], n=rows)
    (folder / "model.py").write_text(MODEL)
    of = ["--task", "cpg_methylation", "--data", str(data), "--model", str(folder / "model.py")]
    of += ["--cache", str(folder / "cache")]
    bend_hf = [sys.executable, "-m", "bend_hf"]
    training = ["--epochs", "1", "--head", "linear", "--out", str(folder / "results")]
    return [
        measure("embed", times, rows, [*bend_hf, "embed", *of], folder),
        measure("train", times, rows, [*bend_hf, "train", *of, *training], folder),
    ]


def metrics(times: int, folder: Path) -> list[Line]:
    """Score arrays."""
    rows = SCORES * times
    return [measure("metrics", times, rows, [sys.executable, "-c", METRICS, str(rows)], folder)]


def reports(times: int, folder: Path) -> list[Line]:
    """Write a report of 625, 2,500 or 10,000 records."""
    wanted = 625 * times
    made = (
        record(task, f"model{model}", 0.3 + 0.6 * ((7 * model + seed) % 97) / 97, seed=seed)
        for seed in range(-(-wanted // (len(TASKS) * N_MODELS)))
        for model in range(N_MODELS)
        for task in TASKS
    )
    records = [one for one, _ in zip(made, range(wanted), strict=False)]
    write(folder / "records", *records)
    del records
    command = [sys.executable, "-m", "bend_hf", "report", str(folder / "records"), "--out", str(folder / "report")]
    return [
        measure("report", times, wanted, command, folder),
        measure("report --no-plots", times, wanted, [*command, "--no-plots"], folder),
    ]


PARTS: Final[dict[str, Callable[[int, Path], list[Line]]]] = {
    "windows": windows,
    "metrics": metrics,
    "report": reports,
}


def main() -> None:
    """Measure everything, print it and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=sorted(PARTS), help="the part to measure; by default all")
    only = parser.parse_args().only
    lines = []
    for part in [only] if only else PARTS:
        for times in TIMES:
            with tempfile.TemporaryDirectory() as folder:
                lines += PARTS[part](times, Path(folder))
    if only:
        measured = {line.what for line in lines}
        earlier = json.loads(RESULTS.read_text(encoding="utf-8"))["lines"]
        lines += [Line(**line) for line in earlier if line["what"] not in measured]
    lines.sort(key=lambda line: (line.what, line.times))
    made = {
        "machine": {"platform": platform.platform(), "processors": os.cpu_count()},
        "lines": [asdict(line) for line in lines],
    }
    RESULTS.write_text(json.dumps(made, indent=2) + "\n")
    print(text_table(list(asdict(lines[0])), [list(map(str, asdict(line).values())) for line in lines]))


if __name__ == "__main__":
    main()
