"""``bend-hf convert``: convert published weights to sharded safetensors.

bend-hf convert evo2_7b --out evo2_7b
bend-hf train --task gene_finding --model evo2_7b --checkpoint evo2_7b
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bend_hf.cli import Command
from bend_hf.cli._output import progress_of
from bend_hf.config import flag_group, number_between


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="an Evo 2 of 'bend-hf models'")
    data, output = flag_group(parser, "data"), flag_group(parser, "output")
    data.add_argument("--checkpoint", help="folder or Hub name of the published files; default: the declared ones")
    output.add_argument("--out", type=Path, required=True, help="folder to write")
    output.add_argument(
        "--shard-gb",
        type=number_between(1e-6, kind=float),
        default=5.0,
        help="size of one file at most (default: 5.0)",
    )


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.embedders.convert import convert

    found = convert(
        parsed.model,
        parsed.out,
        checkpoint=parsed.checkpoint,
        shard_bytes=int(parsed.shard_gb * 1e9),
        log=progress_of(parsed),
    )
    print(f"{parsed.out}: {len(found)} files; use them with --model {parsed.model} --checkpoint {parsed.out}")
    return 0


COMMANDS = (
    Command(
        key="convert",
        text="convert published weights to sharded safetensors, in the memory of one tensor",
        example="bend-hf convert evo2_7b --out evo2_7b",
        add_flags=_add_flags,
        run=_run,
    ),
)
