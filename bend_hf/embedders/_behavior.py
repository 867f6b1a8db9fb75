"""Measure how a network behaves, instead of trusting the name of its class.

``measure`` runs a network on two fixed inputs, a long and a short one, alone and in one batch, and changes one token.
It answers what the batches and the windows need to know:

- does padding change the embeddings of an input? Then a batch holds inputs of equal length only;
- do the embeddings depend on the input alone? A network that remembers earlier inputs, draws random numbers or mixes
  the inputs of a batch is refused;
- which tokens does an embedding depend on? Those before it (``causal``), or those on both sides (``masked``);
- how many positions does the network have a table for?

A network that adds up the tokens before each token:

>>> import torch
>>> def sums(ids_BT, mask_BT):
...     return ids_BT.cumsum(1)[..., None].float()
>>> found = measure(sums, long_ids=list(range(3, 23)), short_ids=[4, 3, 5], pad_id=0, name="sums")
>>> found.direction, found.padding_is_safe, found.width
('causal', True, 1)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from bend_hf.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

# From ids (B, T) and mask (B, T) or None to embeddings (B, T, D).
RowsFunction: TypeAlias = "Callable[[Tensor, Tensor | None], Tensor]"

# Relative to the largest embedding. The same float32 numbers in another order of addition differ by about 1e-6.
_SAME: Final = 3e-5
_REFUSED: Final = 1e-3
_NOISE: Final = 1e-6
# A token is not seen if it changes embeddings less than this fraction of what it changes on the other side.
_UNSEEN: Final = 1e-3


@dataclass(frozen=True, kw_only=True)
class Behavior:
    """What ``measure`` found.

    Attributes:
        width: Width of the embeddings, D.
        direction: Which tokens an embedding depends on; None: only on its own token.
        padding_is_safe: Whether the embeddings of an input stay the same if it is padded.
        n_positions: Maximum number of tokens, if the network looks positions up in a table; None: it has no table.
    """

    width: int
    direction: Literal["masked", "causal"] | None
    padding_is_safe: bool
    n_positions: int | None


def measure(
    rows: RowsFunction, *, long_ids: Sequence[int], short_ids: Sequence[int], pad_id: int, name: str
) -> Behavior:
    """Run a network on fixed inputs and compare.

    Args:
        rows: The network, in evaluation mode and in float32.
        long_ids: Token ids of an input, special tokens included.
        short_ids: Token ids of a shorter input.
        pad_id: Token id of padding.
        name: Name of the model, for messages.

    Raises:
        ModelError: The embeddings do not depend on the input alone, are not one per token, or are not finite.
    """
    import torch

    long_1T, short_1T = torch.tensor([long_ids]), torch.tensor([short_ids])
    with torch.inference_mode():
        tables = _PositionTables(len(long_ids))
        with tables.watch():
            alone = _checked(rows, long_1T, None, name)
        alone_short = _checked(rows, short_1T, None, name)
        scale = max(float(alone.abs().max()), float(alone_short.abs().max()), 1e-12)

        again = _checked(rows, long_1T, None, name)
        if _differ(again, alone) > _REFUSED * scale:
            raise ModelError(
                f"{name} gives other embeddings for a sequence of {len(long_ids)} tokens after a sequence of "
                f"{len(short_ids)} tokens; expected embeddings that depend on the sequence alone. The network draws "
                f"random numbers or keeps a state; use another model, or another configuration of it"
            )
        middle = len(long_ids) // 2
        other_1T = long_1T.clone()
        other_1T[0, middle] = next((one for one in long_ids[middle:] if one != long_ids[middle]), long_ids[0])
        pair = _checked(rows, torch.cat([long_1T, other_1T]), None, name)
        if _differ(pair[:1], alone) > _REFUSED * scale:
            raise ModelError(
                f"{name} gives other embeddings for a sequence that shares a batch with another one of equal length; "
                f"expected embeddings that depend on the sequence alone. The network mixes the sequences of a batch; "
                f"use another model"
            )
        before = _differ(pair[0, :middle], pair[1, :middle])
        after = _differ(pair[0, middle + 1 :], pair[1, middle + 1 :])
        return Behavior(
            width=alone.shape[-1],
            direction=_direction(before, after, _NOISE * scale),
            padding_is_safe=_padding_is_safe(rows, long_1T, short_1T, pad_id, (alone, alone_short), _SAME * scale),
            n_positions=tables.n_positions,
        )


def _padding_is_safe(
    rows: RowsFunction,
    long_1T: Tensor,
    short_1T: Tensor,
    pad_id: int,
    alone: tuple[Tensor, Tensor],
    tolerance: float,
) -> bool:
    """Compare a batch of a long and a padded short input with the two inputs alone."""
    import torch
    from torch.nn.functional import pad

    n_short = short_1T.shape[1]
    n_padding = long_1T.shape[1] - n_short
    ids = torch.cat([long_1T, pad(short_1T, (0, n_padding), value=pad_id)])
    mask = torch.ones_like(ids)
    mask[1, n_short:] = 0
    both = rows(ids, mask)
    return (
        both.shape[:2] == ids.shape
        and _differ(both[:1], alone[0]) <= tolerance
        and _differ(both[1:, :n_short], alone[1]) <= tolerance
    )


def _direction(before: float, after: float, noise: float) -> Literal["masked", "causal"] | None:
    """Tell the direction from how much a changed token changes the embeddings before and after it."""
    if max(before, after) <= noise:
        return None
    return "causal" if before <= _UNSEEN * after else "masked"


def _differ(one: Tensor, other: Tensor) -> float:
    """Return the largest difference; infinite if one of them is not finite."""
    import torch

    if one.shape[:-1].numel() == 0:
        return 0.0
    difference = (one - other).abs().max()
    return float(torch.nan_to_num(difference, nan=torch.inf))


def _checked(rows: RowsFunction, ids_BT: Tensor, mask_BT: Tensor | None, name: str) -> Tensor:
    values = rows(ids_BT, mask_BT)
    if values.ndim != 3 or values.shape[:2] != ids_BT.shape:
        raise ModelError(
            f"{name} returns embeddings of shape {tuple(values.shape)} for inputs of shape {tuple(ids_BT.shape)}; "
            f"expected one embedding per token. Its layers pool tokens; use another model"
        )
    if not bool(values.isfinite().all()):
        raise ModelError(
            f"{name} gives embeddings that are not finite in float32 for a sequence of {ids_BT.shape[1]} tokens; "
            f"expected finite numbers. Check its weights"
        )
    return values


@dataclass
class _PositionTables:
    """Find the tables in which a network looks up consecutive positions.

    Attributes:
        n_tokens: Tokens of the only input that runs.
        n_positions: Rows of the smallest table, counted from the row of the first token; None: no table was used.
    """

    n_tokens: int
    n_positions: int | None = field(default=None)

    def watch(self) -> AbstractContextManager[object]:
        """Return a context in which each lookup is seen."""
        from torch.nn.functional import embedding
        from torch.overrides import TorchFunctionMode

        saw = self._saw

        class Watch(TorchFunctionMode):
            def __torch_function__(
                self,
                func: Callable[..., object],
                types: object,
                args: tuple[object, ...] = (),
                kwargs: dict[str, object] | None = None,
            ) -> object:
                if func is embedding:
                    named = {**dict(zip(("input", "weight"), args, strict=False)), **(kwargs or {})}
                    saw(named["input"], named["weight"])
                return func(*args, **(kwargs or {}))

        return Watch()

    def _saw(self, index: object, table: object) -> None:
        from torch import Tensor

        if not isinstance(index, Tensor) or not isinstance(table, Tensor):
            return
        if index.numel() != self.n_tokens or self.n_tokens < 2:
            return
        first, *_ = positions = index.flatten().tolist()
        if positions == list(range(first, first + self.n_tokens)):
            n_left = table.shape[0] - first
            self.n_positions = n_left if self.n_positions is None else min(self.n_positions, n_left)
