"""The record of a training: what was run, on what, how fast, and what came of it beside counting letters.

>>> sorted(machine())
['cores', 'cpu', 'platform']
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bend_hf import __version__
from bend_hf.evaluation.record import jsonable
from bend_hf.files import write_text
from bend_hf.training.pretraining.config import PretrainConfig, as_flags
from bend_hf.training.pretraining.data import Inputs
from bend_hf.training.pretraining.ngram_baseline import TableRow, table_rows
from bend_hf.training.pretraining.run_folder import RunFolder, clock
from bend_hf.types import Json

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

    from bend_hf.training.pretraining.trainer import Trained
    from bend_hf.training.pretraining.validation import Validation

_VERSIONS_OF: Final = ("torch", "transformers", "accelerate", "numpy", "safetensors", "tokenizers")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a training gave.

    Attributes:
        out: The folder of the model.
        step: Steps done.
        steps: Steps in all.
        validations: Each of them.
        tables: The context tables, empty where they were not counted.
        facts: All of it, as ``summary.json`` holds it.
    """

    out: Path
    step: int
    steps: int
    validations: tuple[Validation, ...]
    tables: tuple[TableRow, ...]
    facts: Mapping[str, Json]

    @property
    def finished(self) -> bool:
        """Whether the last step was done."""
        return self.step == self.steps


def tables_beside(config: PretrainConfig, inputs: Inputs, folder: RunFolder) -> tuple[TableRow, ...]:
    """The perplexities of context tables on the same data: counted once, then read from the folder."""
    if config.no_tables:
        return ()
    if folder.tables.exists():
        return tuple(TableRow(**row) for row in json.loads(folder.tables.read_text(encoding="utf-8")))
    rows = tuple(table_rows(inputs.parts, inputs.genome, config.family.objective))
    write_text(folder.tables, json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return rows


def summarise(
    config: PretrainConfig,
    inputs: Inputs,
    network: nn.Module,
    trained: Trained,
    tables: Sequence[TableRow],
    accelerator: Accelerator,
    *,
    out: Path,
    began: float,
) -> Summary:
    """The record of a training that is over, or was stopped.

    Args:
        config: Resolved.
        inputs: What was read.
        network: What was trained.
        trained: How far it came.
        tables: What it is compared with.
        accelerator: What it ran on.
        out: Its folder.
        began: When this life of it began, by ``time.perf_counter``.
    """
    state, best = trained.state, trained.best
    nucleotides = state.step * config.batch_windows * config.window_bp
    named = jsonable(asdict(config))
    facts: dict[str, Any] = {
        "command": ["python", "-m", "bend_hf.pretrain", *as_flags(config)],
        "config": named,
        "data": {**inputs.identity, **inputs.facts},
        "model": {
            "family": config.family.key,
            "objective": config.family.objective,
            "sizes": dict(config.family.resolve(config.set, window_bp=config.window_bp)),
            "n_parameters": sum(weight.numel() for weight in network.parameters()),
        },
        "seed": config.seed,
        "steps": state.step,
        "nucleotides": nucleotides,
        "seconds": state.seconds,
        "nucleotides_per_second": nucleotides / state.seconds if state.seconds else None,
        "input_wait_share": state.waited_seconds / state.seconds if state.seconds else None,
        "wall_seconds": time.perf_counter() - began,
        "resumed_at": trained.resumed_at,
        "curve": [asdict(one) for one in state.history],
        "perplexity": state.history[-1].perplexity if state.history else None,
        "best": None if best is None else asdict(best),
        "tables": [asdict(row) for row in tables],
        "machine": {**machine(), **device_of(accelerator)},
        "created_with": {"bend_hf": __version__, "python": platform.python_version(), **_versions()},
    }
    checked = jsonable(facts)
    assert isinstance(checked, dict)
    return Summary(
        out=out,
        step=state.step,
        steps=config.steps,
        validations=tuple(state.history),
        tables=tuple(tables),
        facts=checked,
    )


def read_summary(folder: RunFolder) -> Summary:
    """The record of a training that is over."""
    from bend_hf.training.pretraining.validation import Validation

    facts = json.loads(folder.summary.read_text(encoding="utf-8"))
    return Summary(
        out=folder.out,
        step=facts["steps"],
        steps=facts["config"]["steps"],
        validations=tuple(Validation(**one) for one in facts["curve"]),
        tables=tuple(TableRow(**row) for row in facts["tables"]),
        facts=facts,
    )


def as_text(summary: Summary, config: PretrainConfig) -> str:
    """What a training says at its end."""
    facts = summary.facts
    rows = [(f"{row.name} (table)", row.perplexity) for row in summary.tables]
    if summary.validations:
        rows.append((f"{config.family.key}, step {summary.step:,}", summary.validations[-1].perplexity))
        best = min(summary.validations, key=lambda one: one.perplexity)
        if best is not summary.validations[-1]:
            rows.append((f"{config.family.key}, step {best.step:,} (best)", best.perplexity))
    width = max((len(name) for name, _ in rows), default=0)
    lines = [
        "perplexity per nucleotide of the held-out regions",
        *(f"  {n:<{width}}  {value:.4f}" for n, value in rows),
    ]
    speed, waited, seconds = facts["nucleotides_per_second"], facts["input_wait_share"], facts["seconds"]
    if isinstance(speed, float) and isinstance(waited, float) and isinstance(seconds, float):
        lines.append(
            f"{facts['nucleotides']:,} nucleotides in {clock(seconds)}, {speed:,.0f} a second; "
            f"{100 * waited:.1f} % of the time was spent waiting for input"
        )
    if summary.finished:
        lines.append(f"use it with {config.family.command(summary.out)}")
    else:
        lines.append(f"stopped at step {summary.step:,} of {summary.steps:,}; without --stop-after it goes on")
    return "\n".join(lines)


def machine() -> dict[str, Json]:
    """What the computer is."""
    return {"cpu": _cpu(), "cores": os.cpu_count(), "platform": platform.platform()}


def device_of(accelerator: Accelerator) -> dict[str, Json]:
    """What of it is used."""
    import torch

    facts: dict[str, Json] = {
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
    }
    if accelerator.device.type == "cuda":
        facts["device_name"] = torch.cuda.get_device_name(accelerator.device)
        facts["peak_device_memory_bytes"] = torch.cuda.max_memory_allocated(accelerator.device)
    return facts


def _cpu() -> str:
    """Its name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _versions() -> dict[str, Json]:
    found: dict[str, Json] = {}
    for name in _VERSIONS_OF:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
