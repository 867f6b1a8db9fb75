"""Measure whole embedders of published size on a GPU, against the bare models inside them.

    python -m benchmarks.gpu                                   # prints a table, writes benchmarks/results/gpu.json
    python -m benchmarks.gpu --models dnabert2 caduceus-ph --seconds 60

Each model has random weights and its published size. *Bare* is its forward pass over ready tensors, at the best of
several batch sizes. *Whole* is ``embed_tokens`` over strings, with float32 rows in host memory; *stored* is the same
with the rows rounded to float16, as the cache is filled. Rounds take turns, and the best of each counts.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from benchmarks.embedders import bare_calls, flops_of, peak_flops, random_sequences, seconds_of, sized
from bend_hf.embedders import load_embedder
from bend_hf.embedders._embedder import Embedder

RESULTS = Path(__file__).parent / "results" / "gpu.json"
DEVICE: Final = torch.device("cuda")
BASE: Final = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE: Final = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}


@dataclass(frozen=True, kw_only=True)
class Twin:
    """A model with random weights.

    Attributes:
        key: Its registry name.
        fields: Size fields of its published configuration; None: its weights are in the package.
        context_tokens: Longest input.
        n_512: Windows of 512 bp of a round; of other lengths as many nucleotides.
    """

    key: str
    fields: dict[str, int] | None
    context_tokens: int
    n_512: int = 4096


# Sizes as in the config.json of each checkpoint on the Hub.
TWINS: Final = (
    Twin(key="dnabert6", fields=BASE, context_tokens=512, n_512=3072),
    Twin(key="dnabert2", fields=BASE, context_tokens=512, n_512=12288),
    Twin(
        key="nt_transformer_human_ref",
        fields={"hidden_size": 1280, "num_hidden_layers": 24, "num_attention_heads": 20, "intermediate_size": 5120},
        context_tokens=1000,
    ),
    Twin(
        key="nt_transformer_v2_500m",
        fields={"hidden_size": 1024, "num_hidden_layers": 29, "num_attention_heads": 16, "intermediate_size": 4096},
        context_tokens=2048,
    ),
    Twin(key="gena-lm-bert-large-t2t", fields=LARGE, context_tokens=512, n_512=6144),
    Twin(key="gena-lm-bigbird-base-t2t", fields=BASE | {"block_size": 64}, context_tokens=4096, n_512=8192),
    Twin(key="grover", fields=BASE, context_tokens=512, n_512=8192),
    Twin(key="hyenadna-medium-160k", fields={"d_model": 256, "n_layer": 8, "d_inner": 1024}, context_tokens=160_002),
    Twin(key="caduceus-ph", fields={"d_model": 256, "n_layer": 16}, context_tokens=131_072, n_512=2048),
    Twin(key="caduceus-ps", fields={"d_model": 256, "n_layer": 16}, context_tokens=131_072, n_512=2048),
    Twin(key="resnetlm", fields={"hidden_size": 256, "n_layers": 30}, context_tokens=0, n_512=2048),
    Twin(
        key="awdlstm",
        fields={"input_size": 64, "hidden_size": 1150, "num_hidden_layers": 3},
        context_tokens=0,
        n_512=1024,
    ),
    Twin(key="bend-mini", fields=None, context_tokens=0, n_512=4096),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table; speeds in nucleotides per second."""

    model: str
    bp: int
    dtype: str
    bare: float
    bare_batch_tokens: int
    whole: float
    stored: float
    whole_of_bare: float
    stored_of_bare: float
    tokenizing_share: float
    matmul_share_whole: float | None
    matmul_share_bare: float | None
    float32: float | None
    relative_difference: float | None


def twin(model: Twin, scratch: Path, dtype: str) -> Embedder:
    """Make the model; its configuration is that of the published checkpoint where that sets speed."""
    if model.fields is None:
        return load_embedder(model.key, device="cuda")  # in the dtype that it needs
    folder = scratch / model.key
    if not folder.exists():
        context = {"max_position_embeddings": model.context_tokens + 2, "max_seq_len": model.context_tokens}
        sized(model.key, model.fields, context, folder)
        path = folder / "config.json"
        config = json.loads(path.read_text())
        if "ssm_cfg" in config:
            config["ssm_cfg"]["d_state"] = 16
        if "layer" in config:
            config["layer"]["filter_order"] = 64
        path.write_text(json.dumps(config))
        path = folder / "tokenizer_config.json"
        if path.exists():
            path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": model.context_tokens}))
    return load_embedder(model.key, checkpoint=folder, random_init=True, dtype=dtype, device="cuda")


def stored(embedder: Embedder, sequences: list[str]) -> None:
    """Embed as a shard of the cache is filled."""
    with embedder.runner().fixed():
        for _ in embedder.iter_stored([sequences], torch.float16):
            pass


def measure(
    name: str, embedder: Embedder, exact: Embedder | None, sequences: list[str], rounds: int, peak: float
) -> Row:
    """Time bare model, whole embedder, storage and tokenizer in turns."""
    bp = len(sequences[0])

    def seconds(call: Callable[[], object]) -> float:
        return seconds_of(call, DEVICE)

    calls = bare_calls(embedder, sequences)
    sides: dict[str, Callable[[], object]] = {
        "whole": lambda: embedder.embed_tokens(sequences),
        "stored": lambda: stored(embedder, sequences),
        "tokenizing": lambda: embedder.tokenize(sequences),
    }
    embedder.embed_tokens(sequences)  # warm, and the batch size is chosen
    stored(embedder, sequences)
    first = {}
    for budget, call in calls.items():
        call()
        first[budget] = seconds(call)
    budget = min(first, key=lambda key: first[key])
    sides["bare"] = calls[budget]
    best = dict.fromkeys(sides, math.inf)
    for _ in range(rounds):
        for side, call in sides.items():
            best[side] = min(best[side], seconds(call))
    best["bare"] = min(best["bare"], first[budget])
    few = sequences[: max(4, len(sequences) // 8)]
    float32 = difference = None
    if exact is not None:
        exact.embed_tokens(few)
        float32 = bp * len(few) / seconds(lambda: exact.embed_tokens(few))
        pairs = zip(exact.embed_tokens(few[:4]), embedder.embed_tokens(few[:4]), strict=True)
        difference = max(float(np.abs(a.values - b.values).max() / np.abs(a.values).max()) for a, b in pairs)
    n_bp = bp * len(sequences)
    flops = flops_of(calls[budget])
    return Row(
        model=name,
        bp=bp,
        dtype=embedder.dtype,
        bare=n_bp / best["bare"],
        bare_batch_tokens=budget,
        whole=n_bp / best["whole"],
        stored=n_bp / best["stored"],
        whole_of_bare=best["bare"] / best["whole"],
        stored_of_bare=best["bare"] / best["stored"],
        tokenizing_share=best["tokenizing"] / best["whole"],
        matmul_share_whole=flops / best["whole"] / peak if flops else None,
        matmul_share_bare=flops / best["bare"] / peak if flops else None,
        float32=float32,
        relative_difference=difference,
    )


def line(row: Row) -> str:
    """Return the row as text."""
    shares = ""
    if row.matmul_share_whole and row.matmul_share_bare:
        shares = f"  matmul {row.matmul_share_whole:.0%} (bare {row.matmul_share_bare:.0%})"
    exact = "" if row.float32 is None else f"  float32 {row.float32:10,.0f}  differs {row.relative_difference:.1e}"
    return (
        f"{row.model:26}{row.bp:5} bp  bare {row.bare:11,.0f} (B={row.bare_batch_tokens:6})  "
        f"whole {row.whole:11,.0f} = {row.whole_of_bare:.2f}  stored {row.stored:11,.0f} = {row.stored_of_bare:.2f}  "
        f"tokenizing {row.tokenizing_share:.0%}{shares}{exact}"
    )


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", nargs="+", default=[one.key for one in TWINS])
    parser.add_argument("--bp", nargs="+", type=int, default=[512, 6000])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=math.inf, help="start no further model after this time")
    parser.add_argument("--no-float32", action="store_true", help="leave out the speed and the numbers in float32")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("nothing is measured: there is no GPU that PyTorch can use", file=sys.stderr)
        return
    began = time.monotonic()
    peak = peak_flops(DEVICE, torch.bfloat16)
    machine = {"torch": torch.__version__, "device": torch.cuda.get_device_name(), "matmul_bf16_flops": peak}
    print(f"{machine['device']}, torch {torch.__version__}, matmul {peak / 1e12:.0f} TFLOP/s in bfloat16", flush=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        for model in (one for one in TWINS if one.key in args.models):
            if time.monotonic() - began > args.seconds:
                print(f"{model.key} and later ones are left out: the time is over", flush=True)
                break
            embedder = twin(model, Path(scratch), "bfloat16")
            exact = None if args.no_float32 or model.fields is None else twin(model, Path(scratch), "float32")
            for bp in args.bp:
                n = max(8, model.n_512 * 512 // bp)
                sequences = random_sequences(n=n, bp=bp, seed=0)
                rows.append(measure(model.key, embedder, exact, sequences, args.rounds, peak))
                print(line(rows[-1]), flush=True)
            del embedder, exact
            gc.collect()
            torch.cuda.empty_cache()
            body = json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1)
            args.out.write_text(body + "\n")
    print(f"written: {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
