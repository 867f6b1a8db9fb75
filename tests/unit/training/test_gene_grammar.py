"""Decoding with a grammar: against a plain Viterbi over named states, by hand, and what it never returns."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from bend_hf.errors import ConfigError
from bend_hf.evaluation.gene_structure import structure_of
from bend_hf.evaluation.metrics import load_metric
from bend_hf.training.gene_grammar import TRANSITIONS, Grammar, count_transitions, decode, grammars_to_try

State: TypeAlias = tuple[str, int, int]  # kind, strand, phase
STOPS = ("TAA", "TAG", "TGA"), ("TTA", "CTA", "TCA")
CLASSES = {"coding": (0, 4), "first": (1, 7), "intron": (2, 6), "last": (3, 5), "stop": (0, 0), "opens": (4, 4)}
SITES = {"first": ("GT", "CT"), "last": ("AG", "AC")}  # letters of the first and of the last two bases of an intron
NON: State = ("non", 0, 0)
PROBABILITIES = (0.9, 0.05, 0.8, 0.1, 0.1, 0.7, 0.3)


def grammar(transition: float = 1.0, splice: float = 0.0) -> Grammar:
    log = dict(zip(TRANSITIONS, (math.log(one) for one in PROBABILITIES), strict=True))
    return Grammar(log_transitions=log, transition_weight=transition, splice_weight=splice)


def noise(n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    letters = np.frombuffer(b"ACGT", np.uint8)[rng.integers(0, 4, n)]
    return rng.standard_normal((n, 9)).astype(np.float32) * 3, letters


def after_coding(state: State, stop: bool, log: dict[str, float]) -> dict[State, float]:
    _, strand, phase = state
    found: dict[State, float] = {("first", strand, phase): log["donor"]}
    if not (phase == 1 and stop):
        found["coding", strand, (phase + 1) % 3] = log["stay_coding"]
    elif strand == 0:
        found["stop", 0, 0] = log["stay_coding"]
    return found | ({NON: log["end"]} if phase == 2 else {})


def after_opening(phase: int, stop: bool, log: dict[str, float]) -> dict[State, float]:
    """The first two bases of a stop codon, which opens a gene of the minus strand from the left."""
    if phase == 1:
        return {("opens", 1, 2): log["stay_coding"]}
    return {("coding", 1, 2): log["stay_coding"]} if stop else {}


def steps(state: State, at: int, text: str, log: dict[str, float]) -> dict[State, float]:
    """The states that may follow at a place, with the cost of each."""
    kind, strand, phase = state
    stop = text[max(at - 2, 0) : at + 1] in STOPS[strand]  # the three letters up to this place
    starts: list[State] = [("opens", 1, 1), ("coding", 0, 0), ("coding", 1, 0)]
    found: dict[str, dict[State, float]] = {
        "non": {NON: log["stay_non_coding"], **dict.fromkeys(starts, log["start"])},
        "coding": after_coding(state, stop, log),
        "first": {("intron", strand, phase): 0.0},
        "intron": {state: log["stay_intron"], ("last", strand, phase): log["acceptor"]},
        "last": {("coding", strand, (phase + 1) % 3): 0.0},
        "stop": {NON: log["end"]},
        "opens": after_opening(phase, stop, log),
    }
    return found[kind]


def best_score(emissions: NDArray[np.float32], text: str, rules: Grammar) -> float:
    """The score of the best path, over states by name."""
    log = {name: rules.transition_weight * value for name, value in rules.log_transitions.items()}

    def emitted(state: State, at: int) -> float:
        kind, strand, _ = state
        value = float(emissions[at, 8 if kind == "non" else CLASSES[kind][strand]])
        if kind in SITES:
            letters = text[at : at + 2] if kind == "first" else text[max(at - 1, 0) : at + 1]
            value -= 0.0 if letters == SITES[kind][strand] else rules.splice_weight
        return value

    kinds = ("coding", "intron", "first", "last")
    scores = {(kind, s, p): emitted((kind, s, p), 0) for kind in kinds for s in (0, 1) for p in (0, 1, 2)}
    scores[NON] = emitted(NON, 0)
    for at in range(1, len(emissions)):
        following: dict[State, float] = defaultdict(lambda: -math.inf)
        for state, score in scores.items():
            for after, cost in steps(state, at, text, log).items():
                following[after] = max(following[after], score + cost + emitted(after, at))
        scores = following
    return max(scores.values())


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("transition", "splice"), [(0.0, 0.0), (1.0, 0.0), (0.5, 2.0)])
def test_the_path_is_the_best_one(seed: int, transition: float, splice: float) -> None:
    rules = grammar(transition, splice)
    emissions, letters = noise(60, seed)
    found = decode(emissions, np.array([60]), letters, rules)
    only = np.full_like(emissions, -1e6)
    only[np.arange(60), found] = emissions[np.arange(60), found]
    text = letters.tobytes().decode()
    best = best_score(emissions, text, rules)
    assert best_score(only, text, rules) == pytest.approx(best, abs=1e-3)
    assert best < emissions.max(axis=1).sum(), "the grammar forbids something here"


def test_rows_of_any_length_are_decoded_as_alone() -> None:
    lengths = np.array([40, 1, 300, 0, 2, 700, 40])
    emissions, letters = noise(int(lengths.sum()), 3)
    together = decode(emissions, lengths, letters, grammar())
    ends = np.cumsum(lengths)
    for start, end in zip(ends - lengths, ends, strict=True):
        alone = decode(emissions[start:end], np.array([end - start]), letters[start:end], grammar())
        assert (alone == together[start:end]).all()


def test_long_rows_are_decoded_in_pieces_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = np.array([3_000, 150, 2_900])
    emissions, letters = noise(int(lengths.sum()), 6)
    emissions[:, 8] += 2.0
    whole = decode(emissions, lengths, letters, grammar())
    for name, bp in (("_LONG_BP", 500), ("_PIECE_BP", 200), ("_OVERLAP_BP", 80)):
        monkeypatch.setattr(f"bend_hf.training.gene_grammar.{name}", bp)
    assert (decode(emissions, lengths, letters, grammar()) == whole).mean() > 0.999


def test_a_gene_that_is_longer_than_pieces_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, bp in (("_LONG_BP", 500), ("_PIECE_BP", 200), ("_OVERLAP_BP", 80)):
        monkeypatch.setattr(f"bend_hf.training.gene_grammar.{name}", bp)
    classes = "8" * 50 + "0" * 900 + "8" * 150 + "4" * 300 + "8" * 70
    sequence = "C" * 50 + "C" * 900 + "C" * 520
    assert decoded(classes, sequence) == classes


def test_no_gene_is_out_of_frame_or_holds_a_stop() -> None:
    n = 12_000
    emissions, letters = noise(n, 4)
    emissions[:, [1, 2, 3, 5, 6, 7]] -= 20  # few introns, whose codons may hold a stop that is not seen
    found = decode(emissions, np.array([n]), letters, grammar(0.0))
    result = load_metric("gene_structure").compute(
        predictions=found, references=found, lengths=[n], sequence=letters.tobytes()
    )
    assert result["whole_genes"] > 250
    assert (result["frame_errors"], result["genes_with_stop"]) == (0, 0)
    argmax = emissions.argmax(axis=1)
    before = load_metric("gene_structure").compute(predictions=argmax, references=argmax, lengths=[n])
    assert before["frame_errors"] > 250


def test_introns_keep_the_phase_on_both_strands() -> None:
    n = 30_000
    emissions, letters = noise(n, 5)
    emissions[:, [2, 6]] += 6
    found = decode(emissions, np.array([n]), letters, grammar(0.0))
    structure = structure_of(found, np.array([n]))
    assert len(structure.introns) > 300
    assert set(structure.introns.strand.tolist()) == {1, -1}
    whole = load_metric("gene_structure").compute(predictions=found, references=found, lengths=[n])
    assert whole["whole_genes"] > 100
    assert whole["frame_errors"] == 0


def certain(classes: str) -> NDArray[np.float32]:
    """Log probabilities that prefer one class at each place by 10."""
    emissions = np.full((len(classes), 9), -10.0, np.float32)
    emissions[np.arange(len(classes)), [int(one) for one in classes]] = 0.0
    return emissions


def decoded(classes: str, sequence: str, rules: Grammar | None = None) -> str:
    rules = rules or grammar(0.0)
    letters = np.frombuffer(sequence.encode(), np.uint8)
    return "".join(map(str, decode(certain(classes), np.array([len(classes)]), letters, rules)))


@pytest.mark.parametrize(
    ("classes", "sequence"),
    [
        ("88000000888", "CCATGTAACCC"),  # the stop codon is the last one
        ("88444444888", "CCTTACATCCC"),  # the same on the minus strand, where it comes first
        ("88444444888", "CCTCACATCCC"),
        ("8800122300008", "CCATGTAGGAACC"),  # two and four coding nucleotides
        ("8844766544448", "CCATCTACGAACC"),
        ("8800122300008", "ccatgtaggaacc"),
    ],
)
def test_a_gene_that_is_one_stays(classes: str, sequence: str) -> None:
    assert decoded(classes, sequence) == classes


def test_a_stop_in_frame_ends_the_gene() -> None:
    # ATG TAA CCC: the codons after the stop are lost, which costs less than to lose all
    assert decoded("8800000000088", "CCATGTAACCCCC") != "8800000000088"
    assert decoded("8800000000088", "CCATGTCACCCCC") == "8800000000088"


@pytest.mark.parametrize(("donor", "weight", "kept"), [("GT", 50.0, True), ("GC", 200.0, False), ("GC", 2.0, True)])
def test_a_splice_site_without_gt_costs_its_weight(donor: str, weight: float, kept: bool) -> None:
    # to have no intron costs 10 at each of its nucleotides, which are eight
    classes, sequence = "88000122222230008888", f"CCATG{donor}AACCAGGCCCCCC"
    assert (decoded(classes, sequence[:20], grammar(0.0, weight)) == classes) is kept


def test_transitions_are_counted_within_rows_and_over_strands() -> None:
    labels = np.array([8, 8, 0, 0, 1, 2, 2, 3, 0, 8, -100, 8, 4, 7, 6, 5, 4, 8])
    log = count_transitions(labels, np.array([10, 8])).log_transitions
    assert set(log) == set(TRANSITIONS)
    # coding is followed by coding once, an intron twice, nothing twice; each count has a half per strand added
    assert math.exp(log["stay_coding"]) == pytest.approx(2 / 8)
    assert math.exp(log["donor"]) == pytest.approx(3 / 8)
    assert math.exp(log["end"]) == pytest.approx(3 / 8)
    assert math.exp(log["stay_intron"]) == pytest.approx(2 / 5)
    assert math.exp(log["stay_non_coding"]) + 2 * math.exp(log["start"]) == pytest.approx(1)


def test_grammars_are_tried_from_no_weight_on() -> None:
    tried = list(grammars_to_try(grammar()))
    assert (tried[0].transition_weight, tried[0].splice_weight) == (0.0, 0.0)
    assert len(tried) == len({(one.transition_weight, one.splice_weight) for one in tried}) == 15


def test_a_grammar_is_read_as_it_was_written() -> None:
    assert Grammar.from_json(grammar(0.5, 2.0).as_json()) == grammar(0.5, 2.0)
    for wrong in ({}, None, {**grammar().as_json(), "splice_weight": None}):
        with pytest.raises(ValueError, match="is no grammar"):
            Grammar.from_json(wrong)


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected 9 classes for each nucleotide"):
        decode(np.zeros((3, 8), np.float32), np.array([3]), np.zeros(3, np.uint8), grammar())
    with pytest.raises(ConfigError, match="the rows add up to 4 nucleotides"):
        decode(np.zeros((3, 9), np.float32), np.array([4]), np.zeros(3, np.uint8), grammar())
