"""Decode gene finding with a grammar of genes: the best path that is a gene structure, instead of the best class each.

The most probable class of each nucleotide gives exons of any length, introns without ends and genes out of frame. The
grammar allows only what a gene can be: coding sequence in one of three phases, introns that keep the phase and have a
donor and an acceptor, and no stop codon in frame but the last one. The best path is found by Viterbi's algorithm
(1967, IEEE Trans. Inf. Theory 13:260) with the head's log probabilities as emissions, on both strands at once. Rows are
decoded side by side, one step per position for all of them.

A path may begin and end anywhere at no cost, as rows may cut genes. Introns have three nucleotides or more. A stop
codon that an intron splits is not seen, and a codon of which an intron splits off the first base is read with what lies
left of it.

>>> grammar = Grammar(log_transitions=dict.fromkeys(TRANSITIONS, 0.0))
>>> log_probabilities = np.log(np.full((7, 9), 0.01, np.float32))
>>> log_probabilities[np.arange(7), [8, 0, 0, 0, 0, 8, 8]] = 0.0  # four coding nucleotides are no gene
>>> decode(log_probabilities, np.array([7]), np.frombuffer(b"CATGCCC", np.uint8), grammar).tolist()
[8, 0, 0, 0, 8, 8, 8]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bend_hf.errors import ConfigError
from bend_hf.types import Bools, Floats, Ints, Json

N_CLASSES: Final = 9
TRANSITIONS: Final = ("stay_non_coding", "start", "stay_coding", "donor", "end", "stay_intron", "acceptor")
TRANSITION_WEIGHTS: Final = (0.0, 0.25, 0.5, 1.0, 2.0)  # what is tried on the validation split
SPLICE_WEIGHTS: Final = (0.0, 2.0, 8.0)
_NUCLEOTIDES_AT_ONCE: Final = 1 << 22  # some 350 MB; each position costs the same time for few rows as for many
_LONG_BP, _PIECE_BP, _OVERLAP_BP = 1 << 14, 1 << 13, 1 << 11  # rows above the first are decoded in pieces
_RESCALE: Final = 256  # steps after which scores are shifted, so that float32 holds their differences

# The classes of both strands, plus first, as slices, which copy nothing. The first base of an intron, from the left, is
# the donor of the plus strand and the acceptor of the minus strand.
_CODES: Final = slice(0, 5, 4)  # 0 and 4
_FIRSTS: Final = slice(1, 8, 6)  # 1 and 7
_INTRONS: Final = slice(2, 7, 4)  # 2 and 6
_LASTS: Final = slice(3, 6, 2)  # 3 and 5
# States: coding 0 to 5 (strand, phase), intron 6 to 11, non-coding 12, first bases 13 to 18, last bases 19 to 24, the
# last base of a stop codon on the plus strand 25, and on the minus strand, where it comes first, its first two 26, 27.
_CODING, _INTRON, _NON_CODING, _FIRST, _LAST, _STOP, _OPENS = 0, 6, 12, 13, 19, 25, 26
_N_STATES: Final = 28
_ENTERED: Final = ("coding", "first", "intron", "last", "coding", "last", "intron", "first", "non")  # by class


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """What the decoder prefers.

    Attributes:
        log_transitions: Log probability of each of ``TRANSITIONS``.
        transition_weight: How much they count; 0 for not at all.
        splice_weight: What a splice site costs that is not GT or AG, in units of log probability.
    """

    log_transitions: Mapping[str, float]
    transition_weight: float = 1.0
    splice_weight: float = 0.0

    @property
    def weighted(self) -> dict[str, float]:
        """What each transition costs."""
        return {name: self.transition_weight * value for name, value in self.log_transitions.items()}

    def as_json(self) -> dict[str, Json]:
        """Return the grammar as a record and a kept head hold it."""
        return {
            "log_transitions": dict(self.log_transitions),
            "transition_weight": self.transition_weight,
            "splice_weight": self.splice_weight,
        }

    @classmethod
    def from_json(cls, body: Json) -> Grammar:
        """Read what ``as_json`` wrote.

        Raises:
            ValueError: It is not a grammar.
        """
        transitions = body.get("log_transitions") if isinstance(body, dict) else None
        if not isinstance(body, dict) or not isinstance(transitions, dict) or set(transitions) != set(TRANSITIONS):
            raise ValueError(f"{body!r} is no grammar; expected log_transitions of {', '.join(TRANSITIONS)}")
        numbers = [*transitions.values(), body.get("transition_weight"), body.get("splice_weight")]
        if not all(isinstance(one, int | float) and np.isfinite(one) for one in numbers):
            raise ValueError(f"{body!r} is no grammar; expected finite numbers")
        *log, transition, splice = (float(one) for one in numbers)  # type: ignore[arg-type]  # checked above
        return cls(
            log_transitions=dict(zip(transitions, log, strict=True)), transition_weight=transition, splice_weight=splice
        )


def count_transitions(labels: NDArray[Any], lengths: Ints) -> Grammar:
    """Count how often one label follows another, over both strands, each once more than it was seen.

    Args:
        labels: Classes of all rows, -100 where the class is unknown, shape (nucleotides,).
        lengths: Nucleotides of each row, shape (rows,).
    """
    inner = np.ones(max(len(labels) - 1, 0), np.bool_)
    inner[np.cumsum(lengths)[:-1][np.cumsum(lengths)[:-1] < len(labels)] - 1] = False
    before, after = labels[:-1].astype(np.int64), labels[1:].astype(np.int64)
    inner &= (before >= 0) & (after >= 0)
    seen = np.bincount(before[inner] * N_CLASSES + after[inner], minlength=N_CLASSES**2).reshape(N_CLASSES, -1) + 0.5

    def both(plus: tuple[int, int], minus: tuple[int, int]) -> float:
        return float(seen[plus] + seen[minus])

    counts = {
        "stay_non_coding": float(seen[8, 8]),
        "start": both((8, 0), (8, 4)) / 2,  # on each strand
        "stay_coding": both((0, 0), (4, 4)),
        "donor": both((0, 1), (4, 7)),
        "end": both((0, 8), (4, 8)),
        "stay_intron": both((2, 2), (6, 6)),
        "acceptor": both((2, 3), (6, 5)),
    }
    totals = {
        "stay_non_coding": counts["stay_non_coding"] + 2 * counts["start"],
        "stay_coding": counts["stay_coding"] + counts["donor"] + counts["end"],
        "stay_intron": counts["stay_intron"] + counts["acceptor"],
    }
    of = {"start": "stay_non_coding", "donor": "stay_coding", "end": "stay_coding", "acceptor": "stay_intron"}
    return Grammar(log_transitions={name: float(np.log(n / totals[of.get(name, name)])) for name, n in counts.items()})


def grammars_to_try(counted: Grammar) -> Iterator[Grammar]:
    """Yield the grammar with each pair of weights, the smallest first."""
    for transition, splice in product(TRANSITION_WEIGHTS, SPLICE_WEIGHTS):
        yield replace(counted, transition_weight=transition, splice_weight=splice)


def decode(
    log_probabilities: Floats, lengths: Ints, sequence: NDArray[np.uint8], grammar: Grammar
) -> NDArray[np.int16]:
    """Find the best gene structure of each row.

    Args:
        log_probabilities: Of the nine classes of gene finding, float32, shape (nucleotides, classes).
        lengths: Nucleotides of each row, shape (rows,); rows follow one another.
        sequence: The nucleotides as bytes, upper or lower case, shape (nucleotides,).
        grammar: What is preferred.

    Returns:
        Classes, int16, shape (nucleotides,).

    Raises:
        ConfigError: The arrays do not belong together.
    """
    n = len(log_probabilities)
    if log_probabilities.shape != (n, N_CLASSES) or sequence.shape != (n,) or int(lengths.sum()) != n:
        raise ConfigError(
            f"log probabilities have shape {log_probabilities.shape}, the sequence {sequence.shape}, and the rows add "
            f"up to {int(lengths.sum())} nucleotides; expected {N_CLASSES} classes for each nucleotide of the sequence"
        )
    emissions = _Emissions(log_probabilities=log_probabilities, sequence=sequence, grammar=grammar)
    classes = np.empty(n, np.int16)
    start, is_long = np.cumsum(lengths) - lengths, lengths > _LONG_BP
    classes[_places(start[~is_long], lengths[~is_long])] = emissions.decode(start[~is_long], lengths[~is_long])
    for first, length in zip(start[is_long].tolist(), lengths[is_long].tolist(), strict=True):
        classes[first : first + length] = _decode_long(emissions, first, length)
    return classes


def _places(start: Ints, size: Ints) -> Ints:
    """Positions of some spans, one after the other."""
    places: Ints = np.repeat(start - np.cumsum(size) + size, size) + np.arange(size.sum())
    return places


@dataclass(frozen=True, kw_only=True)
class _Emissions:
    """Log probabilities and letters of all rows, and the grammar that decodes them."""

    log_probabilities: Floats
    sequence: NDArray[np.uint8]
    grammar: Grammar

    def decode(self, start: Ints, size: Ints) -> NDArray[np.int16]:
        """Decode some spans of nucleotides, each as a row; classes in the order of the spans."""
        classes = np.empty(int(size.sum()), np.int16)
        first = np.cumsum(size) - size
        order = np.argsort(-size, kind="stable")
        order = order[size[order] > 0]
        at = 0
        while at < len(order):
            rows = order[at : at + max(1, _NUCLEOTIDES_AT_ONCE // int(size[order[at]]))]
            at += len(rows)
            group = self.side_by_side(start[rows], size[rows])
            inside = np.arange(size[rows[0]]) < size[rows][:, None]
            classes[_places(first[rows], size[rows])] = _CLASS_OF[_best_paths(group, self.grammar)].T[inside]
        return classes

    def side_by_side(self, start: Ints, size: Ints) -> _Group:
        """Lay out some spans as rows, the longest first.

        Args:
            start: First nucleotide of each span, shape (R,).
            size: Nucleotides of each span, in descending order, shape (R,).
        """
        # beyond the end of a row, its last nucleotide is repeated and never read
        place = start[:, None] + np.minimum(np.arange(size[0]), size[:, None] - 1)
        cost_of = _costs(self.grammar)
        values = self.log_probabilities.take(place.reshape(-1), axis=0)
        values += np.array([cost_of[name] for name in _ENTERED], np.float32)
        n_rows, length = place.shape
        emissions = np.ascontiguousarray(values.reshape(n_rows, -1).T).reshape(length, N_CLASSES, n_rows)
        base = np.ascontiguousarray((self.sequence[place] & 0xDF).T)  # upper case
        a, c, g, t = (base == letter for letter in b"ACGT")
        before_a, before_g, before_t = (_shifted(where, 1) for where in (a, g, t))
        two_before_t, two_before_c = (_shifted(where, 2) for where in (t, c))
        before_c, then_t = _shifted(c, 1), _shifted(t, -1)
        plus = two_before_t & ((before_a & (a | g)) | (before_g & a))  # TAA, TAG, TGA
        minus = a & ((two_before_t & (before_t | before_c)) | (two_before_c & before_t))  # TTA, TCA, CTA
        stop = np.stack([plus, minus], axis=1)
        if self.grammar.splice_weight:
            cost = np.float32(-self.grammar.splice_weight)
            sites = [g & then_t, c & then_t, before_a & g, before_a & c]  # GT and CT begin, AG and AC end
            for column, good in zip((1, 7, 3, 5), sites, strict=True):
                np.add(emissions[:, column], cost, out=emissions[:, column], where=~good)
        closed = np.float32(-np.inf)
        return _Group(
            emissions=emissions,
            codon_cost=np.where(stop, closed, np.float32(0)),
            stop_cost=np.where(stop, np.float32(0), closed),
            n_active=np.searchsorted(-size, -np.arange(length)),
        )


def _decode_long(emissions: _Emissions, first: int, length: int) -> NDArray[np.int16]:
    """Decode a long row in pieces side by side, and join neighbors where both lie outside of genes.

    Pieces overlap. Two whose overlap holds no such place are decoded again as one piece. The result is a gene structure
    in any case; it is the best one unless a piece beyond the overlap would have changed what lies in front of it.

    Args:
        emissions: Of all rows.
        first: Where the row begins.
        length: Nucleotides of the row.
    """
    step = _PIECE_BP - _OVERLAP_BP
    pieces = [(start, min(start + _PIECE_BP, length)) for start in range(0, length - _OVERLAP_BP, step)]
    done: dict[tuple[int, int], NDArray[np.int16]] = {}
    while new := [piece for piece in pieces if piece not in done]:
        start, end = np.array(new).T
        found = emissions.decode(first + start, end - start)
        done |= dict(zip(new, np.split(found, np.cumsum(end - start)[:-1]), strict=True))
        joined = pieces[:1]
        for piece in pieces[1:]:
            if joined[-1] in done and _joint(joined[-1], piece, done) is None:
                joined[-1] = (joined[-1][0], piece[1])
            else:
                joined.append(piece)
        pieces = joined
    parts, at = [], 0
    for piece, following in zip(pieces, [*pieces[1:], None], strict=True):
        joint = piece[1] if following is None else _joint(piece, following, done)
        parts.append(done[piece][at - piece[0] : joint - piece[0]])  # type: ignore[operator]  # each pair has a joint
        at = joint or 0
    return np.concatenate(parts)


def _joint(
    one: tuple[int, int], other: tuple[int, int], done: Mapping[tuple[int, int], NDArray[np.int16]]
) -> int | None:
    """Where two neighboring pieces are both outside of genes, next to the middle of their overlap; None if nowhere."""
    left, right = done[one][other[0] - one[0] :], done[other][: one[1] - other[0]]
    free = np.flatnonzero((left == N_CLASSES - 1) & (right == N_CLASSES - 1))
    if not len(free):
        return None
    return other[0] + int(free[np.abs(free - len(left) // 2).argmin()])


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Some rows side by side, the longest first; L positions and R rows.

    Attributes:
        emissions: Float32, shape (L, 9, R), with the costs of entering each class.
        codon_cost: 0 or minus infinity: whether a codon may end here and go on, by strand, shape (L, 2, R).
        stop_cost: The same for a codon that ends a gene: only a stop codon may.
        n_active: Number of rows that reach each position, shape (L,).
    """

    emissions: Floats
    codon_cost: Floats
    stop_cost: Floats
    n_active: Ints


def _costs(grammar: Grammar) -> dict[str, float]:
    """What entering each state costs.

    Staying is free in the recursion, so its cost stands with the state and is taken off where another way leads there.
    """
    log = grammar.weighted
    return {
        "coding": log["stay_coding"],
        "intron": log["stay_intron"],
        "non": log["stay_non_coding"],
        "first": log["donor"] - log["stay_intron"],  # the step to the second base of an intron is free
        "last": log["acceptor"] - log["stay_coding"],  # and so is that to the exon
        "start": log["start"] - log["stay_coding"],
        "end": log["end"] - log["stay_non_coding"],
    }


def _shifted(values: Bools, by: int) -> Bools:
    """Values of the position ``by`` to the left, False beyond the ends; shape (L, R)."""
    moved = np.zeros_like(values)
    if by > 0:
        moved[by:] = values[:-by]
    else:
        moved[:by] = values[-by:]
    return moved


@dataclass(frozen=True, kw_only=True)
class _Choices:
    """From where each state was reached best; bools, at each position for each row."""

    from_intron: Bools  # (L, strand, phase, R): a coding nucleotide after one of that phase
    from_first: Bools  # (L, strand, phase, R): an intron from its first base
    from_start: Bools  # (L, strand, R): the first nucleotide of a codon from outside of genes
    from_stop: Bools  # (L, R): the first codon of the minus strand was a stop codon
    ends: Bools  # (L, 3, R): non-coding from the minus strand, from a stop codon, from any gene

    @classmethod
    def empty(cls, length: int, n_rows: int) -> _Choices:
        """Make room for all of them."""
        shapes = ((2, 3), (2, 3), (2,), (), (3,))
        parts = [np.zeros((length, *shape, n_rows), np.bool_) for shape in shapes]
        return cls(from_intron=parts[0], from_first=parts[1], from_start=parts[2], from_stop=parts[3], ends=parts[4])

    def table(self) -> NDArray[np.uint8]:
        """Number the choice of each state that has one, shape (L, states up to non-coding, R)."""
        length, _, _, n_rows = self.from_intron.shape
        chosen = np.zeros((length, _NON_CODING + 1, n_rows), np.uint8)
        coding = chosen[:, :_INTRON].reshape(length, 2, 3, n_rows)
        coding[:, :, 1:] = self.from_intron[:, :, :2]
        coding[:, :, 0] = np.where(self.from_start, np.uint8(2), self.from_intron[:, :, 2])
        coding[:, 1, 2][self.from_stop] = 3
        chosen[:, _INTRON:_NON_CODING] = self.from_first.reshape(length, 6, n_rows)
        of_minus, of_stop, of_gene = (self.ends[:, index].view(np.uint8) for index in range(3))
        chosen[:, _NON_CODING] = np.maximum(1 + of_minus, 3 * of_stop) * of_gene
        return chosen


def _best_paths(group: _Group, grammar: Grammar) -> NDArray[np.uint8]:
    """Find the best state at each position of each row, shape (L, R)."""
    length, _, n_rows = group.emissions.shape
    choices = _Choices.empty(length, n_rows)
    final = _forward(group, grammar, choices)
    table = choices.table()
    paths = np.zeros((length, n_rows), np.uint8)
    state, column = np.zeros(n_rows, np.int64), np.arange(n_rows)
    reached = 0  # rows that reach the position to the right
    for at in range(length - 1, -1, -1):
        n = int(group.n_active[at])
        state[reached:n] = final[reached:n]
        reached = n
        here = state[:n]
        paths[at, :n] = here
        choice = table[at].reshape(-1).take(_CHOICE_OF.take(here) * n_rows + column[:n])
        state[:n] = _BEFORE.take(4 * here + choice)
    return paths


class _Scores:
    """The best score of a path into each state, for the rows that reach a position; all are views of one array."""

    def __init__(self, scores: Floats, scratch: Floats) -> None:
        n = scores.shape[1]
        self.all = scores
        self.coding, self.intron, self.first, self.last = (
            scores[state : state + 6].reshape(2, 3, n) for state in (_CODING, _INTRON, _FIRST, _LAST)
        )
        self.non_coding, self.stop, self.opens, self.opened = (
            scores[state] for state in (_NON_CODING, _STOP, _OPENS, _OPENS + 1)
        )
        self.into_first, self.before = scratch[:6].reshape(2, 3, n), scratch[6:12].reshape(2, 3, n)
        self.start, self.end, self.codon = scratch[12], scratch[13], scratch[14]


def _forward(group: _Group, grammar: Grammar, choices: _Choices) -> Ints:
    """Fill in the choices, and return the best state at the end of each row, shape (R,)."""
    length, _, n_rows = group.emissions.shape
    cost, log = _costs(grammar), grammar.weighted
    start_cost, end_cost = np.float32(cost["start"]), np.float32(cost["end"])
    scores = np.full((_N_STATES, n_rows), -np.inf, np.float32)
    scratch = np.empty((15, n_rows), np.float32)
    opening = group.emissions[0]
    for first, pair, entering in (
        (_CODING, _CODES, "stay_coding"),
        (_FIRST, _FIRSTS, "donor"),
        (_INTRON, _INTRONS, "stay_intron"),
        (_LAST, _LASTS, "acceptor"),
    ):  # a row may begin in any of them at no cost
        free = opening[pair] - np.float32(log[entering])
        scores[first : first + 6] = np.repeat(free, 3, axis=0)
    scores[_NON_CODING] = opening[8] - np.float32(log["stay_non_coding"])
    n, now = n_rows, _Scores(scores, scratch)
    for at in range(1, length):
        if group.n_active[at] != n:
            n = int(group.n_active[at])
            now = _Scores(scores[:, :n], scratch[:, :n])
        emitted = group.emissions[at, :, :n]
        coding = emitted[_CODES]
        # leave a gene: after a whole codon, or after a stop codon of the plus strand
        ends = choices.ends[at, :, :n]
        np.greater(now.coding[1, 2], now.coding[0, 2], out=ends[0])
        np.maximum(now.coding[1, 2], now.coding[0, 2], out=now.end)
        np.greater(now.stop, now.end, out=ends[1])
        np.maximum(now.stop, now.end, out=now.end)
        now.end += end_cost
        np.add(now.non_coding, start_cost, out=now.start)
        np.greater(now.end, now.non_coding, out=ends[2])
        np.maximum(now.end, now.non_coding, out=now.non_coding)
        now.non_coding += emitted[8]
        # a stop codon ends a gene of the plus strand; on the minus strand it is the first from the left
        stop_cost = group.stop_cost[at, :, :n]
        np.add(now.coding[0, 1], stop_cost[0], out=now.stop)
        now.stop += coding[0]
        np.add(now.opened, stop_cost[1], out=now.codon)
        # introns, from their end to their beginning, so that each step reads the position before
        np.add(now.coding, emitted[_FIRSTS, None], out=now.into_first)
        now.coding[:, 1] += group.codon_cost[at, :, :n]
        np.greater(now.last, now.coding, out=choices.from_intron[at, :, :, :n])
        np.maximum(now.last, now.coding, out=now.before)
        np.add(now.intron, emitted[_LASTS, None], out=now.last)
        np.greater(now.first, now.intron, out=choices.from_first[at, :, :, :n])
        np.maximum(now.first, now.intron, out=now.intron)
        now.intron += emitted[_INTRONS, None]
        now.first[...] = now.into_first
        # coding nucleotides, each after one of the phase before
        np.greater(now.codon, now.before[1, 1], out=choices.from_stop[at, :n])
        np.maximum(now.codon, now.before[1, 1], out=now.before[1, 1])
        np.add(now.before[:, :2], coding[:, None], out=now.coding[:, 1:])
        np.greater(now.start, now.before[:, 2], out=choices.from_start[at, :, :n])
        np.maximum(now.start, now.before[:, 2], out=now.coding[:, 0])
        now.coding[:, 0] += coding
        np.add(now.opens, coding[1], out=now.opened)
        np.add(now.start, coding[1], out=now.opens)
        if at % _RESCALE == 0:
            now.all -= now.all.max(axis=0)
    scores[_FIRST : _FIRST + 6] += np.float32(log["stay_intron"])  # which the next step would have taken back
    scores[_LAST : _LAST + 6] += np.float32(log["stay_coding"])
    best: Ints = scores.argmax(axis=0)
    return best


def _states_before() -> Ints:
    """The state before each state, for each of four choices, shape (states * 4,)."""
    before = np.zeros((_N_STATES, 4), np.int64)
    for strand, phase in product(range(2), range(3)):
        state, earlier = 3 * strand + phase, 3 * strand + (phase + 2) % 3
        before[_CODING + state] = (_CODING + earlier, _LAST + earlier, _NON_CODING, _OPENS + 1)
        before[_INTRON + state] = (_INTRON + state, _FIRST + state, 0, 0)
        before[_FIRST + state] = _CODING + state
        before[_LAST + state] = _INTRON + state
    before[_NON_CODING] = (_NON_CODING, _CODING + 2, _CODING + 5, _STOP)
    before[_STOP], before[_OPENS], before[_OPENS + 1] = _CODING + 1, _NON_CODING, _OPENS
    return before.reshape(-1)


def _classes_of_states() -> NDArray[np.int16]:
    """The class of each state, shape (states,)."""
    classes = np.full(_N_STATES, N_CLASSES - 1, np.int16)
    for first, pair in ((_CODING, (0, 4)), (_INTRON, (2, 6)), (_FIRST, (1, 7)), (_LAST, (3, 5))):
        classes[first : first + 6] = np.repeat(pair, 3)
    classes[[_STOP, _OPENS, _OPENS + 1]] = (0, 4, 4)
    return classes


_CHOICE_OF: Final = np.minimum(np.arange(_N_STATES), _NON_CODING)  # states further on have one predecessor
_BEFORE: Final = _states_before()
_CLASS_OF: Final = _classes_of_states()
