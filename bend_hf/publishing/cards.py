"""Records to a model card: what was measured and how, with intervals, controls, limits, licence and citations.

The template is ``model_cards/model_card.md.jinja``, standing sentences are in ``model_cards/fields.json``; this file
takes the fields out of records. The scores stand in the card's ``model-index`` too, unless they may not be published.

>>> interval(0.75, 0.81)
'0.7500 to 0.8100'
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bend_hf.assets import asset_folder
from bend_hf.errors import RecordError
from bend_hf.evaluation.results import ResultRecord, member
from bend_hf.markdown import number, render
from bend_hf.publishing.card_details import detail_tables
from bend_hf.publishing.card_runs import run_fields, said, task_title, texts
from bend_hf.publishing.entries import Entry, gather
from bend_hf.publishing.eval_results import DATASET_NAME, dataset_of, eval_result_files
from bend_hf.tasks import TASKS
from bend_hf.writing import write_text

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

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


def _one_model(entries: Sequence[Entry]) -> None:
    models = sorted({entry.model for entry in entries})
    if len(models) != 1:
        raise RecordError(
            f"a card is of one model, the records are of {len(models)}: {', '.join(models) or 'none'}; name one with "
            "--model"
        )


def card_data(entries: Sequence[Entry]) -> ModelCardData:
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
    licence = str(entries[0].records[0].model.get("licence") or "unknown")
    return ModelCardData(
        model_name=f"{entries[0].model} on BEND",
        license=licence.lower() if licence != "unknown" else "unknown",
        library_name="bend_hf",
        tags=["biology", "genomics", "DNA", "BEND"],
        datasets=sorted({dataset_of(entry).repo for entry in entries if not entry.refusals}) or None,
        metrics=sorted({entry.metric for entry in entries}),
        eval_results=results or None,
    )


def card_fields(entries: Sequence[Entry], controls: Sequence[Entry] = ()) -> dict[str, Any]:
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
        "licences": [(task.title, task.licence) for task in tasks] or [("own data", "the user's own")],
        "citations": list(dict.fromkeys(citation for task in tasks for citation in task.citations)),
    }


def _reasons(entries: Sequence[Entry]) -> list[str]:
    """Why scores may not be published, each with the tasks it holds for."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        for reason in entry.refusals:
            found.setdefault(reason, []).append(task_title(entry.task))
    return [f"{reason} ({', '.join(dict.fromkeys(titles))})" for reason, titles in found.items()]


def interval(low: float | None, high: float | None) -> str:
    """``0.7500 to 0.8100``, or that there is none."""
    return "none" if low is None or high is None else f"{number(low)} to {number(high)}"


def _row(entry: Entry) -> dict[str, Any]:
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


def _controls(entry: Entry, others: Sequence[Entry]) -> list[dict[str, Any]]:
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
        "licence": said(model.get("licence"), "unknown"),
        "paper": said(model.get("paper"), "none"),
    }
