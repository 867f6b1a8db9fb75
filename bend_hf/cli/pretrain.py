"""``bend-hf pretrain``: pretrain a DNA language model; the same as ``python -m bend_hf.pretrain``."""

from __future__ import annotations

import argparse

from bend_hf.cli import Command
from bend_hf.training.pretraining.config import add_pretrain_flags, config_from_flags


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.training.pretraining.run import report, run

    config = config_from_flags(parsed)
    report(run(config), config)
    return 0


COMMANDS = (
    Command(
        key="pretrain",
        text="pretrain a DNA language model on a FASTA file; the same as python -m bend_hf.pretrain",
        example="bend-hf pretrain --model convnet --genome GRCh38.fa --out my-convnet",
        add_flags=add_pretrain_flags,
        run=_run,
    ),
)
