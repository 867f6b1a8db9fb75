"""``bend-hf compare``: compare models on the same items of one task."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from bend_hf.cli import Command
from bend_hf.cli._output import show
from bend_hf.config import MAX_SEED, Condition, flag_group, number_between
from bend_hf.tables import Table, metric_title, number

if TYPE_CHECKING:
    from bend_hf.evaluation.predictions import Predictions
    from bend_hf.evaluation.record import ResultRecord
    from bend_hf.evaluation.uncertainty.clusters import Clusters
    from bend_hf.evaluation.uncertainty.comparison import Comparison
    from bend_hf.publishing.published import PublishedScore

FEWEST: Final = 2  # clusters or trainings that a variance takes


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "predictions",
        nargs="+",
        type=Path,
        metavar="FILE.parquet",
        help="prediction files of runs, their records, or folders of these, such as the results of one task",
    )
    scores = flag_group(parser, "scores")
    scores.add_argument(
        "--metric",
        help="mcc, gene_structure, auroc or auprc; default: the main metric of the record next to the first file, and "
        "gene_structure if the record holds it",
    )
    scores.add_argument(
        "--clusters",
        default="auto",
        help="what counts as one observation: item, chromosome, block, or auto, which chooses from the data "
        "(default: auto)",
    )
    scores.add_argument(
        "--block-bp",
        type=number_between(1, kind=int),
        help="length of a block in bp (default: chosen from the data with auto, else 1000000)",
    )
    scores.add_argument(
        "--resamples",
        type=number_between(1, kind=int),
        default=2000,
        help="resamples of --method bootstrap (default: 2000)",
    )
    scores.add_argument(
        "--seed", type=number_between(0, MAX_SEED, kind=int), default=0, help="seed of the resamples (default: 0)"
    )
    scores.add_argument(
        "--level",
        type=number_between(0.01, 0.9999, kind=float),
        default=0.95,
        help="confidence level of the intervals (default: 0.95)",
    )
    scores.add_argument(
        "--method",
        choices=["paired", "bootstrap", "delong"],
        default="paired",
        help="paired test over clusters and trainings, bootstrap, or DeLong's test for AUROC of one label (default: "
        "paired)",
    )
    flag_group(parser, "output").add_argument(
        "--with",
        dest="others",
        action="append",
        default=[],
        metavar="OTHERS",
        help="show below the table: published, the scores that others report on the task, each with its source",
    )


def _run(parsed: argparse.Namespace) -> int:
    from bend_hf.evaluation.comparable import check_comparable
    from bend_hf.evaluation.predictions import read_predictions
    from bend_hf.evaluation.uncertainty.bootstrap import Bootstrap
    from bend_hf.evaluation.uncertainty.clusters import as_clusters
    from bend_hf.evaluation.uncertainty.comparison import compare, on_common_items

    parsed.predictions = _prediction_files(parsed.predictions)
    records = _verified(parsed.predictions)
    _check_others(parsed, records)
    first_record = next(iter(records.values()), None)
    named = dict(zip(_names(parsed.predictions), parsed.predictions, strict=True))
    check_comparable({name: records[path] for name, path in named.items() if path in records})
    without = [name for name, path in named.items() if path not in records]
    groups = _trainings(named) if parsed.method == "paired" else {name: [path] for name, path in named.items()}
    models = on_common_items({name: [read_predictions(path) for path in paths] for name, paths in groups.items()})
    first = next(iter(models.values()))[0]
    metric = parsed.metric or _metric(parsed.predictions[0], first)
    draws = Bootstrap(resamples=parsed.resamples, seed=parsed.seed, clusters=parsed.clusters, block_bp=parsed.block_bp)
    found = compare(models, metric, draws, level=parsed.level, method=parsed.method)
    genes = _genes(parsed, first_record)
    of_genes = {name: compare(models, name, draws, level=parsed.level, method=parsed.method) for name in genes}
    clusters = as_clusters(first, draws.clusters, block_bp=draws.block_bp)
    lines = _notes(found, clusters, parsed, short_names(models))
    if without:
        lines.append(f"Protocol and data were not compared: no record is next to {', '.join(without)}.")
    notes = "\n".join(lines)
    about = {"level": parsed.level, "method": parsed.method, "clusters": clusters.noun, "n_clusters": len(clusters)}
    short = short_names(models)
    text: list[object] = [table(found, metric, level=parsed.level, shown=short), ""]
    shown: list[dict[str, object]] = []
    for name, pairs in {metric: found, **of_genes}.items():
        shown += [{"metric": name, **about, **asdict(one)} for one in pairs]
        text += [] if name == metric else [table(pairs, metric_title(name), level=parsed.level, shown=short), ""]
    text.append(notes)
    if parsed.others and first_record is not None:
        others, below = _published(first_record, metric)
        text += below
        shown += [one.as_json() for one in others]
    show(parsed, text, shown)
    return 0


def _prediction_files(places: Sequence[Path]) -> list[Path]:
    """Return the prediction files of runs, which lie next to their records.

    Raises:
        RecordError: A place does not exist, or a folder holds no record.
    """
    from bend_hf.errors import RecordError
    from bend_hf.evaluation.record import find_records

    found: list[Path] = []
    for place in places:
        files = find_records([place]) if place.is_dir() else [place]
        found += [one.with_suffix(".parquet") if one.suffix == ".json" else one for one in files]
    for path in found:
        if not path.exists() and not path.with_suffix(".json").exists():  # predictions that are gone are found below
            raise RecordError(f"{path} does not exist; give the .parquet files of runs, or a folder of them")
    return found


def _genes(parsed: argparse.Namespace, record: ResultRecord | None) -> list[str]:
    """The metric of genes, if none is asked for and the first record holds it."""
    from bend_hf.evaluation.gene_structure import NAME

    held = record is not None and NAME in record.metrics and record.main_metric != NAME
    return [NAME] if held and parsed.metric is None and parsed.method != "delong" else []


def _published(record: ResultRecord, metric: str) -> tuple[Sequence[PublishedScore], list[object]]:
    """The scores that others report on the task of a record, and what to print of them."""
    from bend_hf.publishing.published import EXPLAINED, HEADING, published_next_to

    scores, why_none = published_next_to(record.task, metric, str(record.data.get("origin")))
    if why_none:
        return scores, ["", f"{HEADING}: none; {why_none}."]
    rows = [(one.model, one.text, one.source, one.note) for one in scores]
    header = ("model", metric, "source", "note")
    return scores, ["", f"{HEADING}. {EXPLAINED}", "", Table(header=header, rows=rows)]


def _check_others(parsed: argparse.Namespace, records: Mapping[Path, ResultRecord]) -> None:
    """Raise if a value of ``--with`` is unknown, or the task is."""
    from bend_hf.errors import ConfigError
    from bend_hf.publishing.others import others_of

    others = others_of(parsed.others)
    if others.stores:
        raise ConfigError("--with hub:... shows records of a store; expected 'published'. Use 'bend-hf report' for it")
    if others.published and not records:
        raise ConfigError("--with published needs the task of the predictions; keep a record next to one of the files")


def _notes(
    found: list[Comparison], clusters: Clusters, parsed: argparse.Namespace, shown: Mapping[str, str]
) -> list[str]:
    """Say what was compared: clusters, corrections, what the test could have found, and trainings."""
    pairs = "1 pair" if len(found) == 1 else f"{len(found)} pairs; p is corrected by Holm's method"
    lines = [f"Over {len(clusters)} {clusters.noun} ({clusters.reason}). {pairs}."]
    if parsed.method == "bootstrap":
        smallest = 2 / (parsed.resamples + 1) * len(found)
        if smallest > 1 - parsed.level:
            lines.append(
                f"No corrected p is below {smallest:.3g} with {parsed.resamples} resamples; raise --resamples."
            )
    elif parsed.method == "paired":
        smallest = len(found) * 2.0 ** (1 - len(clusters))
        if len(clusters) < FEWEST:
            lines.append("With one cluster, nothing is known of others: intervals and p are undefined.")
        elif smallest > 1 - parsed.level:
            lines.append(f"No corrected p is below {min(smallest, 1):.3g} with so few {clusters.noun}.")
        lines += _power_and_trainings(found, shown)
    return lines


def _power_and_trainings(found: list[Comparison], shown: Mapping[str, str]) -> list[str]:
    known = [one.detectable for one in found if one.detectable == one.detectable]
    lines = []
    if known:
        ends = dict.fromkeys(number(end) for end in (min(known), max(known)))
        lines.append(f"Smallest difference that this test finds in 4 of 5 cases: {' to '.join(ends)}.")
    once = sorted(
        {
            shown[name]
            for one in found
            for name, n in zip((one.first, one.second), one.n_trainings, strict=True)
            if n < FEWEST
        }
    )
    if once:
        lines.append(
            f"Trained once: {', '.join(once)}. A difference may be that of the training; give files of several seeds."
        )
    return lines


def _trainings(named: dict[str, Path]) -> dict[str, list[Path]]:
    """Put the files of one model with several seeds together, by the records next to them."""
    from bend_hf.evaluation.record import is_record, read_record
    from bend_hf.publishing.leaderboard import row_names
    from bend_hf.publishing.results import group_records

    records = {path.with_suffix(".json"): (name, path) for name, path in named.items()}
    read = {name: read_record(json) for json, (name, _) in records.items() if json.is_file() and is_record(json)}
    name_of = {id(record): name for name, record in read.items()}
    grouped: dict[str, list[Path]] = {}
    groups = group_records(list(read.values()))
    for group, title in zip(groups, row_names(groups), strict=True):
        names = [name_of[id(record)] for record in group.records if id(record) in name_of]
        if len(names) > 1:
            title = f"{group.task} {title} (seeds {', '.join(map(str, group.seeds))})"
            grouped[title] = [named[name] for name in names]
            for name in names:
                named = {key: path for key, path in named.items() if key != name}
    return {**grouped, **{name: [path] for name, path in named.items()}}


_STEM: Final = re.compile(r".+__(?P<model>.+)__(?P<seed>seed\d+)__\d{8}T\d{6}\w*")


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Name runs by their model, or by model and seed, if that tells all of them apart; by the whole name otherwise.

    >>> short_names(["cpg__onehot__seed0__20261128T130805", "cpg__kmer__seed0__20261128T130902", "mine"])
    {'cpg__onehot__seed0__20261128T130805': 'onehot', 'cpg__kmer__seed0__20261128T130902': 'kmer', 'mine': 'mine'}
    """
    names = list(names)
    parts = {name: _STEM.fullmatch(name) for name in names}
    by_model = {name: found["model"] if found else name for name, found in parts.items()}
    by_seed = {name: f"{found['model']}, {found['seed']}" if found else name for name, found in parts.items()}
    for short in (by_model, by_seed):
        if len(set(short.values())) == len(names):
            return short
    return {name: name for name in names}


def table(
    found: list[Comparison], metric: str, *, level: float, shown: Mapping[str, str] = MappingProxyType({})
) -> Table:
    """Write the comparisons as a table, one line per pair, the better model first.

    Args:
        found: The comparisons.
        metric: Name of the metric.
        level: Confidence level of the intervals.
        shown: How models are named that have long names.
    """
    header = ("better", "than", metric, "and", "difference", f"{level:.0%} interval", "p", "p (Holm)")
    rows = [
        (
            shown.get(one.first, one.first),
            shown.get(one.second, one.second),
            number(one.value_first),
            number(one.value_second),
            number(one.difference),
            f"{number(one.low)} to {number(one.high)}",
            _p(one.p),
            _p(one.p_holm),
        )
        for one in found
    ]
    return Table(header=header, rows=rows)


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


def _verified(paths: list[Path]) -> dict[Path, ResultRecord]:
    """Read the record next to each file, if there is one, and check it against the file."""
    from bend_hf.evaluation.evidence import read_verified

    return {path: read_verified(path.with_suffix(".json")) for path in paths if path.with_suffix(".json").is_file()}


def _metric(path: Path, predictions: Predictions) -> str:
    """The main metric of the record next to a file; without a record, the default for its kind of predictions."""
    from bend_hf.evaluation.record import is_record, read_record

    record = path.with_suffix(".json")
    if record.is_file() and is_record(record):
        return read_record(record).main_metric
    return "mcc" if predictions.score is None else "auroc"


def _p(value: float) -> str:
    return "undefined" if value != value else f"{value:.2g}"


_CONDITIONS: Final = (
    Condition(
        flags=("resamples", "seed"),
        met=lambda given: given.method == "bootstrap",
        reason="only --method bootstrap draws resamples",
    ),
    Condition(
        flags=("block_bp",),
        met=lambda given: given.clusters in ("auto", "block"),
        reason="--clusters is neither auto nor block",
    ),
)

COMMANDS = (
    Command(
        key="compare",
        conditions=_CONDITIONS,
        text="compare models on the same items: differences, intervals, p with Holm's correction",
        example="bend-hf compare results/cpg_methylation__*.parquet",
        has_records=True,
        add_flags=_add_flags,
        run=_run,
    ),
)
