"""Measure Caduceus on a GPU with the Triton kernels, against the same network with the scan in PyTorch.

    python -m benchmarks.scan                # prints a table, writes benchmarks/results/scan.json

The networks have random weights and the published size (16 layers, width 256). Both sides compute the same batch on
ready tensors; the best of several rounds counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.embedders import seconds_of
from benchmarks.gpu import DEVICE, TWINS, twin
from bend_hf.embedders._embedder import Embedder
from bend_hf.embedders.networks import mamba

RESULTS = Path(__file__).parent / "results" / "scan.json"
BATCHES = ((64, 512), (8, 6000), (1, 100_000))  # sequences and their nucleotides


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table; speeds in nucleotides per second."""

    model: str
    dtype: str
    sequences: int
    bp: int
    triton: float
    pytorch: float
    speed_up: float
    relative_difference: float


@contextmanager
def in_pytorch() -> Iterator[None]:
    """Compute without the kernels."""
    kernels = mamba.scan_kernels_for
    mamba.scan_kernels_for = lambda x: None
    try:
        yield
    finally:
        mamba.scan_kernels_for = kernels


def timed(call: Callable[[], Tensor], rounds: int) -> tuple[Tensor, float]:
    """Return the result, and the seconds of the best round after a warm one."""
    result = call()
    torch.cuda.synchronize()
    return result, min(seconds_of(call, DEVICE) for _ in range(rounds))


def measure(key: str, dtype: str, embedder: Embedder, shape: tuple[int, int], rounds: int) -> Row:
    """Time both sides on one batch."""
    n, bp = shape
    ids = torch.randint(7, 11, shape, device=DEVICE)

    def forward() -> Tensor:
        return embedder._hidden(ids, None, -1)

    with torch.inference_mode():
        ours, triton_s = timed(forward, rounds)
        with in_pytorch():
            theirs, pytorch_s = timed(forward, max(1, rounds - 1))
    return Row(
        model=key,
        dtype=dtype,
        sequences=n,
        bp=bp,
        triton=n * bp / triton_s,
        pytorch=n * bp / pytorch_s,
        speed_up=pytorch_s / triton_s,
        relative_difference=float((ours - theirs).abs().max() / theirs.abs().max()),
    )


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("nothing is measured: there is no GPU that PyTorch can use", file=sys.stderr)
        return
    machine = {"torch": torch.__version__, "device": torch.cuda.get_device_name()}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for model in (one for one in TWINS if one.key.startswith("caduceus")):
            for dtype in ("bfloat16", "float32"):
                embedder = twin(model, Path(scratch), dtype)
                embedder.runner()
                for shape in BATCHES:
                    rows.append(measure(model.key, dtype, embedder, shape, args.rounds))
                    print(rows[-1], flush=True)
    args.out.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    print(f"written: {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
