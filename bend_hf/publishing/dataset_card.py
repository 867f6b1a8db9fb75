"""Write the card of a built dataset: the metadata that ``load_dataset`` reads, and a description for people.

The card is written from the facts that the build left next to the Parquet files, so it describes what was built.
The template is ``dataset_scripts/dataset_card.md.jinja``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bend_hf import __version__
from bend_hf.data.assembly import UNKNOWN
from bend_hf.data.dataset import FACTS_FILE, content_mark, parts_of_fold
from bend_hf.data.sources import label_citations, label_license
from bend_hf.errors import BendError
from bend_hf.evaluation.audit.task_audit import findings_table
from bend_hf.evaluation.record import member
from bend_hf.files import asset_folder, parse_json, write_text
from bend_hf.tables import code, escaped, markdown_table, number
from bend_hf.tasks import TASKS, Folds, TaskSpec
from bend_hf.tasks._spec import VEP
from bend_hf.variants.read import CONSEQUENCE

_TEMPLATE: Final = "dataset_card.md.jinja"
_SIZES: Final = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_dataset_card(folder: Path) -> Path:
    """Write ``README.md`` of a dataset folder.

    Args:
        folder: One dataset folder below the output folder of ``bend-hf build``.

    Raises:
        BendError: The folder holds no built task.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    found = [
        (path.parent, parse_json(path.read_text(encoding="utf-8")))
        for path in sorted(folder.glob(f"data/**/{FACTS_FILE}"))
    ]
    if not found:
        raise BendError(f"{folder} holds no built task; run 'bend-hf build' first")
    configs: list[dict[str, Any]] = []
    infos: list[dict[str, Any]] = []
    for data, facts in found:
        for config, info in _configs(folder, data, facts):
            configs.append(config)
            infos.append(info)
    tasks = [_task_section(facts) for _, facts in found]
    total = sum(count for task in tasks for _, count in task["counts"])
    origin = found[0][1]["facts"]["origin"]
    title = tasks[0]["title"] if len(tasks) == 1 else folder.name.replace("_", " ").capitalize()
    folded = any(config["config_name"].startswith("fold_") for config in configs)
    card = DatasetCard.from_template(
        DatasetCardData(
            license="other",
            pretty_name=f"BEND {title}" + (" (sample, not BEND's data)" if origin == "sample" else ""),
            tags=["biology", "genomics", "DNA", "BEND"],
            size_categories=[next((name for limit, name in _SIZES if total < limit), "1M<n<10M")],
            configs=configs,
            dataset_info=infos if len(infos) > 1 else infos[0],
        ),
        template_path=str(asset_folder("dataset_scripts") / _TEMPLATE),
        title=title,
        origin=origin,
        is_own=origin == "files" or tasks[0]["is_own"],
        tasks=tasks,
        folded=folded,
        example=_example(folder.name, configs),
        version=__version__,
    )
    return write_text(folder / "README.md", str(card))


def _configs(folder: Path, data: Path, facts: Mapping[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """For each configuration its files by split, and its features with the size of each split."""
    prefix = data.relative_to(folder).as_posix()
    shards, items = facts["shards"], facts["facts"]["items"]

    def one(name: str, splits: Mapping[str, list[str]]) -> tuple[dict[str, Any], dict[str, Any]]:
        files = {split: [s for part in parts for s in shards[part]] for split, parts in splits.items()}
        sizes = {split: sum(facts["bytes"][name] for name in names) for split, names in files.items()}
        return (
            {
                "config_name": name,
                "data_files": [
                    {"split": split, "path": [f"{prefix}/{part}-*.parquet" for part in parts]}
                    for split, parts in splits.items()
                ],
            },
            {
                "config_name": name,
                # `datasets` names its cache by these metadata alone, so content that changes must change them.
                "description": content_mark({s: [facts["sha256"][n] for n in names] for s, names in files.items()}),
                "features": copy.deepcopy(facts["features"]),  # YAML would name one object that is used twice
                "splits": [
                    {"name": split, "num_bytes": sizes[split], "num_examples": sum(items[part] for part in parts)}
                    for split, parts in splits.items()
                ],
                "download_size": sum(sizes.values()),
                "dataset_size": sum(sizes.values()),
            },
        )

    if not any(part.startswith("part_") for part in shards):
        return [one(facts["config"] or "default", {part: [part] for part in shards})]
    return [one(f"fold_{fold}", parts_of_fold(list(shards), fold)) for fold in range(1, len(shards) + 1)]


def _task_section(facts: Mapping[str, Any]) -> dict[str, Any]:
    task = TASKS.get(facts["task"]) if facts["task"] in TASKS else None
    data = facts["facts"]
    has_consequences = any(feature["name"] == CONSEQUENCE for feature in facts["features"])
    return {
        "title": task.title if task else escaped(facts["task"]),
        "is_own": task is None or task.assembly == UNKNOWN,
        "config": facts["config"],
        "description": task.description if task else "A task that the user defined.",
        "assembly": data["assembly"],
        "genome": _genome_in_words(data, task),
        "stranded": facts["stranded"],
        "folds": isinstance(task.partition, Folds) if task else any(p.startswith("part_") for p in data["items"]),
        "columns": [_column(feature) for feature in facts["features"]],
        "counts": list(data["items"].items()),
        "label_names": [code(name) for name in facts["label_names"]],
        "repeated": duplicates_in_words(facts["repetitions"]),
        "audit": _audit_section(facts["audit"]) if "audit" in facts else "",
        "changed": _changes_in_words(data["changes"]),
        "hashes": [(name, entry["sha256"]) for name, entry in data["files"].items()],
        "license": label_license(task, data["origin"]),
        "citations": (*label_citations(task, data["origin"]), *((VEP,) if has_consequences else ())),
    }


def _genome_in_words(data: Mapping[str, Any], task: TaskSpec | None) -> str:
    """Name the genome that the sequences were read from: its assembly as far as contig lengths tell, and its hash."""
    assembly, digest = data["assembly"], member(data["files"], "genome", "sha256")
    if data["origin"] == "sample":
        text = f"a part of {assembly}"
    elif assembly == UNKNOWN:
        text = "a genome whose contigs have the lengths of no known human assembly"
    else:
        text = f"{assembly}, by the lengths of its contigs"
    text += f" (sha256 `{digest}`)" if digest else ""
    differs = task is not None and task.assembly not in (UNKNOWN, assembly) and data["origin"] != "sample"
    return text + (f"; BEND's own task is on {task.assembly}" if task is not None and differs else "")


def _column(feature: Mapping[str, Any]) -> dict[str, str]:
    listed = feature.get("list")
    kind = feature.get("dtype", f"list of {listed if isinstance(listed, str) else 'classes'}" if listed else "class")
    return {"name": code(feature["name"]), "kind": "class" if isinstance(kind, Mapping) else str(kind)}


def _audit_section(audit: Mapping[str, Any]) -> str:
    """The findings of an audit as a table, and the best rule of each label."""
    if not audit["rules"]:
        return findings_table([audit])
    labels = audit["rules"]["best_by_label"]
    rows = [(escaped(name), entry["feature"], number(entry["auroc"])) for name, entry in labels.items()]
    rules = markdown_table(("label", "best feature", "AUROC"), rows)
    return f"{findings_table([audit])}\n\n{rules}"


def duplicates_in_words(repeated: Mapping[str, Any]) -> str:
    """Describe the counts of duplicate intervals and sequences.

    >>> duplicates_in_words({"rows_at_a_place_seen_before": 0, "rows_with_a_sequence_of_another_split": {}})
    'No interval occurs twice, and no sequence occurs in two splits.'
    """
    n_intervals = repeated["rows_at_a_place_seen_before"]
    shared = repeated["rows_with_a_sequence_of_another_split"]
    if not n_intervals and not shared:
        return "No interval occurs twice, and no sequence occurs in two splits."
    sentences = []
    if n_intervals:
        items = ", ".join(map(str, repeated["items_at_a_place_seen_before"]))
        sentences.append(f"{n_intervals:,} rows have the interval of an earlier row (items {items}, ...).")
    for pair, count in shared.items():
        items = ", ".join(map(str, repeated["items_with_a_sequence_of_another_split"][pair]))
        first, second = pair.split(", ")
        sentences.append(
            f"{count:,} rows of {second} have a sequence that also occurs in {first} (items {items}, ...)."
        )
    return " ".join(sentences)


def _changes_in_words(changes: Mapping[str, Any]) -> str:
    return " ".join(
        f"{changes[key]:,} rows were {text}."
        for key, text in (
            ("rows_padded", "padded with N because they extend past the end of their contig"),
            ("rows_dropped_out_of_bounds", "dropped because they extend past the end of their contig"),
            ("rows_dropped_ref_mismatch", "dropped because REF differs from the genome or equals ALT"),
            ("rows_normalized", "normalized, because they wrote their variant with bases that both alleles share"),
        )
        if changes.get(key)
    )


def _example(group: str, configs: list[dict[str, Any]]) -> str:
    name = configs[0]["config_name"]
    further = "" if name == "default" else f', "{name}"'
    return f'load_dataset("bend/{group}"{further})'
