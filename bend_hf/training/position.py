"""How far a training is, between its steps: what a checkpoint holds besides weights that are being trained.

>>> at = Position(epoch=2, step=5, steps=12)
>>> Position.of(at.facts(), best={}) == at
True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one epoch gave."""

    epoch: int
    loss: float
    validation: float | None
    seconds: float


@dataclass(kw_only=True)
class Position:
    """How far a training is, and what it must not forget.

    Attributes:
        epoch: The one it is in, counted from 1.
        step: Steps of this epoch that lie behind it.
        steps: Steps of all epochs that lie behind it.
        best: The best validation metric so far; None before there is one.
        best_epoch: The epoch that gave it; 0 before there is one.
        best_state: Weights of that epoch, on the CPU.
        history: The epochs that are over.
        finished: Whether nothing is left to do.
    """

    epoch: int = 1
    step: int = 0
    steps: int = 0
    best: float | None = None
    best_epoch: int = 0
    best_state: dict[str, Tensor] = field(default_factory=dict)
    history: list[Epoch] = field(default_factory=list)
    finished: bool = False

    def facts(self) -> dict[str, Any]:
        """Everything but the weights."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "steps": self.steps,
            "best": self.best,
            "history": [asdict(one) for one in self.history],
            "best_epoch": self.best_epoch,
            "finished": self.finished,
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any], *, best: dict[str, Tensor]) -> Position:
        """What was kept: the facts, and the weights of the best epoch."""
        history = [Epoch(**one) for one in facts["history"]]
        return cls(**{**facts, "history": history, "best_state": best})
