"""Render the tables and outputs in README.md and docs/ from the declarations and from benchmarks/results.

    python -m benchmarks._docs

``tests/e2e/test_documents.py`` fails if a page differs from what this writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from benchmarks import _costs
from benchmarks.coverage import TARGET
from benchmarks.demo import sample_sha256
from bend_hf.cli.list import baseline_table, model_table, task_table
from bend_hf.evaluation.audit.task_audit import findings_table
from bend_hf.evaluation.shots import passes_text
from bend_hf.evaluation.strands import strand_text
from bend_hf.files import asset_folder
from bend_hf.publishing.overview import Overview, TaskScore
from bend_hf.publishing.report.tables import layer_name
from bend_hf.publishing.shot_tables import HEADER as SHOT_HEADER
from bend_hf.publishing.shot_tables import shot_rows
from bend_hf.runs.controls import CONTROLS
from bend_hf.runs.demo import VARIANTS
from bend_hf.tables import markdown_table, metric_title, number
from bend_hf.tasks import TASKS

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results"
Result: TypeAlias = dict[str, Any]  # the JSON of one benchmark

CHROMOSOME_COLUMNS: Final = ("bend-mini", "expert", "k-mers", "random weights")
EXPERTS: Final = {
    "gene_finding": "AUGUSTUS",
    "chromatin_accessibility": "Motifs and k-mers",
    "variant_effects_disease": "SpliceAI",
}
DATA_TITLES: Final = {
    "sample": "The bundled sample:",
    "chr20": "Chromosome 20 of GRCh37 with labels of ENCODE and others:",
}


def pages() -> list[Path]:
    """Return README.md, CONTRIBUTING.md, every page in docs/ and the card of the sample."""
    of_sample = asset_folder("sample") / "README.md"
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), of_sample]


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
    """Show the table of the demo."""
    return Overview.from_json((RESULTS / "demo_overview.json").read_text(encoding="utf-8")).markdown()


def sample_scores() -> str:
    """Show the table of the demo in the card of the sample; nothing but a word if it was run on another one."""
    text = (RESULTS / "demo_overview.json").read_text(encoding="utf-8")
    if json.loads(text)["sample_sha256"] != sample_sha256():
        return "The demo was not run on these files yet."
    return f"{_SAMPLE_SCORES.format(n_variants=VARIANTS.limit)}\n{Overview.from_json(text).markdown()}"


_SAMPLE_SCORES: Final = """\
What `bend-hf demo` measures on this sample (`python -m benchmarks.demo`), with the same linear heads for bend-mini and
for the same network with random weights. Epochs and learning rates are chosen on the validation split, and nothing is
chosen on the test split. Of enhancer annotation, one window of each subset is used, and of variant effects {n_variants}
rows of each task. Compare the scores with the rules of one feature in the table above, too.
"""


def few_shots() -> str:
    """Show the curve on one chromosome, and what curves and strand reports cost."""
    result = json.loads((RESULTS / "few_shots.json").read_text(encoding="utf-8"))
    curve, strands = result["curve"], result["strands"]
    lines = []
    if "chr20" in result:
        found = result["chr20"]
        rows = shot_rows("bend-mini", found["shots_entry"])
        for key, points in found["controls"].items():
            rows += shot_rows(f"control: {key}", {"points": points})
        rows += shot_rows("BERT with 12 layers, random weights", found["random_12_layers"]["shots_entry"])
        passes = passes_text(found["shots_entry"]["against_controls"]["passes"])
        lines = [
            f"{TASKS.get(found['task']).title} on chromosome 20 of GRCh37 ({metric_title(found['metric'])}, head "
            f"`{found['head']}`, {found['epochs']} epochs; `make few-shots` runs it):",
            "",
            markdown_table(SHOT_HEADER, rows),
            "",
            f"bend-mini {passes}.",
            "",
            f"On the same data, {strand_text(found['strands'], found['metric'])}.",
            "",
        ]
    return "\n".join(
        [
            *lines,
            f"{curve['heads']} heads together take {curve['ratio']['processor']:.2f} of the processor time of as many "
            f"separate trainings on the same cached embeddings ({curve['ratio']['clock']:.2f} by the clock), and their "
            f"predictions differ by at most {curve['largest_difference']:.1g}. A strand report takes "
            f"{strands['ratio']['processor']:.2f} times one pass over the test split, with its embedding "
            f"({strands['ratio']['clock']:.2f} by the clock). The machine was shared while this was measured.",
        ]
    )


def chromosome() -> str:
    """Show the scores of bend-mini and its controls on a whole chromosome."""
    result = _chromosome()
    scores = []
    for one in Overview.from_json(json.dumps(result["overview"])).scores:
        shown = "expert" if EXPERTS.get(one.task) == one.model else one.model
        if shown in CHROMOSOME_COLUMNS:
            scores.append(replace(one, model=shown, task=f"{one.task} ({result['items'][one.task]:,} test items)"))
    best = {task: max(_values(scores, task), default=None) for task in {one.task for one in scores}}
    shown_scores = tuple(replace(one, mark="best" if one.value == best[one.task] else "") for one in scores)
    experts = ", ".join(f"{name} on {task}" for task, name in EXPERTS.items())
    said = [one for one in result["overview"]["sentences"] if re.match("bend-mini (beats|does not beat) random", one)]
    return Overview(scores=shown_scores, sentences=tuple(said)).markdown(
        f"95 % intervals in brackets; {{best}}: best of the line. Experts: {experts}."
    )


def _values(scores: list[TaskScore], task: str) -> list[float]:
    return [one.value for one in scores if one.task == task and one.value is not None]


def experts() -> str:
    """Show every model and control on a whole chromosome, the best first."""
    result = _chromosome()
    found = Overview.from_json(json.dumps(result["overview"])).scores
    order = sorted(found, key=lambda one: (one.task, -(one.value or 0.0)))
    rows = [
        (one.task, f"control: {one.model}" if one.is_control else one.model, metric_title(one.metric), one.cell)
        for one in order
    ]
    legend = "`*`: best of its task; `=`: a paired test cannot tell it from the best."
    return f"{markdown_table(('task', 'model or control', 'metric', 'score'), rows)}\n\n{legend}"


def installed_controls() -> str:
    """Show the controls that take something from the machine, as their files declare them."""
    rows = []
    for control in CONTROLS:
        if control.provenance is not None:
            tasks = ", ".join(task.key for task in TASKS if control.why_not(task) is None)
            about = control.provenance
            how = about.install.removeprefix("install it with ").replace("'", "`")
            rows.append((f"`{control.key}`", tasks, about.source, how, about.license, about.trained_on))
    return markdown_table(("control", "tasks", "source", "how to get it", "license", "trained on"), rows)


def genes() -> str:
    """Show how well genes are found on a whole chromosome, by exact exons."""
    found = _chromosome()["genes"]
    by_f1 = found["header"].index("exon F1")
    return markdown_table(found["header"], sorted(found["rows"], key=lambda row: row[by_f1], reverse=True))


def _chromosome() -> Result:
    result: Result = json.loads((RESULTS / "chromosome.json").read_text(encoding="utf-8"))
    return result


def precision() -> str:
    """Show the scores of a model in float32 and in bfloat16."""
    result = json.loads((RESULTS / "precision.json").read_text(encoding="utf-8"))
    rows = []
    for one in result["tasks"]:
        change = one.get("changed_classes")
        text = (
            f"{one['largest_change_over_spread']:.1%} of the spread of the scores, at most"
            if change is None
            else f"{change:.1%} of the classes"
        )
        low, high = one["interval"]
        rows.append(
            (
                f"{TASKS.get(one['task']).title}, {one['items']:,} test items",
                metric_title(one["metric"]),
                f"{number(one['float32'])} ({number(low)} to {number(high)})",
                number(one["bfloat16"]),
                f"{one['bfloat16'] - one['float32']:+.4f}",
                text,
            )
        )
    header = ("task", "metric", "float32 (95 % interval)", "bfloat16", "change", "predictions differ by")
    limit = "" if result["limit"] is None else f" --limit {result['limit']}"
    return "\n".join(
        [
            f"{result['model']} on the {result['data']}, {result['device']}, torch {result['torch']}; "
            f"`python -m benchmarks.precision{limit}` measures it:",
            "",
            markdown_table(header, rows),
        ]
    )


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
    return [(result["name"], "all cores together", f"{result['cpu_seconds']:.0f} s of processor time")]


def _evo2_prefixes(result: Result) -> list[tuple[str, ...]]:
    return [
        (
            f"Evo 2, whole windows of {2 * row['side_bp'] + 1:,} bp, alternatives per site: {row['per_site']}",
            "each allele on its own",
            f"{row['ratio']:.2f} times, {row['token_ratio']:.2f} times fewer tokens",
        )
        for row in result["rows"]
    ]


def _training(result: Result) -> list[tuple[str, ...]]:
    return [
        (f"training at width {result['width']}: {line['name']}", "repeat, then convolve", f"{line['ratio']:.2f} times")
        if line["unit"]
        else (f"training at width {result['width']}: {line['name']}", "the whole epoch", f"{line['ratio']:.0%}")
        for line in result["lines"]
    ]


def _layers(result: Result) -> list[tuple[str, ...]]:
    return [(line["name"], "one layer alone, processor time", f"{line['ratio']:.2f} times") for line in result["lines"]]


def layer_curves() -> str:
    """Show the curves over layers of two models on one chromosome, and the choice in words."""
    found = json.loads((RESULTS / "chromosome_layers.json").read_text(encoding="utf-8"))
    parts = []
    for curve in found["curves"]:
        rows = [
            (layer_name(point["layer"]), number(point["validation"]), number(point["test"]))
            for point in (*curve["points"], *curve["mixes"])
        ]
        name = f"random {curve['model']}" if "random" in curve["model"] else curve["model"]
        title = f"**{name.removesuffix(', random weights')}**: {curve['in_words']}"
        parts += [title, "", markdown_table(("layer", "validation", "test"), rows), ""]
    return "\n".join(parts).rstrip()


def _uncertainty(result: Result) -> list[tuple[str, ...]]:
    return [
        (
            f"{row['resamples']:,} resamples of {row['name']} on {row['n_items']:,} items, {row['ours_s']:.1f} s",
            "scikit-learn, once per resample",
            f"{row['ratio']:.0f} times",
        )
        for row in result["rows"]
    ]


def _scan(result: Result) -> list[tuple[str, ...]]:
    return [
        (
            f"{row['model']}, {row['sequences']} x {row['bp']:,} bp, {row['dtype']}, {result['machine']['device']}",
            "the same network with the scan in PyTorch",
            f"{row['speed_up']:.1f} times, {row['triton'] / 1e6:.2f} million nucleotides per second",
        )
        for row in result["rows"]
    ]


def _gpu(result: Result) -> list[tuple[str, ...]]:
    return [
        (
            f"whole embedder, {row['model']}, {row['bp']:,} bp, {row['dtype']}, {result['machine']['device']}",
            "the bare model's forward",
            f"{row['whole_of_bare']:.2f} of its speed, {row['whole'] / 1e6:.2f} million nucleotides per second",
        )
        for row in result["rows"]
    ]


def _variants(result: Result) -> list[tuple[str, ...]]:
    plain = "two sequences per forward pass, SciPy's cosine"
    rows = []
    for entry in result["comparisons"]:
        averaged = f"{entry['with_averages_speedup']:.2f} times"
        rows += [
            (f"variants, {entry['name']}", plain, f"{entry['speedup']:.2f} times"),
            ("the same, with averages over window and sequence", plain, averaged),
        ]
        if "with_likelihood_speedup" in entry:
            what = f"the same, and likelihoods: {entry['passes_per_variant']:.2f} passes per variant"
            rows.append((what, f"{plain}; a third one masked", f"{entry['with_likelihood_speedup']:.2f} times"))
    return rows


def _memory(result: Result) -> list[tuple[str, ...]]:
    return [
        (
            f"bend-hf {line['what']} of {line['rows']:,} records",
            f"peak memory {line['resident_mb']:.0f} MB",
            f"{line['processor_seconds']:.1f} s of processor time",
        )
        for line in result["lines"]
        if line["what"].startswith("report") and line.get("processor_seconds") is not None
    ]


def _startup(result: Result) -> list[tuple[str, ...]]:
    plain = "a plain script with torch and transformers, one sequence per pass"
    rows = [
        (
            f"whole command: {entry['name']}",
            plain,
            f"{entry['processor_ratio']:.2f} times in processor time, {entry['ratio']:.2f} times in wall time",
        )
        for entry in result["comparisons"]
    ]
    if train := result.get("train"):
        what = "bend-hf train on one-hot sequence, processor time until the first step starts"
        parts = (
            f"import torch, {train['import_torch_s']:.1f} s in the same run; with accelerate, datasets and evaluate "
            f"{train['import_libraries_s']:.1f} s; the step itself takes {train['pass_s']:.1f} s"
        )
        rows.append((what, parts, f"{train['start_s']:.1f} s"))
    return rows


def _tokenizing(result: Result) -> list[tuple[str, ...]]:
    rows = []
    compared = {"one_core": "offsets of the tokenizer of transformers", "all_cores": "one core"}
    for row in result["rows"]:
        for way, other in compared.items():
            cores = "one core" if way == "one_core" else f"{result['machine']['cores']} cores"
            gain, speed = row["times_faster"][way], row["bp_per_second"][way] / 1e6
            rows.append(
                (
                    f"tokenizing windows of {row['length_bp']:,} bp with byte pairs, {cores}",
                    other,
                    f"{gain:.2f} times, {speed:.1f} million nucleotides per second",
                )
            )
    return rows


def _audit(result: Result) -> list[tuple[str, ...]]:
    return [
        (
            f"audit of {row['rows']:,} rows of {row['row_bp']} bp with {row['labels']} labels",
            f"{result['machine']['cores']} cores, peak memory {row['peak_mib'] / 1024:.1f} GiB",
            f"{row['cpu_seconds']:.0f} s of one core",
        )
        for row in result["rows"]
    ]


def _decoding(result: Result) -> list[tuple[str, ...]]:
    speed = result["nucleotides_per_processor_s"] / 1e6
    return [
        (
            f"decoding {result['rows']} genes with a grammar, {speed:.1f} million nucleotides a second on one core",
            "Viterbi's algorithm, a dense matrix in NumPy",
            f"{result['ratio']:.0f} times",
        )
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


def too_narrow() -> str:
    """Show the kinds of data whose intervals cover less often than they should, with the reason of each."""
    rows = json.loads((RESULTS / "coverage.json").read_text(encoding="utf-8"))["coverage"]
    narrow = sorted((row for row in rows if row["coverage"] < TARGET[0]), key=lambda row: row["coverage"])
    if not narrow:
        return f"All {len(rows)} kinds of data are covered in at least {TARGET[0]:.0%} of the simulations."
    shown = [(row["metric"], row["name"], f"{row['coverage']:.1%}", row["reason"]) for row in narrow]
    table = markdown_table(("metric", "data", "covers", "reason"), shown)
    n = narrow[0]["simulations"]
    error = (TARGET[0] * (1 - TARGET[0]) / n) ** 0.5
    return (
        f"{len(narrow)} of {len(rows)} kinds of data are covered in less than {TARGET[0]:.0%} of {n:,} simulations "
        f"(the standard error of a share is {error:.1%}):\n\n{table}"
    )


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
    "decoding": _decoding,
    "build": _build,
    "cache": _cache,
    "demo": _demo,
    "embedders": _embedders,
    "evo2_prefixes": _evo2_prefixes,
    "genome": _genome,
    "gpu": _gpu,
    "layers": _layers,
    "memory": _memory,
    "metrics": _metrics,
    "scan": _scan,
    "startup": _startup,
    "tokenizing": _tokenizing,
    "training": _training,
    "uncertainty": _uncertainty,
    "variants": _variants,
}


def evo_memory() -> str:
    """Show what each Evo 2 takes at each length, as benchmarks/evo2_memory.py counted it."""
    rows = json.loads((RESULTS / "evo2_memory.json").read_text(encoding="utf-8"))["rows"]
    lengths = sorted({row["length_bp"] for row in rows})
    activations = {(row["model"], row["length_bp"]): row["activations_bytes"] for row in rows}
    weights = {row["model"]: row["weights_bytes"] for row in rows}
    return markdown_table(
        ("model", "weights in bfloat16", *(f"more for {n:,} bp" for n in lengths)),
        [
            (model, f"{n_bytes / 1e9:.1f} GB", *(f"{activations[model, n] / 1e9:.1f} GB" for n in lengths))
            for model, n_bytes in weights.items()
        ],
    )


def cluster_session() -> str:
    """Show what submissions to two nodes of Slurm printed when benchmarks/cluster_session.py made them."""
    printed = json.loads((RESULTS / "cluster_session.json").read_text(encoding="utf-8"))
    shown = "\n\n".join(printed[name].strip() for name in ("submitted", "ended"))
    return f"```text\n{shown}\n```"


def cluster_scale() -> str:
    """Show what leases cost, and how workers share many shards, as benchmarks/cluster.py measured and simulated it."""
    result = json.loads((RESULTS / "cluster.json").read_text(encoding="utf-8"))
    costs, large = result["costs_s"], result["large"]
    header = ("workers", "leases and looks, of a shard", "the same, 1 ms more per operation", "busy", "fewest shards")
    rows = [
        (
            f"{one['n_workers']}",
            f"{one['overhead']:.4%}",
            f"{slow['overhead']:.4%}",
            f"{one['efficiency']:.2%}",
            f"{one['fewest']:.1%} of the mean",
        )
        for one, slow in zip(result["local"], result["network"], strict=True)
    ]
    words = {
        "plan": "planning",
        "inventory": "counting what is finished",
        "status": "`bend-hf submit --status`",
        "list": "`bend-hf cache list`",
    }
    sizes = ", ".join(
        f"{words[name]} {one['seconds']:.2f} s of processor time and {one['peak_mb']:.0f} MB"
        for name, one in large.items()
    )
    return (
        f"{markdown_table(header, rows)}\n\n"
        f"On a local disk, a lease takes {costs['lease'] * 1e3:.2f} ms, a look at a folder "
        f"{costs['look'] * 1e3:.2f} ms, "
        f"the test of a folder {costs['self_test'] * 1e3:.1f} ms. With {result['n_shards']:,} shards of "
        f"{result['n_windows']:,} windows in {result['n_entries']} entries: {sizes}."
    )


def faults() -> str:
    """Show how many changes to files failed in each command, and what was wrong after them."""
    found = json.loads((RESULTS / "faults.json").read_text(encoding="utf-8"))
    header = ("command", "changes to files", "of these failed", "faults", "repetitions", "wrong")
    rows = [
        (
            f"`{name}`",
            *(f"{one[key]:,}" for key in ("changes", "tried", "lives")),
            f"{one.get('states', one['lives']):,}",  # once for each state that faults left, or after each fault
            str(len(one["wrong"])),
        )
        for name, one in found.items()
    ]
    return str(markdown_table(header, rows))


def fuzz() -> str:
    """Show how many files the readers read or refused."""
    found = json.loads((RESULTS / "fuzz.json").read_text(encoding="utf-8"))
    rows = [
        (name, f"{one['files']:,}", str(one["seconds"]), "yes" if one["guided"] else "no", str(one["broken"]))
        for name, one in found.items()
    ]
    return str(markdown_table(("reader", "files", "seconds", "guided by coverage", "that broke it"), rows))


SECTIONS: dict[str, Callable[[], str]] = {
    "audit": audit_findings,
    "baselines": lambda: str(baseline_table()),
    "chromosome": chromosome,
    "cluster-scale": cluster_scale,
    "cluster-session": cluster_session,
    "costs-cpu": _costs.cpu_table,
    "costs-disk": _costs.disk_table,
    "costs-gpu": _costs.gpu_table,
    "costs-memory": _costs.memory_table,
    "costs-tasks": _costs.tasks_table,
    "coverage": coverage,
    "demo": demo,
    "evo-memory": evo_memory,
    "experts": experts,
    "faults": faults,
    "few-shots": few_shots,
    "fuzz": fuzz,
    "genes": genes,
    "installed-controls": installed_controls,
    "layer-curves": layer_curves,
    "models": lambda: str(model_table()),
    "paired-tests": paired_tests,
    "precision": precision,
    "retrained": retrained,
    "sample-scores": sample_scores,
    "speed": speed,
    "tasks": lambda: str(task_table()),
    "too-narrow": too_narrow,
}


if __name__ == "__main__":
    for page in pages():
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
