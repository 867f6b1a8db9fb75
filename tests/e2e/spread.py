"""Every model family with its weights spread over two processes, beside the same with whole weights.

Run in each of the processes; see ``lives``. Without spread weights there would be nothing to compare.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bend_hf.embedders import MODELS, Embedder, embedder_class, load_embedder
from bend_hf.training.finetuning import TunedModel, open_for_tuning, token_rows
from bend_hf.training.heads.cnn import CnnHead
from bend_hf.training.launch import start_accelerator
from bend_hf.training.sharding import choose_units, is_sharded, whole
from tests.fake_checkpoints import make_tiny

OTHER_NETWORKS = {"caduceus-ps", "hyenadna-tiny-1k-hf"}  # of a family that is in it already
LENGTHS_BP = (31, 9, 70, 40)  # 70: longer than a context


def families() -> list[str]:
    """One model of each family that has a network which can be trained."""
    tuned = [spec for spec in MODELS if spec.source != "none" and embedder_class(spec).tunable]
    one_of_each = {(spec.embedder, spec.family): spec.key for spec in reversed(tuned)}
    return sorted({*one_of_each.values(), *OTHER_NETWORKS})


def note_differences(path: Path) -> None:
    """Writes, for each family, its units, how far its weights moved, and how far from whole ones; ends the process."""
    accelerator = start_accelerator(tunes=True)
    rank, world = accelerator.process_index, accelerator.num_processes
    found = {}
    for key in families():
        checkpoint = make_tiny(key, path.parent / f"rank{rank}" / key)
        embedder = load_embedder(key, checkpoint=checkpoint, random_init=True, device="cpu")
        spread, together = model(embedder), model(embedder)
        first = {name: value.clone() for name, value in together.state_dict().items()}
        choose_units(accelerator, spread)
        optimizers = [torch.optim.SGD(one.parameters(), lr=0.1) for one in (spread, together)]
        prepared = accelerator.prepare(spread, optimizers[0])
        for _ in range(2):
            accelerator.backward(loss(spread, embedder, rank, world) * world)
            sum((loss(together, embedder, r, world) for r in range(world)), torch.zeros(())).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            with torch.inference_mode():
                said = [float(one(*inputs(embedder, 0, 1)).sum()) for one in (spread, together)]
        gathered = {name: whole(value) for name, value in spread.state_dict().items()}
        found[key] = {
            "units": sum(is_sharded(module) for module in spread.modules()),
            "moved": furthest(first, together.state_dict()),
            "apart": furthest(gathered, together.state_dict()),
            "said": said,
        }
        accelerator.free_memory(*prepared)
    if rank == 0:
        path.write_text(json.dumps(found))
    accelerator.wait_for_everyone()
    os._exit(0)


def model(embedder: Embedder) -> TunedModel:
    """A head on the embedder's network, without dropout, the same every time."""
    torch.manual_seed(0)
    opened = copy.copy(open_for_tuning(embedder, "full"))
    return TunedModel(opened, CnnHead(width=opened.width, n_outputs=3)).eval()


def inputs(embedder: Embedder, rank: int, world: int) -> list[Tensor]:
    """A process's share of the sequences."""
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list("ACGT"), length)) for length in LENGTHS_BP][rank::world]
    rows = token_rows(embedder.tokenize(sequences), pad_id=embedder.pad_id)
    return [torch.from_numpy(a) for a in (rows.ids_PT, rows.mask_PT, rows.row_of_BT, rows.token_of_BL)]


def loss(network: nn.Module, embedder: Embedder, rank: int, world: int) -> Tensor:
    """A process's part of the loss."""
    given = inputs(embedder, rank, world)
    part: Tensor = network(*given)[given[-1] >= 0].square().sum() / sum(LENGTHS_BP)
    return part


def furthest(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest difference between two sets of weights."""
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours if ours[name].is_floating_point())
