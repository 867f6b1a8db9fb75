"""Measure what all layers of a model cost together, against one layer alone.

    python -m benchmarks.layers

Prints a table and writes ``benchmarks/results/layers.json``; takes a minute on one core. The model is a BERT of
DNABERT's form with 12 layers, small width and random weights, so there are 13 layers with the input of the first block.

- Embedding: the cache entries of 13 layers from one forward pass, against the entry of the last layer alone. Each round
  fills an empty cache.
- Training: a head on each of 13 layers from one read, against one head on the last layer, both with validation after
  each epoch on an eighth as many windows, and from random embeddings in memory.

Both sides take turns in one process. The processor time of all threads counts, and the best round of each side, so that
the load of other programs matters less; the ratio of wall times is kept in the file.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from bend_hf.embedders import MODELS, load_embedder
from bend_hf.embedders._embedder import Embedder
from bend_hf.embedders.cache import CacheSettings, open_embeddings
from bend_hf.embedders.cache.layers import open_layers
from bend_hf.embedders.layers import layer_view, usable_layers
from bend_hf.embedders.token_embeddings import Targets, TokenBatch
from bend_hf.runs.outcome import scores_of
from bend_hf.tasks import TASKS, TaskSpec
from bend_hf.tasks._spec import Head
from bend_hf.training.batches import Split
from bend_hf.training.head_trainer import FitConfig, HeadData, fit
from bend_hf.training.heads import HEADS, build_head, head_of, pooled_bp
from bend_hf.training.losses import build_loss
from bend_hf.training.predict import predict
from bend_hf.training.stacked import StackedData, StackedHeads, StackedMember, fit_stacked, predict_stacked

RESULTS = Path(__file__).resolve().parent / "results" / "layers.json"
N_BLOCKS, WIDTH, WINDOW_BP = 12, 128, 512
TASK = "cpg_methylation"  # 7 labels per window of 512 nucleotides
CONFIG = FitConfig(epochs=5, batch_size=64, learning_rate=0.003, weight_decay=0.01, seed=0)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One comparison: what all layers cost in units of one layer."""

    name: str
    ratio: float
    wall_ratio: float
    wanted: str
    all_seconds: float
    one_seconds: float


def compare(
    name: str, everything: Callable[[], object], one: Callable[[], object], *, rounds: int, wanted: str
) -> Line:
    """Time both sides in turns."""
    cpu: dict[str, list[float]] = {"all": [], "one": []}
    wall: dict[str, list[float]] = {"all": [], "one": []}
    for _ in range(rounds):
        for side, function in (("one", one), ("all", everything)):
            started, began = time.process_time(), time.perf_counter()
            function()
            cpu[side].append(time.process_time() - started)
            wall[side].append(time.perf_counter() - began)
    return Line(
        name=name,
        ratio=round(min(cpu["all"]) / min(cpu["one"]), 3),
        wall_ratio=round(min(wall["all"]) / min(wall["one"]), 3),
        wanted=wanted,
        all_seconds=round(min(cpu["all"]), 3),
        one_seconds=round(min(cpu["one"]), 3),
    )


def bert(folder: Path) -> Embedder:
    """Open DNABERT with 12 small layers and random weights."""
    tiny = MODELS.get("dnabert6").tiny
    if tiny is None:
        raise RuntimeError("dnabert6 declares no tiny checkpoint")
    made = tiny()
    config = {
        **made.config,
        "num_hidden_layers": N_BLOCKS,
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
    }
    path = replace(made, config=config).write(folder / "bert")
    return load_embedder("dnabert6", checkpoint=str(path), random_init=True, device="cpu")


def items(n: int, *, seed: int) -> datasets.Dataset:
    """Make random windows with random labels."""
    rng, kind = np.random.default_rng(seed), TASKS.get(TASK).label
    letters = np.frombuffer(b"ACGT", np.uint8)
    labels = [np.flatnonzero(rng.random(len(kind.names)) < 0.4).tolist() for _ in range(n)]
    return datasets.Dataset.from_dict(
        {
            "item": list(range(n)),
            "sequence": [rng.choice(letters, WINDOW_BP).tobytes().decode() for _ in range(n)],
            "labels": labels,
        }
    )


def embedding(folder: Path, *, n_items: int, rounds: int) -> Line:
    """Compare filling the cache with all layers and with the last."""
    embedder, data, number = bert(folder), items(n_items, seed=0), iter(range(1000))
    layers = usable_layers(embedder, "all")

    def settings() -> CacheSettings:
        return CacheSettings(folder=folder / f"cache{next(number)}", show_progress=False)

    return compare(
        f"cache of {len(layers)} layers, {n_items} windows of {WINDOW_BP} bp",
        lambda: open_layers([data], embedder, layers, settings()),
        lambda: open_embeddings(data, layer_view(embedder, layers[-1]), settings()),
        rounds=rounds,
        wanted="at most 1.3",
    )


class InMemory:
    """Random embeddings of one layer: one row per window if only means are read, else one per nucleotide."""

    def __init__(self, n: int, *, seed: int, pooled: bool) -> None:
        rng, self.n_tokens = np.random.default_rng(seed), 1 if pooled else WINDOW_BP
        self.values = rng.normal(size=(n, self.n_tokens, WIDTH)).astype(np.float32 if pooled else np.float16)

    def rows(self, rows: np.ndarray) -> TokenBatch:
        """Return some items."""
        token_of_L = np.arange(WINDOW_BP) * self.n_tokens // WINDOW_BP
        return TokenBatch(x_BTD=self.values[rows], token_of_BL=np.tile(token_of_L, (len(rows), 1)))


def training(head: Head, *, n_items: int, rounds: int) -> Line:
    """Compare training a head on all layers and on the last."""
    task, accelerator, layers = TASKS.get(TASK), Accelerator(cpu=True), range(N_BLOCKS + 1)
    splits: dict[str, list[Split]] = {}
    for name, (n, seed) in {"train": (n_items, 1), "validation": (n_items // 8, 2)}.items():
        data = items(n, seed=seed)
        targets, pooled = Targets(data, task.label), pooled_bp(head) is not None
        splits[name] = [_split(data, InMemory(n, seed=layer, pooled=pooled), targets) for layer in layers]
    loss = build_loss("bce")

    def fresh() -> nn.Module:
        torch.manual_seed(0)
        return build_head(head, WIDTH, task.n_outputs)

    def one() -> None:
        def validate(model: nn.Module) -> float:
            return score(task, predict(model, splits["validation"][-1], accelerator, batch_size=64))

        fit(fresh(), HeadData(train=splits["train"][-1], loss=loss, validate=validate), CONFIG, accelerator)

    def everything() -> None:
        members = [
            StackedMember(name=f"layer {layer}", head=fresh(), train=split, config=CONFIG)
            for layer, split in zip(layers, splits["train"], strict=True)
        ]

        def validate(model: StackedHeads, chosen: Sequence[int]) -> list[float]:
            own = [splits["validation"][place] for place in chosen]
            return [
                score(task, found) for found in predict_stacked(model, own, accelerator, batch_size=64, members=chosen)
            ]

        heads = StackedHeads([member.head for member in members], batched=HEADS.get(head.key).batched)
        fit_stacked(heads, members, StackedData(loss=loss, validate=validate), accelerator)

    name = f"heads {head.key!r} on {len(layers)} layers, {n_items} windows, {CONFIG.epochs} epochs"
    return compare(name, everything, one, rounds=rounds, wanted="at most 3")


def _split(data: datasets.Dataset, source: InMemory, targets: Targets) -> Split:
    return Split(dataset=data, embeddings=source, targets=targets)


def score(task: TaskSpec, predictions: object) -> float:
    """Score predictions as a run does after each epoch."""
    return float(scores_of(task, predictions, main_only=True)[0].value)  # type: ignore[arg-type]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Measure what all layers cost, against one.")
    parser.add_argument("--items", type=int, default=24, help="windows that are embedded")
    parser.add_argument("--train", type=int, default=2048, help="windows that linear heads are trained on")
    parser.add_argument("--part", choices=("all", "heads"), default="all", help="heads keeps the lines of the cache")
    parser.add_argument("--rounds", type=int, default=2)
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    task = TASKS.get(TASK)
    if parsed.part == "all":
        with tempfile.TemporaryDirectory() as place:
            lines = [embedding(Path(place), n_items=parsed.items, rounds=parsed.rounds)]
    else:
        lines = [Line(**one) for one in json.loads(RESULTS.read_text())["lines"] if one["name"].startswith("cache")]
    lines.append(training(head_of("linear", task), n_items=parsed.train, rounds=parsed.rounds))
    lines.append(training(head_of(None, task), n_items=64, rounds=1))
    for line in lines:
        print(f"{line.name}: {line.ratio:.2f} times one layer ({line.wanted}; wall {line.wall_ratio:.2f})")
    machine = {
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "threads": 1,
    }
    body = {"script": "python -m benchmarks.layers", "machine": machine, "lines": [asdict(line) for line in lines]}
    RESULTS.write_text(json.dumps(body, indent=2) + "\n")


if __name__ == "__main__":
    main()
