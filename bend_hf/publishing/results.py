"""Records gathered into entries: what one model scored on one task under one protocol, over its seeds.

Cards and tables start from entries. Two records are of one entry only if nothing but the seed tells them apart; of
two with the same seed the later one counts.

>>> gather([])
[]
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bend_hf.config import RunConfig, flags_of, settings_in_key
from bend_hf.errors import RecordError
from bend_hf.evaluation.record import ResultRecord, member
from bend_hf.evaluation.run_key import KEY_FIELD
from bend_hf.files import json_sha256
from bend_hf.publishing.publishable import refusals
from bend_hf.types import Json


def not_settings(config: type[RunConfig] = RunConfig) -> frozenset[str]:
    """Return the fields of a recorded configuration that do not separate two groups of records.

    What the data, the model and the head are is recorded by content, and a group holds records of several seeds.
    """
    return frozenset(flags_of(config)) - settings_in_key(config) | {"seed", KEY_FIELD}


@dataclass(frozen=True, kw_only=True)
class ResultGroup:
    """One model on one task.

    Attributes:
        task: Task key.
        protocol: ``bend-2024`` or ``bend-hf-1``.
        data_id: Hash of what was to be scored: the files and the number of items.
        model: What the model is called, with what sets it apart: ``dnabert2, layer 6``.
        family: Its architecture.
        probe: Kind of the head, or ``zero_shot``.
        metric: The main metric.
        value: Its mean over the seeds; None where it is not defined.
        low: Lower end of the interval; over several seeds the lowest of theirs. None where there is none.
        high: Upper end.
        interval_method: How the interval was made; empty where there is none.
        records: One a seed, by seed.
        refusals: Why it must not be published as a score of BEND.
    """

    task: str
    protocol: str
    data_id: str
    model: str
    family: str
    probe: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    interval_method: str
    records: tuple[ResultRecord, ...]
    refusals: tuple[str, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of its records."""
        return tuple(_seed(record) for record in self.records)

    @property
    def origin(self) -> str:
        """Where the data came from."""
        return str(self.records[0].data.get("origin"))

    @property
    def is_control(self) -> bool:
        """Whether it is what needs no model."""
        return self.records[0].is_control

    @property
    def n_parameters(self) -> int | None:
        """Weights of the model."""
        count = self.records[0].model.get("n_parameters")
        return count if isinstance(count, int) else None

    @property
    def seconds(self) -> float | None:
        """Mean time of a run."""
        found = [member(record.cost, "seconds") for record in self.records]
        known = [float(value) for value in found if isinstance(value, int | float)]
        return sum(known) / len(known) if known else None

    @property
    def controls(self) -> dict[str, float | None]:
        """The main metric of each control, of the first record that holds it."""
        found: dict[str, float | None] = {}
        for record in self.records:
            for name in record.controls:
                value = member(record.controls, name, "metrics", self.metric, "value")
                found.setdefault(name, value if isinstance(value, int | float) else None)
        return found


def gather(records: Sequence[ResultRecord]) -> list[ResultGroup]:
    """Entries of records, ordered by task, protocol, data, model and probe."""
    groups: dict[tuple[str, ...], list[ResultRecord]] = defaultdict(list)
    for record in records:
        groups[_key(record)].append(record)
    entries = [_entry(group) for group in groups.values()]
    return sorted(
        entries, key=lambda e: (e.task, e.protocol, e.data_id, e.model, e.probe, e.records[0].created_at or "")
    )


def of_model(records: Sequence[ResultRecord], model: str | None) -> list[ResultRecord]:
    """The records of one model, by the name that cards and reports give it; of all models where none is asked for.

    Records of controls are of no model.

    Raises:
        RecordError: There is none of it.
    """
    models = [record for record in records if not record.is_control]
    found = [record for record in models if model is None or model_label(record) == model]
    if not found:
        known = sorted({model_label(record) for record in models})
        raise RecordError(f"--model {model!r}: no record of it; there are {', '.join(known)}")
    return found


def data_id(record: ResultRecord) -> str:
    """Twelve hexadecimal digits that two records share if they are of the same items of the same files."""
    changes = record.data.get("changes")
    counts = {name: n for name, n in changes.items() if isinstance(n, int)} if isinstance(changes, dict) else {}
    said: Json = [
        record.data.get("origin") == "sample",
        record.data.get("files"),
        dict(counts),
        record.coverage.get("items"),
    ]
    return json_sha256(said)[:12]


def model_label(record: ResultRecord) -> str:
    """The model's name, with what sets this use of it apart."""
    model = record.model
    label = str(model.get("model"))
    if record.is_control:
        return label
    further = []
    if record.config.get("checkpoint"):
        further.append("own weights")
    if model.get("random_init"):
        further.append("random weights")
    if model.get("layer") not in (None, -1):
        further.append(f"layer {model['layer']}")
    if model.get("dtype") not in (None, "float32"):
        further.append(str(model["dtype"]))
    if model.get("reverse_complement_average"):
        further.append("both strands averaged")
    return ", ".join([label, *further])


def _key(record: ResultRecord) -> tuple[str, ...]:
    skipped = not_settings()
    settings = {name: value for name, value in record.config.items() if name not in skipped}
    return (
        record.task,
        record.protocol,
        data_id(record),
        json_sha256(dict(record.model)),
        record.probe,
        record.main_metric,
        json_sha256(settings),
        json_sha256(member(record.training, "head")),
    )


def _seed(record: ResultRecord) -> int:
    seed = record.config.get("seed")
    return seed if isinstance(seed, int) else 0


def _entry(group: Sequence[ResultRecord]) -> ResultGroup:
    latest = {_seed(record): record for record in sorted(group, key=lambda record: record.created_at or "")}
    records = tuple(latest[seed] for seed in sorted(latest))
    first = records[0]
    values = [record.value for record in records]
    defined = [value for value in values if value is not None]
    intervals = [member(record.metrics, first.main_metric, "interval") for record in records]
    lows, highs = ([_number(member(i, end)) for i in intervals] for end in ("low", "high"))
    bounded = [low for low in lows if low is not None], [high for high in highs if high is not None]
    whole = len(bounded[0]) == len(bounded[1]) == len(records)
    method = str(member(intervals[0], "method")) if whole else ""
    level = member(intervals[0], "level")
    if whole and isinstance(level, int | float):
        method = f"{100 * level:g} %, {method}" + (", the widest ends over the seeds" if len(records) > 1 else "")
    return ResultGroup(
        task=first.task,
        protocol=first.protocol,
        data_id=data_id(first),
        model=model_label(first),
        family=str(first.model.get("family") or "unknown"),
        probe=first.probe,
        metric=first.main_metric,
        value=sum(defined) / len(defined) if len(defined) == len(values) else None,
        low=min(bounded[0]) if whole else None,
        high=max(bounded[1]) if whole else None,
        interval_method=method,
        records=records,
        refusals=tuple(dict.fromkeys(reason for record in records for reason in refusals(record))),
    )


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
