"""Score every layer of bend-mini and of a random BERT with 12 layers on rows of one chromosome, and keep the curves.

    make layers-chr20
    python -m benchmarks.chromosome_layers --data ../shared/data/chr20 --genome chr20_results/GRCh37.fa

Writes ``benchmarks/results/chromosome_layers.json`` for docs/layers.md. The BERT has DNABERT's form and tokens, a width
of 64 and random weights: what its layers give is what an untrained network gives. A part of the rows is enough to show
a curve; the scores are no scores of a benchmark.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from bend_hf.config import RunConfig
from bend_hf.embedders import MODELS
from bend_hf.evaluation.layer_choice import LayerCurve
from bend_hf.files import write_bytes
from bend_hf.publishing.report.plots import layer_plots
from bend_hf.runs.layers import run_layers
from bend_hf.training.layer_mix import MIXES

RESULT: Final = Path(__file__).resolve().parent / "results" / "chromosome_layers.json"
TASK: Final = "histone_modification"


def bert_folder(folder: Path) -> Path:
    """Write the configuration and the vocabulary of a small BERT with 12 layers."""
    tiny = MODELS.get("dnabert6").tiny
    if tiny is None:
        raise SystemExit("dnabert6 declares no tiny checkpoint")
    made = tiny()
    sizes = {"num_hidden_layers": 12, "hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 2}
    config = {**made.config, **sizes, "max_position_embeddings": 512}
    return replace(made, config=config).write(folder)


def curves(parsed: argparse.Namespace) -> list[LayerCurve]:
    """Run both models."""
    config = RunConfig(
        task=(TASK,),
        data=str(parsed.data),
        genome=parsed.genome,
        limit=parsed.limit,
        head="linear",
        epochs=parsed.epochs,
        batch_size=8,
        out=parsed.out,
        cache=parsed.out / "cache",
    )
    random = replace(
        config, model="dnabert6", checkpoint=str(bert_folder(parsed.out / "random_bert")), random_init=True
    )
    return [
        sweep.curve for one in (replace(config, model="bend-mini"), random) for sweep in run_layers(one, mixes=MIXES)
    ]


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description="Score every layer of two models on the rows of one chromosome.")
    parser.add_argument("--data", type=Path, required=True, help="folder with BED and labels")
    parser.add_argument("--genome", type=Path, required=True, help="FASTA file")
    parser.add_argument("--out", type=Path, default=Path("chr20_layers"), help="folder of records and curves")
    parser.add_argument("--limit", type=int, default=100, help="rows of each split")
    parser.add_argument("--epochs", type=int, default=5)
    parsed = parser.parse_args()
    found = curves(parsed)
    for curve in found:
        print(f"{curve.model}: {curve.in_words()}")
    for name, content in layer_plots(found, print).items():
        write_bytes(parsed.out / name, content)
    body = {
        "script": "make layers-chr20",
        "task": TASK,
        "rows_of_each_split": parsed.limit,
        "epochs": parsed.epochs,
        "curves": [{**asdict(curve), "in_words": curve.in_words()} for curve in found],
    }
    RESULT.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
