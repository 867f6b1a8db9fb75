"""Render the tables and outputs in README.md and docs/ from the declarations and from benchmarks/results.

    python -m benchmarks._docs

``tests/e2e/test_documents.py`` fails if a page differs from what this writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

from bend_hf.cli.list import baseline_table, model_table, task_table
from bend_hf.evaluation.audit.task_audit import findings_table
from bend_hf.tables import markdown_table

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
Result: TypeAlias = dict[str, Any]  # the JSON of one benchmark

# Models of the demo that the README shows. Files written by version 0.1.0 say "Random twin".
DEMO_MODELS: Final = ("k-mers", "Random weights", "bend-mini")
DATA_TITLES: Final = {
    "sample": "The bundled sample:",
    "chr20": "Chromosome 20 of GRCh37 with labels of ENCODE and others:",
}


def pages() -> list[Path]:
    """Return README.md, CONTRIBUTING.md and every page in docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def render(text: str) -> str:
    """Fill every marked section of a page.

    Raises:
        SystemExit: A section has no renderer.
    """
    return _SECTION.sub(lambda found: f"{found[1]}{_body(found[2])}\n{found[3]}", text)


_SECTION: Final = re.compile(r"(<!-- begin ([a-z-]+(?: [a-z-]+)?) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def _body(section: str) -> str:
    name, _, argument = section.partition(" ")
    if name == "output":
        return output(argument)
    if name not in SECTIONS:
        raise SystemExit(f"unknown section {section!r}; known are {', '.join(SECTIONS)} and output NAME")
    return SECTIONS[name]()


def output(name: str) -> str:
    """Show what a command of the README printed when benchmarks/first_steps.py ran it."""
    printed = json.loads((RESULTS / "first_steps.json").read_text(encoding="utf-8"))
    return f"```text\n{printed[name].strip()}\n```"


def demo() -> str:
    """Show the scores that the demo printed for three models, without their intervals."""
    lines = (RESULTS / "demo.txt").read_text(encoding="utf-8").splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("task "))
    names = re.split(r"\s{2,}", lines[first].strip().replace("Random twin", "Random weights"))
    rows = [
        dict(zip(names, re.split(r"\s{2,}", line.strip()), strict=True))
        for line in lines[first + 2 : first + 2 + lines[first + 2 :].index("")]
    ]
    shown = [(row["task"], row["metric"], *(row[name].partition(" [")[0] for name in DEMO_MODELS)) for row in rows]
    return markdown_table(("task", "metric", *DEMO_MODELS), shown)


def demo_time() -> str:
    """Say how long the demo took, and on how many cores."""
    facts = json.loads((RESULTS / "demo.json").read_text(encoding="utf-8"))
    return f"With everything installed, the demo took {facts['seconds'] / 60:.1f} minutes on {facts['cores']} cores."


def speed() -> str:
    """Show one row per measurement of each benchmark."""
    rows = [
        (*row, f"`benchmarks/{path.stem}.py`")
        for path in sorted(RESULTS.glob("*.json"))
        if path.stem in READERS
        for row in READERS[path.stem](json.loads(path.read_text(encoding="utf-8")))
    ]
    return markdown_table(("what", "compared with", "measured", "script"), rows)


def _genome(result: Result) -> list[tuple[str, ...]]:
    wanted = ("pyfaidx", "upstream")
    return [
        (
            f"genome: {line['rows']:,} {line['name']}",
            f"{line['reference']}, one fetch per row",
            f"{line['ratio']:.1f} times",
        )
        for line in result["lines"]
        if line["reference"] in wanted
    ]


def _build(result: Result) -> list[tuple[str, ...]]:
    return [
        (
            "building 512-bp rows with 125 labels, rows per second",
            "pandas and pyfaidx, row by row",
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
    fraction = max(row["tokenizing_share"] for row in result["rows"])
    n = len({row["model"] for row in result["rows"]})
    return [
        (f"whole embedder, lowest of {n} families", "the bare model's forward", f"{low:.2f} of its speed"),
        (f"tokenizing, highest of {n} families", "the whole embedder", f"{fraction:.1%} of the time"),
    ]


def _cache(result: Result) -> list[tuple[str, ...]]:
    return [
        (f"embedding cache: {line['name']}", "see the first column", f"{line['ratio']:.2f} times")
        for line in result["lines"]
    ]


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
            f"{row['resamples']:,} resamples of {row['name']} on {row['n_items']:,} items, {row['ours_s']:.1f} s",
            "scikit-learn, once per resample",
            f"{row['ratio']:.0f} times",
        )
        for row in result["rows"]
    ]


def _variants(result: Result) -> list[tuple[str, ...]]:
    plain = "two sequences per forward pass, SciPy's cosine"
    return [
        row
        for entry in result["comparisons"]
        for row in (
            (f"variants, {entry['name']}", plain, f"{entry['speedup']:.2f} times"),
            ("the same, with averages over window and sequence", plain, f"{entry['with_averages_speedup']:.2f} times"),
        )
    ]


def _audit(result: Result) -> list[tuple[str, ...]]:
    return [
        (
            f"audit of {row['rows']:,} rows of {row['row_bp']} bp with {row['labels']} labels",
            f"{result['machine']['cores']} cores, peak memory {row['peak_mib'] / 1024:.1f} GiB",
            f"{row['cpu_seconds']:.0f} s of one core",
        )
        for row in result["rows"]
    ]


def audit_findings() -> str:
    """Show what audits of real data found, one table per folder."""
    found = json.loads((RESULTS / "audit.json").read_text(encoding="utf-8"))["findings"]
    return "\n\n".join(f"{DATA_TITLES.get(name, name)}\n\n{findings_table(audits)}" for name, audits in found.items())


def coverage() -> str:
    """Show how often the intervals cover the truth."""
    result = json.loads((RESULTS / "coverage.json").read_text(encoding="utf-8"))
    rows = [
        (
            row["metric"],
            row["name"],
            f"{row['coverage']:.1%}",
            "" if row["percentile_coverage"] is None else f"{row['percentile_coverage']:.0%}",
            f"{row['marked']:.0%}",
            row["reason"],
        )
        for row in result["coverage"]
    ]
    return markdown_table(("metric", "data", "covers", "bootstrap over items", "marked", "note"), rows)


def paired_tests() -> str:
    """Show how often the paired test finds a difference, without and with one."""
    rows = json.loads((RESULTS / "coverage.json").read_text(encoding="utf-8"))["tests"]
    found = {(row["metric"], row["clusters"], row["effect"]): row for row in rows}
    shown = [
        (
            metric,
            str(n),
            f"{row['rejected']:.1%}",
            f"{found[metric, n, 0.4]['rejected']:.0%} (of {found[metric, n, 0.4]['difference']:.3f})",
        )
        for (metric, n, effect), row in found.items()
        if effect == 0
    ]
    return markdown_table(("metric", "clusters", "equal models called different", "differences found"), shown)


def retrained() -> str:
    """Show how often the same model trained again is called better."""
    rows = json.loads((RESULTS / "coverage.json").read_text(encoding="utf-8"))["retrained"]
    return markdown_table(
        ("trainings of each model", "called better"),
        [(str(row["trainings"]), f"{row['called_better']:.1%}") for row in rows],
    )


READERS: dict[str, Callable[[Result], list[tuple[str, ...]]]] = {
    "audit": _audit,
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


SECTIONS: dict[str, Callable[[], str]] = {
    "audit": audit_findings,
    "baselines": lambda: str(baseline_table()),
    "coverage": coverage,
    "demo": demo,
    "demo-time": demo_time,
    "models": lambda: str(model_table()),
    "paired-tests": paired_tests,
    "retrained": retrained,
    "speed": speed,
    "tasks": lambda: str(task_table()),
}


if __name__ == "__main__":
    for page in pages():
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
