"""Imports point down: a module imports only from layers below its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import bend_hf

PACKAGE = Path(bend_hf.__file__).parent

# A layer a line, the lowest first; a package stands for its modules, whose order among themselves is free.
LAYERS = (
    ("errors", "shapes", "__init__"),
    ("registry", "assets", "checksums", "console", "download", "sequences", "bgzf", "toml_config", "lease"),
    ("config", "head_specs", "labels", "hub_names"),
    ("fasta_index", "bed_text", "tasks"),
    ("fasta_gather", "fasta_windows", "intervals", "sources", "models", "published"),
    ("genome", "embedders", "losses", "vcf", "sharding"),
    (
        "rows",
        "heads",
        "alignment_facts",
        "predictions",
        "scoring",
        "tables",
        "status",
        "result_schema",
        "markdown",
        "writing",
    ),
    ("builder", "results", "batches", "uncertainty", "model_choice"),
    (
        "task_data",
        "boards",
        "card_runs",
        "dataset_facts",
        "variants",
        "baselines",
        "schedules",
        "checkpoints",
        "position",
        "fit_config",
        "feeding",
        "tuning",
        "admission",
        "cache",
    ),
    ("fit", "predicting", "progress", "launch", "waiting", "run_key", "entries", "score_table", "eval_checks"),
    ("parts", "trackers", "eval_results", "card_details", "ties", "pretraining"),
    ("controls", "variant_task"),
    ("dataset_card", "hub_fetch", "attribution", "verify", "cards", "leaderboard", "hub", "training"),
    ("hub_folder", "report", "train", "pretrain"),
    ("grid", "beside"),
    ("push_plans",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}


def room(path: Path) -> str:
    """The name in ``LAYERS`` that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Which modules and packages of bend_hf a file imports, wherever in the file it does so."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "bend_hf":
            names = [node.module] if "." in node.module else [f"bend_hf.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("bend_hf.")]
        found |= {name.split(".")[1] for name in names}
    return found - {"__version__"}


FILES = sorted(path for path in PACKAGE.rglob("*.py") if "_assets" not in path.parts)


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_a_module_imports_only_from_layers_below(path: Path) -> None:
    mine = room(path)
    assert mine in LAYER_OF, f"{mine} has no layer; put it into LAYERS"
    wrong = {other for other in imported_rooms(path) if other != mine and LAYER_OF[other] >= LAYER_OF[mine]}
    assert not wrong, f"{path.name} (layer {LAYER_OF[mine]}) imports {sorted(wrong)} of its own layer or above"


def test_every_layer_name_is_a_module() -> None:
    rooms = {room(path) for path in FILES}
    assert set(LAYER_OF) <= rooms, f"no such module: {sorted(set(LAYER_OF) - rooms)}"
