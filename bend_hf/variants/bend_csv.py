"""Predictions as the CSV that BEND's script for variants writes.

Columns and their order are those of scripts/predict_variant_effects.py: an unnamed row number, the columns of the BED
with start and end of the whole sequence that the model was shown, and ``distance``.

>>> HEADER[-1]
'distance'
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
from pyarrow import csv

from bend_hf.evaluation.predictions import Predictions
from bend_hf.files import write_bytes
from bend_hf.tables import printable
from bend_hf.types import IGNORE_LABEL

HEADER: Final = ("", "chromosome", "start", "end", "ref", "alt", "label", "distance")


def write_bend_csv(predictions: Predictions, path: Path) -> Path:
    """Write the CSV atomically and return its path; an existing file is replaced.

    Raises:
        RecordError: The file cannot be written.
    """
    columns = predictions.columns
    start, left, right = (columns[name].to_numpy().astype(np.int64) for name in ("start", "left_bp", "right_bp"))
    ref_bp = np.array([len(bases) for bases in columns["ref"].to_pylist()], np.int64)
    names, quoting = _shown(columns["chromosome"])
    unlabeled = predictions.target == IGNORE_LABEL
    values = (
        pa.array(np.arange(len(predictions))),
        names,
        pa.array(start - left),
        pa.array(start + ref_bp + right),
        columns["ref"],
        columns["alt"],
        pa.array(predictions.target, mask=unlabeled),
        pa.array(predictions.score, from_pandas=True),
    )
    sink = pa.BufferOutputStream()
    table = pa.table(dict(zip(("row", *HEADER[1:]), values, strict=True)))
    csv.write_csv(table, sink, csv.WriteOptions(include_header=False, quoting_style=quoting))
    return write_bytes(path, (",".join(HEADER) + "\n").encode() + sink.getvalue().to_pybytes())


def _shown(names: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, Literal["none", "needed"]]:
    """Show control characters of contig names as escapes; return how strings are quoted, which BEND's are not."""
    whole = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    coded = whole.cast(pa.string()).dictionary_encode()
    shown = [printable(name) for name in coded.dictionary.to_pylist()]
    quoted = any(sign in name for name in shown for sign in ',"\n\r')
    return pa.array(shown, pa.string()).take(coded.indices), "needed" if quoted else "none"
