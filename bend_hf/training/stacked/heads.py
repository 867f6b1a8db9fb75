"""Several heads of one shape as one module, whose weights have an axis K in front."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from bend_hf.errors import ConfigError
from bend_hf.training.checkpoints import random_states, restore_random_states
from bend_hf.training.heads._spec import BatchedForward
from bend_hf.training.stacked.batches import stack_padded

_TOGETHER_BYTES = 1 << 20  # a batch of one head above which a CPU gains nothing from one call, but loses its cache


class StackedHeads(nn.Module):
    """K heads of one shape as one module, whose weights have an axis K in front.

    Args:
        heads: The heads, with their first weights.
        batched: Computes all of them together; None calls one after the other. See ``HeadSpec.batched``.
        random: Random states of each head, for heads with dropout; None draws from those of the process.

    Raises:
        ConfigError: The heads are not of one shape.
    """

    def __init__(
        self,
        heads: Sequence[nn.Module],
        *,
        batched: BatchedForward | None = None,
        random: Sequence[Mapping[str, Tensor]] | None = None,
    ) -> None:
        super().__init__()
        shapes = [{name: value.shape for name, value in one.state_dict().items()} for one in heads]
        if (
            not heads
            or any(type(one) is not type(heads[0]) for one in heads)
            or any(one != shapes[0] for one in shapes)
        ):
            raise ConfigError(
                f"{len(heads)} heads of different shapes cannot be trained together; give heads of one kind, with the "
                "same settings, width and outputs"
            )
        self.n_heads = len(heads)
        self.batched = batched
        self.random = None if random is None or batched is not None else list(random)
        self._template = (copy.deepcopy(heads[0]),)  # in a tuple, so that its weights are not weights of this module
        self._aliases = _aliases(heads[0])
        persistent = heads[0].state_dict().keys()
        for name, value in heads[0].named_parameters():
            values = torch.stack([one.get_parameter(name).detach() for one in heads])
            self.register_parameter(_key(name), nn.Parameter(values, requires_grad=value.requires_grad))
        for name, _ in heads[0].named_buffers():
            values = torch.stack([one.get_buffer(name) for one in heads])
            self.register_buffer(_key(name), values, persistent=name in persistent)
        self._parameter_names = [name for name, _ in heads[0].named_parameters()]
        self._buffer_names = [name for name, _ in heads[0].named_buffers()]

    def train(self, mode: bool = True) -> StackedHeads:
        """Set the mode of the module and of the heads."""
        self._template[0].train(mode)
        return super().train(mode)

    def forward(
        self,
        x_KBTD: Tensor,
        token_of_KBL: Tensor,
        members: Sequence[int] | None = None,
        shapes: Sequence[tuple[int, int, int]] | None = None,
    ) -> Tensor:
        """Score the label windows of each head's batch.

        Args:
            x_KBTD: As in ``StackedBatch``, with one entry per member.
            token_of_KBL: As in ``StackedBatch``.
            members: Which heads, counted from 0; None for all.
            shapes: As in ``StackedBatch``; None if no head has padding of its own.

        Returns:
            Logits, shape (members, batch, windows, outputs).
        """
        chosen = list(range(self.n_heads)) if members is None else list(members)
        weights = {name: self._stacked(name) for name in self._parameter_names}
        if len(chosen) < self.n_heads:
            at = torch.as_tensor(chosen, device=x_KBTD.device)
            weights = {name: value[at] for name, value in weights.items()}
        if self.batched is not None and self.together(x_KBTD):
            return self.batched(self._template[0], weights, x_KBTD, token_of_KBL)
        apart = {name: value.unbind(0) for name, value in weights.items()}
        sizes = shapes or [(x_KBTD.shape[1], x_KBTD.shape[2], token_of_KBL.shape[2])] * len(chosen)
        logits: list[Tensor] = []
        for place, (member, (n_items, n_tokens, n_bp)) in enumerate(zip(chosen, sizes, strict=True)):
            if not n_items:
                logits.append(x_KBTD.new_zeros(0, 0, 0))
                continue
            own = {name: values[place] for name, values in apart.items()}
            own |= {name: self._stacked(name)[member] for name in self._buffer_names}
            inputs = (x_KBTD[place, :n_items, :n_tokens], token_of_KBL[place, :n_items, :n_bp])
            logits.append(self._call(member, own, inputs))
        return stack_padded(logits, fill=0)

    def together(self, x_KBTD: Tensor) -> bool:
        """Whether one call computes all heads: if they can be, and a CPU is not busy with each of them anyway."""
        small = x_KBTD[0].numel() * x_KBTD.element_size() <= _TOGETHER_BYTES
        return self.batched is not None and (small or x_KBTD.device.type != "cpu")

    def _call(self, member: int, weights: Mapping[str, Tensor], inputs: tuple[Tensor, Tensor]) -> Tensor:
        """Call one head, with its own random states."""
        call = partial(torch.func.functional_call, self._template[0], dict(weights), inputs)
        if self.random is None or not self.training:
            found: Tensor = call()
            return found
        before = random_states()
        restore_random_states(self.random[member])
        found = call()
        self.random[member] = random_states()
        restore_random_states(before)
        return found

    def state_of(self, member: int) -> dict[str, Tensor]:
        """Copy what training changes in one head to the CPU, under the head's own names; see ``trained_state``."""
        return {
            name: self._stacked(stored)[member].detach().to("cpu", copy=True) for name, stored in self._aliases.items()
        }

    def pick(self, weights: Mapping[str, Tensor], member: int) -> dict[str, Tensor]:
        """Copy the same for one head out of weights that are kept under the names of this module."""
        return {name: weights[_key(stored)][member].clone() for name, stored in self._aliases.items()}

    def load(self, states: Sequence[Mapping[str, Tensor]], members: Sequence[int] | None = None) -> None:
        """Load such copies into some heads, or all."""
        with torch.no_grad():
            for member, state in zip(range(self.n_heads) if members is None else members, states, strict=True):
                for name, value in state.items():
                    self._stacked(self._aliases[name])[member].copy_(value)

    def head(self, member: int) -> nn.Module:
        """Return one head as a module of its own, with the weights it has now."""
        head = copy.deepcopy(self._template[0])
        with torch.no_grad():
            for name, value in (*head.named_parameters(), *head.named_buffers()):
                value.copy_(self._stacked(name)[member])
        return head.to(self._stacked(name).device)

    def _stacked(self, name: str) -> Tensor:
        value: Tensor = getattr(self, _key(name))
        return value


def _key(name: str) -> str:
    return f"stacked/{name.replace('.', '/')}"


def _aliases(head: nn.Module) -> dict[str, str]:
    """Map each name in a head's state that training changes to the name under which its tensor is stacked."""
    first = {id(value): name for name, value in (*head.named_parameters(), *head.named_buffers())}
    every = [*head.named_parameters(remove_duplicate=False), *head.named_buffers(remove_duplicate=False)]
    frozen = {name for name, value in head.named_parameters(remove_duplicate=False) if not value.requires_grad}
    kept = head.state_dict().keys() - frozen
    return {name: first[id(value)] for name, value in every if name in kept}
