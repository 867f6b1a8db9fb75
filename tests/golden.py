"""The texts that ``tests/golden_cards`` holds, made anew from fixed records; run it to write them after a change.

    python -m tests.golden

Read the difference before it is committed: these are what people will see.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bend_hf.publishing.dataset_card import write_dataset_card
from bend_hf.publishing.eval_results import eval_result_files, eval_yaml
from bend_hf.publishing.leaderboard import leaderboards
from bend_hf.publishing.model_card import model_card
from bend_hf.publishing.report.tables import as_csv, as_markdown
from bend_hf.publishing.results import group_records
from tests.records import record, several

FOLDER = Path(__file__).with_name("golden_cards")
CONTROLS = {"GC content": 0.6123, "k-mer logistic regression": 0.7}


def published() -> str:
    """A card of three tasks, two protocols and two seeds."""
    return model_card(
        [
            record(controls=CONTROLS),
            record(seed=1, value=0.81, interval=(0.79, 0.83)),
            record(protocol="bend-hf-1", value=0.82, interval=None),
            record("gene_finding", value=0.6, interval=(0.55, 0.64)),
            record("variant_effects_disease", value=0.55),
        ]
    )


def refused() -> str:
    """A card of scores on the sample, from a model whose facts hold signs of Markdown and HTML."""
    made = record("cpg_methylation", model="a|b<script>", origin="sample", interval=None)
    return model_card([made])


def folds() -> str:
    """A card of a task of folds."""
    made = record("enhancer_annotation", value=0.05)
    items = {f"part_{number}": 28 for number in range(10)}
    one = [{"fold": n, "items": 28, "metrics": {"auprc": {"value": 0.04 + n / 500}}} for n in range(1, 11)]
    metrics = {"auprc": {"value": 0.051, "detail": {"deviation": 0.0058, "n_folds": 10, "n_folds_undefined": 0}}}
    return model_card([record("enhancer_annotation", data={**made.data, "items": items}, folds=one, metrics=metrics)])


def scores() -> str:
    """The Hub's score file of one task under both protocols."""
    made = [record(), record(seed=1, value=0.81), record(protocol="bend-hf-1", value=0.82)]
    files = eval_result_files(group_records(made), source_url="https://example.org/results")
    return "".join(f"# {name}\n{text}" for name, text in files.items())


def dataset_facts() -> dict[str, Any]:
    """Facts about a built dataset, as a build leaves them."""
    files = {"train": ["train-00000-of-00001.parquet"], "test": ["test-00000-of-00001.parquet"]}
    return {
        "task": "variant_effects_disease",
        "config": "disease",
        "stranded": False,
        "label_names": ["benign", "pathogenic"],
        "facts": {
            "origin": "folder",
            "assembly": "GRCh38",
            "files": {"bed": {"sha256": "a" * 64}, "genome": {"sha256": "b" * 64}},
            "items": {"test": 1234},
            "changes": {
                "out_of_bounds": "error",
                "rows_padded": 0,
                "rows_dropped_out_of_bounds": 0,
                "rows_dropped_ref_mismatch": 3,
            },
        },
        "repetitions": {
            "rows_at_a_place_seen_before": 2,
            "items_at_a_place_seen_before": [5, 9],
            "rows_with_a_sequence_of_another_split": {},
            "items_with_a_sequence_of_another_split": {},
        },
        "shards": {"test": files["test"]},
        "sha256": {files["test"][0]: "d" * 64},
        "bytes": {files["test"][0]: 4321},
        "features": [{"name": "item", "dtype": "int64"}, {"name": "sequence", "dtype": "string"}],
    }


def dataset() -> str:
    """The card of a built dataset."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "variant_effects"
        (folder / "data" / "disease").mkdir(parents=True)
        (folder / "data" / "disease" / "bend_facts.json").write_text(json.dumps(dataset_facts()))
        return write_dataset_card(folder).read_text(encoding="utf-8")


def report() -> str:
    """The tables of a report."""
    half = record(model="half", value=0.9, coverage={"scored": 10, "items": 1000, "item_sha256": "c" * 64})
    return as_markdown(leaderboards([*several(), half, record(origin="sample", model="=HYPERLINK(1)")]))


def table() -> str:
    """The same as CSV."""
    return as_csv(leaderboards([*several(), record(origin="sample", model="=HYPERLINK(1)")]))


TEXTS: dict[str, Callable[[], str]] = {
    "model_card.md": published,
    "model_card_refused.md": refused,
    "model_card_folds.md": folds,
    "eval_results.yaml": scores,
    "eval_gene_finding.yaml": lambda: eval_yaml("gene_finding"),
    "eval_variant_effects.yaml": lambda: eval_yaml("variant_effects"),
    "dataset_card.md": dataset,
    "report.md": report,
    "scores.csv": table,
}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, make in TEXTS.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")
        print(FOLDER / name)
