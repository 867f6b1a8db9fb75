"""Measure how much scores change if the model computes in bfloat16 instead of float32.

    python -m benchmarks.precision

Runs bend-mini on tasks of the bundled sample twice, with the recipes of the demo: the same rows, seed and head, which
computes in float32 in both. Writes ``benchmarks/results/precision.json``.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from bend_hf.evaluation.predictions import read_predictions
from bend_hf.evaluation.record import member
from bend_hf.runs.demo import DemoSettings, demo_config
from bend_hf.runs.outcome import Outcome
from bend_hf.runs.run import run
from bend_hf.tasks import TASKS
from bend_hf.types import DtypeChoice

RESULTS: Final = Path(__file__).resolve().parent / "results"
MEASURED: Final = ("cpg_methylation", "gene_finding", "variant_effects_disease", "variant_effects_expression")
DTYPES: Final[tuple[DtypeChoice, ...]] = ("float32", "bfloat16")


def measured(key: str, folder: Path, device: str | None, limit: int | None) -> dict[str, Any]:
    """Run one task in both dtypes, on at most ``limit`` items of each split."""
    config = demo_config(TASKS.get(key), DemoSettings(model="bend-mini", out=folder / "out", cache=folder / "cache"))
    if config is None:
        raise SystemExit(f"{key} is left out of the demo; expected a task of the sample")
    found: dict[str, Outcome] = {}
    for dtype in DTYPES:
        (found[dtype],) = run(
            replace(config, model_dtype=dtype, device=device, controls=False, limit=limit or config.limit)
        )
    record = found["float32"].record
    name = record.main_metric
    return {
        "task": key,
        "metric": name,
        "items": record.coverage["scored"],
        **{dtype: one.record.value for dtype, one in found.items()},
        "interval": [member(record.metrics, name, "interval", end) for end in ("low", "high")],
        **changes({dtype: values_of(one) for dtype, one in found.items()}),
    }


def values_of(one: Outcome) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the predictions of a run: scores of variants, or classes."""
    return read_predictions(one.path.parent / str(one.record.predictions["file"])).values


def changes(values: dict[str, np.ndarray[Any, np.dtype[Any]]]) -> dict[str, float]:
    """Return the share of other classes, or the largest change of a score over the spread of the scores."""
    one, other = (values[dtype] for dtype in DTYPES)
    if one.dtype.kind != "f":
        return {"changed_classes": float((one != other).mean())}
    return {"largest_change_over_spread": float(np.abs(one - other).max() / one.std())}


def main() -> None:
    """Measure each task, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", help="such as cpu or cuda; default: the fastest")
    parser.add_argument("--tasks", nargs="+", default=list(MEASURED))
    parser.add_argument("--limit", type=int, help="items of each split; default: as in the demo")
    parser.add_argument("--out", type=Path, default=RESULTS / "precision.json")
    parsed = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    device = parsed.device or ("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    body: dict[str, Any] = {"model": "bend-mini", "device": name, "torch": torch.__version__, "data": "sample"}
    body["limit"] = parsed.limit
    body["tasks"] = []
    with tempfile.TemporaryDirectory() as folder:
        for key in parsed.tasks:
            body["tasks"].append(measured(key, Path(folder), device, parsed.limit))
            print(body["tasks"][-1], flush=True)
            parsed.out.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
