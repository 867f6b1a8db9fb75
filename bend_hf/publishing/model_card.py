"""Records to a model card: what was measured and how, with intervals, controls, limits, license and citations.

The template is ``model_cards/model_card.md.jinja``, standing sentences are in ``model_cards/fields.json``; this file
takes the fields out of records. The scores stand in the card's ``model-index`` too, unless they may not be published.

>>> interval(0.75, 0.81)
'0.7500 to 0.8100'

The tables of a card that go below the main number: each class, each label, each fold, further metrics.

>>> _columns({"recall": [0.5, None], "names": ["a", "b"]}, 2)
['recall']
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bend_hf.errors import RecordError
from bend_hf.evaluation.record import ResultRecord, member
from bend_hf.files import asset_folder, write_text
from bend_hf.publishing.eval_results import DATASET_NAME, dataset_of, eval_result_files
from bend_hf.publishing.model_card_runs import run_fields, said, task_title, texts
from bend_hf.publishing.results import ResultGroup, gather
from bend_hf.tables import escaped, markdown_table, number, render
from bend_hf.tasks import TASKS
from bend_hf.types import Json

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

_COUNTS: Final = frozenset({"support", "n_positive", "n_negative", "items"})
_SKIPPED: Final = frozenset({"names", "confusion_matrix"})


def detail_tables(entry: ResultGroup, title: str) -> list[dict[str, Any]]:
    """The tables of an entry, of its first seed.

    Returns:
        For each a title, metric, protocol, seed, and the table as Markdown.
    """
    record = entry.records[0]
    said = {"title": title, "protocol": record.protocol, "seed": record.config.get("seed")}
    tables = [(metric, _metric_table(record, metric)) for metric in record.metrics]
    return [{**said, "metric": metric, "table": table} for metric, table in tables if table]


def _metric_table(record: ResultRecord, metric: str) -> str:
    """A line a class or label; a line a fold where there are folds; else one line where it is a further metric."""
    if record.folds:
        rows = [
            [str(member(fold, "fold")), str(member(fold, "items")), number(member(fold, "metrics", metric, "value"))]
            for fold in record.folds
        ]
        deviation = member(record.metrics, metric, "detail", "deviation")
        rows.append(["deviation over folds", "", number(deviation)])
        return markdown_table(["fold", "items", metric], rows)
    detail = member(record.metrics, metric, "detail")
    detail = detail if isinstance(detail, dict) else {}
    names = detail.get("names")
    if isinstance(names, list) and (columns := _columns(detail, len(names))):
        rows = [[escaped(name), *(_cell(detail[c], c, i) for c in columns)] for i, name in enumerate(names)]
        return markdown_table(["label", *(metric if c == "per_label" else c.replace("_", " ") for c in columns)], rows)
    if metric == record.main_metric:
        return ""
    chance = detail.get("chance")
    return markdown_table([metric, "chance"], [[number(member(record.metrics, metric, "value")), number(chance)]])


def _columns(detail: dict[str, Json], n: int) -> list[str]:
    return [
        name for name, value in detail.items() if name not in _SKIPPED and isinstance(value, list) and len(value) == n
    ]


def _cell(values: Json, column: str, index: int) -> str:
    value = values[index] if isinstance(values, list) else None
    return str(value) if column in _COUNTS else number(value)


_TEMPLATE: Final = "model_card.md.jinja"


def model_card(records: Sequence[ResultRecord], controls: Sequence[ResultRecord] = ()) -> str:
    """The whole card, metadata and text, of one model's records.

    Args:
        records: Of one model.
        controls: Of controls, and of whatever else it is to be compared with on the same items.

    Raises:
        RecordError: There is no record, or they are of several models.
    """
    entries = gather(records)
    _one_model(entries)
    metadata = str(card_data(entries))
    text = render(asset_folder("model_cards") / _TEMPLATE, card_fields(entries, gather(controls)))
    text = re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE))
    return f"---\n{metadata.strip()}\n---\n\n{text.strip()}\n"


def write_card(
    records: Sequence[ResultRecord],
    out: Path,
    *,
    controls: Sequence[ResultRecord] = (),
    source_url: str | None = None,
) -> list[Path]:
    """Writes ``README.md`` and, of scores that may be published, the ``.eval_results`` files.

    Args:
        records: Of one model.
        out: The folder, as it will stand on the Hub.
        controls: Of controls, and of whatever else it is to be compared with on the same items.
        source_url: Where the records can be read.

    Returns:
        The files.

    Raises:
        RecordError: The records are of several models, or the folder cannot be written.
    """
    files = {"README.md": model_card(records, controls)}
    files |= eval_result_files([e for e in gather(records) if not e.refusals], source_url=source_url)
    return [write_text(out / name, text) for name, text in files.items()]


def _one_model(entries: Sequence[ResultGroup]) -> None:
    models = sorted({entry.model for entry in entries})
    if len(models) != 1:
        raise RecordError(
            f"a card is of one model, the records are of {len(models)}: {', '.join(models) or 'none'}; name one with "
            "--model"
        )


def card_data(entries: Sequence[ResultGroup]) -> ModelCardData:
    """The card's metadata. No ``base_model`` stands in it: boards of the Hub hide repositories that name one."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="other",
            task_name=task_title(entry.task),
            dataset_name=DATASET_NAME,
            dataset_type=dataset_of(entry).repo,
            dataset_config=TASKS.get(entry.task).config,
            dataset_split="test",
            dataset_revision=dataset_of(entry).revision,
            metric_type=entry.metric,
            metric_name=f"{entry.metric}, protocol {entry.protocol}, {entry.probe}",
            metric_value=round(entry.value, 6),
        )
        for entry in entries
        if not entry.refusals and entry.value is not None
    ]
    license = str(entries[0].records[0].model.get("license") or "unknown")
    return ModelCardData(
        model_name=f"{entries[0].model} on BEND",
        license=license.lower() if license != "unknown" else "unknown",
        library_name="bend_hf",
        tags=["biology", "genomics", "DNA", "BEND"],
        datasets=sorted({dataset_of(entry).repo for entry in entries if not entry.refusals}) or None,
        metrics=sorted({entry.metric for entry in entries}),
        eval_results=results or None,
    )


def card_fields(entries: Sequence[ResultGroup], controls: Sequence[ResultGroup] = ()) -> dict[str, Any]:
    """All that the template speaks of."""
    standing, first = texts(), entries[0].records[0]
    tasks = [TASKS.get(key) for key in sorted({entry.task for entry in entries}) if key in TASKS]
    protocols = sorted({entry.protocol for entry in entries})
    model = _model(first, entries[0].model)
    quirks = [
        f"{protocol}: {line}"
        for protocol in protocols
        for kind in ("all", model["family"])
        for line in standing["quirks"][protocol].get(kind, [])
    ]
    return {
        "model": model,
        "made_with": {"bend_hf": member(first.created_with, "bend_hf")},
        "reasons": _reasons(entries),
        "tables": [
            {"protocol": p, "text": standing["protocols"][p], "rows": [_row(e) for e in entries if e.protocol == p]}
            for p in protocols
        ],
        "interval_methods": sorted({entry.interval_method for entry in entries} - {""}),
        "controls": [row for entry in entries for row in _controls(entry, controls)],
        "details": [table for entry in entries for table in detail_tables(entry, task_title(entry.task))],
        "runs": [run_fields(record) for entry in entries for record in entry.records],
        "alignment": [
            f"{name.replace('_', ' ').capitalize()}: {value}." for name, value in (first.alignment or {}).items()
        ],
        "limits": [*standing["limits"], *quirks],
        "licenses": [(task.title, task.license) for task in tasks] or [("own data", "the user's own")],
        "citations": list(dict.fromkeys(citation for task in tasks for citation in task.citations)),
    }


def _reasons(entries: Sequence[ResultGroup]) -> list[str]:
    """Why scores may not be published, each with the tasks it holds for."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        for reason in entry.refusals:
            found.setdefault(reason, []).append(task_title(entry.task))
    return [f"{reason} ({', '.join(dict.fromkeys(titles))})" for reason, titles in found.items()]


def interval(low: float | None, high: float | None) -> str:
    """``0.7500 to 0.8100``, or that there is none."""
    return "none" if low is None or high is None else f"{number(low)} to {number(high)}"


def _row(entry: ResultGroup) -> dict[str, Any]:
    coverage = entry.records[0].coverage
    return {
        "title": task_title(entry.task),
        "metric": entry.metric,
        "value": entry.value,
        "interval": interval(entry.low, entry.high),
        "probe": entry.probe.replace("_", " "),
        "scored": coverage.get("scored"),
        "n_items": coverage.get("items"),
        "seeds": ", ".join(map(str, entry.seeds)),
    }


def _controls(entry: ResultGroup, others: Sequence[ResultGroup]) -> list[dict[str, Any]]:
    """A row for each control of an entry: those in its records, and entries of the same contest."""
    where = (entry.task, entry.protocol, entry.data_id, entry.metric)
    beside = {o.model: o.value for o in others if (o.task, o.protocol, o.data_id, o.metric) == where}
    return [
        {
            "title": task_title(entry.task),
            "protocol": entry.protocol,
            "name": name,
            "metric": entry.metric,
            "value": value,
            "model_value": entry.value,
        }
        for name, value in sorted({**entry.controls, **beside}.items())
    ]


def _model(record: ResultRecord, label: str) -> dict[str, Any]:
    model = record.model
    context = model.get("context_tokens")
    return {
        "name": label,
        "family": said(model.get("family")),
        "checkpoint": said(model.get("checkpoint"), "none"),
        "revision": said(model.get("revision"), "none"),
        "n_parameters": model.get("n_parameters"),
        "width": model.get("width"),
        "tokenization": said(model.get("tokenization")),
        "context": f"{context:,}" if isinstance(context, int) else "no limit",
        "direction": said(model.get("direction")),
        "layer": "last" if model.get("layer") == -1 else said(model.get("layer")),
        "dtype": said(model.get("dtype")),
        "training_data": said(
            model.get("training_data"), "nothing" if model.get("n_parameters") == 0 else "not recorded"
        ),
        "license": said(model.get("license"), "unknown"),
        "paper": said(model.get("paper"), "none"),
    }
