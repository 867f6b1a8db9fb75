"""One direction of a Mamba-2 block (arXiv:2405.21060): a short convolution, then a scan with one decay per head.

For each head the scan computes h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] x[t]^T and then y[t] = C[t] h[t] + D x[t], with
one step size dt and one rate A per head. So the positions of a chunk see each other through one small matrix per head,
and only the state between two chunks is passed on (section 6 of the paper): nearly all work is matrix products. No
number above 1 comes from an exponential, so nothing overflows at any length.

>>> sizes = Mamba2Sizes(width=8, inner=16, n_states=4, head_width=8, taps=4)
>>> Mamba2(sizes)(torch.zeros(2, 5, 2 * 16 + 2 * 4 + 2), None).shape
torch.Size([2, 5, 16])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu, softplus
from transformers import initialization as init

from bend_hf.embedders.networks._layers import RMSNorm
from bend_hf.embedders.networks.mamba import ScanBlock, step_bias
from bend_hf.errors import ModelError

# Positions of a chunk. Longer chunks need larger matrices, shorter ones more states. Of 32, 64 and 128, 64 was the
# fastest on a CPU for 24 heads of 64 channels.
CHUNK: Final = 64
# Numbers in the matrices (batch * heads * positions * positions of a chunk) that are computed together. On a CPU they
# should fit into the cache, on a GPU they should fill the device.
SEGMENT_NUMBERS: Final[dict[str, int]] = {"cpu": 2**18, "cuda": 2**26}
# Chunks of a segment. Their states are passed on by one product, whose work grows with their square: 64 chunks need as
# much for it as for the positions within them.
SEGMENT_CHUNKS: Final = 64
STEPPED_CHUNKS: Final = 8  # up to as many chunks are passed one after the other, which a CPU prefers
_GATE_EPSILON: Final = 1e-5  # of the gated norm: Mamba2 of mamba-ssm, which no configuration changes


# torch.compile would unroll every chunk, which takes minutes for each new length.
@torch.compiler.disable  # type: ignore[untyped-decorator]  # torch does not annotate it
def head_scan(
    x_BTHP: Tensor,
    dt_BTH: Tensor,
    A_H: Tensor,
    B_BTN: Tensor,
    C_BTN: Tensor,
    D_H: Tensor,
    *,
    reverse: bool = False,
) -> Tensor:
    """Scan along T from a state of zeros, in float32 (float64 if x is float64).

    Args:
        x_BTHP: Input of each head, shape (batch, positions, heads, head width).
        dt_BTH: Step sizes, at least zero, shape (batch, positions, heads).
        A_H: Decay rates, at most zero, shape (heads,).
        B_BTN: Weight of the input in each state, shape (batch, positions, states).
        C_BTN: Weight of each state in the output, shape (batch, positions, states).
        D_H: Weight of the input in the output, shape (heads,).
        reverse: Scan from the last position to the first.

    Returns:
        Shape (batch, positions, heads, head width), in the type of x.
    """
    if reverse:
        x_BTHP, dt_BTH, B_BTN, C_BTN = (value.flip(1) for value in (x_BTHP, dt_BTH, B_BTN, C_BTN))
        backward: Tensor = head_scan(x_BTHP, dt_BTH, A_H, B_BTN, C_BTN, D_H)
        return backward.flip(1)
    exact = torch.float64 if x_BTHP.dtype == torch.float64 else torch.float32
    x, dt, rates, into, out_of, past = (value.to(exact) for value in (x_BTHP, dt_BTH, A_H, B_BTN, C_BTN, D_H))
    batch, n_positions, n_heads, head_width = x.shape
    chunk = min(CHUNK, n_positions)
    budget = SEGMENT_NUMBERS.get(x.device.type, SEGMENT_NUMBERS["cuda"])
    segment = chunk * max(1, min(SEGMENT_CHUNKS, budget // (batch * n_heads * chunk**2)))
    carry_BNE = x.new_zeros(batch, into.shape[-1], n_heads * head_width)
    y_BTHP = torch.empty_like(x)
    for start in range(0, n_positions, segment):
        here = slice(start, start + segment)
        segment_BTHP, carry_BNE = _scan_segment(
            _Chunks.of(x[:, here], dt[:, here], rates, chunk),
            _fold(into[:, here], chunk),
            _fold(out_of[:, here], chunk),
            carry_BNE,
        )
        y_BTHP[:, here] = torch.addcmul(segment_BTHP[:, : x[:, here].shape[1]], x[:, here], past[:, None])
    return y_BTHP.to(x_BTHP.dtype)


def _fold(value_BTX: Tensor, chunk: int) -> Tensor:
    """Cut positions into K chunks of Q positions, shape (batch, K, Q, ...); the end is filled with zeros."""
    filler = -value_BTX.shape[1] % chunk
    if filler:
        value_BTX = pad(value_BTX, (0, 0) * (value_BTX.dim() - 2) + (0, filler))
    return value_BTX.reshape(value_BTX.shape[0], -1, chunk, *value_BTX.shape[2:])


@dataclass(frozen=True, kw_only=True)
class _Chunks:
    """What the chunks of a segment pass on.

    Attributes:
        entering_BKQHP: The input times its step size.
        log_decay_BKHQ: Logarithm of the decay at each position.
    """

    entering_BKQHP: Tensor
    log_decay_BKHQ: Tensor

    @classmethod
    def of(cls, x_BTHP: Tensor, dt_BTH: Tensor, rates_H: Tensor, chunk: int) -> _Chunks:
        # Steps of size zero behind the end leave the state unchanged.
        return cls(
            entering_BKQHP=_fold(dt_BTH[..., None] * x_BTHP, chunk),
            log_decay_BKHQ=_fold(dt_BTH * rates_H, chunk).transpose(2, 3),
        )


def _scan_segment(chunks: _Chunks, into_BKQN: Tensor, out_of_BKQN: Tensor, carry_BNE: Tensor) -> tuple[Tensor, Tensor]:
    """Scan one segment from a given state, and return y without the term D x, and the state behind the segment.

    In the matrices, J is the position that a number comes from, and Q the position that it goes to. E are all channels
    of all heads.
    """
    entering_BKQHP, log_BKHQ = chunks.entering_BKQHP, chunks.log_decay_BKHQ
    batch, n_chunks, chunk, n_heads, head_width = entering_BKQHP.shape
    # Sums over the positions after J, up to Q. The difference of two sums from the start would lose all digits where
    # both are large.
    after_JQ = torch.ones(chunk, chunk, dtype=log_BKHQ.dtype, device=log_BKHQ.device).triu(1)
    between_BKHJQ = (log_BKHQ[..., None, :] * after_JQ).cumsum(-1)
    pairs_BKJQ = torch.matmul(into_BKQN, out_of_BKQN.transpose(2, 3)).triu()  # zero from later positions
    weight_BKHJQ = torch.exp(between_BKHJQ) * pairs_BKJQ[:, :, None]
    within_BKHQP = torch.matmul(weight_BKHJQ.transpose(3, 4), entering_BKQHP.transpose(2, 3))
    to_end_BKQH1 = torch.exp(between_BKHJQ[..., -1]).transpose(2, 3)[..., None]
    added_BKNE = torch.matmul(into_BKQN.transpose(2, 3), (entering_BKQHP * to_end_BKQH1).flatten(3))
    from_start_BKQH1 = torch.exp(log_BKHQ[..., :1] + between_BKHJQ[..., 0, :]).transpose(2, 3)[..., None]
    starts_BKNE, carry_BNE = _pass_states(log_BKHQ[..., 0] + between_BKHJQ[..., 0, -1], added_BKNE, carry_BNE)
    before_BKQHP = torch.matmul(out_of_BKQN, starts_BKNE).view(entering_BKQHP.shape)
    y_BKQHP = torch.addcmul(within_BKHQP.transpose(2, 3), before_BKQHP, from_start_BKQH1)
    return y_BKQHP.reshape(batch, n_chunks * chunk, n_heads, head_width), carry_BNE


def _pass_states(log_BKH: Tensor, added_BKNE: Tensor, carry_BNE: Tensor) -> tuple[Tensor, Tensor]:
    """Return the states that K chunks start from, (B, K, N, E), and the state behind the last one, (B, N, E).

    Many chunks are passed by one product with the decays between them, as the positions within a chunk are: a step per
    chunk would keep a GPU waiting for its small operations.

    Args:
        log_BKH: Logarithm of the decay over each chunk.
        added_BKNE: The state that each chunk adds at its end.
        carry_BNE: The state before the first chunk.
    """
    n_chunks, n_heads, n_states = log_BKH.shape[1], log_BKH.shape[2], carry_BNE.shape[1]
    if n_chunks <= STEPPED_CHUNKS:
        decay_BKE = torch.exp(log_BKH).repeat_interleave(carry_BNE.shape[-1] // n_heads, dim=-1)
        starts = []
        for number in range(n_chunks):
            starts.append(carry_BNE)
            carry_BNE = torch.addcmul(added_BKNE[:, number], decay_BKE[:, number, None], carry_BNE)
        return torch.stack(starts, dim=1), carry_BNE
    # J: the state before the first chunk, then what each chunk adds. S: the starts of the chunks, then the end.
    sources_BJNE = torch.cat([carry_BNE[:, None], added_BKNE], dim=1)
    sources_BJNHP = sources_BJNE.reshape(len(carry_BNE), n_chunks + 1, n_states, n_heads, -1)
    after_JS = log_BKH.new_ones(n_chunks + 1, n_chunks + 1).triu(1)
    between_BHJS = (pad(log_BKH.transpose(1, 2), (1, 0))[:, :, None] * after_JS).cumsum(-1)
    states_BHSE = torch.matmul(torch.exp(between_BHJS).triu().mT, sources_BJNHP.permute(0, 3, 1, 2, 4).flatten(3))
    states_BSNE = states_BHSE.reshape(*states_BHSE.shape[:3], n_states, -1).permute(0, 2, 3, 1, 4).flatten(3)
    return states_BSNE[:, :-1], states_BSNE[:, -1]


@dataclass(frozen=True, kw_only=True)
class Mamba2Sizes:
    """Sizes of a block.

    Attributes:
        width: Width of input and output, D.
        inner: Channels of the scan, of all heads together.
        n_states: States per channel.
        head_width: Channels of one head.
        taps: Taps of the short convolution.
    """

    width: int
    inner: int
    n_states: int
    head_width: int
    taps: int

    def __post_init__(self) -> None:
        if self.head_width < 1 or self.inner % self.head_width:
            raise ModelError(
                f"heads of {self.head_width} channels do not divide the {self.inner} channels of a block; check "
                f"headdim and expand in config.json"
            )

    @property
    def n_heads(self) -> int:
        """Number of heads."""
        return self.inner // self.head_width

    @property
    def mixed(self) -> int:
        """Channels of the short convolution: those of the scan, and the weights of the states in and out."""
        return self.inner + 2 * self.n_states


class Mamba2(ScanBlock):
    """One direction with one decay per head, and a norm of the gated output."""

    def __init__(self, sizes: Mamba2Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.in_proj = nn.Linear(sizes.width, sizes.inner + sizes.mixed + sizes.n_heads, bias=False)
        self.conv1d = nn.Conv1d(sizes.mixed, sizes.mixed, sizes.taps, groups=sizes.mixed, padding=sizes.taps - 1)
        self.dt_bias = nn.Parameter(torch.empty(sizes.n_heads))
        self.A_log = nn.Parameter(torch.empty(sizes.n_heads))
        self.D = nn.Parameter(torch.empty(sizes.n_heads))
        self.norm = RMSNorm(sizes.inner, _GATE_EPSILON)
        self.out_proj = nn.Linear(sizes.inner, sizes.width, bias=False)
        with torch.no_grad():
            self.reset()

    def reset(self) -> None:
        """Draw parameters as Mamba2 of mamba-ssm does: rates from 1 to 16, steps from 0.001 to 0.1."""
        init.copy_(self.dt_bias, step_bias(self.sizes.n_heads))
        init.copy_(self.A_log, torch.empty(self.sizes.n_heads).uniform_(1, 16).log())
        init.ones_(self.D)

    def forward(self, entering_BTE: Tensor, mask_BT1: Tensor | None, *, reverse: bool = False) -> Tensor:
        """Scan; ``entering_BTE`` holds the gate, the input with the weights of the states, and the step sizes."""
        sizes = self.sizes
        gate_BTE, mixed_BTM, step_BTH = torch.split(entering_BTE, [sizes.inner, sizes.mixed, sizes.n_heads], dim=-1)
        mixed_BTM = self.convolve(mixed_BTM, mask_BT1, reverse=reverse)
        x_BTE, into_BTN, out_of_BTN = torch.split(mixed_BTM, [sizes.inner, sizes.n_states, sizes.n_states], dim=-1)
        y_BTHP: Tensor = head_scan(
            x_BTE.reshape(*x_BTE.shape[:2], sizes.n_heads, sizes.head_width),
            softplus(step_BTH.float() + self.dt_bias.float()),
            -torch.exp(self.A_log),
            into_BTN,
            out_of_BTN,
            self.D,
            reverse=reverse,
        )
        normed_BTE: Tensor = self.norm(y_BTHP.flatten(2).float() * silu(gate_BTE.float()))
        return normed_BTE
