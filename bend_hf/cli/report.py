"""``bend-hf report``: write tables, a web page and plots."""

from __future__ import annotations

import argparse
from pathlib import Path

from bend_hf.cli import Command
from bend_hf.cli._output import progress_of
from bend_hf.cli._records import log_without_data_sources, records_of
from bend_hf.config import flag_group


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("records", nargs="+", type=Path, metavar="RECORD", help="result records, or folders of them")
    output = flag_group(parser, "output")
    output.add_argument("--out", type=Path, default=Path("report"), help="folder to write (default: report)")
    output.add_argument(
        "--no-paired", action="store_true", help="find ties by intervals only, without a paired test on predictions"
    )
    output.add_argument(
        "--with",
        dest="others",
        action="append",
        default=[],
        metavar="OTHERS",
        help="show results of others next to the records: published, the scores that others report, each with its "
        "source; or hub:OWNER/NAME, the records of a shared store, with paired tests; can be repeated",
    )
    output.add_argument("--no-plots", action="store_true", help="draw no plots")


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.publishing.others import others_of
    from bend_hf.publishing.report import write_report

    with log_without_data_sources():
        written = write_report(
            records_of(parsed.records),
            parsed.out,
            plots=not parsed.no_plots,
            paired=not parsed.no_paired,
            others=others_of(parsed.others),
            log=progress_of(parsed),
        )
    for path in written:
        print(path)
    return 0


COMMANDS = (
    Command(
        key="report",
        text="write tables, a web page and plots from result records",
        example="bend-hf report results --out report",
        add_flags=_add_flags,
        run=_run,
    ),
)
