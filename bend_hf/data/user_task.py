"""Infer a task from a BED file and its labels, for ``--bed --labels --genome`` without a declaration.

HDF5 labels that are as long as their intervals are classes of nucleotides, shorter ones classes of bins; a ``label``
column holds index lists, or one class per row.

>>> user_task_from_column("mine", ["0", "1", "0"]).label
SequenceClass(names=('class_0', 'class_1'))
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bend_hf.data.hdf5 import check_declared, open_labels
from bend_hf.errors import LabelError
from bend_hf.tasks._labels import (
    MOST_CLASSES,
    BinClasses,
    LabelKind,
    MultiLabel,
    NucleotideClasses,
    RealValues,
    SequenceClass,
)
from bend_hf.tasks._spec import (
    BEND,
    Folds,
    Head,
    NamedSplits,
    Partition,
    TaskSpec,
    TrainingSpec,
    Unsplit,
    VariantSpec,
)
from bend_hf.types import Ints, ValueLoss

log = logging.getLogger(__name__)
_FIRST_ROWS: Final = 1000  # one of them says how many values a row has


def _names(n: int, prefix: str, *, least: int = 2) -> tuple[str, ...]:
    """Name n labels; indices that are too large are refused with their row when labels are read."""
    return tuple(f"{prefix}_{index}" for index in range(min(max(n, least), MOST_CLASSES)))


def user_task_from_column(
    name: str,
    values: Sequence[str | None] | pa.ChunkedArray,
    *,
    lengths_bp: Ints | None = None,
    names: tuple[str, ...] | None = None,
    partition: Partition | None = None,
    stranded: bool = False,
) -> TaskSpec:
    """Infer the task of a ``label`` column of index lists or single classes.

    Args:
        name: Name of the task.
        values: The column as strings.
        lengths_bp: Interval lengths; all must be equal.
        names: Label names from a ``.labels.txt``, if there is one.
        partition: How the rows are split; by default train, validation and test.
        stranded: Whether the BED file has a strand.

    Raises:
        LabelError: The labels are real numbers, or the windows have several lengths.
    """
    column = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([pa.array(values, pa.string())])
    text = pc.utf8_trim_whitespace(pc.fill_null(column, ""))
    single = pc.match_substring_regex(text, r"^-?\d+(\.\d*)?$")
    real = pc.match_substring_regex(text, r"^-?\d+\.\d*[1-9]\d*$")
    if pc.any(real).as_py():
        first = pc.index(real, pa.scalar(True)).as_py()
        raise LabelError(
            f"{name}: label {text[first].as_py()!r} is a real number; expected class indices. "
            "Pass --loss mse to learn the values, or bin them into classes"
        )
    flat = pc.split_pattern(text, ",").combine_chunks().flatten()
    indices = pc.replace_substring_regex(pc.utf8_trim_whitespace(flat), r"\.0*$", "")
    indices = indices.filter(pc.match_substring_regex(indices, r"^\d{1,9}$")).cast(pa.int64())
    n = (pc.max(indices).as_py() or 0) + 1 if len(indices) else 0
    pool_bp = _common_length(name, lengths_bp)
    if pc.all(single).as_py():
        label: LabelKind = SequenceClass(names=names or _names(n, "class"))
        return _task(name, label, pool_bp, partition, stranded)
    if not pc.any(pc.match_substring(text, ",")).as_py():
        log.warning(
            "%s: %d of %d rows have no label and the others one, so a row is taken to have any number of labels; "
            "write a class in each row if it has exactly one",
            *(name, pc.sum(pc.equal(text, "")).as_py(), len(text)),
        )
    label = MultiLabel(names=names or _names(n, "label", least=1))
    return _task(name, label, pool_bp, partition, stranded)


def user_task_of_values(
    name: str,
    loss: ValueLoss,
    values: pa.ChunkedArray,
    *,
    lengths_bp: Ints,
    names: tuple[str, ...] | None = None,
    partition: Partition | None = None,
) -> TaskSpec:
    """Return the task of a ``label`` column of real values; the arguments are those of ``user_task_from_column``.

    Raises:
        LabelError: The windows have several lengths.
    """
    texts = [str(text or "").strip() for text in values.slice(0, _FIRST_ROWS).to_pylist()]
    first = next((text for text in texts if text.lower() not in ("", "na", "nan")), "")
    n_values = first.count(",") + 1
    label = RealValues(names=names or (("value",) if n_values == 1 else tuple(f"value_{n}" for n in range(n_values))))
    task = _task(name, label, _common_length(name, lengths_bp), partition, stranded=False)
    settings = TrainingSpec(loss=loss, batch_size=256, learning_rate=0.003)
    return replace(task, training=settings, metric="pearsonr", further_metrics=("spearmanr",))


def user_task_from_hdf5(
    name: str,
    path: Path,
    lengths_bp: Ints,
    *,
    names: tuple[str, ...] | None = None,
    partition: Partition | None = None,
    stranded: bool = False,
) -> TaskSpec:
    """Infer the task of an HDF5 file of labels: classes of nucleotides, or of equal bins.

    Raises:
        LabelError: The file cannot be read, or the number of labels per row does not divide the interval.
    """
    import h5py

    with open_labels(path) as dataset:
        if not dataset.shape[0]:
            raise LabelError(f"{path}: 'labels' holds no record; store one record per BED row")
        check_declared(dataset, path, lengths_bp)
        ragged = h5py.check_vlen_dtype(dataset.dtype) is not None
        width = len(np.atleast_1d(np.asarray(dataset[0])))
        n_classes = 0
        for start in range(0, dataset.shape[0], 256):
            block = dataset[start : start + 256]
            values = np.concatenate(block) if ragged else block
            values = values[np.isfinite(values)]  # the others are refused with their row when labels are read
            n_classes = max(n_classes, int(values.max()) + 1 if values.size else 0)
    longest = int(lengths_bp[0]) if ragged else int(lengths_bp.max())
    if width >= longest:  # padded if it is wider; the padding is checked when labels are read
        nucleotides = NucleotideClasses(names=names or _names(n_classes, "class"))
        return _task(name, nucleotides, None, partition, stranded)
    if width == 0 or longest % width:
        raise LabelError(
            f"{path}: {width} labels for {longest} nucleotides; expected one per nucleotide, or bins that divide "
            "the interval evenly"
        )
    bins = BinClasses(names=names or _names(n_classes, "class"), bin_bp=longest // width)
    return _task(name, bins, bins.bin_bp, partition, stranded)


def user_variant_task(name: str) -> TaskSpec:
    """Return the task of a BED file with ``ref``, ``alt`` and ``label``: zero-shot variant effects."""
    return TaskSpec(
        key=name,
        group=name,
        title=name,
        description="Variants given by the user.",
        assembly="unknown",
        window_bp=None,
        label=SequenceClass(names=("class_0", "class_1")),
        stranded=False,
        partition=Unsplit(),
        head=None,
        training=None,
        variant=VariantSpec(),
        metric="auroc",
        further_metrics=("auprc",),
        citations=(BEND,),
        license="the user's own data",
    )


def user_partition(splits: Sequence[str]) -> Partition:
    """Return named splits if the values include train, validation (valid) or test, otherwise folds."""
    known = {"train", "valid", "validation", "test"}
    return NamedSplits() if {name.lower() for name in splits} & known else Folds(n=len(set(splits)))


def _common_length(name: str, lengths_bp: Ints | None) -> int:
    if lengths_bp is None or len(lengths_bp) == 0:
        return 512
    lengths = np.unique(lengths_bp)
    if len(lengths) > 1:
        raise LabelError(
            f"{name}: the windows have lengths from {lengths[0]} to {lengths[-1]} bp; expected one length for labels "
            "of whole sequences. Cut the windows to one length"
        )
    return int(lengths[0])


def _task(name: str, label: LabelKind, pool_bp: int | None, partition: Partition | None, stranded: bool) -> TaskSpec:
    whole = isinstance(label, MultiLabel | SequenceClass | RealValues)
    metrics: tuple[str, ...]
    match label:
        case MultiLabel():
            metrics, binary = ("auroc", "auprc"), True
        case BinClasses() if len(label.names) == 2:
            metrics, binary = ("auprc", "auroc"), True
        case _:
            metrics, binary = ("mcc",), False
    return TaskSpec(
        key=name,
        group=name,
        title=name,
        description="A task given by the user as a BED file with labels.",
        assembly="unknown",
        window_bp=pool_bp if whole else None,
        label=label,
        stranded=stranded,
        partition=partition or NamedSplits(),
        head=Head("cnn", hidden=64, kernel=3, pool_bp=pool_bp),
        training=TrainingSpec(
            loss="bce" if binary else "cross_entropy",
            batch_size=256 if whole else 64,
            learning_rate=0.003,
        ),
        metric=metrics[0],
        further_metrics=metrics[1:],
        citations=(BEND,),
        license="the user's own data",
    )
