"""Measure how fast byte pairs are tokenized, on one core and on all, against the offsets of transformers' tokenizer.

    python -m benchmarks.tokenizing                  # prints a table, writes benchmarks/results/tokenizing.json

A vocabulary of 4,096 tokens, as many as DNABERT-2 has, is learned from the human sequence of the sample, which is then
tokenized in windows of 512 and 6,000 bp. The library's own threads are off, as after a fork, so no other cores work
than those that are counted. Rounds take turns; a ratio is the median of the rounds' ratios. All ways must give the same
tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from bend_hf.data.genome import Genome
from bend_hf.embedders import _encoding
from bend_hf.embedders._device import usable_cores
from bend_hf.embedders._dna_tokenizer import DnaTokenizer
from bend_hf.files import write_text

RESULTS: Final = Path(__file__).resolve().parent / "results" / "tokenizing.json"
SAMPLE: Final = Path(__file__).resolve().parents[1] / "bend_hf" / "sample" / "genomes" / "sample.fa.gz"
N_TOKENS: Final = 4096
LENGTHS_BP: Final = (512, 6000)
TOTAL_BP: Final = 4_000_000
UNKNOWN, PADDING = "[UNK]", "[PAD]"


def human_sequence() -> str:
    """Join the sequences of the sample, without N."""
    genome = Genome(SAMPLE)
    lengths = genome.contigs
    batch = genome.fetch(list(lengths), np.zeros(len(lengths), np.int64), list(lengths.values()))
    return batch.bases.tobytes().decode("ascii").replace("N", "")


def learned(text: str) -> Tokenizer:
    """Learn byte pairs from a text."""
    made = Tokenizer(models.BPE(unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=N_TOKENS, special_tokens=[UNKNOWN, PADDING], initial_alphabet=list("ACGT"), show_progress=False
    )
    made.train_from_iterator((text[at : at + 200] for at in range(0, len(text), 200)), trainer)
    return made


def windows(text: str, length_bp: int) -> list[str]:
    """Draw windows."""
    first = np.random.default_rng(0).integers(0, len(text) - length_bp, TOTAL_BP // length_bp)
    return [text[at : at + length_bp] for at in first.tolist()]


def seconds(call: Callable[[], object]) -> float:
    """Time a call by the clock."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure(tokenizer: DnaTokenizer, sequences: list[str], rounds: int) -> dict[str, Any]:
    """Time the three ways in turns.

    Raises:
        SystemExit: They give different tokens.
    """

    def on(cores: int) -> object:
        with mock.patch.object(_encoding, "usable_cores", return_value=cores):
            return tokenizer.stream(sequences)

    ways = {
        "offsets": lambda: tokenizer._by_offsets(sequences),
        "one_core": lambda: on(1),
        "all_cores": lambda: on(usable_cores()),
    }
    made = [way() for way in ways.values()]
    for name in ("ids", "token_bp", "starts"):
        if not all(np.array_equal(getattr(made[0], name), getattr(other, name)) for other in made[1:]):
            raise SystemExit(f"the {name} of the ways differ")
    took: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in (list(ways), list(ways)[::-1])[number % 2]:
            took[name].append(seconds(ways[name]))
    pairs = {"one_core": ("offsets", "one_core"), "all_cores": ("one_core", "all_cores")}
    return {
        "length_bp": len(sequences[0]),
        "bp_per_second": {name: TOTAL_BP / min(times) for name, times in took.items()},
        "times_faster": {
            name: statistics.median(slow / fast for slow, fast in zip(took[a], took[b], strict=True))
            for name, (a, b) in pairs.items()
        },
        "seconds": took,
    }


def main(argv: list[str] | None = None) -> int:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parsed = parser.parse_args(argv)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    text = human_sequence()
    backend = learned(text)
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=UNKNOWN, pad_token=PADDING)
    tokenizer = DnaTokenizer(fast, name="byte pairs of the sample", cannot=str)
    rows = [measure(tokenizer, windows(text, length), parsed.rounds) for length in LENGTHS_BP]
    for row in rows:
        speeds = {name: f"{speed / 1e6:.1f}" for name, speed in row["bp_per_second"].items()}
        print(f"{row['length_bp']} bp, million nucleotides per second: {speeds}; {row['times_faster']}")
    report = {
        "what": f"byte pairs, {backend.get_vocab_size()} tokens, {TOTAL_BP:,} nucleotides of the sample",
        "machine": {"platform": platform.platform(), "cores": usable_cores()},
        "tokenizers": tokenizers.__version__,
        "rows": rows,
    }
    write_text(parsed.out, json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
