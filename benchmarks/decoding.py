"""Measure how fast genes are decoded with a grammar, against Viterbi's algorithm written out for one row at a time.

    python -m benchmarks.decoding
    python -m benchmarks.decoding --rows 50

Prints a table and writes ``benchmarks/results/decoding.json``. The rows are as many and as long as those of BEND's test
split, with random log probabilities, on one thread. The reference keeps a dense matrix of the steps between the same
states and takes the best of them at each nucleotide with NumPy. Both must give the same classes. It is timed on a few
rows only, because its speed does not depend on their number. The best of three rounds counts, by the time of the
processor and by the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.files import write_text
from bend_hf.training.gene_grammar import TRANSITIONS, Grammar, decode

RESULTS: Final = Path(__file__).resolve().parent / "results" / "decoding.json"
N_ROWS: Final = 597  # of BEND's test split, with 4,353,894 nucleotides
SHORTEST_BP, LONGEST_BP = 1_433, 14_000
ROUNDS: Final = 3
REFERENCE_ROWS: Final = 3
STATES: Final = (
    "N",
    *(f"{kind}{strand}{phase}" for kind in "CFIL" for strand in "+-" for phase in range(3)),
    *("S", "O1", "O2"),
)
CLASS_OF: Final = {"C+": 0, "F+": 1, "I+": 2, "L+": 3, "C-": 4, "L-": 5, "I-": 6, "F-": 7}


def rules() -> Grammar:
    """A grammar with the transitions of genes of about 1,000 coding nucleotides in six exons."""
    shares = (0.999, 0.0005, 0.992, 0.007, 0.001, 0.999, 0.001)
    log = dict(zip(TRANSITIONS, np.log(shares).tolist(), strict=True))
    return Grammar(log_transitions=log, transition_weight=1.0, splice_weight=2.0)


def lengths_of(n_rows: int) -> NDArray[np.int64]:
    """Lengths of rows with the mean of BEND's."""
    spread = np.random.default_rng(0).beta(1.3, 1.42, n_rows)
    return (SHORTEST_BP + spread * (LONGEST_BP - SHORTEST_BP)).astype(np.int64)


def states_of_steps(log: dict[str, float]) -> NDArray[np.float64]:
    """The cost of each step between two states, minus infinity for one that is not allowed, shape (states, states)."""
    steps = np.full((len(STATES), len(STATES)), -np.inf)

    def allow(before: str, after: str, cost: float) -> None:
        steps[STATES.index(before), STATES.index(after)] = cost

    allow("N", "N", log["stay_non_coding"])
    allow("N", "O1", log["start"])
    allow("O1", "O2", log["stay_coding"])
    allow("S", "N", log["end"])
    for strand in "+-":
        allow("N", f"C{strand}0", log["start"])
        allow(f"C{strand}2", "N", log["end"])
        for phase in range(3):
            coding, following = f"C{strand}{phase}", f"C{strand}{(phase + 1) % 3}"
            first, intron, last = (f"{kind}{strand}{phase}" for kind in "FIL")
            allow(coding, following, log["stay_coding"])
            allow(coding, first, log["donor"])
            allow(first, intron, 0.0)
            allow(intron, intron, log["stay_intron"])
            allow(intron, last, log["acceptor"])
            allow(last, following, 0.0)
    return steps


def classes_of_states() -> NDArray[np.int64]:
    """The class of each state, shape (states,)."""
    other = {"N": 8, "S": 0, "O1": 4, "O2": 4}
    return np.array([other.get(name, CLASS_OF.get(name[:2], 8)) for name in STATES])


def reference(said: NDArray[np.float32], text: str, grammar: Grammar) -> NDArray[np.int64]:
    """Decode one row, one nucleotide after the other."""
    log = grammar.weighted
    steps, of_class = states_of_steps(log), classes_of_states()
    emitted = said[:, of_class].astype(np.float64)
    for kind, sites in {"F": ("GT", "CT"), "L": ("AG", "AC")}.items():
        for strand, site in zip("+-", sites, strict=True):
            at = [index for index, name in enumerate(STATES) if name.startswith(kind + strand)]
            off = (0, 2) if kind == "F" else (-1, 1)
            good = np.array([text[max(t + off[0], 0) : t + off[1]] == site for t in range(len(text))])
            emitted[:, at] -= np.where(good, 0.0, grammar.splice_weight)[:, None]
    plus, minus = ([STATES.index(f"C{strand}{phase}") for phase in (1, 2)] for strand in "+-")
    stop, opened = STATES.index("S"), STATES.index("O2")
    scores = emitted[0].copy()
    scores[[stop, STATES.index("O1"), opened]] = -np.inf
    before = np.zeros((len(text), len(STATES)), np.int64)
    for t in range(1, len(text)):
        codon, now = text[max(t - 2, 0) : t + 1], steps.copy()
        if codon in ("TAA", "TAG", "TGA"):
            now[plus[0], plus[1]], now[plus[0], stop] = -np.inf, log["stay_coding"]
        if codon in ("TTA", "CTA", "TCA"):
            now[minus[0], minus[1]], now[opened, minus[1]] = -np.inf, log["stay_coding"]
        reached = scores[:, None] + now
        before[t] = reached.argmax(axis=0)
        scores = reached.max(axis=0) + emitted[t]
    path = [int(scores.argmax())]
    for t in range(len(text) - 1, 0, -1):
        path.append(int(before[t, path[-1]]))
    return of_class[path[::-1]]


def measure(n_rows: int) -> dict[str, object]:
    """Time both sides, and compare their classes."""
    rng = np.random.default_rng(1)
    lengths, grammar = lengths_of(n_rows), rules()
    n = int(lengths.sum())
    said = rng.standard_normal((n, 9), np.float32) * 2
    said -= np.log(np.exp(said).sum(axis=1, keepdims=True))
    letters = np.frombuffer(b"ACGT", np.uint8)[rng.integers(0, 4, n)]
    clock, processor = [], []
    for _ in range(ROUNDS):
        started, spent = time.perf_counter(), time.process_time()
        found = decode(said, lengths, letters, grammar)
        clock.append(time.perf_counter() - started)
        processor.append(time.process_time() - spent)
    few = lengths[:REFERENCE_ROWS]
    ends = np.cumsum(few)
    started, spent = time.perf_counter(), time.process_time()
    theirs = [
        reference(said[end - size : end], letters[end - size : end].tobytes().decode(), grammar)
        for size, end in zip(few, ends, strict=True)
    ]
    reference_clock, reference_processor = time.perf_counter() - started, time.process_time() - spent
    differ = int((np.concatenate(theirs) != found[: ends[-1]]).sum())
    if differ > ends[-1] * 1e-4:  # equally good paths, and rounding to float32
        raise SystemExit(f"{differ} of {ends[-1]} classes differ from those of the reference; find out why")
    return {
        "rows": n_rows,
        "nucleotides": n,
        "nucleotides_per_s": n / min(clock),
        "nucleotides_per_processor_s": n / min(processor),
        "reference_nucleotides_per_s": int(ends[-1]) / reference_clock,
        "reference_nucleotides_per_processor_s": int(ends[-1]) / reference_processor,
        "ratio": (n / min(processor)) / (int(ends[-1]) / reference_processor),
        "classes_that_differ": differ,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=N_ROWS, help="rows to decode (default: those of BEND's test split)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    arguments = parser.parse_args()
    found = measure(arguments.rows)
    machine = {"cores": os.cpu_count(), "processor": platform.machine(), "load": os.getloadavg()[0], "threads": 1}
    write_text(arguments.out, json.dumps({**found, "machine": machine, "numpy": np.__version__}, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
