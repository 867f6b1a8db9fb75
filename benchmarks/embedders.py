"""Measure the speed of whole embedders, against the bare models inside them.

    python -m benchmarks.embedders                        # prints a table, writes benchmarks/results/embedders.json
    python -m benchmarks.embedders --keys dnabert6 --bp 512 --n-bp 100000

Each model is a registry entry with random weights, 6 layers and width 256; on a GPU, two models of published size
are measured too, with their FLOP utilization. *Bare* is the model's forward pass over prepared tensors, at the best of
several batch sizes. *Whole* is ``embed_tokens`` over strings, including tokenization and copies. Both take turns, and
the best round of each counts, so that the load of other programs matters less.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from bend_hf.embedders import load_embedder
from bend_hf.embedders._batching import batch_end
from bend_hf.embedders._embedder import Embedder
from tests.fake_checkpoints import make_tiny

RESULTS = Path(__file__).parent / "results" / "embedders.json"
KEYS = (
    "dnabert6",
    "nt_transformer_human_ref",
    "nt_transformer_v2_50m",
    "dnabert2",
    "gena-lm-bert-base",
    "hyenadna-small-32k",
)
BATCH_TOKENS = {"cpu": (512, 1024, 2048, 4096, 8192), "cuda": (16384, 32768, 65536, 131072), "mps": (4096, 16384)}
# Fields of the configurations that set the size, by the names that the families use.
SIX_LAYERS = {
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "intermediate_size": 1024,
    "d_model": 256,
    "n_layer": 6,
    "d_inner": 1024,
}
# Tokens of byte-pair vocabularies: 609 as GROVER's; those of DNABERT-2 (4,096) and GENA-LM (32,000) make equal lengths.
BYTE_PAIRS = {"dnabert2": 4096, "gena": 4096, "grover": 609}
NT_500M = {"hidden_size": 1280, "num_hidden_layers": 24, "num_attention_heads": 20, "intermediate_size": 5120}
HYENA_8 = {"d_model": 256, "n_layer": 8, "d_inner": 1024}


Clock: TypeAlias = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to measure: nucleotides per round, rounds, the clock, and the FLOP/s of the device if it is a GPU."""

    lengths_bp: list[int]
    n_bp: int
    rounds: int
    clock: Clock
    peak: float | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    model: str
    bp: int
    dtype: str
    tokens_per_sequence: int
    bare_nt_per_s: float
    bare_batch_tokens: int
    whole_nt_per_s: float
    whole_of_bare: float
    tokenizing_share: float
    flop_utilisation: float | None


def sized(key: str, fields: dict[str, int], context: dict[str, int], folder: Path) -> Path:
    """Write a tiny checkpoint and change the size fields that its configuration has."""
    make_tiny(key, folder)
    vocabulary = next((size for start, size in BYTE_PAIRS.items() if key.startswith(start)), None)
    if vocabulary is not None:
        train_byte_pairs(folder / "tokenizer.json", vocabulary)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config |= {name: value for name, value in {**fields, **context}.items() if name in config}
    if "layer" in config:
        config["layer"]["l_max"] = context["max_seq_len"]
    if vocabulary is not None:
        config["vocab_size"] = vocabulary
    path.write_text(json.dumps(config))
    return folder


def train_byte_pairs(path: Path, n_tokens: int) -> None:
    """Train byte pairs on random sequences, so that tokenization takes as long as with a published vocabulary."""
    from tokenizers import Tokenizer, trainers

    tokenizer = Tokenizer.from_file(str(path))
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "-"]
    trainer = trainers.BpeTrainer(vocab_size=n_tokens, special_tokens=specials, initial_alphabet=list("ACGTN"))
    tokenizer.train_from_iterator(random_sequences(n=40, bp=5000, seed=1), trainer)
    tokenizer.save(str(path))


def random_sequences(*, n: int, bp: int, seed: int) -> list[str]:
    """Draw sequences of uniform nucleotides."""
    letters = np.random.default_rng(seed).choice(np.frombuffer(b"ACGT", dtype=np.uint8), size=(n, bp))
    return [row.tobytes().decode("ascii") for row in letters]


def seconds_of(call: Callable[[], object], device: torch.device, clock: Clock = time.perf_counter) -> float:
    """Time one call, including the work that it left on the GPU."""
    start = clock()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def bare_calls(embedder: Embedder, sequences: list[str]) -> dict[int, Callable[[], None]]:
    """For each batch size a call that runs the model over prepared tensors of all sequences."""
    device = embedder.runner().device
    cut = embedder.tokenize(sequences)
    pieces = sorted(np.split(cut.ids, cut.chunk_starts[1:-1]), key=len, reverse=True)
    lengths = np.array([len(piece) for piece in pieces])
    calls = {}
    for budget in BATCH_TOKENS[device.type]:
        batches, first = [], 0
        while first < len(pieces):
            last = batch_end(lengths, first, budget_tokens=budget)
            batches.append(padded(pieces[first:last], embedder.pad_id, device))
            first = last

        def call(batches: list[tuple[torch.Tensor, torch.Tensor | None]] = batches) -> None:
            with torch.inference_mode():
                for ids, mask in batches:
                    embedder._hidden(ids, mask, embedder.layer)

        calls[budget] = call
    return calls


def padded(pieces: list[np.ndarray], pad_id: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Pad chunks to one batch; the mask is None without padding."""
    ids = np.full((len(pieces), len(pieces[0])), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, piece in enumerate(pieces):
        ids[row, : len(piece)] = piece
        mask[row, : len(piece)] = 1
    whole = bool(mask.all())
    return torch.from_numpy(ids).to(device), None if whole else torch.from_numpy(mask).to(device)


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product, as the peak of the device."""
    n = 8192
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    times = [seconds_of(lambda: a @ b, device) for _ in range(10)]
    return 2 * n**3 / min(times)


def flops_of(call: Callable[[], None]) -> int:
    """Floating-point operations of matrix products and attention, without Fourier transforms."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def measure(name: str, embedder: Embedder, *, bp: int, plan: Plan) -> Row:
    """Time the bare model, the whole embedder and tokenization in turns; the best round of each counts."""
    sequences = random_sequences(n=max(1, plan.n_bp // bp), bp=bp, seed=0)
    device = embedder.runner().device

    def seconds(call: Callable[[], object]) -> float:
        return seconds_of(call, device, plan.clock)

    calls = bare_calls(embedder, sequences)
    embedder.embed_tokens(sequences)  # warm, and the batch size is chosen
    best_of = {budget: min(seconds(call) for _ in range(2)) for budget, call in calls.items()}
    budget = min(best_of, key=lambda key: best_of[key])
    bare, whole, tokenizing = [best_of[budget]], [], []
    for _ in range(plan.rounds):
        bare.append(seconds(calls[budget]))
        whole.append(seconds(lambda: embedder.embed_tokens(sequences)))
        tokenizing.append(seconds(lambda: embedder.tokenize(sequences)))
    total_bp = bp * len(sequences)
    return Row(
        model=name,
        bp=bp,
        dtype=embedder.dtype,
        tokens_per_sequence=len(embedder.tokenize(sequences[:1]).ids),
        bare_nt_per_s=total_bp / min(bare),
        bare_batch_tokens=budget,
        whole_nt_per_s=total_bp / min(whole),
        whole_of_bare=min(bare) / min(whole),
        tokenizing_share=min(tokenizing) / min(whole),
        flop_utilisation=flops_of(calls[budget]) / min(whole) / plan.peak if plan.peak else None,
    )


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keys", nargs="+", default=list(KEYS))
    parser.add_argument("--bp", nargs="+", type=int, default=[512, 6000])
    parser.add_argument("--n-bp", type=int, help="nucleotides per round; default: 60,000 on a CPU, 20 million on a GPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: processor time, for a shared machine"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    peak = peak_flops(torch.device("cuda"), torch.bfloat16) if on_gpu else None
    plan = Plan(
        lengths_bp=args.bp,
        n_bp=args.n_bp or (20_000_000 if on_gpu else 60_000),
        rounds=args.rounds,
        clock=time.process_time if args.clock == "cpu" else time.perf_counter,
        peak=peak,
    )
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        for key in args.keys:
            context = {"max_position_embeddings": 512, "max_seq_len": 32770}
            folder = sized(key, SIX_LAYERS, context, Path(scratch) / key)
            dtype = "bfloat16" if on_gpu else "float32"
            embedder = load_embedder(key, checkpoint=folder, random_init=True, dtype=dtype)
            rows += report(f"{key}, 6 x 256", embedder, plan)
        if on_gpu:
            for key, fields in (("nt_transformer_human_ref", NT_500M), ("hyenadna-medium-160k", HYENA_8)):
                context = {"max_position_embeddings": 1002, "max_seq_len": 160002}
                folder = sized(key, fields, context, Path(scratch) / f"{key}-whole")
                embedder = load_embedder(key, checkpoint=folder, random_init=True, dtype="bfloat16")
                rows += report(f"{key}, published size", embedder, plan)
    machine = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if on_gpu else platform.machine(),
        "threads": torch.get_num_threads(),
        "clock": args.clock,
        "matmul_bf16_flops": peak,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    print(f"written: {args.out}", file=sys.stderr)


def report(name: str, embedder: Embedder, plan: Plan) -> list[Row]:
    """Measure each length and print a line for it."""
    rows = [measure(name, embedder, bp=bp, plan=plan) for bp in plan.lengths_bp]
    for row in rows:
        use = "" if row.flop_utilisation is None else f"  {row.flop_utilisation:.0%} of matmul"
        print(
            f"{row.model:44} {row.bp:6} bp  bare {row.bare_nt_per_s:12,.0f} nt/s ({row.bare_batch_tokens:6} tokens)  "
            f"whole {row.whole_nt_per_s:12,.0f} nt/s = {row.whole_of_bare:.2f}  "
            f"tokenizing {row.tokenizing_share:.1%}{use}",
            flush=True,
        )
    return rows


if __name__ == "__main__":
    main()
