"""``bend-hf card``: write a model card and the Hub's score files."""

from __future__ import annotations

import argparse
import logging
import shlex
from pathlib import Path

from bend_hf.cli import Command
from bend_hf.cli._records import records_of
from bend_hf.config import flag_group

log = logging.getLogger(__name__)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORD", help="result records, or folders of them")
    output, model, data = flag_group(parser, "output"), flag_group(parser, "model"), flag_group(parser, "data")
    output.add_argument("--out", type=Path, default=Path("card"), help="folder to write (default: card)")
    model.add_argument("--model", help="select the records of one model, named as in the report")
    data.add_argument(
        "--dataset",
        action="append",
        default=[],
        metavar="GROUP=OWNER/NAME@COMMIT",
        help="Hub dataset of a task group, for records that do not name it; can be repeated",
    )
    output.add_argument("--source-url", help="address of the records, for the score files")


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.evaluation.evidence import read_all_verified
    from bend_hf.evaluation.record import find_records
    from bend_hf.publishing.card_folder import write_card
    from bend_hf.publishing.card_heads import copy_heads, files_of_heads, with_heads_at_hand
    from bend_hf.publishing.models import records_of_model
    from bend_hf.publishing.publishable import (
        match_dataset,
        parse_datasets,
        read_hub_facts,
        reasons_not_to_publish,
    )

    paths = find_records(records_of(parsed.records))
    read = list(with_heads_at_hand(zip(paths, read_all_verified(paths), strict=True)))
    heads = files_of_heads(paths, read)
    records = match_dataset(records_of_model(read, parsed.model), parse_datasets(parsed.dataset), read_hub_facts)
    controls = [record for record in read if record.is_control]
    written = write_card(records, parsed.out, controls=controls, source_url=parsed.source_url)
    for path in [*written, *copy_heads(records, heads, parsed.out)]:
        print(path)
    if any(reasons_not_to_publish(record) for record in records):
        log.warning("it holds scores that may not be published as BEND scores; %s says why", parsed.out / "README.md")
    else:
        log.info("'bend-hf push card --from %s --namespace NAME' sends it to the Hub", shlex.quote(str(parsed.out)))
    return 0


COMMANDS = (
    Command(
        key="card",
        text="write a model card and the Hub's score files from result records",
        example="bend-hf card results --model dnabert2 --out card",
        add_flags=_add_flags,
        run=_run,
    ),
)
