"""Makes a random twin of bend-mini whose rows are evened out as bend-mini's are, to tell what that alone is worth.

    python -m benchmarks.bend_mini.evened_twin --genome GRCh37.chr20.fa --out evened-twin
    make report-chr20 RESULTS=DIR MODELS=bend-mini
    bend-hf run --model bend-mini --checkpoint evened-twin --out DIR ...   # a task, its head and data as there
    python -m benchmarks.bend_mini.compare DIR

Its weights are the first ones of bend-mini's training; only the maps that even out have seen text, the same windows.
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
FOLDER: Final = "evened-twin"  # by which the comparison knows it


def main() -> None:
    """Writes the folder."""
    start_logging()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--genome", type=Path, required=True, help="chromosome 20 of GRCh37, not packed")
    parser.add_argument("--out", type=Path, default=Path(FOLDER))
    parsed = parser.parse_args()
    recipe = PretrainConfig(**read_toml(RECIPE, kinds_of(PretrainConfig)), genome=parsed.genome, out=parsed.out)
    config = recipe.resolved()
    network = config.family.build(config.family.resolve(config.set, window_bp=config.window_bp), config.seed)
    finish(config, open_inputs(config), network)
    write_model(parsed.out, network, config.family, config)
    print(parsed.out)


if __name__ == "__main__":
    main()
