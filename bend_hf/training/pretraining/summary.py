"""The summary of a pretraining: configuration, data, speed, and perplexity next to that of n-gram tables.

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
from typing import TYPE_CHECKING, Final

from bend_hf import __version__
from bend_hf.evaluation.record import jsonable
from bend_hf.files import parse_json, write_text
from bend_hf.training.pretraining.config import PretrainConfig, as_flags
from bend_hf.training.pretraining.data import Inputs, PretrainRun
from bend_hf.training.pretraining.ngram_baseline import TableRow, table_rows
from bend_hf.training.pretraining.run_folder import RunFolder, clock
from bend_hf.types import Json

if TYPE_CHECKING:
    from accelerate import Accelerator

    from bend_hf.training.pretraining.trainer import Trained
    from bend_hf.training.pretraining.validation import Validation

_VERSIONS_OF: Final = ("torch", "transformers", "accelerate", "numpy", "safetensors", "tokenizers")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The result of a pretraining.

    Attributes:
        out: The folder of the model.
        step: Steps that are done.
        steps: Steps of the whole training.
        tables: The n-gram tables; empty if they were not counted.
        facts: The content of ``summary.json``.
    """

    out: Path
    step: int
    steps: int
    validations: tuple[Validation, ...]
    tables: tuple[TableRow, ...]
    facts: Mapping[str, Json]

    @property
    def finished(self) -> bool:
        """Whether the last step is done."""
        return self.step == self.steps


def ngram_tables(config: PretrainConfig, inputs: Inputs, folder: RunFolder) -> tuple[TableRow, ...]:
    """Return the perplexities of n-gram tables on the same data: counted once, then read from the folder."""
    if config.no_tables:
        return ()
    if folder.tables.exists():
        return tuple(TableRow(**row) for row in parse_json(folder.tables.read_text(encoding="utf-8")))
    rows = tuple(table_rows(inputs.split, inputs.genome, config.family.objective))
    write_text(folder.tables, json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return rows


def summarize(run: PretrainRun, trained: Trained, tables: Sequence[TableRow]) -> Summary:
    """Summarize a training that is finished, or was stopped.

    Args:
        run: The run.
        trained: How far its training is.
        tables: The n-gram tables that it is compared with.
    """
    config, state, best = run.config, trained.state, trained.best
    nucleotides = state.step * config.batch_windows * config.window_bp
    facts: dict[str, Json] = {
        "command": ["python", "-m", "bend_hf.pretrain", *as_flags(config)],
        "config": jsonable(asdict(config)),
        "data": {**run.inputs.identity, **run.inputs.facts},
        "model": {
            "family": config.family.key,
            "objective": config.family.objective,
            "sizes": jsonable(config.family.resolve(config.set, window_bp=config.window_bp)),
            "n_parameters": sum(weight.numel() for weight in run.network.parameters()),
        },
        "seed": config.seed,
        "steps": state.step,
        "nucleotides": nucleotides,
        "seconds": state.seconds,
        "nucleotides_per_second": nucleotides / state.seconds if state.seconds else None,
        "input_wait_share": state.waited_seconds / state.seconds if state.seconds else None,
        "wall_seconds": time.perf_counter() - run.began,
        "resumed_at": trained.resumed_at,
        "curve": jsonable([asdict(one) for one in state.history]),
        "perplexity": jsonable(state.history[-1].perplexity) if state.history else None,
        "best": None if best is None else jsonable(asdict(best)),
        "tables": jsonable([asdict(row) for row in tables]),
        "machine": {**machine(), **device_of(run.accelerator)},
        "created_with": {"bend_hf": __version__, "python": platform.python_version(), **_versions()},
    }
    return Summary(
        out=run.folder.out,
        step=state.step,
        steps=config.steps,
        validations=tuple(state.history),
        tables=tuple(tables),
        facts=facts,
    )


def read_summary(folder: RunFolder) -> Summary:
    """Read the summary of a finished training."""
    from bend_hf.training.pretraining.validation import Validation

    facts = parse_json(folder.summary.read_text(encoding="utf-8"))
    return Summary(
        out=folder.out,
        step=facts["steps"],
        steps=facts["config"]["steps"],
        validations=tuple(Validation(**one) for one in facts["curve"]),
        tables=tuple(TableRow(**row) for row in facts["tables"]),
        facts=facts,
    )


def as_text(summary: Summary, config: PretrainConfig) -> str:
    """Return the text that a training ends with."""
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
            f"{facts['nucleotides']:,} nucleotides in {clock(seconds)}, {speed:,.0f} per second; "
            f"{100 * waited:.1f} % of the time was spent waiting for input"
        )
    if summary.finished:
        lines.append(f"use it with {config.family.command(summary.out)}")
    else:
        lines.append(
            f"stopped at step {summary.step:,} of {summary.steps:,}; repeat the command without --stop-after to resume"
        )
    return "\n".join(lines)


def machine() -> dict[str, Json]:
    """Describe the computer."""
    return {"cpu": _cpu(), "cores": os.cpu_count(), "platform": platform.platform()}


def device_of(accelerator: Accelerator) -> dict[str, Json]:
    """Describe the device in use."""
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
    """Return the name of the CPU."""
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
