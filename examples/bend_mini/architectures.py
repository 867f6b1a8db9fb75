"""Train several architectures briefly and alike, to choose the sizes of bend-mini.

    python -m examples.bend_mini.architectures --genome GRCh37.chr20.fa --work /tmp/architectures

Every architecture sees the same windows and masks, those of ``train.toml``, under a short schedule. Finished runs in
``--work`` are read, not repeated. The convolutional baseline is BEND's with a width of 32 and 8 layers, because BEND's
own size would take a day. Writes ``benchmarks/results/bend_mini_architectures.json``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Final

from bend_hf.config import kinds_of, read_toml
from bend_hf.files import start_logging, write_text
from bend_hf.training.pretraining.config import PretrainConfig
from bend_hf.training.pretraining.run import run

HERE = Path(__file__).resolve().parent
RESULT = HERE.parents[1] / "benchmarks" / "results" / "bend_mini_architectures.json"

STEPS: Final = 150
_K5: Final = ("kmer=5", "table_width=64", "side_kmers=6")
CHOSEN: Final = "k5, 6 per side, body 104 x 7, fine 1"
SIZES: Final[dict[str, tuple[str, ...]]] = {
    "k6, 4 per side, body 96 x 6, fine 1": (
        *("kmer=6", "table_width=32", "side_kmers=4", "body_width=96", "body_layers=6", "fine_layers=1"),
    ),
    "k5, 4 per side, body 144 x 4, fine 1": (
        *("kmer=5", "table_width=64", "side_kmers=4", "body_width=144", "body_layers=4", "fine_layers=1"),
    ),
    "k5, 6 per side, body 112 x 5, fine 2": (*_K5, "body_width=112", "body_layers=5", "fine_layers=2"),
    "k5, 6 per side, body 96 x 7, fine 2": (*_K5, "body_width=96", "body_layers=7", "fine_layers=2"),
    CHOSEN: (*_K5, "body_width=104", "body_layers=7", "fine_layers=1"),
    f"{CHOSEN}, without the skip-gram objective": (
        *_K5,
        "body_width=104",
        "body_layers=7",
        "fine_layers=1",
        "around_weight=0.0",
    ),
}
BASELINE: Final = "convnet, 32 x 8"


def configurations(genome: Path, work: Path) -> dict[str, PretrainConfig]:
    """The configuration of each run, by the name of its architecture."""
    full = PretrainConfig(
        **read_toml(HERE / "train.toml", kinds_of(PretrainConfig)),
        genome=genome,
        out=work / "chosen",
    )
    brief = dataclasses.replace(
        full, steps=STEPS, validate_every=STEPS, warmup_steps=50, validation_windows=128, no_tables=True
    )
    runs = {
        name: dataclasses.replace(brief, set=sizes, out=work / name.replace(", ", "_").replace(" ", "-"))
        for name, sizes in SIZES.items()
    }
    baseline = dataclasses.replace(
        brief, model="convnet", set=("hidden_size=32", "n_layers=8"), learning_rate=1e-3, out=work / "convnet"
    )
    return {**runs, BASELINE: baseline}


def main() -> None:
    """Train the architectures and write the results."""
    start_logging()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--genome", type=Path, required=True, help="uncompressed FASTA of chromosome 20, GRCh37")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parsed = parser.parse_args()
    rows = []
    for name, config in configurations(parsed.genome, parsed.work).items():
        facts = run(config).facts
        rows.append(
            {
                "name": name,
                "chosen": name == CHOSEN,
                "n_parameters": facts["model"]["n_parameters"],
                "perplexity": facts["perplexity"],
                "nucleotides_per_second": facts["nucleotides_per_second"],
            }
        )
        print(rows[-1], flush=True)
    body = {"steps": STEPS, "nucleotides": facts["nucleotides"], "machine": facts["machine"], "rows": rows}
    write_text(RESULT, json.dumps(body, indent=2) + "\n")


if __name__ == "__main__":
    main()
