"""Measure an epoch of training a head and its memory, against repeating embeddings per nucleotide.

    python -m benchmarks.training

Prints a table and writes ``benchmarks/results/training.json``. The reference does what BEND does, in plain PyTorch:
it repeats each token embedding for its nucleotides, pads the batch and runs ``Conv1d`` over the full width. Both sides
start from the same token embeddings in memory (ours through the reader of the cache), train the same CNN head with the
same batches and AdamW on the same threads, and must reach the same loss. An epoch is the training pass without
validation. Both sides take turns, and the best round of each counts, so that the load of other programs matters less.
Peak memory is the growth of the resident set during an epoch, each side in its own process.

The fraction of time outside forward, backward and step describes our loop: the wall time of an epoch, from shuffling
its items to its mean loss, without the time inside ``forward`` of head and loss, ``backward`` and ``AdamW.step``. It
includes every wait for a batch, also for the first one. Work that is done once per training is not part of an epoch.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor, nn

from bend_hf.embedders.cache.dtypes import COLUMN_OF
from bend_hf.embedders.cache.reader import CachedEmbeddings
from bend_hf.embedders.cache.writer import LENGTH_COLUMN
from bend_hf.embedders.token_embeddings import Targets
from bend_hf.tasks._labels import LabelKind, MultiLabel, NucleotideClasses
from bend_hf.training.batches import Split, batch_rows
from bend_hf.training.head_trainer import FitConfig, HeadData, fit
from bend_hf.training.heads.cnn import CnnHead
from bend_hf.training.losses import build_loss

RESULTS = Path(__file__).resolve().parent / "results" / "training.json"
WIDTH = 2560  # Nucleotide Transformer 2.5B, the widest model of BEND
TOKEN_BP = 6  # its 6-mers


@dataclass(frozen=True, kw_only=True)
class Task:
    """A head, its labels and random token embeddings.

    Attributes:
        flat: Token embeddings of all items, float16, (tokens, width).
        tokens: Number of tokens of each item.
        kind: Kind of the labels.
        labels: Labels of each item.
        pool_bp: Nucleotides per label window; None for one label per nucleotide.
        batch_size: Items per step.
    """

    name: str
    flat: np.ndarray
    tokens: list[int]
    kind: LabelKind
    labels: list[list[int]]
    pool_bp: int | None
    batch_size: int
    learning_rate: float = 0.003  # BEND conf/supervised_tasks, optimizer.lr

    @property
    def n_outputs(self) -> int:
        """Number of classes or labels."""
        return len(self.kind.names)

    def head(self) -> CnnHead:
        """A head with the same initial weights each time."""
        torch.manual_seed(0)
        return CnnHead(width=WIDTH, n_outputs=self.n_outputs, pool_bp=self.pool_bp)

    @property
    def rows(self) -> list[np.ndarray]:
        """Views of the token embeddings of each item."""
        return np.split(self.flat, np.cumsum(self.tokens)[:-1])

    def first(self) -> Task:
        """The same task with one item."""
        return replace(self, flat=self.flat[: self.tokens[0]], tokens=self.tokens[:1], labels=self.labels[:1])

    def split(self) -> Split:
        """The split that ``fit`` trains on: the reader of the cache over a table in memory."""
        starts = pa.array(np.concatenate([[0], np.cumsum(self.tokens)]).astype(np.int64))
        rows = pa.FixedSizeListArray.from_arrays(pa.array(self.flat.reshape(-1)), WIDTH)
        lengths = pa.array(np.full(len(self.flat), TOKEN_BP, np.int32))
        columns = [pa.LargeListArray.from_arrays(starts, values) for values in (rows, lengths)]
        table = pa.table(columns, names=[COLUMN_OF["float16"], LENGTH_COLUMN])
        dataset = Dataset.from_dict({"labels": self.labels})
        embeddings = CachedEmbeddings([table], dtype="float16")
        return Split(dataset=dataset, embeddings=embeddings, targets=Targets(dataset, self.kind))

    def loss(self) -> nn.Module:
        """BEND's loss for this kind of labels."""
        return build_loss("bce" if isinstance(self.kind, MultiLabel) else "cross_entropy")

    def data(self, loss: nn.Module) -> HeadData:
        """The split and the loss; nothing is validated."""
        return HeadData(train=self.split(), loss=loss, validate=lambda head: 0.0)

    def config(self, epochs: int = 1) -> FitConfig:
        """BEND's settings of the training."""
        return FitConfig(
            epochs=epochs, batch_size=self.batch_size, learning_rate=self.learning_rate, weight_decay=0.01, seed=0
        )

    def batches(self) -> list[np.ndarray]:
        """Items of each step of the first epoch, as ``fit`` takes them."""
        return batch_rows(len(self.tokens), batch_size=self.batch_size, seed=0, epoch=1, rank=0, n_processes=1)


def gene_finding(n_items: int) -> Task:
    """One class per nucleotide; lengths are a fifth of those in BEND's task, 1,433 to 14,000 bp."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1_433 // 30, 14_000 // 30, n_items)
    kind = NucleotideClasses(names=tuple("abcdefghi"))
    return Task(
        name="gene finding, one class per nucleotide",
        flat=random_rows(rng, int(tokens.sum())),
        tokens=tokens.tolist(),
        kind=kind,
        labels=[rng.integers(0, 9, n * TOKEN_BP).tolist() for n in tokens],
        pool_bp=None,
        batch_size=4,
    )


def histone_modification(n_items: int) -> Task:
    """18 labels per 510 bp: 85 6-mers instead of BEND's 512 bp."""
    rng = np.random.default_rng(0)
    kind = MultiLabel(names=tuple(f"mark{index}" for index in range(18)))
    return Task(
        name="512-bp windows, 18 labels each",
        flat=random_rows(rng, 85 * n_items),
        tokens=[85] * n_items,
        kind=kind,
        labels=[np.flatnonzero(rng.random(18) < 0.3).tolist() for _ in range(n_items)],
        pool_bp=85 * TOKEN_BP,
        batch_size=32,
    )


def random_rows(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw token embeddings in blocks, so that their float32 does not raise the peak memory."""
    rows = np.empty((n, WIDTH), np.float16)
    for start in range(0, n, 1_000):
        rows[start : start + 1_000] = rng.standard_normal((min(1_000, n - start), WIDTH), np.float32)
    return rows


def ours(task: Task) -> float:
    """Train one epoch with ``fit`` and return its loss."""
    accelerator = Accelerator(cpu=True)
    fitted = fit(task.head(), task.data(task.loss()), task.config(), accelerator)
    return fitted.history[0].loss


def reference(task: Task) -> float:
    """Train one epoch by repeating, padding and convolving, and return its loss."""
    head, loss = task.head(), task.loss()
    optimizer = torch.optim.AdamW(head.parameters(), lr=task.learning_rate, weight_decay=0.01)
    targets, rows = task.split().targets, task.rows
    head.train()
    total = count = 0.0
    for items in task.batches():
        repeated = [torch.from_numpy(rows[item]).float().repeat_interleave(TOKEN_BP, dim=0) for item in items]
        x_BLD = nn.utils.rnn.pad_sequence(repeated, batch_first=True)
        real_BL = torch.arange(x_BLD.shape[1]) < torch.tensor([len(one) for one in repeated])[:, None]
        parts = loss(plain_head(head, x_BLD, real_BL), torch.from_numpy(targets.rows(items)).long())
        parts.mean.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total, count = total + float(parts.total.detach()), count + float(parts.count)
    return total / count


def plain_head(head: CnnHead, x_BLD: Tensor, real_BL: Tensor) -> Tensor:
    """Apply the layers of the head to one embedding per nucleotide."""
    h_BHL = nn.functional.gelu(head.conv1["1"](x_BLD.transpose(1, 2))) * real_BL.unsqueeze(1)
    h_BHL = nn.functional.gelu(head.conv2["1"](h_BHL))
    if head.pool_bp is not None:
        h_BHL = nn.functional.avg_pool1d(h_BHL, head.pool_bp)
    logits: Tensor = head.linear["0"](h_BHL.transpose(1, 2))
    return logits


TASKS: dict[str, Callable[[int], Task]] = {"gene_finding": gene_finding, "windows": histone_modification}
SIDES: dict[str, Callable[[Task], float]] = {"ours": ours, "reference": reference}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One comparison."""

    name: str
    ours: float
    reference: float
    ratio: float
    wanted: str
    unit: str


def compare_epochs(task: Task, *, rounds: int, wanted: str) -> Line:
    """Time an epoch of both sides and check that their losses agree."""
    best = dict.fromkeys(SIDES, float("inf"))
    for _ in range(rounds):
        losses = {}
        for side, run in SIDES.items():
            began = time.perf_counter()
            losses[side] = run(task)
            best[side] = min(best[side], time.perf_counter() - began)
        if not np.isclose(losses["ours"], losses["reference"], rtol=1e-3):
            raise SystemExit(f"{task.name}: the losses of both sides differ: {losses}")
    return Line(
        name=f"epoch of {task.name}",
        ours=best["ours"],
        reference=best["reference"],
        ratio=best["reference"] / best["ours"],
        wanted=wanted,
        unit="s",
    )


def peak_growth(side: str, task_name: str, n_items: int) -> int:
    """Largest growth of the resident set during an epoch, in bytes; run this in a separate process."""
    task = TASKS[task_name](n_items)
    SIDES[side](task.first())  # load everything that is loaded once
    ctypes.CDLL(None).malloc_trim(0)
    process, peak, over = psutil.Process(), 0, threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.002):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    SIDES[side](task)
    over.set()
    watcher.join()
    return peak - before


def compare_memory(task_name: str, n_items: int) -> Line:
    """Measure the peak memory of an epoch of both sides."""
    grown = {}
    for side in SIDES:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.training", "--memory-of", side, task_name, str(n_items)],
            capture_output=True,
            text=True,
            check=True,
        )
        grown[side] = int(done.stdout.split()[-1]) / 1e6
    return Line(
        name="peak memory of that epoch",
        ours=grown["ours"],
        reference=grown["reference"],
        ratio=grown["reference"] / grown["ours"],
        wanted="at least 3",
        unit="MB",
    )


def time_outside(task: Task, *, epochs: int) -> Line:
    """Measure the fraction of an epoch outside forward, loss, backward and the optimizer's step."""
    spent = 0.0

    def timed(owner: object, name: str) -> None:
        function = getattr(owner, name)

        def wrapped(*args: object, **kwargs: object) -> object:
            nonlocal spent
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent += time.perf_counter() - began

        setattr(owner, name, wrapped)

    accelerator, head, loss = Accelerator(cpu=True), task.head(), task.loss()
    timed(head, "forward")
    timed(loss, "forward")
    timed(accelerator, "backward")
    step = torch.optim.AdamW.step
    timed(torch.optim.AdamW, "step")
    try:
        fitted = fit(head, task.data(loss), task.config(epochs), accelerator)
    finally:
        torch.optim.AdamW.step = step  # type: ignore[method-assign]
    whole = sum(epoch.seconds for epoch in fitted.history)
    share = (whole - spent) / whole
    return Line(
        name=f"fraction of an epoch outside forward, backward and step, {task.name}",
        ours=share,
        reference=1.0,
        ratio=share,
        wanted="under 0.1",
        unit="",
    )


def least_outside(task: Task, *, rounds: int, epochs: int = 3) -> Line:
    """The round with the smallest fraction, which other programs disturbed least."""
    return min((time_outside(task, epochs=epochs) for _ in range(rounds)), key=lambda line: line.ours)


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", type=int, default=48, help="number of genes; there are six times as many windows")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--memory-of", nargs=3, metavar=("SIDE", "TASK", "ITEMS"), help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.memory_of:
        side, task_name, n_items = parsed.memory_of
        print(peak_growth(side, task_name, int(n_items)))
        return
    torch.set_num_threads(parsed.threads)
    genes, windows = gene_finding(parsed.items), histone_modification(6 * parsed.items)
    lines = [
        compare_epochs(genes, rounds=parsed.rounds, wanted="at least 3"),
        compare_epochs(windows, rounds=parsed.rounds, wanted="at least 2"),
        compare_memory("gene_finding", parsed.items),
        least_outside(genes, rounds=parsed.rounds),
        least_outside(windows, rounds=parsed.rounds),
    ]
    for line in lines:
        print(
            f"{line.name:90} {line.ours:10.3f} {line.reference:10.3f} {line.unit:3} {line.ratio:7.2f} ({line.wanted})"
        )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps(
            {
                "width": WIDTH,
                "token_bp": TOKEN_BP,
                "items": parsed.items,
                "threads": parsed.threads,
                "torch": torch.__version__,
                "machine": platform.machine(),
                "lines": [asdict(line) for line in lines],
            },
            indent=2,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
