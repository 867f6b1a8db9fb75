"""Compute again what a record says besides scores and items, and compare: nothing is trained and no model is loaded.

``verify.py`` compares scores, intervals, items and settings. This file compares the rest: calibration, parts, label
noise and chance; the audit; the budget of each training; facts of the model; the files of weights and of further heads;
and the controls. What nothing at hand can give again is listed in ``NOT_RECOMPUTED``, with its reason.

>>> reason_for("cost.seconds")
'measured during the run'
>>> reason_for("diagnostics.calibration.ece") is None
True
"""

from __future__ import annotations

import glob
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from bend_hf.config import ALL_SHOTS, RunConfig, flags_of
from bend_hf.data.dataset import TaskData
from bend_hf.data.shots import ShotRows, unit_of
from bend_hf.embedders import MODELS
from bend_hf.errors import BendError
from bend_hf.evaluation.audit.task_audit import audit_for_record
from bend_hf.evaluation.chance import is_labeled, with_chance
from bend_hf.evaluation.diagnostics import diagnostics_of, distance_to_training
from bend_hf.evaluation.evidence import has_earlier_intervals, unequal, without_intervals
from bend_hf.evaluation.metrics import metric_names
from bend_hf.evaluation.predictions import Predictions, read_predictions
from bend_hf.evaluation.record import ResultRecord, jsonable, member, read_record
from bend_hf.evaluation.remarks import FEW_STEPS
from bend_hf.evaluation.shots import ShotHeads
from bend_hf.evaluation.strands import BothStrands
from bend_hf.evaluation.uncertainty.bootstrap import folds_of
from bend_hf.files import file_sha256
from bend_hf.runs.controls import CONTROLS
from bend_hf.runs.decode_genes import ARGMAX
from bend_hf.runs.few_shots import facts_of, shot_heads_next_to
from bend_hf.runs.shot_curve import against_controls, point_of
from bend_hf.runs.strand_report import AVERAGE, OTHER_STRAND, entry_of_heads, entry_of_variants
from bend_hf.tasks._spec import Head, HeadSetting
from bend_hf.training.recipe import search_entry, steps_per_epoch, trials_of
from bend_hf.types import Json
from bend_hf.variants.config import VariantRun

_AS_ASKED: Final = "says what was asked for; the hashes of data and model stand in its place"
_WITHOUT_EFFECT: Final = "changes no number"

# Places of a record that nothing at hand gives again, as patterns of dotted paths, and why.
NOT_RECOMPUTED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "cost.*": "measured during the run",
        "created_at": "measured during the run",
        "created_with.*": "measured during the run",
        "training.runs.*.resumed_at_step": "measured during the run",
        "training.runs.*.history.*.seconds": "measured during the run",
        "training.runs.*.history.*.loss": "only another training gives it",
        "training.runs.*.history.*.validation": "only another training gives it",
        "training.runs.*.trials.*.validation": "only another training gives it",
        "training.runs.*.trials.*.best_epoch": "only another training gives it",
        "training.runs.*.decoding.*": "only another training gives it",
        "metrics.*.detail.no_likelihood": "only the model gives it",
        "metrics.*.detail.short_context": "only the model gives it",
        "data.changes.short_context": "only the model gives it",
        "model.n_parameters": "only the model gives it",
        "model.revision": _AS_ASKED,
        "alignment.*": "only the model gives it",
        "shots.points.*.steps": "only another training gives it",
        "shots.points.*.best_epochs.*": "only another training gives it",
        "shots.points.*.chosen.*": "only another training gives it",
        "shots.points.*.validation_rows": "only another training gives it",
        "shots.asked.*": _AS_ASKED,
        "strands.correlation": "only the model gives it, if classes are predicted",
        "strands.per_label.correlation.*": "only the model gives it, if classes are predicted",
    }
)


def reason_for(place: str) -> str | None:
    """Return why a place of a record cannot be computed again; None if it can.

    Args:
        place: Dotted path, such as ``cost.seconds``.
    """
    room, _, name = place.partition(".")
    info = {**flags_of(VariantRun), **flags_of(RunConfig)}.get(name.partition(".")[0]) if room == "config" else None
    if info is not None and (info.by_content or info.affects != "scores"):
        return _AS_ASKED if info.by_content else _WITHOUT_EFFECT
    return next((reason for pattern, reason in NOT_RECOMPUTED.items() if fnmatchcase(place, pattern)), None)


def not_recomputed_in_words() -> str:
    """Say in one line for each reason which places ``bend-hf verify`` takes as they are."""
    by_reason: dict[str, list[str]] = {}
    for place in (*NOT_RECOMPUTED, *(f"config.{name}" for name in flags_of(RunConfig))):
        reason = reason_for(place)
        if reason is not None:
            by_reason.setdefault(reason, []).append(place.removesuffix(".*"))
    return "\n".join(f"{', '.join(places)}: {reason}" for reason, places in by_reason.items())


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A record with what it is checked against.

    Attributes:
        path: The file of the record.
        record: Its content.
        predictions: Its predictions.
        unchecked: Receives what cannot be checked, in words.
    """

    path: Path
    record: ResultRecord
    predictions: Predictions
    unchecked: list[str]

    @property
    def folds(self) -> list[int | None]:
        """The folds of the predictions; a single None if there are none."""
        if "fold" not in self.predictions.columns:
            return [None]
        return [int(fold) for fold in np.unique(folds_of(self.predictions))]

    @property
    def is_model(self) -> bool:
        """Whether the record is of a model whose identity it holds."""
        return not self.record.is_control and isinstance(self.record.model.get("identity"), dict)


def wrong_by_predictions(checked: Checked) -> Iterator[str]:
    """Compare what the predictions and the files next to a record give: all but its scores and what needs the data.

    Args:
        checked: The record.
    """
    yield from _wrong_chance(checked)
    yield from _wrong_diagnostics(checked, None)
    yield from _wrong_model(checked)
    yield from _wrong_kept(checked)
    yield from _wrong_heads(checked)
    yield from _wrong_strands(checked)
    yield from _wrong_shots(checked)
    yield from _wrong_controls(checked)


def wrong_by_data(
    checked: Checked, data: TaskData, *, head: Head | None, searched: Mapping[str, Sequence[HeadSetting]]
) -> Iterator[str]:
    """Compare what needs the data of a run: scores by distance, the budget of its trainings, and the audit.

    Args:
        checked: The record.
        data: The data of the run.
        head: The head of the run; None if nothing was trained.
        searched: What was searched, by name.
    """
    if is_labeled(checked.predictions):
        yield from _wrong_diagnostics(checked, data)
    yield from _wrong_training(checked, data, head, searched)
    yield from _wrong_subsets(checked, data)


def wrong_audit(checked: Checked, data: TaskData) -> Iterator[str]:
    """Audit the data again as for a record, and compare.

    Args:
        checked: The record.
        data: The data of the run.
    """
    stated, found = checked.record.data.get("audit"), audit_for_record(data)
    if not isinstance(stated, dict):
        checked.unchecked.append("the audit of the data, which the record does not hold")
    elif "left_out" in found and "left_out" not in stated:
        checked.unchecked.append(f"the audit of the data: {found['left_out']}")
    elif "left_out" in stated and "left_out" not in found:
        checked.unchecked.append(f"the audit of the data, which was left out: {stated['left_out']}")
    else:
        yield from unequal(stated, found, "data.audit")


# Scores


def _wrong_chance(checked: Checked) -> Iterator[str]:
    """Compare chance and its description; earlier records hold neither."""
    record = checked.record
    if not is_labeled(checked.predictions):
        return
    found = with_chance(_main_first(record), checked.predictions)
    for name, entry in record.metrics.items():
        for part in ("chance", "below_chance"):
            if isinstance(entry, dict) and part in entry:
                yield from unequal(entry[part], member(found, name, part), f"metrics.{name}.{part}")


def _main_first(record: ResultRecord) -> dict[str, Json]:
    main = {record.main_metric: record.metrics[record.main_metric]} if record.main_metric in record.metrics else {}
    return {**main, **record.metrics}


def _wrong_diagnostics(checked: Checked, data: TaskData | None) -> Iterator[str]:
    """Compute calibration, scores of parts and label noise again; with data, the scores by distance only."""
    record, predictions = checked.record, checked.predictions
    if record.diagnostics is None:
        if is_labeled(predictions):
            checked.unchecked.append("calibration, parts and label noise, which the record does not hold")
        return
    if record.main_metric not in metric_names(plugins=False):
        checked.unchecked.append(f"scores of parts, as the code of {record.main_metric} is not run")
        return
    distances = None if data is None else distance_to_training(data, checked.folds)
    if distances is not None:
        unknown = predictions.item[~np.isin(predictions.item, distances[0])]
        if len(unknown):
            yield f"item {int(unknown[0])} of the predictions is not a tested row of the data"
            return
    per_label = member(record.metrics, record.main_metric, "detail", "per_label")
    found = diagnostics_of(
        predictions,
        record.main_metric,
        probabilities=_gives_probabilities(record),
        distance_bp=distances,
        per_label=per_label if isinstance(per_label, list) else [],
    )
    earlier = has_earlier_intervals(record)  # verify says so
    for name in found:
        if (name == "by_distance") == (data is not None):
            computed = without_intervals(found[name]) if earlier else found[name]
            yield from unequal(record.diagnostics.get(name), computed, f"diagnostics.{name}")


def _gives_probabilities(record: ResultRecord) -> bool:
    if record.training is None:
        return False
    return record.is_control or member(record.training, "loss", "loss") == "bce"


# Trainings


def _wrong_training(
    checked: Checked, data: TaskData, head: Head | None, searched: Mapping[str, Sequence[HeadSetting]]
) -> Iterator[str]:
    """Compare the loss, the search and the budget of each training with the data and the settings."""
    training, record = checked.record.training, checked.record
    if record.is_control:
        yield from _wrong_control_training(checked)
        return
    if training is None or head is None:
        if training is None and head is not None:
            yield f"training is null, but {record.task} trains a head"
        if training is not None and head is None:
            yield f"training is not null, but {record.task} is scored without a head"
        return
    tune = str(record.config.get("tune") or "head")
    search = search_entry(searched, metric=str(data.task.metric), protocol=record.protocol, tune=tune)  # type: ignore[arg-type]  # checked when the record was read
    yield from _unequal_if_held(checked, training, {"loss": jsonable(data.task.training), "search": search}, "training")
    runs = training.get("runs")
    if not isinstance(runs, list) or len(runs) != len(checked.folds):
        yield f"training.runs holds other trainings than the {len(checked.folds)} of the predictions"
        return
    rate = record.config.get("learning_rate")
    trials = trials_of(head, searched, float(rate) if isinstance(rate, int | float) else None)
    for index, (run, fold) in enumerate(zip(runs, checked.folds, strict=True)):
        where = f"training.runs[{index}]"
        yield from _wrong_budget(checked, run, len(data.splits(fold)["train"]), where)
        yield from unequal(member(run, "fold"), fold, f"{where}.fold")
        best = _highest(_list(member(run, "trials"))) if len(trials) > 1 else 0
        if best >= len(trials):
            yield f"{where}.trials holds more trials than the {len(trials)} of the search"
            continue
        yield from _unequal_if_held(checked, run, {"learning_rate": trials[best].learning_rate}, where)
        if len(trials) > 1:
            yield from _wrong_trials(run, [one.chosen for one in trials], best, where)


def _wrong_budget(checked: Checked, run: Json, n_rows: int, where: str) -> Iterator[str]:
    """Compare rows, epochs, steps and the best epoch of a training with its data, settings and history."""
    history, config = _list(member(run, "history")), checked.record.config
    size, accumulation = _whole(config.get("batch_size")), _whole(config.get("gradient_accumulation"))
    epochs = _whole(config.get("epochs"))
    if not history or size is None or epochs is None:
        checked.unchecked.append(f"{where}, which holds no history")
        return
    steps = steps_per_epoch(n_rows, batch_size=size, accumulation=accumulation or 1) * len(history)
    found: dict[str, Json] = {
        "rows": n_rows,
        "batch_size": size,
        "epochs": len(history),
        "steps": steps,
        "few_steps": steps < FEW_STEPS,
        "best_epoch": _best_epoch(history),
    }
    yield from _unequal_if_held(checked, run, found, where)
    if len(history) > epochs or (len(history) < epochs and config.get("patience") is None):
        yield f"{where}.history holds {len(history)} epochs, but config.epochs is {epochs}"
    numbered: list[Json] = [{"kind": "Epoch", "epoch": number} for number in range(1, len(history) + 1)]
    yield from unequal(history, numbered, f"{where}.history")


def _wrong_trials(run: Json, chosen: Sequence[Mapping[str, HeadSetting]], best: int, where: str) -> Iterator[str]:
    """Compare the trials of a search with what was searched, and the head that was kept with the best of them."""
    trials, history = _list(member(run, "trials")), _list(member(run, "history"))
    settings: list[Json] = [dict(one) for one in chosen]
    yield from unequal(trials, settings, f"{where}.trials")
    yield from unequal(member(run, "chosen"), settings[best], f"{where}.chosen")
    if len(trials) == len(settings) and history:
        highest = history[_highest(history)]
        found = {"validation": member(highest, "validation"), "best_epoch": member(run, "best_epoch")}
        yield from unequal(trials[best], found, f"{where}.trials[{best}]")


def _highest(entries: Sequence[Json]) -> int:
    """The place of the epoch or trial with the highest validation metric, the first of equals."""
    return int(np.argmax([_number(member(one, "validation")) for one in entries] or [0]))


def _best_epoch(history: Sequence[Json]) -> int:
    """The epoch with the highest validation metric; the last one if it was never defined."""
    best = _highest(history)
    return best + 1 if _number(member(history[best], "validation")) > -math.inf else len(history)


def _wrong_control_training(checked: Checked) -> Iterator[str]:
    """Compare what a control declares; it is not fitted again."""
    record, key = checked.record, str(checked.record.model.get("model"))
    if key not in CONTROLS.names() or record.training is None:
        return
    control = CONTROLS.get(key)
    declared: dict[str, Json] = {"head": {"kind": control.head}, "loss": None, "search": dict(control.search) or None}
    yield from _unequal_if_held(checked, record.training, declared, "training")
    checked.unchecked.append(f"what the control {key} learned, as it is not fitted again")


# The model and the files next to the record


def _wrong_model(checked: Checked) -> Iterator[str]:
    """Compare facts of the model with its identity and with the declaration of its registry entry."""
    from bend_hf.embedders._loaded_model import content_facts

    record, identity = checked.record, checked.record.model.get("identity")
    if not checked.is_model or not isinstance(identity, dict):
        return
    stated = {name: str(value) for name, value in record.model.items()}
    for name in ("protocol", "layer", "dtype", "reverse_complement_average"):
        if name in identity and stated.get(name) != identity[name]:
            yield f"model.{name} is {stated.get(name)}, but {identity[name]} in model.identity"
    texts = {name: str(value) for name, value in identity.items()}
    is_random = texts.get("weights", "").startswith("random")
    facts: dict[str, Json] = {"random_init": is_random}
    if {"weights", "configuration"} <= texts.keys():
        facts |= content_facts(texts)
    if texts.get("key") in MODELS.names():
        facts |= _declared_facts(texts["key"], record, is_random=is_random)
    for name, value in facts.items():
        yield from unequal(record.model.get(name), value, f"model.{name}")


def _declared_facts(key: str, record: ResultRecord, *, is_random: bool) -> dict[str, Json]:
    """What the registry says of a model, as records hold it; origin and width only of the declared checkpoint."""
    spec = MODELS.get(key)
    published = bool(spec.checkpoint) and record.model.get("checkpoint") == spec.checkpoint
    cited = spec if published and not is_random else None
    facts: dict[str, Json] = {
        "family": spec.family,
        "context_tokens": spec.context_tokens,
        "tokenization": spec.tokenization,
        "direction": spec.direction,
        "training_data": cited.training_data if cited else None,
        "license": cited.license if cited else None,
        "paper": cited.paper if cited else None,
    }
    if spec.source == "none":
        facts["checkpoint"] = ""
    if (published or spec.source == "none") and record.model.get("layer") == -1:
        facts["width"] = spec.width  # earlier layers may have another one
    return facts


def _wrong_kept(checked: Checked) -> Iterator[str]:
    """Compare the file of trained weights with what the record says of it."""
    from bend_hf.training.kept_head import read_config

    record, kept = checked.record, checked.record.kept or {}
    name = kept.get("file")
    if not isinstance(name, str):
        return
    predicted = str(record.predictions.get("file"))
    if Path(name).stem != Path(predicted).stem:
        yield f"kept.file is {name}, but predictions.file is {predicted}; expected the same name"
    file = checked.path.with_name(name)
    if not file.is_file():
        checked.unchecked.append("the trained weights, which are not next to the record")
        return
    found: dict[str, Json] = {"sha256": file_sha256(file), "bytes": file.stat().st_size}
    yield from unequal(kept, found, "kept")
    if kept.get("sha256") != found["sha256"]:
        return  # another file, whose header says nothing about this record
    try:
        header = read_config(file)
    except BendError as error:
        yield str(error)
        return
    yield from unequal(kept, {"kept": header.kept, "epoch": header.epoch, "fold": header.fold}, "kept")
    yield from unequal(record.config.get("seed"), header.seed, "config.seed")
    if record.config.get("tune") in (None, "head"):
        yield from unequal(record.model.get("width"), header.width, "model.width")
    for index, run in enumerate(_list(member(record.training, "runs"))):
        if header.kept == "best" and member(run, "fold") == header.fold:
            yield from unequal(member(run, "best_epoch"), header.epoch, f"training.runs[{index}].best_epoch")


def _wrong_heads(checked: Checked) -> Iterator[str]:
    """Score the further heads on variants again, from their predictions."""
    from bend_hf.variants.supervised_head import HEAD_KINDS, VariantHeadSettings, heads_detail

    record = checked.record
    further = record.predictions.get("further")
    predictions: dict[str, Predictions] = {}
    for name, entry in further.items() if isinstance(further, dict) else ():
        file = checked.path.with_name(str(member(entry, "file")))
        if not file.is_file():
            checked.unchecked.append(f"{file.name}, which is not next to the record")
            return
        predictions[name] = read_predictions(file)
        yield from unequal(member(entry, "items"), len(predictions[name]), f"predictions.further.{name}.items")
    stated, seed = member(record.metrics, record.main_metric, "detail", "probe"), _whole(record.config.get("seed"))
    of_heads: dict[str, Predictions] = {kind: predictions[kind] for kind in HEAD_KINDS if kind in predictions}
    if of_heads and isinstance(stated, dict):
        found = heads_detail(of_heads, VariantHeadSettings(seed=seed or 0))
        held = {name: value for name, value in found.items() if name in stated}
        yield from unequal(stated, held, f"metrics.{record.main_metric}.detail.probe")


def _wrong_strands(checked: Checked) -> Iterator[str]:
    """Compute the report on both strands again, from the predictions of the other strand and the average."""
    record = checked.record
    if record.strands is None:
        return
    forward = checked.predictions
    found: dict[str, Predictions] = {}
    names = [OTHER_STRAND, AVERAGE]
    if member(record.predictions, "further", ARGMAX) is not None:
        names.append(ARGMAX)  # the grammar decodes one strand
    for name in names:
        file = checked.path.with_name(str(member(record.predictions, "further", name, "file")))
        if not file.is_file():
            checked.unchecked.append(f"the report on both strands, as {file.name} is not next to the record")
            return
        found[name] = read_predictions(file)
        if found[name].item_sha256 != forward.item_sha256:
            yield f"{file.name} holds other items than the predictions of the record"
            return
    forward, reverse, average = found.get(ARGMAX, forward), found[OTHER_STRAND], found[AVERAGE]
    metrics = [name for name in record.metrics if name in metric_names(plugins=False)]
    if not metrics or metrics[0] != record.main_metric:
        checked.unchecked.append("the report on both strands, as the code of its metric is not run")
        return
    if record.training is None:
        again = entry_of_variants(forward, reverse, average, metrics)
    else:
        both = BothStrands(forward=forward, reverse=reverse)
        again = entry_of_heads(both, average, metrics, probabilities=_gives_probabilities(record))
    yield from unequal(record.strands, again, "strands")
    if forward.score is not None and reverse.score is not None and average.score is not None:
        mean = BothStrands(forward=forward, reverse=reverse).average().values
        if not np.allclose(mean, average.score, atol=1e-6, equal_nan=True):
            yield "the average of both strands is not the mean of their predictions"


def _wrong_shots(checked: Checked) -> Iterator[str]:
    """Compute the curve over few rows again, and its comparison with the controls whose files are next to it."""
    record = checked.record
    if record.shots is None:
        return
    heads = shot_heads_next_to(record, checked.path)
    if heads is None:
        checked.unchecked.append("the curve over few rows, whose predictions are not next to the record")
        return
    metric = str(record.shots.get("metric"))
    if metric != record.main_metric or metric not in metric_names(plugins=False):
        checked.unchecked.append("the curve over few rows, as the code of its metric is not run")
        return
    if heads.full.item_sha256 != checked.predictions.item_sha256 or not np.array_equal(
        heads.full.values, checked.predictions.values
    ):
        yield "the predictions of the curve are not those of the record at all shots"
        return
    seed, asked = _whole(record.config.get("seed")) or 0, _list(record.shots.get("asked"))
    found: list[Json] = [point_of(shots, seeds, metric) for shots, seeds in heads.few.items()]
    if ALL_SHOTS in asked:
        found.append(point_of(ALL_SHOTS, {seed: heads.full}, metric))
    yield from unequal(record.shots.get("points"), found, "shots.points")
    yield from _wrong_comparison(checked, heads, metric)


def _wrong_comparison(checked: Checked, heads: ShotHeads, metric: str) -> Iterator[str]:
    """Compare a curve with those of the controls again."""
    record, others, controls = checked.record, _Others(checked.path), dict[str, ShotHeads]()
    for key in record.controls:
        if member(record.controls, key, "shots") is None:
            continue
        for path, one in others.of_control(key, record).items() if key in CONTROLS.names() else ():
            if (of_control := shot_heads_next_to(one, path)) is not None:
                controls[key] = of_control
        if key not in controls:
            checked.unchecked.append(f"the comparison of the curve with {key}, whose files are not next to the record")
            return
    stated = member(record.shots, "against_controls")
    if controls:
        yield from unequal(stated, against_controls(heads, controls, metric), "shots.against_controls")
    elif stated is not None:
        yield "shots.against_controls is not null, but the record holds no control on few rows"


def _wrong_subsets(checked: Checked, data: TaskData) -> Iterator[str]:
    """Draw the rows of each subset again."""
    if checked.record.shots is None:
        return
    yield from unequal(checked.record.shots.get("unit"), unit_of(data.task.label), "shots.unit")
    trains = [data.splits(fold)["train"] for fold in checked.folds]
    for index, point in enumerate(_list(checked.record.shots.get("points"))):
        shots, where = str(member(point, "shots")), f"shots.points[{index}]"
        if shots == ALL_SHOTS:
            yield from unequal(member(point, "rows"), len(trains[0]), f"{where}.rows")
            continue
        seeds = [seed for seed in _list(member(point, "seeds")) if isinstance(seed, int)]
        if not seeds or not shots.isdigit():
            yield f"{where} names no seed, or {shots!r} shots"
            continue
        drawn = [
            facts_of(train, [ShotRows.of(train, data.task.label, seed).rows(shots) for seed in seeds])
            for train in trains
        ]
        yield from unequal(member(point, "rows"), drawn[0]["rows"], f"{where}.rows")
        hashes = [one for facts in drawn for one in _list(facts["subsets"])]
        yield from unequal(member(point, "subsets"), hashes, f"{where}.subsets")


def _wrong_controls(checked: Checked) -> Iterator[str]:
    """Compare the scores of each control with the record of the control, which lies next to that of the model."""
    record, others = checked.record, _Others(checked.path)
    for key, entry in record.controls.items():
        if key not in CONTROLS.names():
            checked.unchecked.append(f"the control {key}, which is not one of this package")
            continue
        yield from unequal(member(entry, "description"), CONTROLS.get(key).text, f"controls.{key}.description")
        found = others.of_control(key, record)
        if not found:
            checked.unchecked.append(f"the control {key}, whose record is not next to it")
            continue
        wrong = [list(_differences(entry, one, f"controls.{key}")) for one in found.values()]
        if all(wrong):
            yield from wrong[-1]


def _differences(entry: Json, control: ResultRecord, where: str) -> Iterator[str]:
    """Compare what a record says of a control with the record of the control."""
    yield from unequal(member(entry, "metrics"), control.metrics, f"{where}.metrics")
    if (points := member(entry, "shots")) is not None:
        yield from unequal(points, member(control.shots, "points"), f"{where}.shots")


@dataclass(frozen=True)
class _Others:
    """The records in the folder of a record."""

    path: Path

    def of_control(self, key: str, record: ResultRecord) -> dict[Path, ResultRecord]:
        """The records of a control on the items of a record, with its seed, by path; the last was written last."""
        model, random_init = key, None  # a control without a model has no weights, whatever its settings say
        declared = CONTROLS.get(key).model
        if declared is not None:
            named = RunConfig(task=(record.task,), model=str(record.config.get("model")))
            config = declared(named)
            model, random_init = (key, None) if config is None else (config.model, config.random_init)
        found: dict[Path, ResultRecord] = {}
        for path in sorted(self.path.parent.glob(f"{glob.escape(record.task)}__*.json")):
            if path == self.path:
                continue
            try:
                one = read_record(path)
            except BendError:
                continue  # not a record, or one of a later release
            same = one.config.get("seed") == record.config.get("seed") and one.protocol == record.protocol
            items = one.coverage.get("item_sha256") == record.coverage.get("item_sha256")
            weights = random_init is None or bool(one.config.get("random_init")) == random_init
            if same and items and weights and one.config.get("model") == model:
                found[path] = one
        return found


def _unequal_if_held(checked: Checked, stated: Json, found: Mapping[str, Json], where: str) -> Iterator[str]:
    """Compare the entries that a record holds; earlier records lack some."""
    held = dict(stated) if isinstance(stated, dict) else {}
    for name, value in found.items():
        if name in held:
            yield from unequal(held[name], value, f"{where}.{name}")
        else:
            checked.unchecked.append(f"{where}.{name}, which the record does not hold")


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _whole(value: Json) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Json) -> float:
    """Return a number, or minus infinity for anything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else -math.inf
