"""Predictions as the CSV that BEND's script for variants writes.

Columns and their order are those of scripts/predict_variant_effects.py: an unnamed row number, the columns of the BED
with start and end of the whole sequence that the model was shown, and ``distance``.

>>> HEADER[-1]
'distance'
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from pyarrow import csv

from bend_hf.evaluation.predictions import Predictions
from bend_hf.files import write_bytes
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
    unlabeled = predictions.target == IGNORE_LABEL
    values = (
        pa.array(np.arange(len(predictions))),
        columns["chromosome"],
        pa.array(start - left),
        pa.array(start + ref_bp + right),
        columns["ref"],
        columns["alt"],
        pa.array(predictions.target, mask=unlabeled),
        pa.array(predictions.score, from_pandas=True),
    )
    sink = pa.BufferOutputStream()
    table = pa.table(dict(zip(("row", *HEADER[1:]), values, strict=True)))
    csv.write_csv(table, sink, csv.WriteOptions(include_header=False, quoting_style="none"))
    return write_bytes(path, (",".join(HEADER) + "\n").encode() + sink.getvalue().to_pybytes())
