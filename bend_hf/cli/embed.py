"""``bend-hf embed``: compute the embeddings of tasks before training.

bend-hf embed gene_finding --model dnabert2
accelerate launch -m bend_hf embed --task gene_finding --model dnabert2
bend-hf embed --task gene_finding --model dnabert2 --splits train --shards 10-19
bend-hf embed all --model dnabert2 dnabert6
bend-hf embed --bed intervals.bed --genome hg38.fa --model dnabert2
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Final

from bend_hf.cli import Command
from bend_hf.cli._output import add_dry_run, show, show_forecast
from bend_hf.config import add_flags, add_task_words, given_values
from bend_hf.runs.embed import EmbedConfig

_SEVERAL: Final = ("model",)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add_task_words(parser)
    add_flags(parser, EmbedConfig, _SEVERAL)
    add_dry_run(parser)


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.runs.embed import embed

    values = given_values(EmbedConfig, parsed, _SEVERAL)
    models = list(dict.fromkeys(values.pop("model", ())))
    config = EmbedConfig(**values)
    if parsed.dry_run:
        from bend_hf.runs.forecast import forecast_embedding

        return show_forecast(parsed, forecast_embedding(config, models))
    found = embed(config, models)
    show(parsed, [str(one) for one in found], (asdict(one) for one in found))
    return 0


COMMANDS = (
    Command(
        key="embed",
        text="compute the embeddings of tasks before training, in shards that several processes can share",
        example="bend-hf embed gene_finding --model bend-mini --data sample",
        has_records=True,
        add_flags=_add_flags,
        run=_run,
    ),
)
