"""Group result records into results: the score of one model on one task under one protocol, over its seeds.

Cards, leaderboards and reports start from a `ResultGroup`. Two records belong to one group if they differ in nothing
but the seed. Of two records with the same seed, the later one counts.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from statistics import NormalDist, fmean, variance
from typing import Final

from bend_hf.config import RunConfig, flags_of, settings_in_key
from bend_hf.data.sources import HUB_NAMESPACE
from bend_hf.evaluation.record import ResultRecord, jsonable, member
from bend_hf.evaluation.remarks import below_chance_text, few_steps_text, fewest_steps
from bend_hf.evaluation.run_key import KEY_FIELD
from bend_hf.evaluation.uncertainty.intervals import sum_of_variances, wilson
from bend_hf.files import json_sha256
from bend_hf.publishing.models import NamedModel, model_id, models_of
from bend_hf.publishing.publishable import reasons_not_to_publish
from bend_hf.tables import number
from bend_hf.types import Json
from bend_hf.variants.config import VariantRun

ONE_TRAINING: Final = "one training: another seed may give another score"


@cache
def not_settings(config: type[RunConfig] = RunConfig) -> frozenset[str]:
    """Names of the fields of a recorded configuration that do not separate two groups of records.

    The data, the model and the head are compared by content, and a group holds records of several seeds.
    """
    skipped = {name for kind in (config, VariantRun) for name in set(flags_of(kind)) - settings_in_key(kind)}
    return frozenset(skipped | {"seed", "file", KEY_FIELD})  # "file" is the path of a file of variants


@dataclass(frozen=True, kw_only=True)
class ResultGroup:
    """One model on one task over its seeds.

    Attributes:
        data_id: Hash of the scored data: its files and the number of items.
        model: Name of the model with everything that sets this use of it apart, such as ``dnabert2, layer 6``; another
            name for each model of the records that were grouped.
        head: Kind of the trained head, or ``zero_shot``.
        metric: The task's main metric.
        value: Mean of the main metric over the seeds; None if it is undefined for a seed.
        low: Lower end of the interval, over several seeds over items and trainings. None without intervals.
        high: Upper end of the interval.
        interval_method: How the interval was computed; empty without intervals.
        records: One record per seed, ordered by seed.
        reasons_not_to_publish: Why the result must not be published as a BEND score; empty if it may be.
        store: The shared store that the records were read from; empty for the user's own.
    """

    task: str
    protocol: str
    data_id: str
    model: str
    family: str
    head: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    interval_method: str
    records: tuple[ResultRecord, ...]
    reasons_not_to_publish: tuple[str, ...]
    store: str = ""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the records."""
        return tuple(_seed(record) for record in self.records)

    @property
    def chance(self) -> float | None:
        """Chance for the metric, as the first record that knows it says."""
        return next((value for value in (_chance(record) for record in self.records) if value is not None), None)

    @property
    def chance_text(self) -> str:
        """Chance with how it was determined, in words; empty if the records do not know it."""
        how = member(self.records[0].metrics, self.metric, "chance", "how")
        return "" if self.chance is None else f"{number(self.chance)} ({how})"

    @property
    def below_chance(self) -> bool:
        """Whether the whole interval, over items and trainings, lies below chance."""
        return self.chance is not None and self.high is not None and self.high < self.chance

    @property
    def n_trainings(self) -> int | None:
        """How often the model was trained; None if nothing is trained."""
        return None if self.records[0].training is None else len(self.records)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader must know next to the score: one training, few steps, a score below chance."""
        found = [ONE_TRAINING] if self.n_trainings == 1 and not self.is_control else []
        few = [n for n in map(fewest_steps, self.records) if n is not None]
        found += [few_steps_text(min(few))] if few else []
        return (*found, *([below_chance_text(self.records[0])] if self.below_chance else []))

    @property
    def origin(self) -> str:
        """Where the data came from: ``sample``, ``folder``, ``files``, ``built`` or ``hub``."""
        return str(self.records[0].data.get("origin"))

    @property
    def namespace(self) -> str:
        """Owner of the Hub dataset that was scored on; empty for the canonical datasets and for files."""
        return other_namespace(self.records[0])

    @property
    def is_control(self) -> bool:
        """Whether this is a control, which needs no pretrained model."""
        return self.records[0].is_control

    @property
    def n_parameters(self) -> int | None:
        """Number of parameters of the model, without the head."""
        count = self.records[0].model.get("n_parameters")
        return count if isinstance(count, int) else None

    @property
    def seconds(self) -> float | None:
        """Mean seconds per run."""
        found = [member(record.cost, "seconds") for record in self.records]
        known = [float(value) for value in found if isinstance(value, int | float)]
        return sum(known) / len(known) if known else None

    @property
    def is_random(self) -> bool:
        """Whether the model has random weights."""
        return bool(self.records[0].model.get("random_init"))

    @property
    def controls(self) -> dict[str, float | None]:
        """The main metric of each control, from the first record that holds it."""
        found: dict[str, float | None] = {}
        for record in self.records:
            for name in record.controls:
                value = member(record.controls, name, "metrics", self.metric, "value")
                found.setdefault(name, value if isinstance(value, int | float) else None)
        return found


def group_records(records: Sequence[ResultRecord], stores: Sequence[str] = ()) -> list[ResultGroup]:
    """Group records by everything but the seed, ordered by task, protocol, data, model and head.

    Args:
        records: The records.
        stores: The shared store of each record, empty for one's own; nothing if all are. Records of two stores are
            never seeds of one result.
    """
    models: dict[str, NamedModel] = {}
    for is_control in (False, True):
        models |= models_of([record for record in records if record.is_control is is_control])
    groups: dict[tuple[str, ...], list[ResultRecord]] = defaultdict(list)
    label_of = {}
    for record, store in zip(records, stores or [""] * len(records), strict=True):
        model = models[model_id(record)]
        key = (store, *_key(record, model))
        groups[key].append(record)
        label_of[key] = model.label
    results = [replace(_result(group, label_of[key]), store=key[0]) for key, group in groups.items()]
    return sorted(
        results, key=lambda r: (r.task, r.protocol, r.data_id, r.model, r.head, r.store, r.records[0].created_at or "")
    )


def data_id(record: ResultRecord) -> str:
    """Twelve hexadecimal digits that two records share if they score the same items of the same files."""
    changes = record.data.get("changes")
    counts = {name: n for name, n in changes.items() if isinstance(n, int)} if isinstance(changes, dict) else {}
    identity: Json = [
        record.data.get("origin") == "sample",
        record.data.get("files"),
        dict(counts),
        record.coverage.get("items"),
    ]
    return json_sha256(identity)[:12]


def other_namespace(record: ResultRecord) -> str:
    """Owner of the Hub dataset that a record was scored on; empty for the canonical datasets and for files."""
    owner = str(record.data.get("repo")).partition("/")[0] if record.data.get("origin") == "hub" else HUB_NAMESPACE
    return "" if owner == HUB_NAMESPACE else owner


def settings_of(record: ResultRecord) -> dict[str, Json]:
    """The settings that separate two groups. What a record of an earlier release lacks is at its default."""
    defaults = _defaults(VariantRun if "file" in record.config else RunConfig)
    skipped = not_settings() | {"revision"}  # the record's model says which one was used
    return {name: value for name, value in {**defaults, **record.config}.items() if name not in skipped}


@cache
def _defaults(kind: type[RunConfig] | type[VariantRun]) -> dict[str, Json]:
    decide = settings_in_key(kind)
    return {item.name: jsonable(item.default) for item in fields(kind) if item.name in decide}


def _key(record: ResultRecord, model: NamedModel) -> tuple[str, ...]:
    return (
        record.task,
        record.protocol,
        data_id(record),
        other_namespace(record),
        model.key,
        str(record.model.get("protocol")),
        record.probe,
        record.main_metric,
        json_sha256(settings_of(record)),
        json_sha256(member(record.training, "head")),
    )


def _seed(record: ResultRecord) -> int:
    seed = record.config.get("seed")
    return seed if isinstance(seed, int) else 0


def _result(group: Sequence[ResultRecord], model: str) -> ResultGroup:
    latest = {_seed(record): record for record in sorted(group, key=lambda record: record.created_at or "")}
    records = tuple(latest[seed] for seed in sorted(latest))
    first = records[0]
    values = [record.value for record in records]
    defined = [value for value in values if value is not None]
    low, high, method = _interval(records, first.main_metric)
    return ResultGroup(
        task=first.task,
        protocol=first.protocol,
        data_id=data_id(first),
        model=model,
        family=str(first.model.get("family") or "unknown"),
        head=first.probe,
        metric=first.main_metric,
        value=sum(defined) / len(defined) if len(defined) == len(values) else None,
        low=low,
        high=high,
        interval_method=method,
        records=records,
        reasons_not_to_publish=tuple(
            dict.fromkeys(reason for record in records for reason in reasons_not_to_publish(record))
        ),
    )


def _interval(records: Sequence[ResultRecord], metric: str) -> tuple[float | None, float | None, str]:
    """The interval over items and trainings and the method in words; None and no words unless every seed has one."""
    intervals = [member(record.metrics, metric, "interval") for record in records]
    ends = [(_number(member(one, "low")), _number(member(one, "high"))) for one in intervals]
    known = [(low, high) for low, high in ends if low is not None and high is not None]
    if len(known) < len(records):
        return None, None, ""
    method, level = str(member(intervals[0], "method")), _number(member(intervals[0], "level"))
    if level is None:
        return min(known)[0], max(high for _, high in known), method
    method = f"{100 * level:g} %, {method}"
    if len(records) == 1:
        mark = member(intervals[0], "mark")
        return *known[0], f"{method} ({mark})" if mark else method
    spread = spread_over_trainings(records)
    values = [value for value in (record.value for record in records) if value is not None]
    if spread is None or len(values) < len(records):
        return None, None, ""
    low, high = wilson(
        sum(values) / len(values),
        spread.variance,
        spread.degrees_of_freedom,
        metric=metric,
        level=level,
    )
    # near the ends of the range, the intervals of single seeds are wider than their standard errors say
    low, high = min(low, fmean(low for low, _ in known)), max(high, fmean(high for _, high in known))
    return low, high, f"{method} and {len(records)} seeds"


@dataclass(frozen=True, kw_only=True)
class TrainingSpread:
    """The variance of a mean score over seeds, split into its parts.

    Attributes:
        of_items: Variance over other items.
        of_trainings: Variance of the mean over other seeds.
        degrees_of_freedom: Of their sum.
    """

    of_items: float
    of_trainings: float
    degrees_of_freedom: float

    @property
    def variance(self) -> float:
        """Variance over items and seeds."""
        return self.of_items + self.of_trainings

    def as_text(self) -> str:
        """Write the two parts as standard errors.

        >>> TrainingSpread(of_items=4e-4, of_trainings=1e-4, degrees_of_freedom=9).as_text()
        'standard error 0.0200 over items, 0.0100 over seeds'
        """
        return (
            f"standard error {math.sqrt(self.of_items):.4f} over items, {math.sqrt(self.of_trainings):.4f} over seeds"
        )


def spread_over_trainings(records: Sequence[ResultRecord]) -> TrainingSpread | None:
    """Split the variance of the mean score of several seeds; None if a seed has no score or no interval."""
    values, variances, freedoms = [], [], []
    for record in records:
        interval = member(record.metrics, record.main_metric, "interval")
        low, high = _number(member(interval, "low")), _number(member(interval, "high"))
        level, error = _number(member(interval, "level")), _number(member(interval, "standard_error"))
        if record.value is None or low is None or high is None or level is None:
            return None
        if error is None:  # records of version 0.1.0 hold percentiles of resamples, without a standard error
            error = (high - low) / (2 * NormalDist().inv_cdf((1 + level) / 2))
        values.append(record.value)
        variances.append(error**2)
        freedoms.append(_number(member(interval, "degrees_of_freedom")) or float("inf"))
    n = len(values)
    if n < 2:
        return None
    of_items, of_trainings = sum(variances) / n, variance(values) / n
    freedom = sum_of_variances([of_items, of_trainings], [min(freedoms), n - 1.0])
    return TrainingSpread(of_items=of_items, of_trainings=of_trainings, degrees_of_freedom=freedom)


def _chance(record: ResultRecord) -> float | None:
    return _number(member(record.metrics, record.main_metric, "chance", "value"))


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
