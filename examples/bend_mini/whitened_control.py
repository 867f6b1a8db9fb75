"""Write a bend-mini with random weights and whitened embeddings, to measure what whitening alone is worth.

    python -m examples.bend_mini.whitened_control --genome GRCh37.chr20.fa --out whitened-random-weights
    make report-chr20 RESULTS=DIR MODELS=bend-mini
    bend-hf run --model bend-mini --checkpoint whitened-random-weights --out DIR ...   # task, head and data as there
    python -m examples.bend_mini.compare DIR

The weights are the initial ones of bend-mini's training. Only the whitening has seen sequences, on the same windows.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from bend_hf.config import kinds_of, read_toml
from bend_hf.files import start_logging
from bend_hf.training.pretraining.config import PretrainConfig
from bend_hf.training.pretraining.data import open_inputs
from bend_hf.training.pretraining.run import finish
from bend_hf.training.pretraining.run_folder import write_model

RECIPE: Final = Path(__file__).resolve().parent / "train.toml"
FOLDER: Final = "whitened-random-weights"  # the comparison recognizes the control by it


def main() -> None:
    """Write the model folder."""
    start_logging()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--genome", type=Path, required=True, help="uncompressed FASTA of chromosome 20, GRCh37")
    parser.add_argument("--out", type=Path, default=Path(FOLDER), help=f"folder to write (default: {FOLDER})")
    parsed = parser.parse_args()
    recipe = PretrainConfig(**read_toml(RECIPE, kinds_of(PretrainConfig)), genome=parsed.genome, out=parsed.out)
    config = recipe.resolved()
    network = config.family.build(config.family.resolve(config.set, window_bp=config.window_bp), config.seed)
    finish(config, open_inputs(config), network)
    write_model(parsed.out, network, config.family, config)
    print(parsed.out)


if __name__ == "__main__":
    main()
