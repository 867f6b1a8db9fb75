"""Predictions as the CSV that BEND's script for variants writes.

Columns and their order are those of scripts/predict_variant_effects.py: a row number without a name, the bed's
columns with start and end of the whole sequence shown, and ``distance``.

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
    """Writes the file whole or not at all; an older one of the name is replaced.

    Raises:
        RecordError: It cannot be written.
    """
    given = predictions.columns
    start, left, right = (given[name].to_numpy().astype(np.int64) for name in ("start", "left_bp", "right_bp"))
    ref_bp = np.array([len(text) for text in given["ref"].to_pylist()], np.int64)
    unlabelled = predictions.target == IGNORE_LABEL
    columns = (
        pa.array(np.arange(len(predictions))),
        given["chromosome"],
        pa.array(start - left),
        pa.array(start + ref_bp + right),
        given["ref"],
        given["alt"],
        pa.array(predictions.target, mask=unlabelled),
        pa.array(predictions.score, from_pandas=True),
    )
    sink = pa.BufferOutputStream()
    table = pa.table(dict(zip(("row", *HEADER[1:]), columns, strict=True)))
    csv.write_csv(table, sink, csv.WriteOptions(include_header=False, quoting_style="none"))
    return write_bytes(path, (",".join(HEADER) + "\n").encode() + sink.getvalue().to_pybytes())
