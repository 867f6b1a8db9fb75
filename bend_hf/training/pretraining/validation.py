"""The perplexity per nucleotide of a language model on held-out windows.

validate(objective, inputs.held_out_BL, config, accelerator).perplexity
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from bend_hf.training.pretraining.config import PretrainConfig
from bend_hf.training.pretraining.objectives import LanguageModelObjective, on_device, validation_batch
from bend_hf.types import Bytes

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, kw_only=True)
class Validation:
    """One validation.

    Attributes:
        step: Steps that are done.
        perplexity: exp of the mean loss in nats per nucleotide; 4 is chance.
        nats: That mean.
        n_letters: Number of targets; the name is that in ``summary.json``.
        seconds: Seconds of training until then.
    """

    step: int
    perplexity: float
    nats: float
    n_letters: int
    seconds: float


def validate(
    objective: LanguageModelObjective,
    held_out_BL: Bytes,
    config: PretrainConfig,
    accelerator: Accelerator,
    *,
    step: int,
    seconds: float,
) -> Validation:
    """Compute the perplexity on the same targets each time. The processes share the windows."""
    rows = max(1, config.batch_windows // (config.accumulation_steps * accelerator.num_processes))
    sums = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
    was_training = objective.training
    objective.eval()
    batches = range(0, len(held_out_BL), rows)
    with torch.no_grad():
        for low in list(batches)[accelerator.process_index :: accelerator.num_processes]:
            batch = validation_batch(config, held_out_BL[low : low + rows], first_row=low)
            with accelerator.autocast():
                sums += objective(*on_device(batch, accelerator.device)).double()
    objective.train(was_training)
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(sums, "sum")
    total, count = sums.tolist()
    nats = total / max(count, 1.0)
    return Validation(
        step=step,
        perplexity=math.exp(nats) if nats < 700 else math.inf,
        nats=nats,
        n_letters=round(count),
        seconds=round(seconds, 3),
    )
