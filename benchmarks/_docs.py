"""Writes the tables of the README from the declarations and from the files that the benchmarks wrote.

    python -m benchmarks._docs

``tests/e2e/test_readme.py`` fails if the README differs from what this writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from bend_hf.cli.list import model_table, task_table
from bend_hf.tables import markdown_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"

Result: TypeAlias = dict[str, Any]  # a results file; each reader knows the fields of its own


def section(text: str, name: str, body: str) -> str:
    """The text with one marked section filled."""
    pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"README.md has no section {name!r}")
    return pattern.sub(lambda found: f"{found[1]}{body}\n{found[2]}", text)


def demo() -> str:
    """What the demo printed, without the paths of its files, and its picture."""
    printed = (RESULTS / "demo.txt").read_text(encoding="utf-8")
    table = re.split(r"^(?:picture|plot): ", printed, maxsplit=1, flags=re.MULTILINE)[0].strip()
    facts = json.loads((RESULTS / "demo.json").read_text(encoding="utf-8"))
    took = f"From a warm install it took {facts['seconds'] / 60:.1f} minutes on {facts['cores']} cores:"
    return f"{took}\n\n```text\n{table}\n```\n\n![the same with its intervals](benchmarks/results/demo.png)"


def speed() -> str:
    """One line for each measurement of each benchmark."""
    rows = [row for path in sorted(RESULTS.glob("*.json")) for row in lines(path.stem, json.loads(path.read_text()))]
    return markdown_table(("what", "against", "measured", "script"), rows, padded=True)


def lines(name: str, result: Result) -> list[tuple[str, ...]]:
    """The measurements of one benchmark as rows of the table."""
    return [(*row, f"benchmarks/{name}.py") for row in READERS[name](result)] if name in READERS else []


def _genome(result: Result) -> list[tuple[str, ...]]:
    wanted = ("pyfaidx", "upstream")
    return [
        (
            f"genome: {line['rows']:,} {line['name']}",
            f"{line['reference']}, a fetch a row",
            f"{line['ratio']:.1f} times",
        )
        for line in result["lines"]
        if line["reference"] in wanted
    ]


def _build(result: Result) -> list[tuple[str, ...]]:
    return [
        (
            "build of 512-bp rows with 125 labels, rows a second",
            "pandas and pyfaidx by row",
            f"{result['ratio']:.1f} times",
        )
    ]


def _metrics(result: Result) -> list[tuple[str, ...]]:
    return [
        (f"{row['name']} of {row['n_items']:,} items", "scikit-learn", f"{row['ratio']:.1f} times")
        for row in result["rows"]
    ]


def _embedders(result: Result) -> list[tuple[str, ...]]:
    low = min(row["whole_of_bare"] for row in result["rows"])
    share = max(row["tokenizing_share"] for row in result["rows"])
    n = len({row["model"] for row in result["rows"]})
    return [
        (f"whole embedder, lowest of {n} families", "the bare model's forward", f"{low:.2f} of its speed"),
        (f"tokenising, highest of {n} families", "the whole embedder", f"{share:.1%} of the time"),
    ]


def _cache(result: Result) -> list[tuple[str, ...]]:
    return [(f"embedding cache: {line['name']}", "see left", f"{line['ratio']:.2f} times") for line in result["lines"]]


def _demo(result: Result) -> list[tuple[str, ...]]:
    return [(result["name"], f"{result['cores']} cores", f"{result['seconds']:.0f} s")]


def _training(result: Result) -> list[tuple[str, ...]]:
    return [
        (f"training at width {result['width']}: {line['name']}", "repeat, then convolve", f"{line['ratio']:.2f} times")
        if line["unit"]
        else (f"training at width {result['width']}: {line['name']}", "the whole epoch", f"{line['ratio']:.0%}")
        for line in result["lines"]
    ]


def _uncertainty(result: Result) -> list[tuple[str, ...]]:
    return [
        (
            f"{row['resamples']:,} resamples of {row['name']} by {row['n_items']:,} items, {row['ours_s']:.1f} s",
            "scikit-learn a resample",
            f"{row['ratio']:.0f} times",
        )
        for row in result["rows"]
    ]


def _variants(result: Result) -> list[tuple[str, ...]]:
    plain = "two sequences a forward, SciPy's cosine"
    return [
        row
        for entry in result["comparisons"]
        for row in (
            (f"variants, {entry['name']}", plain, f"{entry['speedup']:.2f} times"),
            ("the same, with averages over window and sequence", plain, f"{entry['with_averages_speedup']:.2f} times"),
        )
    ]


READERS: dict[str, Callable[[Result], list[tuple[str, ...]]]] = {
    "build": _build,
    "cache": _cache,
    "demo": _demo,
    "embedders": _embedders,
    "genome": _genome,
    "metrics": _metrics,
    "training": _training,
    "uncertainty": _uncertainty,
    "variants": _variants,
}


def render(text: str) -> str:
    """The README as it should be."""
    for name, body in (("tasks", task_table()), ("models", model_table()), ("speed", speed()), ("demo", demo())):
        text = section(text, name, body)
    return text


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(render(path.read_text(encoding="utf-8")), encoding="utf-8")
