"""Write the card of bend-mini from the results of its training and its benchmarks.

    python -m examples.bend_mini.card

``tests/unit/publishing/test_bend_mini_card.py`` fails if the card differs from what this writes.
"""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any

import jinja2

from bend_hf.config import DEFAULT_MODEL
from bend_hf.files import start_logging, write_text

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parents[1] / "benchmarks" / "results"
FOLDER = HERE.parents[1] / "bend_hf" / "pretrained" / "bend-mini"
CARD = FOLDER / "README.md"
# Names in results that were written before they had their present ones.
RENAMED = {
    "Random twin, evened": "random weights, whitened",
    "Random twin": "random weights",
    "letters alone": "without the skip-gram objective",
    " to a side": " per side",
}


def read(path: Path) -> dict[str, Any]:
    """Read a JSON file."""
    body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return body


def cell(entry: dict[str, Any], name: str) -> str:
    """A score with its interval, or ``-``."""
    found = next((score for score in entry["scores"] if score["name"] == name), None)
    if found is None or found["value"] is None:
        return "-"
    text = f"{found['value']:.3f}"
    return text if found["low"] is None else f"{text} ({found['low']:.3f} to {found['high']:.3f})"


def gain(entry: dict[str, Any], control: str = "against_random_twin") -> str:
    """The paired difference from a control, or ``-``."""
    found = entry[control]
    if found is None:
        return "-"
    return f"{found['difference']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"


def verdict(tables: list[dict[str, Any]]) -> str:
    """Say in how many comparisons bend-mini beats random weights."""
    pairs = {
        f"{name}, {entry['probe'].replace('_', '-')}": entry["against_random_twin"]
        for tasks in tables
        for name, entry in tasks.items()
    }
    won = [name for name, pair in pairs.items() if pair["low"] > 0]
    lost = [name for name, pair in pairs.items() if pair["high"] < 0]
    text = f"bend-mini is better than random weights in {len(won)} of {len(pairs)} comparisons"
    text += f" ({'; '.join(won)})" if won else ""
    text += f" and worse in {len(lost)} ({'; '.join(lost)})" if lost else ""
    return text + ", counting differences whose 95 % interval excludes 0."


def reach_bp(sizes: dict[str, int]) -> int:
    """Nucleotides on each side that an embedding depends on, through the dilated layers and the k-mers they read."""
    body = sizes["stride"] * (2 ** sizes["body_layers"] - 1) + sizes["stride"]
    return max(body, sizes["kmer"] * sizes["side_kmers"])


def card() -> str:
    """The text of the card."""
    training, comparison = read(FOLDER / "training.json"), read(RESULTS / "bend_mini_comparison.json")
    architectures = read(RESULTS / "bend_mini_architectures.json")
    for row in architectures["rows"]:
        row["nats_per_million"] = (math.log(4.0) - math.log(row["perplexity"])) / (row["n_parameters"] / 1e6)
    entries = [entry for tasks in comparison["tables"] for entry in tasks.values()]
    for score in (score for entry in entries for score in entry["scores"]):
        score["name"] = RENAMED.get(score["name"], score["name"])
    for row in architectures["rows"]:
        for old, new in RENAMED.items():
            row["name"] = row["name"].replace(old, new)
    for row in training["tables"]:
        row["name"] = row["name"].replace("letter", "nucleotide")
    names = list(dict.fromkeys(score["name"] for entry in entries for score in entry["scores"]))
    names = [name for name in names if name != DEFAULT_MODEL] + [DEFAULT_MODEL]
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  the card is Markdown, and its fields come from files of this repository
    )
    environment.globals.update(cell=cell, gain=gain)
    return environment.from_string((HERE / "card.md.jinja").read_text(encoding="utf-8")).render(
        training=training,
        architectures=architectures,
        comparison=comparison,
        names=names,
        command=" \\\n    ".join(lines(training["command"])),
        weight_bytes=(FOLDER / "model.safetensors").stat().st_size,
        reach=reach_bp(training["model"]["sizes"]),
        tried=(HERE / "tried.md").read_text(encoding="utf-8"),
        verdict=verdict(comparison["tables"]),
    )


def lines(command: list[str]) -> list[str]:
    """Break a command before each flag."""
    found: list[list[str]] = [[]]
    for word in command:
        if word.startswith("--"):
            found.append([])
        found[-1].append(word)
    return [shlex.join(words) for words in found]


def main() -> None:
    """Write the card."""
    start_logging()
    print(write_text(CARD, card()))


if __name__ == "__main__":
    main()
