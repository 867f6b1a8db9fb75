"""``bend-hf embed``: compute the embeddings of tasks before training.

bend-hf embed gene_finding --model dnabert2
accelerate launch -m bend_hf embed --task gene_finding --model dnabert2
bend-hf embed --task gene_finding --model dnabert2 --splits train --shards 10-19
"""

from __future__ import annotations

import argparse

from bend_hf.cli import Command
from bend_hf.config import add_flags, add_task_words, given_values
from bend_hf.runs.embed import EmbedConfig


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add_task_words(parser)
    add_flags(parser, EmbedConfig)


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.runs.embed import embed

    for line in embed(EmbedConfig(**given_values(EmbedConfig, parsed))):
        print(line)
    return 0


COMMANDS = (
    Command(
        key="embed",
        text="compute the embeddings of tasks before training, in shards that several processes can share",
        add_flags=_add_flags,
        run=_run,
    ),
)
