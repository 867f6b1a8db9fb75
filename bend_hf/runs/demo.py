"""A model and some of its controls on tasks, in one go: what the demo shows and the card of bend-mini tells.

for one in run_beside(RunConfig(task=("gene_finding",), data="sample"), ("kmer", "random_twin")):
    print(one.name, one.record.value)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bend_hf.config import RunConfig
from bend_hf.evaluation.record import ResultRecord
from bend_hf.runs.controls import CONTROLS
from bend_hf.runs.controls._run import as_entries, run_controls
from bend_hf.runs.run import key_of, open_embedder, open_tasks, run_task
from bend_hf.training.launch import start_accelerator


@dataclass(frozen=True, kw_only=True)
class Beside:
    """One run.

    Attributes:
        name: Title of the control, or what the model is called.
        record: Its result.
        path: Where that lies.
    """

    name: str
    record: ResultRecord
    path: Path


def run_beside(config: RunConfig, controls: Sequence[str]) -> list[Beside]:
    """Runs the controls that say something about each task, then the model.

    Args:
        config: Of the model.
        controls: Keys of the controls.

    Raises:
        BendError: An input is bad; nothing was trained then.
    """
    opened = open_tasks(config)
    accelerator = start_accelerator(config)
    embedder = open_embedder(config)
    found = []
    for data in opened:
        runs = run_controls(config, data, accelerator, run_task, open_embedder, key_of, controls, beside_model=True)
        found += [Beside(name=CONTROLS.get(run.key).title, record=run.record, path=run.path) for run in runs]
        outcome = run_task(config, data, embedder, accelerator, controls=as_entries(runs))
        found.append(Beside(name=config.model, record=outcome.record, path=outcome.path))
    return found
