"""Predict every item of a split once, over all processes, in bounded memory.

>>> n_windows(BinClasses(names=("no", "yes"), bin_bp=128), np.array([300])).tolist()
[2]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bend_hf.embedders.token_embeddings import item_name
from bend_hf.errors import InputError, ModelError
from bend_hf.evaluation.predictions import Predictions, concatenate
from bend_hf.tasks._labels import BinClasses, LabelKind, MultiLabel, NucleotideClasses, RealValues
from bend_hf.training.batches import Batch, Split, feed
from bend_hf.training.sharding import is_sharded
from bend_hf.types import Ints

if TYPE_CHECKING:
    from accelerate import Accelerator


def predict(
    head: nn.Module,
    split: Split,
    accelerator: Accelerator,
    *,
    batch_size: int,
    values_of: Callable[[Tensor], Tensor] = lambda logits: logits,
    with_log_probabilities: str | None = None,
) -> Predictions:
    """Predict every item of a split once, divided among the processes. Every process gets all predictions.

    Args:
        head: Trained head.
        split: The split.
        accelerator: Device and processes.
        batch_size: Items per forward pass, over all processes.
        values_of: Turns logits into predicted values, for real-valued labels; see ``Loss.predict``.
        with_log_probabilities: Column that receives the log probabilities of the classes of all windows of an item, one
            window after the other; None for none.

    Raises:
        InputError: The split holds no item.
    """
    head.eval()
    mine = np.arange(len(split))[accelerator.process_index :: accelerator.num_processes]
    per_process = max(1, batch_size // accelerator.num_processes)
    slices = [mine[start : start + per_process] for start in range(0, len(mine), per_process)]
    if is_sharded(head):  # all processes gather the weights together, so all take as many steps as the first
        longest = -(-len(split) // accelerator.num_processes)
        slices += [mine[:0]] * (-(-longest // per_process) - len(slices))
    batches = feed(split, slices, accelerator.device)
    parts = []
    for batch in batches:
        with torch.inference_mode(), accelerator.autocast():
            logits = head(*batch.inputs).float()
        if len(batch.rows):
            found = predictions_of(logits, split, batch, values_of)
            if with_log_probabilities is not None:
                column = _log_probabilities(logits, found)
                found = replace(found, columns={**found.columns, with_log_probabilities: column})
            parts.append(found)
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        parts = gather_object(parts)
    if not parts:
        raise InputError("a split to predict holds no item; check the split column of the BED file")
    return concatenate(parts)


@torch.inference_mode()
def _log_probabilities(logits: Tensor, found: Predictions) -> pa.Array:
    """Log probabilities of the classes of each item's windows, a list array."""
    counts = torch.as_tensor(np.diff(found.windows), device=logits.device)
    real_BW = torch.arange(logits.shape[1], device=logits.device) < counts[:, None]
    values = logits[real_BW].log_softmax(-1)
    flat = pa.array(values.cpu().numpy().reshape(-1))
    return pa.LargeListArray.from_arrays(pa.array(found.windows * logits.shape[-1]), flat)


def n_windows(kind: LabelKind, lengths_bp: Ints) -> Ints:
    """Return the number of label windows of sequences of those lengths."""
    match kind:
        case NucleotideClasses():
            return lengths_bp
        case BinClasses():
            return lengths_bp // kind.bin_bp
        case _:
            return np.ones_like(lengths_bp)


def _check_finite(finite: NDArray[np.bool_], split: Split, batch: Batch) -> None:
    """Check that the logits of every item are finite, so that nan does not become a class.

    Args:
        finite: Whether all logits of an item's windows are finite, shape (batch,).
        split: The split.
        batch: The batch.

    Raises:
        ModelError: Some are not; the message names the item and says whether its embeddings are finite.
    """
    if finite.all():
        return
    first = int(np.argmin(finite))
    x_TD = batch.inputs[0][first]
    if x_TD.is_floating_point() and not bool(torch.isfinite(x_TD).all()):
        cause = (
            "the embedder gave a number that is not finite; compute with --model-dtype float32, or correct the model"
        )
    else:
        cause = "its embeddings are finite, so the head diverged; lower --learning-rate"
    raise ModelError(f"the logits of {item_name(split.dataset, int(batch.rows[first]))} are not finite: {cause}")


@dataclass(frozen=True, kw_only=True)
class BatchFacts:
    """What the predictions of a batch say of its items, whatever head predicts them.

    Attributes:
        item: Number of each item.
        columns: Coordinates, as far as the split has them.
        lengths_bp: Nucleotides of each item.
    """

    item: Ints
    columns: dict[str, pa.Array]
    lengths_bp: Ints

    @classmethod
    def of(cls, split: Split, batch: Batch) -> BatchFacts:
        """Read them from the split."""
        table = split.places[batch.rows]
        columns = {name: table[name].combine_chunks() for name in table.column_names if name != "item"}
        return cls(item=table["item"].to_numpy(), columns=columns, lengths_bp=batch.lengths_bp())


@torch.inference_mode()
def predictions_of(
    logits: Tensor,
    split: Split,
    batch: Batch,
    values_of: Callable[[Tensor], Tensor],
    facts: BatchFacts | None = None,
) -> Predictions:
    """Turn the logits of a batch into predictions.

    Args:
        logits: Float, shape (batch, windows, outputs).
        split: The split of the batch.
        batch: The batch.
        values_of: See ``predict``.
        facts: What is known of its items; None reads it.

    Raises:
        ModelError: A logit is not finite.
    """
    kind, target = split.targets.kind, batch.host_labels()
    facts = BatchFacts.of(split, batch) if facts is None else facts
    item, columns = facts.item, facts.columns
    if isinstance(kind, MultiLabel | RealValues):
        _check_finite(torch.isfinite(logits[:, 0]).all(dim=1).cpu().numpy(), split, batch)
        return Predictions(
            item=item,
            windows=np.arange(len(batch.rows) + 1),
            target=target[:, 0],
            score=(values_of(logits[:, 0]) if isinstance(kind, RealValues) else logits[:, 0].sigmoid()).cpu().numpy(),
            predicted=None,
            label_names=kind.names,
            columns=columns,
        )
    # padding of a shorter sequence is not a window; an unlabeled position inside a sequence is one
    counts = n_windows(kind, facts.lengths_bp)
    real = np.arange(target.shape[1]) < counts[:, None]
    scored = logits[:, : target.shape[1]]
    finite_BW: NDArray[np.bool_] = torch.isfinite(scored).all(dim=2).cpu().numpy()
    _check_finite(np.all(finite_BW | ~real, axis=1), split, batch)
    one_score = logits.shape[-1] == 1
    return Predictions(
        item=item,
        windows=np.concatenate([[0], np.cumsum(counts)]),
        target=target[real],
        score=scored[..., 0].sigmoid().cpu().numpy()[real] if one_score else None,
        predicted=None if one_score else scored.argmax(-1).to(torch.int16).cpu().numpy()[real],
        label_names=kind.names,
        columns=columns,
    )
