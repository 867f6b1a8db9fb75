"""Predictions of several heads, from one read of the items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bend_hf.embedders._pipeline import prefetch
from bend_hf.errors import InputError
from bend_hf.evaluation.predictions import Predictions, concatenate
from bend_hf.training.batches import Batch, Split
from bend_hf.training.predict import BatchFacts, predictions_of
from bend_hf.training.stacked.batches import StackedBatch, read_stacked
from bend_hf.training.stacked.heads import StackedHeads
from bend_hf.types import Ints

if TYPE_CHECKING:
    from accelerate import Accelerator


def predict_stacked(
    heads: StackedHeads,
    splits: Sequence[Split],
    accelerator: Accelerator,
    *,
    batch_size: int,
    values_of: Callable[[Tensor], Tensor] = lambda logits: logits,
    members: Sequence[int] | None = None,
) -> list[Predictions]:
    """Predict every item of a split with several heads, from one read; see ``predict.predict``.

    Args:
        heads: The heads.
        splits: The same items for each of the members, with the embeddings that each reads. Members that share a split
            object share its embeddings.
        accelerator: Device and processes.
        batch_size: Items per forward pass, over all processes.
        values_of: Turns logits into predicted values, for real-valued labels; see ``Loss.predict``.
        members: Which heads, counted from 0; None for all.

    Returns:
        The predictions of each member.

    Raises:
        InputError: The split holds no item.
    """
    heads.eval()
    first = splits[0]
    mine = np.arange(len(first))[accelerator.process_index :: accelerator.num_processes]
    per_process = max(1, batch_size // accelerator.num_processes)
    slices = [mine[start : start + per_process] for start in range(0, len(mine), per_process)]
    found: list[list[Predictions]] = [[] for _ in splits]

    def read(rows: Ints) -> tuple[Ints, StackedBatch]:
        return rows, read_stacked(splits, [rows] * len(splits), accelerator.device)

    for rows, batch in prefetch(read, slices):
        with torch.inference_mode(), accelerator.autocast():
            logits = heads(batch.x_KBTD, batch.token_of_KBL, members, batch.shapes).float()
        facts: BatchFacts | None = None
        for place, split in enumerate(splits):
            own = Batch(rows=rows, inputs=(batch.x_KBTD[place], batch.token_of_KBL[place]), labels=batch.labels[place])
            facts = BatchFacts.of(split, own) if facts is None else facts
            found[place].append(predictions_of(logits[place], split, own, values_of, facts))
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        gathered = gather_object([found])
        found = [[one for rank in gathered for one in rank[place]] for place in range(len(splits))]
    if not found or not found[0]:
        raise InputError("a split to predict holds no item; check the split column of the BED file")
    return [concatenate(parts) for parts in found]
