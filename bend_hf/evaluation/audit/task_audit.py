"""Audit the splits of one task: the summary, one entry per row, and both as files.

>>> from bend_hf.data.dataset import load_task
>>> audit = audit_task(load_task("histone_modification", "sample"))
>>> audit.summary["pairs"]["test, train"]["copies"]
0
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bend_hf.data.dataset import TaskData
from bend_hf.errors import BendError, InputError
from bend_hf.evaluation.audit.copies import NEAR_BP, SEED_BP, SEEN_BP, Copies, Thresholds, find_copies
from bend_hf.evaluation.audit.homology import Homologs, Homology, find_homologs
from bend_hf.evaluation.audit.leak_free import PartScore
from bend_hf.evaluation.audit.places import FAR, Places
from bend_hf.evaluation.audit.pretraining import PretrainingOverlap, pretraining_overlap
from bend_hf.evaluation.audit.rows import AuditRows, dataset_subset, read_rows
from bend_hf.evaluation.audit.rules import fit_rules
from bend_hf.files import atomic_path, explain_write_errors, parse_json, write_text
from bend_hf.tables import markdown_table, metric_title, number, text_table
from bend_hf.tasks import TaskSpec
from bend_hf.tasks._labels import BinClasses, NucleotideClasses, RealValues
from bend_hf.types import Bools, Ints, Json

AUDIT_VERSION: Final = 1  # raised when the meaning of a stored value changes
_AUDIT_FILE: Final = "bend_audit.json"
_RECORD_BP: Final = 1 << 25  # nucleotides that are audited for a record; about 15 s of one core
_EXAMPLES: Final = 5
_KINDS: Final = ("copies", "near copies", "shifted windows", "overlapping places")


@dataclass(frozen=True, kw_only=True)
class TaskAudit:
    """What was found in the splits of one task.

    Attributes:
        task: Task key.
        summary: Counts and scores, for cards and records.
        rows: One row per row of the task, with the columns that ``_row_table`` describes.
    """

    task: str
    summary: dict[str, Any]
    rows: pa.Table

    @property
    def items(self) -> Ints:
        """Item ids, shape (rows,)."""
        found: Ints = self.rows["item"].to_numpy()
        return found

    @property
    def unseen(self) -> Bools:
        """Whether each row is tested and was not seen in pretraining, shape (rows,).

        Raises:
            InputError: The audit was made without pretraining data.
        """
        if "unseen" not in self.rows.column_names:
            raise InputError(f"the audit of {self.task} was made without pretraining data; give --pretraining")
        found: Bools = self.rows["unseen"].to_numpy(zero_copy_only=False)
        return found

    @property
    def leaks(self) -> Bools:
        """Whether each row also occurs in a split that it is tested against, shape (rows,)."""
        found: Bools = self.rows["leak"].to_numpy()
        return found

    @property
    def homologs(self) -> Bools:
        """Whether each row has a homolog in a split that it is tested against, shape (rows,).

        Raises:
            InputError: No homologs were looked for.
        """
        if "homolog" not in self.rows.column_names:
            raise InputError(f"the audit of {self.task} was made without an aligner; give --homology auto")
        found: Bools = self.rows["homolog"].to_numpy(zero_copy_only=False)
        return found

    def with_scores(self, scores: Sequence[PartScore]) -> TaskAudit:
        """Return the audit with scores of runs on a part of the rows."""
        known = self.summary.get("scores", [])
        return replace(
            self, summary={**self.summary, "scores": [*known, *map(asdict, scores)]} if scores else self.summary
        )

    def as_json(self) -> dict[str, Json]:
        """The summary, as it is stored."""
        return {"audit_version": AUDIT_VERSION, "task": self.task, **self.summary}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Found:
    """What was found for each of R rows against each of S splits.

    Attributes:
        copies: By the sequence.
        overlapping: By the coordinates, shape (R, S).
        overlap_share: Share of each row's nucleotides that lie in rows that it is tested against, shape (R,).
        distance_bp: Number of nucleotides to the nearest such row, shape (R,).
    """

    copies: Copies
    overlapping: Bools
    overlap_share: np.ndarray[Any, np.dtype[np.float64]]
    distance_bp: Ints

    @property
    def kinds(self) -> dict[str, Bools]:
        """By kind of copy, whether each row has one in each split, shape (R, S)."""
        return dict(
            zip(_KINDS, (self.copies.exact, self.copies.near, self.copies.shifted, self.overlapping), strict=True)
        )

    @property
    def in_split(self) -> Bools:
        """Whether each row occurs in each split, in any way, shape (R, S)."""
        return self.copies.exact | self.copies.near | self.copies.shifted | self.overlapping

    @property
    def leaks(self) -> Bools:
        """Whether each row occurs in any split that it is tested against, shape (R,)."""
        found: Bools = np.any(self.in_split, axis=1)
        return found


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """Pretraining data to compare with.

    Attributes:
        source: BED file of regions, or FASTA file.
        genome: FASTA file that a BED file refers to.
    """

    source: Path
    genome: Path | None = None


def audit_task(
    data: TaskData,
    thresholds: Thresholds | None = None,
    *,
    pretraining: Pretraining | None = None,
    homology: Homology = "off",
) -> TaskAudit:
    """Audit the splits of a task.

    Args:
        data: The task's data.
        thresholds: When two rows count as copies; None takes the defaults.
        pretraining: Pretraining data to compare the tested rows with.
        homology: The aligner that looks for homologs too; see ``homology.find_homologs``.

    Raises:
        InputError: The task has no rows, or the pretraining data cannot be read.
        BendError: The aligner is not installed, or failed.
    """
    rows = read_rows(data)
    audit = audit_rows(data.task, rows, thresholds or Thresholds(), pretraining)
    return audit if homology == "off" else _with_homologs(audit, rows, find_homologs(rows, homology))


def _with_homologs(audit: TaskAudit, rows: AuditRows, found: Homologs | str) -> TaskAudit:
    """Add the summary ``homology`` and the column ``homolog``."""
    if isinstance(found, str):
        return replace(audit, summary={**audit.summary, "homology": {"left_out": found}})
    return replace(
        audit,
        summary={**audit.summary, "homology": found.as_json(rows, audit.leaks)},
        rows=audit.rows.append_column("homolog", pa.array(found.found)),
    )


def audit_for_record(data: TaskData) -> dict[str, Json]:
    """Return what the record of a run keeps of an audit of its data, in bounded time.

    A built dataset holds its audit. The audit of files is made once and kept next to their dataset in the cache of
    ``datasets``, where ``bend-hf audit`` leaves its own too; of large tasks it is left out.

    Args:
        data: The task's data.

    Returns:
        As ``audit_facts`` gives it, or the reason why the audit was left out, ``left_out``.
    """
    known = data.facts.get("audit")
    if isinstance(known, dict):
        return known
    if "limit" in data.facts:
        return {"left_out": "the run was limited to some rows"}
    file = _cache_file(data)
    if file is not None and (kept := _kept(file)) is not None:
        return kept
    n_bp = sum(one.n_bytes for one in map(dataset_subset, data.subsets.values()))
    if n_bp > _RECORD_BP:
        return {"left_out": f"the task has {n_bp:,} nucleotides; 'bend-hf audit {data.task.key}' makes an audit"}
    return keep_for_records(data, audit_task(data))


def keep_for_records(data: TaskData, audit: TaskAudit) -> dict[str, Json]:
    """Keep the facts of an audit next to the dataset, for the records of later runs; return them."""
    facts, file = audit_facts(audit.as_json()), _cache_file(data)
    if file is not None and "limit" not in data.facts:
        with contextlib.suppress(BendError):  # the cache may be read-only
            write_text(file, json.dumps(facts, allow_nan=False) + "\n")
    return facts


def _cache_file(data: TaskData) -> Path | None:
    """A file next to the dataset in the cache of ``datasets``, whose folder is named by content; None in memory."""
    folders = {Path(file["filename"]).parent for subset in data.subsets.values() for file in subset.cache_files}
    return folders.pop() / _AUDIT_FILE if len(folders) == 1 else None


def _kept(file: Path) -> dict[str, Json] | None:
    try:
        facts = parse_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and facts.get("audit_version") == AUDIT_VERSION else None


def audit_rows(
    task: TaskSpec, rows: AuditRows, thresholds: Thresholds, pretraining: Pretraining | None = None
) -> TaskAudit:
    """Audit the rows of a task, as ``audit_task`` does."""
    found = _find(rows, thresholds)
    rules = None if isinstance(task.label, RealValues) else fit_rules(rows, task).as_json()
    summary: dict[str, Any] = {
        "rows": {name: int((rows.split == number).sum()) for number, name in enumerate(rows.split_names)},
        "method": {
            **asdict(thresholds),
            "seed_bp": SEED_BP,
            "near_kmer_bp": NEAR_BP,
            "seen_kmer_bp": SEEN_BP,
            "sampled_share_of_kmers": found.copies.sampling,
        },
        "pairs": _pairs(rows, found),
        "leaks": _leaks(rows, found),
        "not_compared": _by_split(rows, ~found.copies.compared),
        "similarity": _similarity(rows, found),
        "duplicates": _duplicates(rows, by_strand=isinstance(task.label, NucleotideClasses | BinClasses)),
        "rules": rules,
    }
    table = _row_table(rows, found)
    if pretraining is not None:
        overlap = pretraining_overlap(rows, pretraining.source, pretraining.genome)
        summary["pretraining"] = overlap.as_json()
        table = _with_overlap(table, overlap)
    return TaskAudit(task=task.key, summary=summary, rows=table)


def _with_overlap(table: pa.Table, overlap: PretrainingOverlap) -> pa.Table:
    """Add the columns ``unseen``, ``nucleotides_in_pretraining`` and ``kmers_in_pretraining``; null if not tested."""
    missing = np.ones(len(table), np.bool_)
    missing[overlap.row] = False
    unseen = np.zeros(len(table), np.bool_)
    unseen[overlap.row] = overlap.unseen
    table = table.append_column("unseen", pa.array(unseen))
    for name, share in (("nucleotides", overlap.nucleotide_share), ("kmers", overlap.kmer_share)):
        if share is not None:
            values = np.zeros(len(table))
            values[overlap.row] = share
            table = table.append_column(f"{name}_in_pretraining", pa.array(values, mask=missing))
    return table


def _find(rows: AuditRows, thresholds: Thresholds) -> _Found:
    copies = find_copies(rows, thresholds)
    places = Places(chromosome=rows.chromosome, start_bp=rows.start_bp, end_bp=rows.end_bp)
    shape = (len(rows), len(rows.split_names))
    overlapping = np.zeros(shape, np.bool_)
    share, distance = np.zeros(len(rows)), np.full(len(rows), FAR)
    for ours, allowed in enumerate(rows.references):
        mine = np.flatnonzero(rows.split == ours)
        for theirs in np.flatnonzero(allowed):
            covered = places.where(mine).covered_bp(places.where(rows.split == theirs))
            overlapping[mine, theirs] = covered > 0
        others = places.where(np.isin(rows.split, np.flatnonzero(allowed)))
        if allowed.any():
            length = np.maximum(rows.end_bp[mine] - rows.start_bp[mine], 1)
            share[mine] = places.where(mine).covered_bp(others) / length
            distance[mine] = places.where(mine).distance_bp(others)
    return _Found(copies=copies, overlapping=overlapping, overlap_share=share, distance_bp=distance)


def _pairs(rows: AuditRows, found: _Found) -> dict[str, Json]:
    """For each two compared splits, the number of rows of the first with a copy of each kind in the second."""
    pairs: dict[str, Json] = {}
    folds = not {"train", "test"} <= set(rows.split_names)
    for ours, theirs in zip(*np.nonzero(rows.references), strict=True):
        mine = rows.split == ours
        counts = {kind: int(found.kinds[kind][mine, theirs].sum()) for kind in _KINDS}
        if folds and not any(counts.values()):
            continue  # ninety pairs of subsets, of which only those with copies are worth a line
        items = rows.item[mine & found.in_split[:, theirs]][:_EXAMPLES].tolist()
        pairs[f"{rows.split_names[ours]}, {rows.split_names[theirs]}"] = {
            **{kind.replace(" ", "_"): count for kind, count in counts.items()},
            "any": int(found.in_split[mine, theirs].sum()),
            "items": items,
        }
    return pairs


def _leaks(rows: AuditRows, found: _Found) -> dict[str, Json]:
    """Number and share of the rows of each split that occur in a split that they are tested against."""
    leak = found.leaks
    counts: dict[str, Json] = {}
    for ours, name in enumerate(rows.split_names):
        if rows.references[ours].any():
            mine = rows.split == ours
            counts[name] = {"rows": int(leak[mine].sum()), "share": float(leak[mine].mean()) if mine.any() else 0.0}
    return counts


def _by_split(rows: AuditRows, chosen: Bools) -> dict[str, Json]:
    return {name: int(chosen[rows.split == ours].sum()) for ours, name in enumerate(rows.split_names)}


def _similarity(rows: AuditRows, found: _Found) -> dict[str, Json]:
    """Quantiles, for each tested split, of what its rows share with the splits that they are tested against."""
    summary: dict[str, Json] = {}
    for ours, name in enumerate(rows.split_names):
        mine = rows.split == ours
        if not rows.references[ours].any() or not mine.any():
            continue
        near = found.distance_bp[mine]
        near = near[near < FAR]
        summary[name] = {
            "share_of_31mers_seen": _quantiles(found.copies.seen_share[mine]),
            "equal_share_of_nearest_row": _quantiles(found.copies.equal_share[mine]),
            "share_of_21mers_in_nearest_row": _quantiles(found.copies.kmer_share[mine]),
            "bp_to_nearest_row": _quantiles(near),
            "rows_without_a_row_on_their_chromosome": int(mine.sum() - len(near)),
        }
    return summary


def _quantiles(values: np.ndarray[Any, Any]) -> dict[str, Json]:
    if not len(values):
        return {}
    low, middle, high, most = np.quantile(values, [0.5, 0.9, 0.99, 1.0]).tolist()
    return {
        "mean": float(values.mean()),
        "median": low,
        "q90": middle,
        "q99": high,
        "max": most,
        "min": float(values.min()),
    }


def _duplicates(rows: AuditRows, *, by_strand: bool) -> dict[str, Json]:
    """Count rows whose sequence occurs in an earlier row, and those that carry other labels than an equal row.

    Args:
        rows: The rows.
        by_strand: Whether labels belong to nucleotides, so that only rows of the same strand can be compared.
    """
    key = rows.digest if by_strand else rows.canonical
    _, content = np.unique(key, return_inverse=True)
    _, labels = np.unique(rows.labels.digest, return_inverse=True)
    order = np.lexsort((np.arange(len(rows)), content))
    again = np.zeros(len(rows), np.bool_)
    again[order[1:]] = content[order][1:] == content[order][:-1]
    low = np.full(content.max(initial=-1) + 1, np.iinfo(np.int64).max)
    high = np.full(len(low), -1)
    np.minimum.at(low, content, labels)
    np.maximum.at(high, content, labels)
    differs = low[content] != high[content]
    return {
        "rows_with_the_sequence_of_an_earlier_row": int(again.sum()),
        "items": rows.item[again][:_EXAMPLES].tolist(),
        "rows_whose_equals_have_other_labels": int(differs.sum()),
        "items_with_other_labels": rows.item[differs][:_EXAMPLES].tolist(),
    }


def _row_table(rows: AuditRows, found: _Found) -> pa.Table:
    """One row per row of the task.

    ``copy``, ``near``, ``shifted`` and ``overlap`` say whether it occurs in a split that it is tested against,
    ``leak`` whether any of them does. ``nearest_item`` is the most similar row of such a split, with the share of this
    row's nucleotides that are equal in it. ``distance_bp`` is null if the chromosome holds no such row.
    """
    nearest = found.copies.nearest
    columns: dict[str, Any] = {
        "item": rows.item,
        "split": pa.array(list(rows.split_names)).take(pa.array(rows.split)),
        "leak": found.leaks,
        "copy": found.copies.exact.any(axis=1),
        "near": found.copies.near.any(axis=1),
        "shifted": found.copies.shifted.any(axis=1),
        "overlap": found.overlapping.any(axis=1),
        "overlap_share": found.overlap_share,
        "nearest_item": pa.array(np.where(nearest < 0, 0, rows.item[nearest]), mask=nearest < 0),
        "equal_share": found.copies.equal_share,
        "seen_share": found.copies.seen_share,
        "distance_bp": pa.array(found.distance_bp, mask=found.distance_bp == FAR),
    }
    return pa.table(columns)


def write_audit(audit: TaskAudit, out: Path) -> list[Path]:
    """Write ``<task>.audit.json``, and ``<task>.audit.parquet`` with one row per row of the task.

    Raises:
        RecordError: A file cannot be written.
    """
    summary, table = out / f"{audit.task}.audit.json", out / f"{audit.task}.audit.parquet"
    with explain_write_errors(table), atomic_path(table) as part:
        pq.write_table(audit.rows, part, compression="zstd")
    return [write_text(summary, json.dumps(audit.as_json(), indent=2, allow_nan=False) + "\n"), table]


def audit_in_words(audit: Mapping[str, Any]) -> str:
    """Write an audit as text.

    Args:
        audit: As ``TaskAudit.as_json`` gives it.
    """
    lines = [f"{audit['task']}: {', '.join(f'{n:,} {name}' for name, n in audit['rows'].items())} rows", ""]
    lines += _pairs_in_words(audit)
    for name, leak in audit["leaks"].items():
        if leak["rows"] or name == "test":
            lines.append(
                f"{leak['rows']:,} rows of {name} ({leak['share']:.2%}) occur in a split that they are tested against."
            )
    seen = {name: share["share_of_31mers_seen"]["mean"] for name, share in audit["similarity"].items()}
    if seen:
        whose = "test" if "test" in seen else "a subset"
        mean = seen["test"] if "test" in seen else sum(seen.values()) / len(seen)
        lines.append(
            f"On average {mean:.1%} of the 31-mers of a row of {whose} occur in the splits that it is tested against."
        )
    lines += [duplicates_in_words(audit["duplicates"]), "", *_rules_in_words(audit["rules"])]
    n_skipped = sum(audit["not_compared"].values())
    if n_skipped:
        lines.append(f"{n_skipped:,} rows are mostly N and were not compared.")
    if audit["method"]["sampled_share_of_kmers"] < 1:
        lines.append(f"A fixed {audit['method']['sampled_share_of_kmers']:.1%} of all k-mers was used.")
    lines += _homology_in_words(audit)
    lines += _pretraining_in_words(audit)
    lines += [PartScore(**score).in_words() for score in audit.get("scores", [])]
    return "\n".join(lines)


def audit_facts(audit: Mapping[str, Any]) -> dict[str, Json]:
    """Return what a result record keeps of an audit: leaks by split, and the value of the best rule.

    Args:
        audit: As ``TaskAudit.as_json`` gives it.
    """
    rules = audit["rules"]
    return {
        "audit_version": AUDIT_VERSION,
        "leaks": dict(audit["leaks"]),
        "rows_whose_equals_have_other_labels": audit["duplicates"]["rows_whose_equals_have_other_labels"],
        "best_rule": rules and {"metric": rules["metric"], "value": rules["value"]},
    }


def findings_table(audits: Sequence[Mapping[str, Any]]) -> str:
    """Write the main findings of audits as a Markdown table, one row per task."""
    header = (
        "task",
        "rows in another split too",
        "31-mers seen",
        "equal rows with other labels",
        "best rule without a model",
    )
    return markdown_table(header, [(str(audit["task"]), *_findings(audit)) for audit in audits])


def _findings(audit: Mapping[str, Any]) -> tuple[str, ...]:
    leaks, similarity, rules = audit["leaks"], audit["similarity"], audit["rules"]
    tested = {"test": leaks["test"]} if "test" in leaks else leaks
    n_tested = sum(audit["rows"][name] for name in tested)
    n_leaks = sum(leak["rows"] for leak in tested.values())
    seen = [similarity[name]["share_of_31mers_seen"]["mean"] for name in tested]
    return (
        f"{n_leaks:,} of {n_tested:,} ({n_leaks / n_tested:.2%})" if tested else "not split",
        f"{sum(seen) / len(seen):.1%}" if seen else "not split",
        f"{audit['duplicates']['rows_whose_equals_have_other_labels']:,}",
        f"{metric_title(rules['metric'])} {number(rules['value'])}" if rules else "real values",
    )


def _homology_in_words(audit: Mapping[str, Any]) -> list[str]:
    found = audit.get("homology")
    if found is None:
        return []
    if "left_out" in found:
        return [f"Homologs with gaps were not looked for: {found['left_out']}."]
    return [
        f"{one['rows']:,} rows of {name} ({one['share']:.2%}) have a homolog ({found['tool']}: {found['identity']:.0%} "
        f"identity over {found['coverage']:.0%} of the row), {one['not_among_leaks']:,} of them none of the above."
        for name, one in found["splits"].items()
        if one["rows"] or name == "test"
    ]


def _pretraining_in_words(audit: Mapping[str, Any]) -> list[str]:
    lines = [str(audit["pretraining_of_model"])] if "pretraining_of_model" in audit else []
    if "pretraining" not in audit:
        return lines
    found = audit["pretraining"]
    nucleotides = found["nucleotides_seen"]
    seen = "" if nucleotides is None else f"{nucleotides['mean']:.1%} of their nucleotides and "
    words = (
        f"Of {found['tested_rows']:,} tested rows, {found['unseen_rows']:,} are unseen in {found['source']['file']}; "
        f"it holds {seen}{found['share_of_31mers_seen']['mean']:.1%} of their 31-mers."
    )
    if nucleotides is None:
        words += " It names no chromosome of the task, so only 31-mers were compared."
    return [*lines, words]


def _pairs_in_words(audit: Mapping[str, Any]) -> list[str]:
    pairs = audit["pairs"]
    if not pairs:
        return ["No row occurs in two splits."] if audit["leaks"] else ["The task has no splits to compare."]
    header = ("rows of, in", *_KINDS, "any")
    cells = [
        (pair, *(f"{found[kind.replace(' ', '_')]:,}" for kind in _KINDS), f"{found['any']:,}")
        for pair, found in pairs.items()
    ]
    return [text_table(header, cells), ""]


def duplicates_in_words(found: Mapping[str, Any]) -> str:
    """Describe rows with equal sequences."""
    n, differ = found["rows_with_the_sequence_of_an_earlier_row"], found["rows_whose_equals_have_other_labels"]
    if not n:
        return "No two rows have the same sequence."
    return f"{n:,} rows have the sequence of an earlier row; {differ:,} rows have an equal with other labels."


def _rules_in_words(rules: Mapping[str, Any] | None) -> list[str]:
    if rules is None:
        return ["Rules of one feature predict classes; the labels are real values."]
    best = sorted(rules["best_by_label"].items(), key=lambda entry: -(entry[1]["auroc"] or 0))[:_EXAMPLES]
    return [
        f"Best rule without a model (one feature, fitted on {rules['fitted_on']}, scored on {rules['scored_on']}): "
        f"{rules['metric']} {number(rules['value'])}.",
        *(f"  {name}: {entry['feature']}, AUROC {number(entry['auroc'])}" for name, entry in best),
    ]
