"""``bend-hf compare``: compare models on the same items of one task."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bend_hf.cli import Command
from bend_hf.config import MAX_SEED, number_between
from bend_hf.tables import number, text_table

if TYPE_CHECKING:
    from bend_hf.evaluation.predictions import Predictions
    from bend_hf.evaluation.uncertainty.comparison import Comparison


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("predictions", nargs="+", type=Path, metavar="FILE.parquet", help="prediction files of runs")
    parser.add_argument(
        "--metric", help="mcc, auroc or auprc; default: the main metric of the record next to the first file"
    )
    parser.add_argument(
        "--clusters", default="item", help="unit of resampling: item, chromosome or block (default: item)"
    )
    parser.add_argument(
        "--block-bp",
        type=number_between(1, kind=int),
        default=1_000_000,
        help="length of a block in bp (default: 1000000)",
    )
    parser.add_argument(
        "--resamples", type=number_between(1, kind=int), default=2000, help="number of resamples (default: 2000)"
    )
    parser.add_argument(
        "--seed", type=number_between(0, MAX_SEED, kind=int), default=0, help="seed of the resamples (default: 0)"
    )
    parser.add_argument(
        "--level",
        type=number_between(0.01, 0.9999, kind=float),
        default=0.95,
        help="confidence level of the intervals (default: 0.95)",
    )
    parser.add_argument(
        "--method",
        choices=["bootstrap", "delong"],
        default="bootstrap",
        help="bootstrap, or DeLong's test for AUROC of one label (default: bootstrap)",
    )


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.evaluation.predictions import read_predictions
    from bend_hf.evaluation.uncertainty.bootstrap import Bootstrap
    from bend_hf.evaluation.uncertainty.comparison import compare

    _check_records(parsed.predictions)
    names = _names(parsed.predictions)
    models = {name: read_predictions(path) for name, path in zip(names, parsed.predictions, strict=True)}
    metric = parsed.metric or _metric(parsed.predictions[0], models[names[0]])
    found = compare(
        models,
        metric,
        Bootstrap(resamples=parsed.resamples, seed=parsed.seed, clusters=parsed.clusters, block_bp=parsed.block_bp),
        level=parsed.level,
        method=parsed.method,
    )
    print(table(found, metric, level=parsed.level))
    smallest = 2 / (parsed.resamples + 1) * len(found)
    if parsed.method == "bootstrap" and smallest > 1 - parsed.level:
        print(
            f"\nNo corrected p is below {smallest:.3g} with {parsed.resamples} resamples and {len(found)} pairs; raise "
            "--resamples"
        )
    return 0


def table(found: list[Comparison], metric: str, *, level: float) -> str:
    """Write the comparisons as a table, one line per pair, the better model first."""
    header = ("better", "than", metric, "and", "difference", f"{level:.0%} interval", "p", "p (Holm)")
    rows = [
        (
            one.first,
            one.second,
            number(one.value_first),
            number(one.value_second),
            number(one.difference),
            f"{number(one.low)} to {number(one.high)}",
            _p(one.p),
            _p(one.p_holm),
        )
        for one in found
    ]
    return text_table(header, rows)


def _names(paths: list[Path]) -> list[str]:
    """Name each file by its stem; by its path if stems are equal."""
    stems = [path.stem for path in paths]
    names = [
        stem if stems.count(stem) == 1 else str(path.with_suffix("")) for stem, path in zip(stems, paths, strict=True)
    ]
    if len(set(names)) < len(names):
        from bend_hf.errors import ConfigError

        raise ConfigError(f"a file is given twice: {', '.join(names)}; give each file once")
    return names


def _check_records(paths: list[Path]) -> None:
    """Check the record next to each file, if there is one, against the file."""
    from bend_hf.evaluation.evidence import read_verified

    for path in paths:
        if path.with_suffix(".json").is_file():
            read_verified(path.with_suffix(".json"))


def _metric(path: Path, predictions: Predictions) -> str:
    """The main metric of the record next to a file; without a record, the default for its kind of predictions."""
    from bend_hf.evaluation.record import is_record, read_record

    record = path.with_suffix(".json")
    if record.is_file() and is_record(record):
        return read_record(record).main_metric
    return "mcc" if predictions.score is None else "auroc"


def _p(value: float) -> str:
    return "undefined" if value != value else f"{value:.2g}"


COMMANDS = (
    Command(
        key="compare",
        text="compare models on the same items: differences, intervals, p with Holm's correction",
        add_flags=_add_flags,
        run=_run,
    ),
)
