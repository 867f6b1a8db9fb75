"""One process of a scoring spread by ``torchrun``: a file of variants, in small pieces, killed where asked.

torchrun --nproc-per-node 2 tests/e2e/variant_lives.py FOLDER OUT [PIECES]     # PIECES: SIGKILL at that piece
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pyarrow as pa

from bend_hf.variants import VariantRun, score_file, zero_shot
from bend_hf.variants.piece import PieceMaker


def live(folder: Path, out: Path, dies_at: int) -> None:
    """Scores the folder's variants; after some pieces the process, and with it the group, is no more."""
    zero_shot._PART_VARIANTS = 8  # type: ignore[misc]
    made = []
    plain = PieceMaker.score

    def score(self: PieceMaker, given: pa.Table) -> pa.Table:
        made.append(1)
        if len(made) == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, given)

    PieceMaker.score = score  # type: ignore[method-assign]
    config = VariantRun(
        genome=folder / "genome.fa",
        model="nt_transformer_human_ref",
        checkpoint=str(folder / "model"),
        random_init=True,
        out=out,
        no_plot=True,
        csv=True,
    )
    score_file(folder / "mine.bed", config)


if __name__ == "__main__":
    live(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
