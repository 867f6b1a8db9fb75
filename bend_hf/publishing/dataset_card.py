"""The card of a built dataset: what ``load_dataset`` reads from its head, and what people read below.

Made from the facts that the build left beside the Parquet files, so that a card never says what was not built.

>>> in_words({"rows_at_a_place_seen_before": 0, "rows_with_a_sequence_of_another_split": {}})
'No place stands in it twice, and no sequence stands in two of its splits.'
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bend_hf import __version__
from bend_hf.data.dataset import FACTS_FILE, fold_parts
from bend_hf.errors import BendError
from bend_hf.files import asset_folder, write_text
from bend_hf.tasks import TASKS, Folds

_TEMPLATE: Final = "dataset_card.md.jinja"
_SIZES: Final = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def write_dataset_card(folder: Path) -> Path:
    """Writes ``README.md`` of a dataset folder from what is built in it.

    Raises:
        BendError: Nothing is built there.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    found = [
        (path.parent, json.loads(path.read_text(encoding="utf-8")))
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
        assembly=tasks[0]["assembly"],
        tasks=tasks,
        folded=folded,
        example=_example(folder.name, configs),
        version=__version__,
    )
    return write_text(folder / "README.md", str(card))


def _configs(folder: Path, data: Path, facts: Mapping[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each configuration's name with its files, and its features with its splits."""
    where = data.relative_to(folder).as_posix()
    shards, items = facts["shards"], facts["facts"]["items"]

    def one(name: str, splits: Mapping[str, list[str]]) -> tuple[dict[str, Any], dict[str, Any]]:
        files = {split: [s for part in parts for s in shards[part]] for split, parts in splits.items()}
        sizes = {split: sum(facts["bytes"][name] for name in names) for split, names in files.items()}
        return (
            {
                "config_name": name,
                "data_files": [
                    {"split": split, "path": [f"{where}/{part}-*.parquet" for part in parts]}
                    for split, parts in splits.items()
                ],
            },
            {
                "config_name": name,
                "features": facts["features"],
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
    parts, found = list(shards), []
    for fold in range(1, len(parts) + 1):
        test, validation, train = fold_parts(len(parts), fold=fold)
        splits = {"train": [parts[n] for n in train], "validation": [parts[validation]], "test": [parts[test]]}
        found.append(one(f"fold_{fold}", splits))
    return found


def _task_section(facts: Mapping[str, Any]) -> dict[str, Any]:
    task = TASKS.get(facts["task"]) if facts["task"] in TASKS else None
    data = facts["facts"]
    return {
        "title": task.title if task else facts["task"],
        "config": facts["config"],
        "description": task.description if task else "A task of the user's own.",
        "assembly": data["assembly"],
        "stranded": facts["stranded"],
        "folds": isinstance(task.partition, Folds) if task else any(p.startswith("part_") for p in data["items"]),
        "columns": [_column(entry) for entry in facts["features"]],
        "counts": list(data["items"].items()),
        "label_names": facts["label_names"],
        "repeated": in_words(facts["repetitions"]),
        "changed": _changes_in_words(data["changes"]),
        "hashes": [(name, entry["sha256"]) for name, entry in data["files"].items()],
        "license": task.license if task else "the user's own data",
        "citations": task.citations if task else (),
    }


def _column(entry: Mapping[str, Any]) -> dict[str, str]:
    kind = entry.get("dtype", "list of classes" if "list" in entry else "class")
    return {"name": entry["name"], "kind": "class" if isinstance(kind, Mapping) else str(kind)}


def in_words(repeated: Mapping[str, Any]) -> str:
    """What the counts of repetitions say, as a sentence or two."""
    places = repeated["rows_at_a_place_seen_before"]
    shared = repeated["rows_with_a_sequence_of_another_split"]
    if not places and not shared:
        return "No place stands in it twice, and no sequence stands in two of its splits."
    said = []
    if places:
        items = ", ".join(map(str, repeated["items_at_a_place_seen_before"]))
        said.append(f"{places:,} rows have a place that an earlier row has already (items {items}, ...).")
    for pair, count in shared.items():
        items = ", ".join(map(str, repeated["items_with_a_sequence_of_another_split"][pair]))
        first, second = pair.split(", ")
        said.append(f"{count:,} rows of {second} have a sequence that stands in {first} too (items {items}, ...).")
    return " ".join(said)


def _changes_in_words(changes: Mapping[str, Any]) -> str:
    said = [
        f"{changes[key]:,} rows were {text}."
        for key, text in (
            ("rows_padded", "padded with N where they reach past their contig"),
            ("rows_dropped_out_of_bounds", "left out because they reach past their contig"),
            ("rows_dropped_ref_mismatch", "left out because REF is not the base of the genome, or equals ALT"),
        )
        if changes[key]
    ]
    return " ".join(said)


def _example(group: str, configs: list[dict[str, Any]]) -> str:
    name = configs[0]["config_name"]
    further = "" if name == "default" else f', "{name}"'
    return f'load_dataset("bend/{group}"{further})'
