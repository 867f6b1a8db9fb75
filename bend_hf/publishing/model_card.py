"""Write the model card of records: scores with intervals, controls, details, runs, limits, license and citations.

The template is ``model_cards/model_card.md.jinja`` and fixed sentences are in ``model_cards/fields.json``; this module
computes the template's fields. Scores that may be published also appear in the card's ``model-index``.

>>> interval(0.75, 0.81)
'0.7500 to 0.8100'
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from bend_hf.data.sources import label_citations, label_license
from bend_hf.errors import RecordError
from bend_hf.evaluation.audit.pretraining import seen_in_words
from bend_hf.evaluation.gene_structure import NAME as STRUCTURE
from bend_hf.evaluation.record import ResultRecord, member
from bend_hf.files import asset_folder
from bend_hf.publishing.card_heads import head_fields
from bend_hf.publishing.card_text import marked
from bend_hf.publishing.diagnostics import diagnostic_fields
from bend_hf.publishing.eval_results import DATASET_NAME, dataset_scored_on
from bend_hf.publishing.gene_tables import structure_table
from bend_hf.publishing.leaderboard import control_provenances
from bend_hf.publishing.model_card_runs import fixed_texts, run_fields, task_title, text_or
from bend_hf.publishing.models import own_weights
from bend_hf.publishing.results import ResultGroup, group_records, spread_over_trainings
from bend_hf.publishing.shot_tables import EXPLAINED as SHOTS_EXPLAINED
from bend_hf.publishing.shot_tables import HEADER as SHOTS_HEADER
from bend_hf.publishing.shot_tables import shot_lines, shot_rows
from bend_hf.tables import escaped, markdown_table, number, render
from bend_hf.tasks import TASKS, Citation, TaskSpec
from bend_hf.tasks._spec import VEP
from bend_hf.types import Json

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

NOT_BEND_SCORES: Final = "**These are not BEND scores**"  # the template's; `bend-hf push` refuses a card that holds it
_TEMPLATE: Final = "model_card.md.jinja"
_COUNTS: Final = frozenset({"support", "n_positive", "n_negative", "items"})
_NOT_COLUMNS: Final = frozenset({"names", "confusion_matrix"})


def model_card(records: Sequence[ResultRecord], controls: Sequence[ResultRecord] = ()) -> str:
    """The whole card, metadata and text, with the text between the marks of `card_text`.

    Args:
        records: Records of one model.
        controls: Records of controls, and of other models to compare with on the same items.

    Raises:
        RecordError: There are no records, or they are of several models.
    """
    results = group_records(records)
    models = sorted({result.model for result in results})
    if len(models) != 1:
        raise RecordError(
            f"the records are of {len(models)} models ({', '.join(models) or 'none'}); a card describes one. Select it "
            "with --model."
        )
    metadata = str(card_data(results))
    text = render(asset_folder("model_cards") / _TEMPLATE, card_fields(results, group_records(controls)))
    text = re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE))
    return f"---\n{metadata.strip()}\n---\n\n{marked(text)}"


def card_data(results: Sequence[ResultGroup]) -> ModelCardData:
    """The card's metadata. It names no ``base_model``: leaderboards of the Hub hide repositories that do."""
    from huggingface_hub import EvalResult, ModelCardData

    published = [result for result in results if not result.reasons_not_to_publish]
    scores = [
        EvalResult(
            task_type="other",
            task_name=task_title(result.task),
            dataset_name=DATASET_NAME,
            dataset_type=dataset_scored_on(result).repo,
            dataset_config=TASKS.get(result.task).config,
            dataset_split="test",
            dataset_revision=dataset_scored_on(result).revision,
            metric_type=result.metric,
            metric_name=f"{result.metric}, protocol {result.protocol}, {result.head}",
            metric_value=round(result.value, 6),
        )
        for result in published
        if result.value is not None
    ]
    license = _model_fields(results)["license"]
    return ModelCardData(
        model_name=f"{results[0].model} on BEND",
        license=license.lower() if license else "unknown",
        library_name="bend_hf",
        tags=["biology", "genomics", "DNA", "BEND"],
        datasets=sorted({dataset_scored_on(result).repo for result in published}) or None,
        metrics=sorted({result.metric for result in results}),
        eval_results=scores or None,
    )


def card_fields(results: Sequence[ResultGroup], controls: Sequence[ResultGroup] = ()) -> dict[str, Any]:
    """All fields of the template."""
    fixed, first = fixed_texts(), results[0].records[0]
    protocols = sorted({result.protocol for result in results})
    model = _model_fields(results)
    titled = [(task_title(result.task), result) for result in results]
    quirks = [
        f"{protocol}: {line}"
        for protocol in protocols
        for kind in ("all", model["family"])
        for line in fixed["quirks"][protocol].get(kind, [])
    ]
    return {
        "not_bend_scores": NOT_BEND_SCORES,
        "model": model,
        "made_with": {"bend_hf": member(first.created_with, "bend_hf")},
        "reasons": _reasons(results),
        "heads": head_fields(results),
        "tables": [
            {
                "protocol": protocol,
                "text": fixed["protocols"][protocol],
                "rows": [_score_row(result) for result in results if result.protocol == protocol],
            }
            for protocol in protocols
        ],
        "interval_methods": sorted({result.interval_method for result in results} - {""}),
        "controls": [row for result in results for row in _control_rows(result, controls)],
        "provenances": control_provenances([*results, *controls]),
        "chances": [f"{title}: {one.metric} {one.chance_text}" for title, one in titled if one.chance_text],
        "remarks": [f"{title}, {one.protocol}: {text}" for title, one in titled for text in one.remarks],
        "spreads": _spreads(results),
        "diagnostics": [
            fields
            for fields in (diagnostic_fields(one, title) for title, one in titled)
            if fields["lines"] or fields["tables"]
        ],
        "shots": [table for result in results for table in _shot_tables(result)],
        "shots_explained": SHOTS_EXPLAINED,
        "strands": [row for result in results for row in _strand_rows(result)],
        "strand_lines": _strand_lines(results),
        "details": [table for result in results for table in detail_tables(result, task_title(result.task))],
        "runs": [run_fields(record) for result in results for record in result.records],
        "alignment": [
            f"{name.replace('_', ' ').capitalize()}: {value}." for name, value in (first.alignment or {}).items()
        ],
        "limits": [*fixed["limits"], *quirks],
        "licenses": sorted({(task_title(one.task), label_license(_task(one), one.origin)) for one in results}),
        "citations": _citations(results),
    }


def _task(result: ResultGroup) -> TaskSpec | None:
    return TASKS.get(result.task) if result.task in TASKS else None


def _citations(results: Sequence[ResultGroup]) -> list[Citation]:
    """BEND and the sources of the labels; the predictor of consequences if a score by consequence is shown."""
    found: dict[Citation, None] = {}
    for result in results:
        found |= dict.fromkeys(label_citations(_task(result), result.origin))
        if member(result.records[0].metrics, result.metric, "detail", "by_group"):
            found[VEP] = None
    return list(found)


def _spreads(results: Sequence[ResultGroup]) -> list[str]:
    """The standard errors over items and over seeds of each result that was trained several times."""
    found = [(result, spread_over_trainings(result.records)) for result in results]
    return [
        f"{task_title(one.task)}, {one.protocol}: {spread.as_text()}" for one, spread in found if spread is not None
    ]


def _reasons(results: Sequence[ResultGroup]) -> list[str]:
    """Reasons against publishing, each with the tasks that it applies to."""
    titles_of: dict[str, list[str]] = {}
    for result in results:
        for reason in result.reasons_not_to_publish:
            titles_of.setdefault(reason, []).append(task_title(result.task))
    return [f"{reason} ({', '.join(dict.fromkeys(titles))})" for reason, titles in titles_of.items()]


def interval(low: float | None, high: float | None) -> str:
    """An interval as text, or ``none``."""
    return "none" if low is None or high is None else f"{number(low)} to {number(high)}"


def _score_row(result: ResultGroup) -> dict[str, Any]:
    coverage = result.records[0].coverage
    return {
        "title": task_title(result.task),
        "metric": result.metric,
        "value": result.value,
        "interval": interval(result.low, result.high),
        "head": result.head.replace("_", " "),
        "scored": coverage.get("scored"),
        "n_items": coverage.get("items"),
        "seeds": ", ".join(map(str, result.seeds)) + (" (one training)" if result.n_trainings == 1 else ""),
        "below": result.below_chance,
    }


def _control_rows(result: ResultGroup, others: Sequence[ResultGroup]) -> list[dict[str, Any]]:
    """One row per control of a result: those in its records, and other results on the same leaderboard."""
    key = (result.task, result.protocol, result.data_id, result.metric)
    same_items = {o.model: o.value for o in others if (o.task, o.protocol, o.data_id, o.metric) == key}
    return [
        {
            "title": task_title(result.task),
            "protocol": result.protocol,
            "name": name,
            "metric": result.metric,
            "value": value,
            "model_value": result.value,
            "below": value is not None and result.value is not None and result.value < value,
        }
        for name, value in sorted({**result.controls, **same_items}.items())
    ]


def _shot_tables(result: ResultGroup) -> list[dict[str, Any]]:
    """The curve over few rows of a result with those of its controls; nothing if it has none."""
    record = next((one for one in result.records if one.shots is not None), None)
    if record is None:
        return []
    rows = shot_rows(result.model, record.shots)
    for key, entry in record.controls.items():
        rows += shot_rows(f"control: {key}", {"points": member(entry, "shots")})
    return [
        {
            "title": task_title(result.task),
            "metric": result.metric,
            "protocol": result.protocol,
            "table": markdown_table(SHOTS_HEADER, [[escaped(cell) for cell in row] for row in rows]),
            "lines": shot_lines(result.model, record),
        }
    ]


def _strand_rows(result: ResultGroup) -> list[dict[str, Any]]:
    """One row per record that says how far both strands agree."""
    rows = []
    for record in result.records:
        if record.strands is None:
            continue
        flips, gain = record.strands.get("flip_rate"), member(record.strands, "gain", "difference")
        ends = [member(record.strands, "gain", end) for end in ("low", "high")]
        scores = {
            name: member(record.strands, "scores", name, result.metric, "value")
            for name in ("forward", "reverse", "average")
        }
        rows.append(
            {
                "title": task_title(result.task),
                "protocol": result.protocol,
                "seed": record.config.get("seed"),
                "metric": result.metric,
                "correlation": record.strands.get("correlation"),
                "flips": f"{100 * flips:.1f} %" if isinstance(flips, int | float) else "undefined",
                **scores,
                "gain": "not known" if gain is None else f"{number(gain)} ({number(ends[0])} to {number(ends[1])})",
            }
        )
    return rows


def _strand_lines(results: Sequence[ResultGroup]) -> list[str]:
    """What a flip is, and which labels were exchanged, each with the task that it applies to."""
    lines: dict[str, None] = {}
    for result in results:
        strands, title = result.records[0].strands, task_title(result.task)
        if strands is None:
            continue
        lines[f"{title}: a prediction flips if {strands.get('flips_if')}"] = None
        exchanged = strands.get("exchanged_labels")
        if isinstance(exchanged, list) and exchanged:
            lines[f"{title}: exchanged labels are {'; '.join(map(str, exchanged))}"] = None
    return list(lines)


def detail_tables(result: ResultGroup, title: str) -> list[dict[str, Any]]:
    """The tables below the main score, of the first seed: classes, labels, folds and further metrics.

    Args:
        result: The result.
        title: Title of the task.

    Returns:
        For each table its title, metric, protocol and seed, and the table as Markdown.
    """
    record = result.records[0]
    common = {"title": title, "protocol": record.protocol, "seed": record.config.get("seed")}
    tables = [(metric, _detail_table(record, metric)) for metric in record.metrics]
    return [{**common, "metric": metric, "table": table} for metric, table in tables if table]


def _detail_table(record: ResultRecord, metric: str) -> str:
    """One row per fold, class or label; a single row for a further metric; empty for a main metric without details."""
    if record.folds:
        rows = [
            [str(member(fold, "fold")), str(member(fold, "items")), number(member(fold, "metrics", metric, "value"))]
            for fold in record.folds
        ]
        deviation = member(record.metrics, metric, "detail", "deviation")
        rows.append(["deviation over folds", "", number(deviation)])
        return markdown_table(["fold", "items", metric], rows)
    if metric == STRUCTURE and (table := structure_table(record)):
        return table
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


def _columns(detail: dict[str, Json], n_labels: int) -> list[str]:
    """Names of the details that hold one value per label."""
    return [
        name
        for name, value in detail.items()
        if name not in _NOT_COLUMNS and isinstance(value, list) and len(value) == n_labels
    ]


def _cell(values: Json, column: str, index: int) -> str:
    value = values[index] if isinstance(values, list) else None
    return str(value) if column in _COUNTS else number(value)


def _dtype_text(model: dict[str, Json]) -> str:
    """The dtype of a model, with TF32 and torch.compile if they were used."""
    used = [text for name, text in (("tf32", "in TF32"), ("compile", "compiled")) if model.get(name)]
    return ", ".join([text_or(model.get("dtype")), *used])


def _model_fields(results: Sequence[ResultGroup]) -> dict[str, Any]:
    """What the card says of the model. License, paper and training data are those of published weights alone."""
    record = results[0].records[0]
    model, context = record.model, record.model.get("context_tokens")
    own = next(filter(None, (own_weights(one) for result in results for one in result.records)), "")
    is_random, is_untrained = bool(model.get("random_init")), model.get("n_parameters") == 0
    stated = {name: None if own else model.get(name) for name in ("training_data", "license", "paper")}
    if is_untrained or is_random:
        seen = training_data = "nothing"
    elif own:
        seen, training_data = f"not known: this card is of {own}", "not recorded"
    else:
        seen, training_data = seen_in_words(str(model.get("model"))), text_or(stated["training_data"])
    license = stated["license"] and str(stated["license"])
    return {
        "name": results[0].model,
        "own": own,
        "family": text_or(model.get("family")),
        "checkpoint": own or text_or(model.get("checkpoint"), "none"),
        "revision": text_or(model.get("revision"), "none"),
        "n_parameters": model.get("n_parameters"),
        "width": model.get("width"),
        "tokenization": text_or(model.get("tokenization")),
        "context": f"{context:,}" if isinstance(context, int) else "no limit",
        "direction": text_or(model.get("direction")),
        "layer": "last" if model.get("layer") == -1 else text_or(model.get("layer")),
        "dtype": _dtype_text(model),
        "seen": seen,
        "training_data": training_data,
        "license": license,
        "license_text": f"is {license or 'unknown'}" if not own else f"is not stated, because they are {own}",
        "paper": text_or(stated["paper"], "none"),
    }
