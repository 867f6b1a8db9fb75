"""What BEND's tasks need: disk, memory and time, computed from declarations, published row counts and measured speeds.

    python -m benchmarks._docs    # renders the tables in docs/costs.md

Nothing is measured here. Rows come from BEND's paper, widths and parameters from the declarations, the size of a cache
from the code that forecasts it before embedding, and tokens per nucleotide and the speed of a processor core and of a
head from ``benchmarks/results``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bend_hf.embedders import MODELS, ModelSpec
from bend_hf.embedders.cache.estimate import duration
from bend_hf.embedders.cache.shards import ShardPlan
from bend_hf.runs.published_size import ROWS, published_bp
from bend_hf.tables import markdown_table
from bend_hf.tasks import TASKS, NucleotideClasses, TaskSpec

RESULTS: Final = Path(__file__).resolve().parent / "results"

# One model for each way to make tokens, and the model of benchmarks/embedders.py with the same tokens.
SHOWN: Final = {
    "hyenadna-small-32k": "hyenadna-small-32k",
    "dnabert6": "dnabert6",
    "dnabert2": "dnabert2",
    "nt_transformer_v2_500m": "nt_transformer_v2_50m",
    "nt_transformer_ms": "nt_transformer_human_ref",
}
GPU_FLOPS: Final = 50e12  # assumed: floating-point operations per second that a data-center GPU sustains
_LAYERS, _WIDTH = 6, 256  # of the networks in benchmarks/embedders.py
_BLOCK_PARAMETERS: Final = 12 * _WIDTH**2  # weights of a transformer layer: attention 4, feed-forward 8 squares


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a model needs on a task.

    Attributes:
        n_bp: Nucleotides that go through the model.
        n_bytes: Size of the cache; None for variants, which are not cached.
        flop: Floating-point operations of the forward passes, without those of attention between tokens.
    """

    n_bp: float
    n_bytes: int | None
    flop: float


def load(name: str) -> dict[str, Any]:
    """Read the results of a benchmark."""
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def tokens_per_bp(key: str) -> float:
    """Return the tokens per nucleotide of a model, as measured on 512-bp sequences."""
    (row,) = (
        row for row in load("embedders")["rows"] if row["model"].startswith(f"{SHOWN[key]},") and row["bp"] == 512
    )
    return float(row["tokens_per_sequence"]) / 512


def core_flops() -> float:
    """Return the floating-point operations per second of one processor core, as measured with DNABERT's layers."""
    (row,) = (row for row in load("embedders")["rows"] if row["model"].startswith("dnabert6,") and row["bp"] == 512)
    tokens_per_second = row["whole_nt_per_s"] * row["tokens_per_sequence"] / row["bp"]
    return float(2 * _LAYERS * _BLOCK_PARAMETERS * tokens_per_second)


def cost(task: TaskSpec, model: ModelSpec) -> Cost:
    """Compute what a model needs on a task."""
    n_bp, per_bp = published_bp(task), tokens_per_bp(model.key)
    plan = ShardPlan(
        key="",
        parts={},
        label="",
        model=model.key,
        dtype="float16",
        width=model.width,
        items=ROWS[task.key],
        nucleotides=int(n_bp),
        shard_starts=(0, 1),
        rows_per_bp=per_bp,
    )
    return Cost(
        n_bp=n_bp,
        n_bytes=None if task.variant else plan.estimate_bytes(int(n_bp)),
        flop=2 * (model.n_parameters or 0) * n_bp * per_bp,
    )


def size(n_bytes: float) -> str:
    """Format a size.

    >>> size(13e6), size(2.5e9), size(3.1e12)
    ('13 MB', '2.5 GB', '3.1 TB')
    """
    if n_bytes < 1e8:
        return f"{n_bytes / 1e6:.0f} MB"
    return f"{n_bytes / 1e12:.1f} TB" if n_bytes >= 1e12 else f"{n_bytes / 1e9:.1f} GB"


def tasks_table() -> str:
    """Show rows and nucleotides of each task, and the time of one epoch of the head on two processor cores."""
    return markdown_table(
        ("task", "rows", "nucleotides through the model", "one epoch of the head, 2 cores"),
        [
            (task.key, f"{ROWS[task.key]:,}", f"{published_bp(task) / 1e6:,.0f} million", _epoch(task))
            for task in TASKS
            if task.key in ROWS
        ],
    )


def _epoch(task: TaskSpec) -> str:
    """Compute the time of an epoch over all rows from the speed at width 2560; a variant task trains nothing."""
    if task.training is None:
        return "not trained"
    result = load("training")
    genes, windows = (line["ours"] for line in result["lines"][:2])
    # benchmarks/training.py: genes of 47 to 465 tokens, and six times as many windows of 85 tokens.
    n_items, token_bp = result["items"], result["token_bp"]
    speed = n_items * 256 * token_bp / genes
    if not isinstance(task.label, NucleotideClasses):
        speed = 6 * n_items * 85 * token_bp / windows
    return duration(published_bp(task) / speed)


def disk_table() -> str:
    """Show the size of the embedding cache of each task and model."""
    return _by_model(lambda one: "not cached" if one.n_bytes is None else size(one.n_bytes))


def gpu_table() -> str:
    """Show the time of all forward passes on one GPU at the assumed speed."""
    return _by_model(lambda one: duration(one.flop / GPU_FLOPS))


def cpu_table() -> str:
    """Show the time of all forward passes on one core at the measured speed."""
    flops = core_flops()
    return _by_model(lambda one: _days(one.flop / flops))


def _days(seconds: float) -> str:
    days = round(seconds / 86_400)
    return duration(seconds) if seconds < 86_400 else "1 day" if days == 1 else f"{days:,} days"


def memory_table() -> str:
    """Show the memory of each model's weights."""
    specs = [MODELS.get(key) for key in SHOWN]
    rows = [
        (
            spec.key,
            f"{spec.n_parameters or 0:,}",
            size(4 * (spec.n_parameters or 0)),
            size(2 * (spec.n_parameters or 0)),
        )
        for spec in specs
    ]
    return markdown_table(("model", "parameters", "float32", "bfloat16"), rows)


def _by_model(show: Callable[[Cost], str]) -> str:
    """Write a table with a row per task and a column per model."""
    rows = [(task.key, *(show(cost(task, MODELS.get(key))) for key in SHOWN)) for task in TASKS if task.key in ROWS]
    return markdown_table(("task", *SHOWN), rows)
