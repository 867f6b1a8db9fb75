"""Time whole commands against plain scripts that do the same work with torch and transformers.

    python -m benchmarks.startup                   # prints a table, writes benchmarks/results/startup.json
    python -m benchmarks.startup --rounds 2 --only "two variants"      # keeps the other results

Each round runs both sides one after the other, and every other round in the other order. A ratio is the median of the
rounds' ratios, so that other programs on the machine slow both of its sides. Processor time is that of the process
and its children. ``_plain_embed.py`` and ``_plain_variants.py`` are the plain scripts; the scores of both sides are
compared first. The model is a Nucleotide Transformer with random weights. The time of ``bend-hf train`` is the
processor time until the first step starts, with its forward pass. What no change of this package shortens is measured
next to it: the imports of torch, and of all libraries that a training runs through, and both passes of the step.
The package is compiled before, as pip does when it installs one.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch

from tests.fake_checkpoints import make_tiny
from tests.tiny import write_bed, write_genome

HERE: Final = Path(__file__).resolve().parent
RESULTS: Final = HERE / "results" / "startup.json"
KEY: Final = "nt_transformer_human_ref"
LAYERS, WIDTH = 12, 256
COLUMNS: Final = ("chromosome", "start", "end", "ref", "alt", "label")
WINDOW_BP: Final = 512
TRAINING: Final = "the start of a training"
SAME: Final = 1e-3  # largest difference of the scores of both sides; log-likelihoods of random weights reach 10
# Prints the processor seconds at which the first step starts and those of its forward and backward pass, and ends the
# process before the optimizer changes anything.
FIRST_STEP: Final = """
import os, sys, time
from bend_hf import __main__
started = []
def pass_starts(*_):
    started.append(time.process_time())
def ready(*_):
    now = time.process_time()
    print(f"seconds: {started[0]:.3f} {now - started[0]:.3f}", flush=True)
    os._exit(0)
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "bend_hf.training.trainer":
            sys.meta_path.remove(self)
            import torch
            import bend_hf.training.optimizer as optimizer
            optimizer.AdamW.step = ready
            torch.nn.modules.module.register_module_forward_pre_hook(pass_starts)
sys.meta_path.insert(0, Watch())
sys.argv[0] = "bend-hf"
__main__.run()
"""
IMPORT_TORCH: Final = 'import time, torch; print(f"seconds: {time.process_time():.3f}")'
IMPORT_LIBRARIES: Final = """
import gc, time
gc.disable()
import torch, accelerate, datasets
from bend_hf.evaluation.evaluate_import import load_evaluate
load_evaluate()
print(f"seconds: {time.process_time():.3f}")
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison.

    Attributes:
        name: What both sides do.
        ours: The command, with OUT for an empty folder.
        plain: The script, with OUT for an empty folder.
        wanted: The lowest ratio, of the plain script's time to ours.
    """

    name: str
    ours: list[str]
    plain: list[str]
    wanted: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Seconds of both sides, per round."""

    name: str
    wanted: float
    ours_s: list[float]
    plain_s: list[float]
    ours_processor_s: list[float]
    plain_processor_s: list[float]

    @property
    def ratio(self) -> float:
        """Plain time over ours, the median of the rounds."""
        return statistics.median(a / b for a, b in zip(self.plain_s, self.ours_s, strict=True))

    def as_json(self) -> dict[str, Any]:
        """Return the seconds and the ratios."""
        return {**asdict(self), "ratio": self.ratio, "processor_ratio": self.processor_ratio}

    @property
    def processor_ratio(self) -> float:
        """Plain processor time over ours, the median of the rounds."""
        return statistics.median(a / b for a, b in zip(self.plain_processor_s, self.ours_processor_s, strict=True))


def write_inputs(folder: Path) -> None:
    """Write a genome, BED files of a window, of two and of 150 variants, and a checkpoint with weights."""
    letters = write_genome(folder / "genome.fa")["chr1"]
    write_bed(folder / "window.bed", ("chromosome", "start", "end"), [("chr1", 5_000, 5_000 + WINDOW_BP)])
    rng = np.random.default_rng(0)
    places = np.sort(rng.choice(np.arange(1_000, len(letters) - 1_000), 150, replace=False)).tolist()
    rows = [
        ("chr1", at, at + 1, letters[at], "ACGT"["ACGT".index(letters[at]) - 1], number % 2)
        for number, at in enumerate(places)
    ]
    write_bed(folder / "two.bed", COLUMNS, rows[:2])
    write_bed(folder / "many.bed", COLUMNS, rows)
    make_tiny(KEY, folder / "model")
    write_weights(folder / "model")


def write_weights(folder: Path) -> None:
    """Replace the tiny network of a checkpoint by one of 12 layers, and write its random weights."""
    from transformers import EsmConfig, EsmForMaskedLM

    fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    fields |= {
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": WIDTH // 32,
        "intermediate_size": 4 * WIDTH,
        "max_position_embeddings": 1002,
    }
    torch.manual_seed(0)
    EsmForMaskedLM(EsmConfig(**fields)).save_pretrained(folder)
    said = {"model_max_length": 1000, "tokenizer_class": "EsmTokenizer", "eos_token": None}  # as published
    (folder / "tokenizer_config.json").write_text(json.dumps(said), encoding="utf-8")


def cases(folder: Path) -> list[Case]:
    """Return the comparisons."""
    model = ["--model", KEY, "--checkpoint", f"{folder}/model", "--genome", f"{folder}/genome.fa", "--device", "cpu"]
    given = [f"{folder}/genome.fa", f"{folder}/model"]

    def variants(name: str, file: str, wanted: float, *, plain: tuple[str, ...], ours: tuple[str, ...]) -> Case:
        return Case(
            name=name,
            ours=["variants", f"{folder}/{file}", *model, "--out", "OUT", *ours],
            plain=[f"{HERE}/_plain_variants.py", f"{folder}/{file}", *given, "OUT/scores.csv", *plain],
            wanted=wanted,
        )

    return [
        Case(
            name="embedding one window",
            ours=["embed", "--bed", f"{folder}/window.bed", *model, "--cache", "OUT"],
            plain=[f"{HERE}/_plain_embed.py", f"{folder}/window.bed", *given, "OUT/embeddings.npz"],
            wanted=1.0,
        ),
        variants(
            "two variants, distances at the variant",
            "two.bed",
            1.0,
            plain=(),
            ours=("--no-likelihood", "--no-averages", "--no-plot"),
        ),
        variants("two variants, default settings", "two.bed", 1.0, plain=("likelihood",), ours=()),
        variants("150 variants, default settings", "many.bed", 1.5, plain=("likelihood",), ours=()),
    ]


def run(arguments: list[str], folder: Path) -> tuple[float, float]:
    """Run Python with some arguments; return wall and processor seconds.

    Raises:
        SystemExit: It failed.
    """
    started, before = time.perf_counter(), os.times()
    done = subprocess.run(
        [sys.executable, *(one.replace("OUT", str(folder)) for one in arguments)],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": f"{folder}/hf", "XDG_CACHE_HOME": f"{folder}/cache"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    seconds, after = time.perf_counter() - started, os.times()
    if done.returncode:
        raise SystemExit(f"{arguments}: {done.stdout[-2000:]}")
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, processor


def in_empty_folder(arguments: list[str]) -> tuple[float, float]:
    """Run Python in a folder of its own that is removed."""
    with tempfile.TemporaryDirectory() as name:
        return run(arguments, Path(name))


def compare(case: Case, rounds: int) -> Measured:
    """Time both sides in turns."""
    sides = {"ours": ["-m", "bend_hf", *case.ours], "plain": case.plain}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in (list(sides), list(sides)[::-1])[number % 2]:
            found[name].append(in_empty_folder(sides[name]))
    return Measured(
        name=case.name,
        wanted=case.wanted,
        ours_s=[wall for wall, _ in found["ours"]],
        plain_s=[wall for wall, _ in found["plain"]],
        ours_processor_s=[processor for _, processor in found["ours"]],
        plain_processor_s=[processor for _, processor in found["plain"]],
    )


def largest_difference(case: Case) -> float:
    """Score with both sides once, and return the largest difference of their scores.

    Raises:
        SystemExit: It is not small.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(["-m", "bend_hf", *case.ours], folder)
        run(case.plain, folder)
        ours = pq.read_table(next(folder.glob("*.parquet"))).to_pandas()
        plain = pd.read_csv(folder / "scores.csv")
    pairs = {"score": "distance", "log_likelihood_ratio": "log_likelihood_ratio", "entropy": "entropy"}
    found = max(float(np.abs(ours[a].to_numpy() - plain[b].to_numpy()).max()) for a, b in pairs.items())
    if not found < SAME:
        raise SystemExit(f"{case.name}: the scores of both sides differ by {found}; expected less than {SAME}")
    return found


def first_step(rounds: int) -> dict[str, float]:
    """Measure processor seconds until the first step starts, and of its parts; the lowest of each.

    Returns:
        ``start_s``, of which ``import_torch_s`` and ``import_libraries_s`` (torch included), and then ``pass_s``.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def seconds(code: str, *arguments: str) -> list[float]:
            done = subprocess.run(
                [sys.executable, "-c", code, *arguments],
                cwd=folder,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": f"{folder}/hf", "BEND_HF_CACHE": f"{folder}/c"},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            return [float(one) for one in done.stdout.rpartition("seconds: ")[2].split()]

        flags = ("train", "--task", "cpg_methylation", "--data", "sample", "--model", "onehot", "--epochs", "1")
        seconds(FIRST_STEP, *flags)  # fills the caches of datasets and evaluate
        found = [
            (*seconds(FIRST_STEP, *flags), *seconds(IMPORT_TORCH), *seconds(IMPORT_LIBRARIES)) for _ in range(rounds)
        ]
    names = ("start_s", "pass_s", "import_torch_s", "import_libraries_s")
    return {name: min(one) for name, one in zip(names, zip(*found, strict=True), strict=True)}


def main(argv: list[str] | None = None) -> int:
    """Measure, print and write the results; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="part of the name of the comparisons to run; others are kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parsed = parser.parse_args(argv)
    about = {
        "what": f"whole commands, a Nucleotide Transformer of {LAYERS} layers and width {WIDTH}, random weights",
        "machine": {"platform": platform.platform(), "processors": os.cpu_count()},
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    report = {**earlier(parsed.out), **about}
    compileall.compile_dir(HERE.parent / "bend_hf", quiet=1)
    found = []
    with tempfile.TemporaryDirectory(prefix="bend_hf_bench_") as name:
        folder = Path(name)
        write_inputs(folder)
        for case in cases(folder):
            if parsed.only not in case.name:
                continue
            found.append(one := compare(case, parsed.rounds))
            print(in_words(one))
            others = [entry for entry in report["comparisons"] if entry["name"] != one.name]
            report["comparisons"] = [*others, one.as_json()]
            parsed.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        if not parsed.only:
            likely = next(case for case in cases(folder) if case.plain[-1] == "likelihood")
            report["largest_difference"] = largest_difference(likely)
            print(f"largest difference of scores: {report['largest_difference']:.1e}")
    if parsed.only in TRAINING:
        report["train"] = first_step(parsed.rounds)
        print(f"{TRAINING}: {report['train']}")
    parsed.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if all(max(one.ratio, one.processor_ratio) >= one.wanted for one in found) else 1


def earlier(path: Path) -> dict[str, Any]:
    """Read the results of earlier runs, of which those that are measured again are replaced."""
    if not path.is_file():
        return {"comparisons": []}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def in_words(one: Measured) -> str:
    """Describe a comparison in a line."""
    ours, plain = statistics.median(one.ours_s), statistics.median(one.plain_s)
    return (
        f"{one.name}: bend-hf {ours:.2f} s, plain script {plain:.2f} s, {one.ratio:.2f} times; in processor time "
        f"{one.processor_ratio:.2f} times (wanted {one.wanted:.1f})"
    )


if __name__ == "__main__":
    sys.exit(main())
