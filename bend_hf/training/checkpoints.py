"""Checkpoints of a training: the last state and the best weights, in safetensors with a JSON header.

Accelerate's ``save_state`` is not used: it pickles the optimizer, the scaler and the random states, writes several
files that are only valid together, and knows neither the best epoch nor the history. Here a checkpoint is one file
that is renamed into place, so there is either the old one or the new one.

>>> from tempfile import mkdtemp
>>> checkpoints = Checkpoints(Path(mkdtemp()) / "fold1")
>>> saved = Saved(tensors={"model.w": torch.ones(2)}, facts={"step": 3})
>>> checkpoints.write(saved, best={"w": torch.zeros(2)}, best_at=1)
>>> checkpoints.read().facts["step"]
3
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from bend_hf.files import atomic_path, explain_write_errors, parse_json
from bend_hf.training.sharding import shard_like, whole
from bend_hf.types import Json

log = logging.getLogger(__name__)

_LAST: Final = "last.safetensors"
_HEADER: Final = "bend_hf"
_MODEL: Final = "model."
_OPTIMIZER: Final = "optimizer."


@dataclass(frozen=True, kw_only=True)
class Saved:
    """The content of a checkpoint.

    Attributes:
        tensors: Weights, optimizer, random states, sums: everything that must be restored bit by bit.
        facts: Everything else, as JSON; Python writes and reads floats without loss.
        best: Weights of the best epoch so far.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Json]
    best: dict[str, Tensor] = field(default_factory=dict)


class Checkpoints:
    """The last checkpoint of one training and its best weights, in a folder.

    Args:
        folder: Created when the first checkpoint is written.
        writes: Whether this process writes; all processes read.
    """

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self.folder = folder
        self.writes = writes

    def write(self, saved: Saved, *, best: Mapping[str, Tensor], best_at: int) -> None:
        """Replace the last checkpoint, and write the best weights if they changed."""
        if not self.writes:
            return
        with explain_write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        best_file = self.folder / f"best-{best_at}.safetensors"
        if best_at and not best_file.exists():
            _write(best_file, best, {"epoch": best_at})
        _write(self.folder / _LAST, saved.tensors, {**saved.facts, "best_at": best_at})
        for other in self.folder.glob("best-*.safetensors"):
            if other != best_file:
                other.unlink(missing_ok=True)

    def read(self) -> Saved | None:
        """Return the last checkpoint; None if none was written or it cannot be read, so that training starts over."""
        last = self.folder / _LAST
        if not last.exists():
            return None
        try:
            tensors, facts = _read(last)
            best_at = facts["best_at"]
            best = _read(self.folder / f"best-{best_at}.safetensors")[0] if best_at else {}
        except (OSError, ValueError, KeyError) as error:
            log.warning("the checkpoint in %s cannot be used (%s); the training starts over", self.folder, error)
            return None
        return Saved(tensors=tensors, facts=facts, best=best)

    def remove(self) -> None:
        """Delete the folder once the results are written elsewhere."""
        if self.writes:
            shutil.rmtree(self.folder, ignore_errors=True)


def _write(path: Path, tensors: Mapping[str, Tensor], facts: dict[str, Json]) -> None:
    from safetensors.torch import save_file

    own = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    with explain_write_errors(path), atomic_path(path, durable=True) as part:
        save_file(own, part, metadata={_HEADER: json.dumps(facts)})


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Json]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  no mapping
            return tensors, parse_json(file.metadata()[_HEADER])
    except SafetensorError as error:
        raise ValueError(f"{path.name}: {error}") from error


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Copy what training changes, trainable weights and buffers, to the CPU; sharded tensors are gathered."""
    frozen = {name for name, weight in model.named_parameters(remove_duplicate=False) if not weight.requires_grad}
    return {
        name: whole(value).detach().to("cpu", copy=True)
        for name, value in model.state_dict().items()
        if name not in frozen
    }


def load_trained(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load such copies; frozen weights stay as they are."""
    own = model.state_dict()
    shards = {name: shard_like(own[name], value) if name in own else value for name, value in state.items()}
    model.load_state_dict(shards, strict=not any(not weight.requires_grad for weight in model.parameters()))


def training_tensors(model: nn.Module, optimizer: torch.optim.Optimizer, *, kept: bool = True) -> dict[str, Tensor]:
    """Return weights and optimizer state, named by weight; sharded tensors are gathered.

    Args:
        model: On its device.
        optimizer: Of torch, over the model's weights.
        kept: Whether this process needs them; the others only help to gather sharded tensors.
    """
    learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    frozen = {name for name, _ in model.named_parameters()} - learning.keys()
    values = {_MODEL + name: value for name, value in model.state_dict().items() if name not in frozen}
    for name, weight in learning.items():
        for slot, value in optimizer.state.get(weight, {}).items():
            values[f"{_OPTIMIZER}{slot}.{name}"] = torch.as_tensor(value)
    tensors = {}
    for name, value in values.items():
        gathered = whole(value)
        if kept:
            tensors[name] = gathered.detach()
    return tensors


def restore_training(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore weights and optimizer state on the devices of the weights.

    Args:
        model: On its device.
        optimizer: Of torch, over the model's weights.
        tensors: As returned by ``training_tensors``.
    """
    load_trained(model, {k.removeprefix(_MODEL): v for k, v in tensors.items() if k.startswith(_MODEL)})
    weights = dict(model.named_parameters())
    for key, value in tensors.items():
        if key.startswith(_OPTIMIZER):
            slot, name = key.removeprefix(_OPTIMIZER).split(".", 1)
            weight = weights[name]
            # torch keeps the count of steps on the CPU
            here = value.clone() if slot == "step" else shard_like(weight, value.to(weight.device))
            optimizer.state[weight][slot] = here


def random_states() -> dict[str, Tensor]:
    """Return this process's random states: of the CPU, and of its GPU if there is one."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: Mapping[str, Tensor]) -> None:
    """Restore them."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
