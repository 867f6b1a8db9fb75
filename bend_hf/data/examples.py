"""Read the examples of a task: BED, labels and genome, checked against each other and divided into splits.

Everything that a user can get wrong in the input files is found here, before any work starts.

>>> subset_number("part10")
10
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bend_hf.data.bed import BedTable, name_rows, read_bed
from bend_hf.data.genome import Genome
from bend_hf.data.hdf5 import label_files
from bend_hf.data.labels import LabelTable, labels_from_column, labels_from_hdf5, read_label_names, values_from_column
from bend_hf.data.sources import TaskFiles
from bend_hf.data.user_task import (
    user_partition,
    user_task_from_column,
    user_task_from_hdf5,
    user_task_of_values,
    user_variant_task,
)
from bend_hf.data.variants import Variants, WrittenVariants, warn_of_contradictions
from bend_hf.data.vcf import is_vcf, label_remedy, read_vcf
from bend_hf.errors import InputError, LabelError
from bend_hf.files import FileState, check_unchanged, file_states
from bend_hf.tasks import Folds, NamedSplits, TaskSpec
from bend_hf.tasks._labels import BinClasses, MultiLabel, NucleotideClasses, RealValues, SequenceClass
from bend_hf.types import IGNORE_LABEL, SPLITS, Bools, Ints, OutOfBounds, RefMismatch

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TaskExamples:
    """The checked content of a task's files; n rows.

    Attributes:
        task: The declaration, with the label names of the files.
        files: The files.
        bed: Coordinates and further columns.
        labels: Labels of every row.
        genome: The reference genome.
        subset: Subset of each row, index into ``subset_names``, shape (n,).
        subset_names: Names of the splits, or of the subsets that folds are made of.
        keep: False for rows dropped by an explicit policy, shape (n,).
        variants: The variants of a variant task.
        out_of_bounds: What is done with intervals that end after their contig.
        n_ref_mismatches: Number of rows dropped because REF is not the genome's base.
        states: State of each file before it was read.
    """

    task: TaskSpec
    files: TaskFiles
    bed: BedTable
    labels: LabelTable
    genome: Genome
    subset: Ints
    subset_names: tuple[str, ...]
    keep: Bools
    variants: Variants | None
    out_of_bounds: OutOfBounds
    n_ref_mismatches: int
    states: dict[Path, FileState] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.bed)

    def strand(self) -> NDArray[np.int8] | None:
        """Return the strand that sequences are read from; None if the task always reads the plus strand."""
        return self.bed.strand if self.task.stranded else None

    def rows_of(self, subset: int) -> Ints:
        """Return the row numbers of one subset, in the order of the BED file."""
        return np.flatnonzero((self.subset == subset) & self.keep)

    def check_unchanged(self) -> None:
        """Check that the files are those that were read, so that their hashes name what the dataset holds.

        Raises:
            InputError: A file changed since.
        """
        check_unchanged(self.states)


@dataclass(frozen=True, kw_only=True)
class TaskRows:
    """The rows of a task's BED or VCF file; labels and genome are not read.

    Attributes:
        task: The declaration, with the label names of the files.
        bed: Coordinates and further columns; n rows.
        subset: Subset of each row, index into ``subset_names``, shape (n,).
        subset_names: Names of the splits, or of the subsets that folds are made of.
    """

    task: TaskSpec
    bed: BedTable
    subset: Ints
    subset_names: tuple[str, ...]


def read_rows(files: TaskFiles) -> TaskRows:
    """Read the rows of a task and divide them into splits.

    Args:
        files: The files; those of a task without a declaration say what it is.

    Raises:
        InputError: A file or row is invalid; the message names file and row, and says what to do.
    """
    is_variants = files.task is not None and files.task.variant is not None
    if is_vcf(files.bed):
        bed = read_vcf(files.bed)
    else:
        bed = read_bed(files.bed, allow_empty=is_variants or files.task is None)
    _check_strand(bed, files.task)
    task = files.task or _user_task(files, bed)
    if files.label_names is not None:
        task = task.with_label_names(read_label_names(files.label_names))
    elif files.origin == "sample":
        raise InputError(f"{files.bed} has no .labels.txt next to it; the labels of the sample must be named")
    subset, subset_names = _subsets(bed, task)
    return TaskRows(task=task, bed=bed, subset=subset, subset_names=subset_names)


def read_examples(
    files: TaskFiles, *, out_of_bounds: OutOfBounds = "error", ref_mismatch: RefMismatch = "error"
) -> TaskExamples:
    """Read and check the files of a task.

    Args:
        files: The files.
        out_of_bounds: What to do with intervals that end after their contig.
        ref_mismatch: What to do with variants whose REF is not the genome's base, or equals ALT.

    Raises:
        InputError: A file, row or label is invalid; the message names file and row, and says what to do.
    """
    states = file_states([path for path in (files.bed, files.label_names, files.genome) if path is not None])
    rows = read_rows(files)
    task, bed = rows.task, rows.bed
    states |= file_states(label_files(files.hdf5) if files.hdf5 is not None else [])
    labels = _labels(files, bed, task)
    genome = Genome(files.genome)
    keep = np.ones(len(bed), np.bool_)
    variants, n_mismatches = None, 0
    if task.variant is not None:
        variants, keep = _variants(bed, genome, ref_mismatch)
        bed, n_mismatches = variants.bed, int((~keep).sum())
        if isinstance(task.label, SequenceClass):
            warn_of_contradictions(variants, np.where(keep, labels.values, IGNORE_LABEL).astype(np.int16))
    else:
        if task.window_bp is not None:
            _check_windows(bed, task.window_bp, task.key)
        # Checks every interval and every contig name; the sequences are read later.
        genome.fetch_iter(bed.chromosome, bed.start_bp, bed.end_bp, out_of_bounds=out_of_bounds, describe=bed.describe)
    return TaskExamples(
        task=task,
        files=files,
        bed=bed,
        labels=labels,
        genome=genome,
        subset=rows.subset,
        subset_names=rows.subset_names,
        keep=keep,
        variants=variants,
        out_of_bounds=out_of_bounds,
        n_ref_mismatches=n_mismatches,
        states=states,
    )


def _check_strand(bed: BedTable, task: TaskSpec | None) -> None:
    """Raise, or warn about a user's task, if a column looks like a strand but is not named so."""
    if bed.strand is not None or is_vcf(bed.path) or (task is not None and not task.stranded):
        return
    signed = bed.signed_columns()
    if not signed:
        return
    text = f"{bed.path} has no column 'strand', but {signed[0]!r} holds only + and -"
    if task is not None:
        raise InputError(
            f"{text}; {task.key} reads sequences of the minus strand as reverse complements. Name the column 'strand' "
            "if it is the strand, or remove it to read the plus strand everywhere"
        )
    log.warning("%s; all sequences are read from the plus strand. Name the column 'strand' if it is the strand", text)


def _user_task(files: TaskFiles, bed: BedTable) -> TaskSpec:
    names = read_label_names(files.label_names) if files.label_names else None
    if {"ref", "alt"} <= set(bed.columns.column_names):
        if files.loss is not None:
            raise InputError(f"{files.bed} holds variants, which are scored without training; leave --loss out")
        return user_variant_task(files.key)
    if bed.split is None:
        raise InputError(
            f"{files.bed} has no column 'split'; training needs rows marked train, valid and test, "
            "or folds part0, part1, ..."
        )
    partition = user_partition(bed.split_names())
    lengths_bp, stranded = bed.end_bp - bed.start_bp, bed.strand is not None
    if files.loss is not None and files.hdf5 is None and "label" in bed.columns.column_names:
        column = bed.columns["label"]
        task = user_task_of_values(
            files.key, files.loss, column, lengths_bp=lengths_bp, names=names, partition=partition
        )
        return replace(task, stranded=stranded)
    if files.loss is not None:
        raise InputError(
            f"--loss {files.loss} reads real values from a column 'label' of {files.bed}, but "
            + ("it has none" if files.hdf5 is None else f"the labels come from {files.hdf5}")
            + "; add the column, and move an HDF5 file of the same name away"
        )
    if files.hdf5 is not None:
        return user_task_from_hdf5(
            files.key, files.hdf5, lengths_bp, names=names, partition=partition, stranded=stranded
        )
    if "label" not in bed.columns.column_names:
        raise InputError(f"{files.bed} has no column 'label' and no HDF5 file of labels; add one, or pass --labels")
    return user_task_from_column(
        files.key,
        bed.columns["label"],
        lengths_bp=lengths_bp,
        names=names,
        partition=partition,
        stranded=stranded,
    )


def _labels(files: TaskFiles, bed: BedTable, task: TaskSpec) -> LabelTable:
    match task.label:
        case NucleotideClasses() | BinClasses():
            if files.hdf5 is None:
                raise LabelError(f"the labels of {task.key} come from an HDF5 file, and none is given; pass --labels")
            return labels_from_hdf5(files.hdf5, task.label, bed.end_bp - bed.start_bp, row_number=bed.row_number)
        case MultiLabel() | SequenceClass() | RealValues():
            if "label" not in bed.columns.column_names:
                raise InputError(
                    f"{files.bed} has no column 'label' (it has {', '.join(bed.columns.column_names)}); "
                    f"{task.key} reads its labels from it"
                )
            column, where = bed.columns["label"], str(files.bed)
            if not isinstance(task.label, RealValues):
                remedy = label_remedy() if is_vcf(files.bed) else None
                return labels_from_column(column, task.label, where=where, named=bed.line, remedy=remedy)
            counts = task.training is not None and task.training.loss == "poisson"
            return values_from_column(column, task.label, where=where, named=bed.line, counts=counts)


def subset_number(name: str) -> int | None:
    """Return the number in a subset's name: ``part3`` and ``3`` are both 3; None if it has no number."""
    found = re.search(r"\d+", name)
    return int(found.group()) if found else None


def _subsets(bed: BedTable, task: TaskSpec) -> tuple[Ints, tuple[str, ...]]:
    """Return the subset of each row, and the names of the subsets in order."""
    if not isinstance(task.partition, NamedSplits | Folds):
        return np.zeros(len(bed), np.int64), ("test",)
    if bed.split is None:
        raise InputError(
            f"{bed.path} has no column 'split' (it has {', '.join(bed.columns.column_names)}); {task.key} needs one"
        )
    names, codes = bed.split.dictionary.to_pylist(), bed.split.indices.to_numpy().astype(np.int64)
    if isinstance(task.partition, NamedSplits):
        number = {name: SPLITS.index(name) for name in names if name in SPLITS}
        wanted, order = "train, valid (or validation) and test", {i: i for i in range(len(SPLITS))}
        subset_names: tuple[str, ...] = SPLITS
    else:
        number = {name: n for name in names if (n := subset_number(name)) is not None}
        wanted = "part0, part1, ... or their numbers"
        order = {n: place for place, n in enumerate(sorted(set(number.values())))}
        subset_names = tuple(f"part_{place}" for place in range(len(order)))
    unknown = [code for code, name in enumerate(names) if name not in number]
    if unknown:
        rows = np.flatnonzero(np.isin(codes, unknown))
        raise InputError(
            f"{bed.path}: unknown split: {name_rows(rows, lambda r: f'{bed.describe(r)}: {names[codes[r]]!r}')}; "
            f"expected {wanted}"
        )
    if isinstance(task.partition, Folds):
        _check_subset_names(bed, number)
    if isinstance(task.partition, Folds) and len(order) < 3:
        raise InputError(f"{bed.path} has {len(order)} subsets; folds need at least three (train, validation, test)")
    return np.array([order[number[name]] for name in names], np.int64)[codes], subset_names


def _check_subset_names(bed: BedTable, number: dict[str, int]) -> None:
    """Raise if two subsets of folds have one number, so that they would become one subset."""
    first: dict[int, str] = {}
    for name, n in number.items():
        if first.setdefault(n, name) != name:
            raise InputError(
                f"{bed.path}: the subsets {first[n]!r} and {name!r} both have the number {n}; expected one name per "
                "subset, as part0, part1 and so on. Rename them"
            )


def _check_windows(bed: BedTable, window_bp: int, key: str) -> None:
    lengths = bed.end_bp - bed.start_bp
    wrong = np.flatnonzero(lengths != window_bp)
    if len(wrong):
        raise InputError(
            f"{bed.path}: windows of {key} are {window_bp} bp; "
            f"{name_rows(wrong, lambda r: f'{bed.describe(r)} has {lengths[r]} bp')}; cut the windows to that length"
        )


def _variants(bed: BedTable, genome: Genome, policy: RefMismatch) -> tuple[Variants, Bools]:
    """Return the variants of a task, and which of them agree with the genome, shape (n,)."""
    written = WrittenVariants.of(bed)
    others = np.flatnonzero(~written.is_substitution)
    if len(others):
        raise InputError(
            f"{bed.path}: {len(others)} of {len(bed)} variants are not substitutions of one base (A, C, G, T): "
            f"{written.name(others)}. Remove insertions and deletions; this task scores substitutions of one base"
        )
    agrees = written.agree_with(genome, policy)
    return written.normalized(np.arange(len(bed)), genome), agrees
