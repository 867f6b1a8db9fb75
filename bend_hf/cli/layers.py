"""``bend-hf layers``: score every layer of a model from one pass, and choose one on the validation split."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bend_hf.cli import Command
from bend_hf.cli._output import show
from bend_hf.config import RunConfig, add_run_flags, config_from_flags, flag_group
from bend_hf.tables import Table

if TYPE_CHECKING:
    from pathlib import Path

    from bend_hf.runs.layers import LayerSweep

log = logging.getLogger(__name__)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add_run_flags(parser)
    flag_group(parser, "model").add_argument(
        "--layers",
        default="all",
        metavar="LAYERS",
        help="which layers: all, every-4 (each fourth, back from the last), or numbers such as 0,6,12; 0 is the input "
        "of the first block (default: all)",
    )
    flag_group(parser, "training").add_argument(
        "--mix",
        nargs="+",
        default=[],
        choices=("mean", "scalar"),
        help="also train a head that reads all these layers at once: their mean, or a mix with learned weights "
        "(scalar); the layer is chosen without them",
    )
    flag_group(parser, "output").add_argument("--no-plots", action="store_true", help="draw no curve")


def _run(parsed: argparse.Namespace) -> int:
    from accelerate import PartialState

    from bend_hf.runs.layers import run_layers

    config = config_from_flags(RunConfig, parsed)
    sweeps = run_layers(config, parsed.layers, mixes=parsed.mix)
    if PartialState().is_main_process:
        drawn = [] if parsed.no_plots else _draw(config.out, sweeps)
        text: list[object] = []
        for sweep in sweeps:
            text += ["", _table(sweep), "", sweep.curve.in_words()]
        text += ["", *(f"record: {outcome.path}" for sweep in sweeps for outcome in sweep.outcomes)]
        text += [f"curve: {path}" for path in drawn]
        show(parsed, text, (outcome.as_json() for sweep in sweeps for outcome in sweep.outcomes))
    return 0


def _table(sweep: LayerSweep) -> Table:
    from bend_hf.publishing.report.tables import LAYER_HEADER, layer_rows

    header = ("task", "metric", *LAYER_HEADER)
    return Table(header=header, rows=[(sweep.curve.task, sweep.curve.metric, *row) for row in layer_rows(sweep.curve)])


def _draw(folder: Path, sweeps: Sequence[LayerSweep]) -> list[Path]:
    """Draw the curves as PNG and SVG next to the records, and return the files."""
    from bend_hf.files import write_bytes
    from bend_hf.publishing.report.plots import layer_plots

    files = layer_plots([sweep.curve for sweep in sweeps], log.warning)
    return [write_bytes(folder / name, content) for name, content in sorted(files.items())]


COMMANDS = (
    Command(
        key="layers",
        text="score every layer of a model from one pass, and choose one on the validation split",
        example="bend-hf layers cpg_methylation --data sample --layers every-4",
        has_records=True,
        add_flags=_add_flags,
        run=_run,
    ),
)
