"""A task without a declaration: what a bed and its labels say about themselves.

For ``--bed --labels --genome`` on the command line. Labels of an hdf5 as long as their intervals are classes
of nucleotides, shorter ones classes of bins; a ``label`` column holds index lists or one class a row.

>>> user_task_from_column("mine", ["0", "1", "0"]).label
SequenceClass(names=('class_0', 'class_1'))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bend_hf.errors import LabelError
from bend_hf.tasks._labels import BinClasses, LabelKind, MultiLabel, NucleotideClasses, SequenceClass
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
from bend_hf.types import Ints


def _names(n: int, prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}_{index}" for index in range(max(n, 2)))


def user_task_from_column(
    name: str,
    values: Sequence[str | None] | pa.ChunkedArray,
    *,
    lengths_bp: Ints | None = None,
    names: tuple[str, ...] | None = None,
    partition: Partition | None = None,
    stranded: bool = False,
) -> TaskSpec:
    """The task that a ``label`` column of index lists or single classes makes.

    Args:
        name: What to call it.
        values: The column, strings.
        lengths_bp: Interval lengths; windows of one length are pooled whole.
        names: Label names, where a ``.labels.txt`` gives them.
        partition: How the bed is split; the ``split`` column by default.
        stranded: Whether the bed has a strand to be read.

    Raises:
        LabelError: The labels are real numbers, or windows of several lengths share no pooling width.
    """
    column = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([pa.array(values, pa.string())])
    text = pc.utf8_trim_whitespace(pc.fill_null(column, ""))
    single = pc.match_substring_regex(text, r"^-?\d+(\.\d*)?$")
    real = pc.match_substring_regex(text, r"^-?\d+\.\d*[1-9]\d*$")
    if pc.any(real).as_py():
        first = pc.index(real, pa.scalar(True)).as_py()
        raise LabelError(
            f"{name}: label {text[first].as_py()!r} is a real number; class indices were expected. "
            "Cut real values into classes, or declare a task of your own with loss='mse'"
        )
    flat = pc.split_pattern(text, ",").combine_chunks().flatten()
    indices = pc.replace_substring_regex(pc.utf8_trim_whitespace(flat), r"\.0*$", "")
    indices = indices.filter(pc.match_substring_regex(indices, r"^\d{1,9}$")).cast(pa.int64())
    n = (pc.max(indices).as_py() or 0) + 1 if len(indices) else 0
    pool_bp = _common_length(name, lengths_bp)
    if pc.all(single).as_py():
        label: LabelKind = SequenceClass(names=names or _names(n, "class"))
        return _task(name, label, pool_bp, "cross_entropy", "mcc", (), partition, stranded)
    label = MultiLabel(names=names or tuple(f"label_{index}" for index in range(max(n, 1))))
    return _task(name, label, pool_bp, "bce", "auroc", ("auprc",), partition, stranded)


def user_task_from_hdf5(
    name: str,
    path: Path,
    lengths_bp: Ints,
    *,
    names: tuple[str, ...] | None = None,
    partition: Partition | None = None,
    stranded: bool = False,
) -> TaskSpec:
    """The task that an hdf5 file of labels makes: classes of nucleotides, or of equal bins.

    Raises:
        LabelError: The file cannot be read, or its labels a row divide no interval evenly.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            dataset = file["labels"]
            ragged = h5py.check_vlen_dtype(dataset.dtype) is not None
            first = np.asarray(dataset[0])
            width = len(np.atleast_1d(first))
            n_classes = 0
            for start in range(0, dataset.shape[0], 256):
                block = dataset[start : start + 256]
                n_classes = max(n_classes, int(np.concatenate(block).max() if ragged else block.max()) + 1)
    except (OSError, KeyError, IndexError, ValueError) as error:
        raise LabelError(f"{path}: no readable dataset 'labels' ({error}); store one record a bed row") from error
    longest = int(lengths_bp[0]) if ragged else int(lengths_bp.max())
    if width == longest:
        nucleotides = NucleotideClasses(names=names or _names(n_classes, "class"))
        return _task(name, nucleotides, None, "cross_entropy", "mcc", (), partition, stranded)
    if width == 0 or longest % width:
        raise LabelError(
            f"{path}: {width} labels for {longest} nucleotides; expected one a nucleotide, or bins that divide "
            "the interval evenly"
        )
    bins = BinClasses(names=names or _names(n_classes, "class"), bin_bp=longest // width)
    if len(bins.names) == 2:
        return _task(name, bins, bins.bin_bp, "bce", "auprc", ("auroc",), partition, stranded)
    return _task(name, bins, bins.bin_bp, "cross_entropy", "mcc", (), partition, stranded)


def user_variant_task(name: str) -> TaskSpec:
    """The task that a bed with ``ref``, ``alt`` and ``label`` makes: zero-shot variant effects."""
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


def own_partition(splits: Sequence[str]) -> Partition:
    """Named splits where the values are train, validation (valid) and test; folds otherwise."""
    known = {"train", "valid", "validation", "test"}
    return NamedSplits() if set(splits) & known else Folds(n=len(set(splits)))


def _common_length(name: str, lengths_bp: Ints | None) -> int:
    if lengths_bp is None or len(lengths_bp) == 0:
        return 512
    lengths = np.unique(lengths_bp)
    if len(lengths) > 1:
        raise LabelError(
            f"{name}: a label for the whole sequence needs windows of one length; the bed has lengths from "
            f"{lengths[0]} to {lengths[-1]} bp. Cut the windows to one length"
        )
    return int(lengths[0])


def _task(
    name: str,
    label: LabelKind,
    pool_bp: int | None,
    loss: str,
    metric: str,
    further_metrics: tuple[str, ...],
    partition: Partition | None,
    stranded: bool,
) -> TaskSpec:
    whole = isinstance(label, MultiLabel | SequenceClass)
    return TaskSpec(
        key=name,
        group=name,
        title=name,
        description="A task given by the user as a bed with labels.",
        assembly="unknown",
        window_bp=pool_bp if whole else None,
        label=label,
        stranded=stranded,
        partition=partition or NamedSplits(),
        head=Head("cnn", hidden=64, kernel=3, pool_bp=pool_bp),
        training=TrainingSpec(
            loss="cross_entropy" if loss == "cross_entropy" else "bce",
            batch_size=256 if whole else 64,
            learning_rate=0.003,
        ),
        metric=metric,
        further_metrics=further_metrics,
        citations=(BEND,),
        license="the user's own data",
    )
