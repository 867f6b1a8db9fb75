"""Score a file of variants in small batches with one process or several, which stop where they are told.

    python -m tests.e2e.variant_lives FOLDER OUT PROCESSES [BATCHES]

The processes are forks of this one. With BATCHES each scores that many, says so in a line on its output, and waits for
whatever kills the whole group.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pyarrow as pa

from bend_hf import score_file
from bend_hf.variants import VariantRun
from bend_hf.variants import score as scoring
from bend_hf.variants.batch import VariantModel
from tests.e2e.lives import life


def live(folder: Path, out: Path, stops_after: int | None) -> None:
    """Score the folder's variants as one process, all of them or that many batches."""
    scoring._BATCH_VARIANTS = 8  # type: ignore[misc]  # a constant, smaller here
    made = []
    plain = scoring.score_batch

    def score(model: VariantModel, given: pa.Table) -> pa.Table:
        if len(made) == stops_after:
            os.write(sys.stdout.fileno(), b"stopped\n")
            while True:
                signal.pause()
        made.append(1)
        return plain(model, given)

    scoring.score_batch = score
    config = VariantRun(
        genome=folder / "genome.fa",
        model="nt_transformer_human_ref",
        checkpoint=str(folder / "model"),
        random_init=True,
        out=out,
        no_plot=True,
        csv=True,
        probe=True,
    )
    score_file(folder / "mine.bed", config)
    os._exit(0)


if __name__ == "__main__":
    folder, out, processes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    stops_after = int(sys.argv[4]) if len(sys.argv) > 4 else None
    sys.exit(int(life([], partial(live, folder, out, stops_after), ranks=processes) != 0))
