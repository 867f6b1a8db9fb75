"""Verify a finished run without its model: compute its numbers again, and compare its items with the data.

    verified = verify_run(Path("results/cpg_methylation__onehot__seed0__20260101T000000.json"))
    print(verified.in_words())

This is what ``bend-hf verify`` does; reports and pushes do it too, by ``check_with_data_at_hand``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeAlias, get_args

import numpy as np
import pyarrow as pa

from bend_hf import __version__
from bend_hf.config import DataConfig, RunConfig, settings_in_key
from bend_hf.data.assembly import UNKNOWN
from bend_hf.data.dataset import FACTS_FILE, TaskData, limited, task_openers
from bend_hf.data.sources import BuiltSource, sources_of
from bend_hf.errors import BendError, ConfigError, RecordError
from bend_hf.evaluation.dataset_items import DatasetItems, dataset_items, identity_of
from bend_hf.evaluation.evidence import (
    has_earlier_intervals,
    is_earlier,
    predictions_next_to,
    problems_of,
    unequal,
    with_answers_counted,
    without_intervals,
)
from bend_hf.evaluation.gene_structure import NAME as STRUCTURE
from bend_hf.evaluation.gene_structure import READ_FROM_SEQUENCE, sequence_of
from bend_hf.evaluation.identity import in_other, keys_sha256
from bend_hf.evaluation.layer_choice import layers_entry, validation_of
from bend_hf.evaluation.metrics import Rows, metric_names, score
from bend_hf.evaluation.predictions import Predictions, read_predictions
from bend_hf.evaluation.record import ResultRecord, jsonable, member, read_record
from bend_hf.evaluation.remembered import content_sha256, recalled, remember
from bend_hf.evaluation.run_key import KEY_FIELD, control_key, name_in_key, run_key, variant_file_key
from bend_hf.evaluation.uncertainty.intervals import intervals_of
from bend_hf.files import file_sha256, json_sha256, parse_json
from bend_hf.registry import names_file
from bend_hf.runs.decode_genes import ARGMAX
from bend_hf.runs.outcome import fold_entries, scored_again, summarize
from bend_hf.runs.recomputed import Checked, wrong_audit, wrong_by_data, wrong_by_predictions
from bend_hf.runs.settings import head_in_key, with_metrics
from bend_hf.tasks._spec import Head, HeadSetting
from bend_hf.training.heads import BASELINES, head_entry, head_of
from bend_hf.training.recipe import RECIPES, searched_entry
from bend_hf.types import Json, OutOfBounds, RefMismatch, ValueLoss
from bend_hf.variants.config import VariantRun
from bend_hf.variants.read import CONSEQUENCE, ReadSettings, read_variants
from bend_hf.variants.summary import summarize_scores

# By configuration and task, and the same with a limit and metrics.
Opened: TypeAlias = dict[tuple[DataConfig, str] | tuple[DataConfig, str, int | None, tuple[str, ...]], TaskData]

_FACTS: Final = ("assembly", "files", "rows_of_bed", "items", "changes", "limit")
_HOLDS: Final = "a record agrees with its data"
_SHOWN: Final = 3  # items that are named
_KINDS: Final = {"out_of_bounds": OutOfBounds, "ref_mismatch": RefMismatch, "loss": ValueLoss}
_CHOICES: Final = {name: get_args(kind) for name, kind in _KINDS.items()}
_PLACES: Final = ("chromosome", "start", "end", "strand", "ref", "alt")


@dataclass(frozen=True, kw_only=True)
class DataPlace:
    """Where the data of records are, if not where the records say.

    Attributes:
        data: ``sample``, ``hub``, ``hub:NAMESPACE`` or a folder.
        bed: BED or VCF file.
        labels: HDF5 file of labels.
        genome: FASTA file.
    """

    data: str | None = None
    bed: Path | None = None
    labels: Path | None = None
    genome: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was found in one record.

    Attributes:
        path: The record.
        record: Its content.
        problems: What is wrong, in words; empty if the record holds.
        unchecked: What could not be checked, in words.
        with_data: Whether it was compared with its data.
    """

    path: Path
    record: ResultRecord
    problems: tuple[str, ...]
    unchecked: tuple[str, ...] = ()
    with_data: bool = True

    def in_words(self) -> str:
        """One line, or several for problems."""
        if self.problems:
            return "\n".join([f"{self.path}: NOT verified", *(f"  {problem}" for problem in self.problems)])
        value, items = self.record.value, self.record.coverage.get("items")
        further = ", calibration, parts and label noise" if self.record.diagnostics is not None else ""
        line = (
            f"{self.path}: verified: {self.record.main_metric} {'undefined' if value is None else f'{value:.4f}'}, "
            f"interval, clusters, coverage, hashes{further} from the predictions"
        )
        if self.with_data:
            line += f"; {items:,} items and their labels from the data"
        return f"{line}; not checked: {'; '.join(self.unchecked)}" if self.unchecked else line


def verify_run(
    path: Path, place: DataPlace | None = None, *, with_data: bool = True, opened: Opened | None = None
) -> Verified:
    """Verify a record against its predictions and its data. The model is not loaded.

    Args:
        path: The record, or its prediction file.
        place: Where the data are; None takes the place that the record names.
        with_data: Whether to read the data; without, only what the predictions give is checked.
        opened: Data of earlier calls, which are not read again.

    Raises:
        BendError: The record, its predictions or the data cannot be read.
    """
    path = path.with_suffix(".json") if path.suffix == ".parquet" else path
    record = read_record(path)
    file = predictions_next_to(record, path)
    if file is None:
        raise RecordError(
            f"{path} names the predictions {record.predictions.get('file')!r}, which are not next to it; copy them "
            "there"
        )
    predictions = read_predictions(file)
    record = with_answers_counted(record, predictions, path)
    problems = list(problems_of(record, predictions, path))
    unchecked = [] if with_data else ["the data"]
    checked = Checked(path=path, record=record, predictions=predictions, unchecked=unchecked)
    problems += _wrong_numbers(checked)
    problems += _wrong_argmax(record, path, unchecked)
    if with_data:
        evidence = _Evidence(place or DataPlace(), {} if opened is None else opened)
        problems += _wrong_data(checked, evidence, with_audit=True)
    return Verified(
        path=path,
        record=record,
        problems=tuple(dict.fromkeys(problems)),
        unchecked=tuple(dict.fromkeys(unchecked)),
        with_data=with_data,
    )


def check_with_data_at_hand(
    paths: Sequence[Path],
    records: Sequence[ResultRecord],
    *,
    is_push: bool = False,
    log: Callable[[str], None] = lambda text: None,
) -> None:
    """Verify records whose data are on this machine and are those of the run, as ``verify_run`` does.

    A record that was found to hold is not compared again while neither it nor its files nor the code change, unless
    others will read it.

    Args:
        paths: Files of the records.
        records: What ``read_verified`` read from them.
        is_push: Whether others will read the records: numbers are also computed again without the data, and with them
            the audit, which takes minutes for large tasks.
        log: Receives a line for each record whose data are not at hand, with the reason.

    Raises:
        RecordError: A number of a record is not what its predictions give, or its items, labels or audit are not those
            of its data.
    """
    opened: Opened = {}
    for path, record in zip(paths, records, strict=True):
        file = predictions_next_to(record, path)
        if file is None or "identity" not in record.data:  # an earlier record
            continue
        key = _content_key(path, record)
        if not is_push and recalled(_HOLDS, key) is True:
            continue
        reason = _why_not_at_hand(record, opened)
        if reason is not None:
            log(f"{path.name}: its items were not compared with its data: {reason}")
        if reason is not None and not is_push:
            continue
        checked = Checked(path=path, record=record, predictions=read_predictions(file), unchecked=[])
        problems = chain(_wrong_numbers(checked), _wrong_argmax(record, path, checked.unchecked))
        if reason is None:
            problems = chain(problems, _wrong_data(checked, _Evidence(DataPlace(), opened), with_audit=is_push))
        problem = next(problems, None)
        if problem is not None:
            raise RecordError(f"{path}: {problem}. Records and predictions must not be edited; repeat the run.")
        if reason is None:
            remember(_HOLDS, key, True)


def _content_key(path: Path, record: ResultRecord) -> list[Json]:
    """Hash a record, all files that it names and the code. The record holds the hashes of its data."""
    names = sorted(_files_named([record.predictions, record.kept, record.shots, record.strands, list(record.folds)]))
    files = [path, *(file for name in names if (file := path.with_name(name)).is_file())]
    return [_package_sha256(), *(content_sha256(file) for file in files)]


def _files_named(part: Json) -> set[str]:
    """Return the names of files in a part of a record; others than those of files next to it are no evidence."""
    if isinstance(part, list):
        return set().union(*map(_files_named, part))
    if not isinstance(part, dict):
        return set()
    file = part.get("file")
    own = {file} if isinstance(file, str) and file and Path(file).name == file else set()
    return own.union(*map(_files_named, part.values()))


@cache
def _package_sha256() -> str:
    """Hash the code of the package, which decides what is verified and how."""
    files = sorted(Path(__file__).resolve().parents[1].rglob("*.py"))
    return json_sha256([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])


def _why_not_at_hand(record: ResultRecord, opened: Opened) -> str | None:
    """Say why the data of a record cannot be used as evidence here; None if they can."""
    if record.data.get("origin") == "hub":
        return "they are on the Hub"
    try:
        facts = (
            _file_facts(record)
            if "file" in record.config
            else _opened(record, _config_of(record, DataPlace()), opened).facts
        )
    except BendError as error:
        return str(error)
    theirs = facts.get("files")
    if record.data.get("files") != theirs:
        return "other files are in their place now"
    return None


# Numbers


def _wrong_numbers(checked: Checked) -> Iterator[str]:
    """Compute metrics, details, folds and what stands next to them again as a run does."""
    record, predictions, unchecked = checked.record, checked.predictions, checked.unchecked
    if not _is_of_this_release(record):
        unchecked.append(f"details that release {member(record.created_with, 'bend_hf')} may compute otherwise")
        return
    yield from wrong_by_predictions(checked)
    for name, entry in record.metrics.items():
        if is_earlier(member(entry, "interval")):
            unchecked.append(f"the interval of {name}, which was computed by earlier rules")
    if isinstance(member(record.metrics, record.main_metric, "detail", "by_score"), dict):
        yield from _wrong_summary(record, predictions)
        if "file" in record.config:
            return  # its metrics are those of the summary; those of a task are computed below, too
    names = [name for name in record.metrics if name in metric_names(plugins=False)]
    if others := [name for name in record.metrics if name not in names]:
        unchecked.append(f"the metrics {', '.join(others)}, whose code is not run")
    if record.layers is not None:
        yield from _wrong_layers(record, predictions, unchecked)
    folds = scored_again(predictions, names)
    yield from unequal(record.metrics, summarize(folds), "metrics")
    if len(record.folds) != (0 if folds[0].fold is None else len(folds)):
        yield f"folds holds {len(record.folds)} entries, but the predictions {len(folds)}"
    else:
        yield from unequal(list(record.folds), fold_entries(folds), "folds")


def _wrong_layers(record: ResultRecord, predictions: Predictions, unchecked: list[str]) -> Iterator[str]:
    """Compare what a record says of the layers that were tried with its training and its predictions."""
    tried, layer = member(record.layers, "tried"), record.model.get("layer")
    numbers = [one for one in tried if isinstance(one, int)] if isinstance(tried, list) else []
    mixed = f"{layer}".partition(":")[2] == ",".join(map(str, numbers))  # a head that reads all of them
    if not (layer in numbers or mixed) or len(numbers) != len(set(numbers)):
        yield f"layers.tried is {tried!r}; expected a list with layer {layer!r} of the model"
        return
    if record.main_metric not in metric_names(plugins=False):
        unchecked.append(f"the interval over layers of {record.main_metric}, whose code is not run")
        return
    found = layers_entry(numbers, validation_of(record.training), predictions, record.main_metric)
    yield from unequal(record.layers, found, "layers")


def _wrong_argmax(record: ResultRecord, path: Path, unchecked: list[str]) -> Iterator[str]:
    """Compute the scores of the most probable classes again, which the record holds next to those of a grammar."""
    stated = member(record.metrics, record.main_metric, "detail", ARGMAX)
    if not isinstance(stated, dict):
        return
    file = path.with_name(str(member(record.predictions, "further", ARGMAX, "file")))
    if not file.is_file():
        unchecked.append(f"the scores of the most probable classes, whose file {file.name} is missing")
        return
    names = [name for name in stated if name in metric_names(plugins=False)]
    where = f"metrics.{record.main_metric}.detail.{ARGMAX}"
    yield from unequal(stated, summarize(scored_again(read_predictions(file), names)), where)


def _is_of_this_release(record: ResultRecord) -> bool:
    """Whether this release wrote a record, or, for records in memory, may have."""
    return member(record.created_with, "bend_hf") in (None, __version__)


def _wrong_summary(record: ResultRecord, predictions: Predictions) -> Iterator[str]:
    """Compute the summary of all scores of variants again."""
    stated = member(record.metrics, record.main_metric, "detail")
    column = record.config.get("consequence_column") or CONSEQUENCE
    group_by = str(column) if column in predictions.columns else None
    found = summarize_scores(predictions, group_by=group_by, intervals=intervals_of)
    where = f"metrics.{record.main_metric}.detail"
    computed: Json = {"by_score": found["scores"], "by_group": found["groups"]}
    yield from unequal(stated, without_intervals(computed) if has_earlier_intervals(record) else computed, where)
    main = member(found["scores"], "score")
    for name in record.metrics:
        value = member(main, name, "value")
        if main is not None:
            yield from unequal(member(record.metrics, name, "value"), value, f"metrics.{name}.value")


# Data


@dataclass(frozen=True)
class _Evidence:
    """Where the data are, and those that are open."""

    place: DataPlace
    opened: Opened


def _wrong_data(checked: Checked, evidence: _Evidence, *, with_audit: bool = False) -> Iterator[str]:
    """Compare hashes, counts and every item with the data."""
    record = checked.record
    if "file" in record.config:
        yield from _wrong_variant_file(record, checked.predictions, evidence.place)
        return
    config = _config_of(record, evidence.place)
    if changed := list(_changed_shards(config, record.task)):
        yield from changed
        return
    data = _opened(record, config, evidence.opened)
    wrong_facts = list(_wrong_facts(record, data.facts))
    if evidence.place == DataPlace():
        yield from unequal(record.data.get("origin"), data.facts.get("origin"), "data.origin")
    yield from wrong_facts
    if record.main_metric != data.task.metric:
        yield f"main_metric is {record.main_metric!r}, but {data.task.metric!r} is that of the task"
    highest = max((fold for fold in checked.folds if fold is not None), default=0)
    if highest > data.n_folds:
        yield f"the predictions hold fold {highest}, but the data have {data.n_folds}"
        return
    wrong_rows = list(_wrong_rows(checked, data))
    yield from wrong_rows
    if not wrong_facts:
        yield from _wrong_key(record, data, checked.unchecked)
    if _is_of_this_release(record) and not wrong_rows:  # other rows have other distances and budgets
        head, searched = (None, {}) if record.is_control else _head_of(record, data)
        yield from wrong_by_data(checked, data, head=head, searched=searched)
        if with_audit:
            yield from wrong_audit(checked, data)


def _wrong_rows(checked: Checked, data: TaskData) -> Iterator[str]:
    """Compare labels and items of the predictions, and the hashes of all splits, with the rows of the data."""
    record, predictions = checked.record, checked.predictions
    if data.task.label_names != predictions.label_names:
        yield f"the predictions have the labels {', '.join(predictions.label_names[:_SHOWN])}..., the data others"
    tested = [dataset_items(data.task, data.splits(fold)["test"], fold=fold) for fold in checked.folds]
    yield from wrong_items(predictions, tested)
    yield from _wrong_genes(record, data, predictions)
    identity, stated = identity_of(data), record.data.get("identity")
    if not isinstance(stated, dict):
        checked.unchecked.append("the rows that were trained on, whose hashes the record does not hold")
    else:
        yield from unequal(stated, identity, "data.identity")


def _wrong_genes(record: ResultRecord, data: TaskData, predictions: Predictions) -> Iterator[str]:
    """Compute again what is read from the sequences: stop codons in predicted genes."""
    stated = member(record.metrics, STRUCTURE, "detail")
    if not isinstance(stated, dict) or not set(READ_FROM_SEQUENCE) <= stated.keys():
        return
    sequence = sequence_of(data.task, data.splits(None)["test"], predictions)
    if sequence is not None:
        rows = Rows(lengths=np.diff(predictions.windows), sequence=sequence)
        found = score(STRUCTURE, predictions.values, predictions.target, rows=rows).detail
        computed: dict[str, Json] = {name: found[name] for name in READ_FROM_SEQUENCE}
        yield from unequal(stated, computed, f"metrics.{STRUCTURE}.detail")


def _wrong_facts(record: ResultRecord, facts: Mapping[str, Json]) -> Iterator[str]:
    for name in _FACTS:
        if name == "assembly" and facts.get(name) == UNKNOWN:
            continue  # records of earlier releases state the assembly that the task declares
        if name in facts:
            yield from unequal(record.data.get(name), facts[name], f"data.{name}")


def _changed_shards(config: DataConfig, key: str) -> Iterator[str]:
    """Name the files of a built folder that were changed after the build."""
    for source, _ in sources_of(config):
        if not isinstance(source, BuiltSource) or source.task.key != key or not Path(source.repo).is_dir():
            continue
        folder = Path(source.repo) / "data" / (source.task.config or "")
        hashes = member(parse_json((folder / FACTS_FILE).read_text(encoding="utf-8")), "sha256")
        for name, digest in hashes.items() if isinstance(hashes, dict) else ():
            if file_sha256(folder / name) != digest:
                yield f"{folder / name} was changed after the build"


def wrong_items(predictions: Predictions, tested: Sequence[DatasetItems]) -> Iterator[str]:
    """Name the items of predictions that are not those of the data: what differs, and both values.

    Args:
        predictions: The predictions.
        tested: The tested rows of each fold.
    """
    keys = np.concatenate([one.keys for one in tested])
    if keys_sha256(keys) == keys_sha256(predictions.keys):
        return
    if len(keys) != len(predictions):
        yield f"the predictions hold {len(predictions)} items, but {len(keys)} rows of the data are tested"
    unknown = np.flatnonzero(~in_other(predictions.keys, keys))
    row_of = {int(item): (one, row) for one in tested for row, item in enumerate(one.item.tolist())}
    for index in unknown[:_SHOWN].tolist():
        item = int(predictions.item[index])
        if item not in row_of:
            yield f"item {item} of the predictions is not a tested row of the data"
            continue
        yield f"item {item}: {_difference(predictions, index, *row_of[item])}"
    if len(unknown) > _SHOWN:
        yield f"{len(unknown) - _SHOWN} more items of the predictions are not those of the data"


def _difference(predictions: Predictions, index: int, rows: DatasetItems, row: int) -> str:
    for name in _PLACES:
        if name in predictions.columns and name in rows.table.column_names:
            stated, known = predictions.columns[name][index].as_py(), rows.table[name][row].as_py()
            if stated != known:
                return f"{name} is {stated!r}, but {known!r} in the data"
    stated_labels = predictions.target[predictions.windows[index] : predictions.windows[index + 1]]
    known_labels = rows.target[rows.windows[row] : rows.windows[row + 1]]
    if stated_labels.shape != known_labels.shape:
        return f"it has labels of shape {stated_labels.shape}, but {known_labels.shape} in the data"
    differ = np.flatnonzero((stated_labels != known_labels).reshape(-1))
    if len(differ):
        at = int(differ[0])
        return (
            f"label {at} is {stated_labels.reshape(-1)[at]}, but {known_labels.reshape(-1)[at]} in the data "
            f"({len(differ)} labels differ)"
        )
    return "its fold is another one in the data"


def _wrong_key(record: ResultRecord, data: TaskData, unchecked: list[str]) -> Iterator[str]:
    """Compute the hash of everything that affects the scores again."""
    stated, identity = record.config.get(KEY_FIELD), record.model.get("identity")
    if stated is None or not _is_of_this_release(record):
        return
    if record.is_control:
        fold = [one for one in _list(record.config.get("fold")) if isinstance(one, int)]
        seed = record.config.get("seed")
        version, content = (member(record.model, "provenance", name) for name in ("version", "content_sha256"))
        found = control_key(
            name_in_key(
                str(record.model.get("model")),
                None if version is None else str(version),
                None if content is None else str(content),
            ),
            data,
            protocol=record.protocol,
            seed=seed if isinstance(seed, int) else 0,
            fold=fold,
        )
    elif isinstance(identity, dict):
        name, key = record.model.get("model"), identity.get("key")
        if key and name not in BASELINES and name != key:
            yield f"model.model is {name!r}, but its identity is that of {key!r}"
        held = settings_in_key(RunConfig) & record.config.keys()  # a setting that was added later is in no earlier key
        settings = {name: record.config[name] for name in held}
        head, searched = _head_of(record, data)
        found = run_key(
            settings, data, {name: str(value) for name, value in identity.items()}, head_in_key(head, searched)
        )
        entry = head_entry(head)
        if entry is not None:
            yield from unequal(
                member(record.training, "head"), jsonable(searched_entry(entry, searched)), "training.head"
            )
    else:
        unchecked.append("the settings, as the record does not hold the identity of its model")
        return
    if found != stated:
        yield _other_key(stated, found)


def _head_of(record: ResultRecord, data: TaskData) -> tuple[Head | None, Mapping[str, Sequence[HeadSetting]]]:
    """The head of a run and what was searched, from its settings."""
    config = record.config
    if data.task.head is None:
        return None, {}
    named, rate = config.get("head"), config.get("learning_rate")
    head = head_of(None if named is None else str(named), data.task)
    if config.get("tune") != "head":
        return head, {}
    recipe = RECIPES[record.protocol]  # type: ignore[index]  # checked when the record was read
    return head, recipe.searched(head, float(rate) if isinstance(rate, int | float) else None)


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _config_of(record: ResultRecord, place: DataPlace) -> DataConfig:
    """Where the data of a record are, and how they were read."""
    config = record.config
    values = {name: config[name] for name in _CHOICES if config.get(name) is not None}
    for name, value in values.items():
        if value not in _CHOICES[name]:
            raise RecordError(
                f"config.{name} is {value!r}; expected {' or '.join(_CHOICES[name])}. Records must not be edited; "
                "repeat the run"
            )
    files: dict[str, Any] = {name: _path(config.get(name)) for name in ("bed", "labels", "genome")}
    data, origin, repo = config.get("data"), record.data.get("origin"), record.data.get("repo")
    if place != DataPlace():
        data, files = place.data, {"bed": place.bed, "labels": place.labels, "genome": place.genome}
    elif origin == "sample" and data is None:
        data = "sample"
    elif origin == "hub" and isinstance(repo, str):
        data = f"hub:{repo.split('/')[0]}"
    declared = [str(name) for name in _list(config.get("task")) if names_file(str(name))]
    own = files["bed"] is not None and not config.get("task")
    return DataConfig(
        task=() if own else tuple(declared) or (record.task,),
        data=data,  # type: ignore[arg-type]  # text, as the run took it
        protocol=record.protocol,  # type: ignore[arg-type]  # checked when the record was read
        **files,
        **values,  # type: ignore[arg-type]  # as the run took them
    )


def _opened(record: ResultRecord, config: DataConfig, opened: Opened) -> TaskData:
    """Open the data of a record, with its limit and metrics; data that are open already are not read again."""
    key = (config, record.task)
    if key not in opened:
        openers = task_openers(config)
        if record.task not in openers:
            raise ConfigError(
                f"the data hold {', '.join(openers)}, but the record is of {record.task}; give --data its data"
            )
        opened[key] = openers[record.task]()
    stated, metrics = record.config.get("limit"), tuple(str(name) for name in _list(record.config.get("metric")))
    limit = stated if isinstance(stated, int) else None
    if (*key, limit, metrics) not in opened:
        opened[*key, limit, metrics] = with_metrics(limited(opened[key], limit), metrics)
    return opened[*key, limit, metrics]


def _path(value: Json) -> Path | None:
    return Path(value) if isinstance(value, str) else None


def _variant_files(record: ResultRecord, place: DataPlace) -> tuple[Path, Path]:
    file, genome = place.bed or _path(record.config["file"]), place.genome or _path(record.config.get("genome"))
    for path, flag in ((file, "--bed"), (genome, "--genome")):
        if path is None or not path.is_file():
            raise RecordError(f"{path} of the run does not exist; give {flag} the file")
    return Path(str(file)), Path(str(genome))


def _file_facts(record: ResultRecord, place: DataPlace | None = None) -> dict[str, Json]:
    file, genome = _variant_files(record, place or DataPlace())
    named = {"variants": file, "genome": genome}
    return {"files": {name: {"name": path.name, "sha256": file_sha256(path)} for name, path in named.items()}}


def _wrong_variant_file(record: ResultRecord, predictions: Predictions, place: DataPlace) -> Iterator[str]:
    """Compare a scored file of variants with the file."""
    file, genome = _variant_files(record, place)
    facts = _file_facts(record, place)
    yield from unequal(
        {name: member(record.data, "files", name, "sha256") for name in ("variants", "genome")},
        {name: member(facts, "files", name, "sha256") for name in ("variants", "genome")},
        "data.files",
    )
    config = {name: record.config.get(name) for name in ("ref_mismatch", "indels", "label_column")}
    found = read_variants(file, genome, ReadSettings(**config))  # type: ignore[arg-type]  # as the run took them
    yield from unequal(record.data.get("changes"), found.counts.facts(), "data.changes")
    columns = found.place_columns()
    known = Predictions(
        item=found.item,
        windows=np.arange(len(found) + 1),
        target=found.label,
        score=None,
        predicted=None,
        label_names=found.label_names,
        columns=columns,
    )
    rows = pa.table({"item": found.item, **columns})
    items = DatasetItems(
        item=known.item, table=rows, target=known.target, windows=known.windows, places=known.places, keys=known.keys
    )
    yield from wrong_items(predictions, [items])
    yield from unequal(record.data.get("identity"), {"test": known.item_sha256}, "data.identity")
    yield from _wrong_file_key(record, facts)


def _wrong_file_key(record: ResultRecord, facts: dict[str, Json]) -> Iterator[str]:
    """Compute the hash of everything that affects the scores of a file of variants again."""
    stated, identity = record.config.get(KEY_FIELD), record.model.get("identity")
    if stated is None or not isinstance(identity, dict) or not _is_of_this_release(record):
        return
    found = variant_file_key(
        {name: record.config[name] for name in settings_in_key(VariantRun) & record.config.keys()},
        task=record.task,
        files={kind: str(member(facts, "files", kind, "sha256")) for kind in ("variants", "genome")},
        identity={name: str(value) for name, value in identity.items()},
    )
    if found != stated:
        yield _other_key(stated, found)


def _other_key(stated: Json, found: str) -> str:
    return (
        f"config.{KEY_FIELD} is {str(stated)[:12]}, but {found[:12]} is that of the stated settings, seed, protocol, "
        "head, model and data"
    )
