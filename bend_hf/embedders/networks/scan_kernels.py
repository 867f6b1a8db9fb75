# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# Triton compiles the kernels; their arguments are pointers and numbers, which Python's types do not describe.
"""Triton kernels on a GPU: the gated selective scan, and the short convolution of the scan blocks and of HyenaDNA.

``mamba`` calls them on CUDA where mamba-ssm is not installed, ``hyenadna`` wherever Triton is. They compute in float32
and read each position once per pass, in either direction, so nothing is flipped. The two strands of a ``ps`` Caduceus
are in one batch and share one launch and its weights. Only the forward pass exists; with gradients, PyTorch computes.

The scan is linear in its state (Mamba, arXiv:2312.00752, section 3.3), so a long sequence is cut into chunks that are
scanned at the same time. The first kernel scans each chunk from zeros and keeps its last state and the sum of its
steps, which gives its decay. The second passes the states from chunk to chunk. The third scans again, from the right
states, and writes the output. A short sequence in a large batch needs the third kernel only.

With ``TRITON_INTERPRET=1`` set before the first import, the kernels run on CPU tensors, which the tests use.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import Final

import torch
from torch import Tensor

IS_INSTALLED: Final = find_spec("triton") is not None  # PyTorch for CUDA brings it on Linux
if IS_INSTALLED:
    import triton
    import triton.language as tl

    jit = triton.jit
else:  # the file can be read, and nothing in it be run

    def jit(function):
        """Return the function."""
        return function


# States (channels * states) of one program. Its single warp then holds 16 of them per thread, and waits for no other.
PROGRAM_STATES: Final = 512
# Programs that fill a GPU: 32 of them fit on each of an H100's 132 multiprocessors.
PROGRAMS: Final = 4096
# Positions of the shortest chunk. Shorter ones would move more states than inputs.
SHORTEST_CHUNK: Final = 64
_TILE_POSITIONS: Final = 32  # of a program of the short convolution
_TILE_CHANNELS: Final = 64
WARPS: Final = 1
_LOG2_E: Final = 1.4426950408889634  # of e; the hardware computes powers of 2


@jit
def _step(raw, bias):
    """Softplus of the step plus its bias, to the last digit also where it is tiny."""
    value = raw.to(tl.float32) + bias
    power = tl.exp(tl.minimum(value, 20.0))
    above_one = 1.0 + power
    rounded = above_one - 1.0
    log = tl.where(rounded == 0.0, power, tl.log(above_one) * power / tl.where(rounded == 0.0, 1.0, rounded))
    return tl.where(value > 20.0, value, log)


@jit
def scan_chunks(
    x_ptr,
    step_ptr,
    into_ptr,
    out_of_ptr,
    gate_ptr,
    y_ptr,
    rates_ptr,
    past_ptr,
    bias_ptr,
    states_ptr,
    sums_ptr,
    n_positions,
    n_chunks,
    chunk,
    width,
    x_batch,
    x_position,
    step_batch,
    step_position,
    into_batch,
    into_position,
    out_of_batch,
    out_of_position,
    gate_batch,
    gate_position,
    N_STATES: tl.constexpr,
    STATES: tl.constexpr,
    CHANNELS: tl.constexpr,
    REVERSE: tl.constexpr,
    STARTS: tl.constexpr,
    WRITES: tl.constexpr,
):
    """Scan one chunk of a block of channels.

    The state at the start is zero, or the stored one if ``STARTS``. The output is written if ``WRITES``; otherwise the
    state at the end and the sum of the steps are.
    """
    batch = tl.program_id(0).to(tl.int64)
    number = tl.program_id(1)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    state = tl.arange(0, STATES)
    has_channel = channel < width
    has_state = state < N_STATES
    has_both = has_channel[:, None] & has_state[None, :]
    rates = tl.load(rates_ptr + channel[:, None] * N_STATES + state[None, :], mask=has_both, other=0.0)
    past = tl.load(past_ptr + channel, mask=has_channel, other=0.0)
    bias = tl.load(bias_ptr + channel, mask=has_channel, other=0.0)
    row = (batch * n_chunks + number) * width
    states_at = states_ptr + (row + channel[:, None]) * N_STATES + state[None, :]
    if STARTS:  # noqa: SIM108  Triton compiles one branch of an if, and both of a choice
        held = tl.load(states_at, mask=has_both, other=0.0)
    else:
        held = tl.zeros((CHANNELS, STATES), tl.float32)
    summed = tl.zeros((CHANNELS,), tl.float32)
    first = number.to(tl.int64) * chunk
    for place in range(tl.minimum(chunk, n_positions - number * chunk)):
        at = first + place
        if REVERSE:
            at = n_positions - 1 - at
        x_at = x_ptr + batch * x_batch + at * x_position
        step_at = step_ptr + batch * step_batch + at * step_position
        into_at = into_ptr + batch * into_batch + at * into_position
        x = tl.load(x_at + channel, mask=has_channel, other=0.0).to(tl.float32)
        raw = tl.load(step_at + channel, mask=has_channel, other=0.0)
        into = tl.load(into_at + state, mask=has_state, other=0.0).to(tl.float32)
        step = _step(raw, bias)
        held = tl.exp2(step[:, None] * rates) * held + (step * x)[:, None] * into[None, :]
        if WRITES:
            out_of_at = out_of_ptr + batch * out_of_batch + at * out_of_position
            gate_at = gate_ptr + batch * gate_batch + at * gate_position
            out_of = tl.load(out_of_at + state, mask=has_state, other=0.0).to(tl.float32)
            gate = tl.load(gate_at + channel, mask=has_channel, other=0.0).to(tl.float32)
            y = tl.sum(held * out_of[None, :], axis=1) + past * x
            y = y * gate / (1.0 + tl.exp(-gate))
            y_at = y_ptr + (batch * n_positions + at) * width
            tl.store(y_at + channel, y.to(y_ptr.dtype.element_ty), mask=has_channel)
        else:
            summed += step
    if not WRITES:
        tl.store(states_at, held, mask=has_both)
        tl.store(sums_ptr + row + channel, summed, mask=has_channel)


@jit
def pass_states(
    rates_ptr,
    states_ptr,
    sums_ptr,
    n_chunks,
    width,
    N_STATES: tl.constexpr,
    STATES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Replace the state that each chunk ends with, from zeros, by the state that it starts from."""
    batch = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    state = tl.arange(0, STATES)
    has_channel = channel < width
    has_both = has_channel[:, None] & (state < N_STATES)[None, :]
    rates = tl.load(rates_ptr + channel[:, None] * N_STATES + state[None, :], mask=has_both, other=0.0)
    held = tl.zeros((CHANNELS, STATES), tl.float32)
    for number in range(n_chunks):
        row = (batch * n_chunks + number) * width
        states_at = states_ptr + (row + channel[:, None]) * N_STATES + state[None, :]
        own = tl.load(states_at, mask=has_both, other=0.0)
        summed = tl.load(sums_ptr + row + channel, mask=has_channel, other=0.0)
        tl.store(states_at, held, mask=has_both)
        held = tl.exp2(summed[:, None] * rates) * held + own


@jit
def convolve_tile(
    x_ptr,
    weight_ptr,
    bias_ptr,
    mask_ptr,
    y_ptr,
    n_positions,
    width,
    x_batch,
    x_position,
    TAPS: tl.constexpr,
    POSITIONS: tl.constexpr,
    CHANNELS: tl.constexpr,
    REVERSE: tl.constexpr,
    MASKED: tl.constexpr,
    ACTIVATES: tl.constexpr,
):
    """Convolve a tile of positions and channels, and apply SiLU if wanted; padding is zero before and after it."""
    batch = tl.program_id(0).to(tl.int64)
    position = tl.program_id(1) * POSITIONS + tl.arange(0, POSITIONS)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    has_channel = channel < width
    bias = tl.load(bias_ptr + channel, mask=has_channel, other=0.0).to(tl.float32)
    y = tl.zeros((POSITIONS, CHANNELS), tl.float32) + bias[None, :]
    for back in tl.static_range(TAPS):
        source = position + back if REVERSE else position - back
        inside = (source >= 0) & (source < n_positions)
        x_at = x_ptr + batch * x_batch + source.to(tl.int64)[:, None] * x_position + channel[None, :]
        x = tl.load(x_at, mask=inside[:, None] & has_channel[None, :], other=0.0).to(tl.float32)
        if MASKED:
            is_token = tl.load(mask_ptr + batch * n_positions + source, mask=inside, other=0.0).to(tl.float32)
            x = x * is_token[:, None]
        weight = tl.load(weight_ptr + channel * TAPS + (TAPS - 1 - back), mask=has_channel, other=0.0)
        y += x * weight.to(tl.float32)[None, :]
    if ACTIVATES:
        y = y / (1.0 + tl.exp(-y))
    inside = position < n_positions
    if MASKED:
        is_token = tl.load(mask_ptr + batch * n_positions + position, mask=inside, other=0.0).to(tl.float32)
        y = y * is_token[:, None]
    y_at = y_ptr + (batch * n_positions + position.to(tl.int64)[:, None]) * width + channel[None, :]
    tl.store(y_at, y.to(y_ptr.dtype.element_ty), mask=inside[:, None] & has_channel[None, :])


def can_compile() -> bool:
    """Whether Triton is installed, and a C compiler, which it starts kernels with."""
    return IS_INSTALLED and any(shutil.which(name) for name in (os.environ.get("CC", ""), "clang", "gcc"))


def chunk_positions(batch: int, n_positions: int, n_blocks: int) -> int:
    """Choose the positions of a chunk: all of them if the batch fills the device, else enough chunks to fill it.

    >>> chunk_positions(1, 131_072, 16), chunk_positions(64, 513, 16), chunk_positions(512, 512, 16)
    (512, 129, 512)

    Args:
        batch: Number of sequences.
        n_positions: Length of a sequence.
        n_blocks: Blocks of channels.
    """
    n_chunks = max(1, PROGRAMS // (batch * n_blocks))
    return max(SHORTEST_CHUNK, -(-n_positions // n_chunks))


# torch.compile would have to trace the launch.
@torch.compiler.disable
def gated_scan(
    x_BTD: Tensor,
    step_BTD: Tensor,
    bias_D: Tensor,
    A_DN: Tensor,
    B_BTN: Tensor,
    C_BTN: Tensor,
    D_D: Tensor,
    gate_BTD: Tensor,
    *,
    reverse: bool = False,
    chunk: int | None = None,
) -> Tensor:
    """Scan along T from a state of zeros with the steps softplus(step + bias), and multiply by SiLU of the gate.

    Args:
        x_BTD: Input of each channel, of any floating type, shape (batch, positions, channels).
        step_BTD: Step sizes before bias and softplus, shape (batch, positions, channels).
        bias_D: Bias of the steps, shape (channels,).
        A_DN: Decay rates, at most zero, shape (channels, states).
        B_BTN: Weight of the input in each state, shape (batch, positions, states).
        C_BTN: Weight of each state in the output, shape (batch, positions, states).
        D_D: Weight of the input in the output, shape (channels,).
        gate_BTD: Gate of the output, shape (batch, positions, channels).
        reverse: Scan from the last position to the first.
        chunk: Positions that are scanned in a row; None: ``chunk_positions``.

    Returns:
        Shape (batch, positions, channels), in the type of x.
    """
    batch, n_positions, width = x_BTD.shape
    n_states = A_DN.shape[1]
    states = 1 << (n_states - 1).bit_length()
    channels = max(1, PROGRAM_STATES // states)
    n_blocks = -(-width // channels)
    chunk = chunk or chunk_positions(batch, n_positions, n_blocks)
    n_chunks = -(-n_positions // chunk)
    several = n_chunks > 1
    moving = [_channels_last(value) for value in (x_BTD, step_BTD, B_BTN, C_BTN, gate_BTD)]
    rates_DN = A_DN.float().contiguous() * _LOG2_E
    past_D, bias_D = D_D.float().contiguous(), bias_D.float().contiguous()
    held = x_BTD.new_empty((batch, n_chunks, width, n_states) if several else (1,), dtype=torch.float32)
    sums = x_BTD.new_empty((batch, n_chunks, width) if several else (1,), dtype=torch.float32)
    y_BTD = x_BTD.new_empty((batch, n_positions, width))
    arguments = (
        *moving,
        y_BTD,
        *(rates_DN, past_D, bias_D, held, sums),
        *(n_positions, n_chunks, chunk, width),
        *(stride for value in moving for stride in value.stride()[:2]),
    )
    sizes = {"N_STATES": n_states, "STATES": states, "CHANNELS": channels}
    grid = (batch, n_chunks, n_blocks)
    if several:
        scan_chunks[grid](*arguments, **sizes, REVERSE=reverse, STARTS=False, WRITES=False, num_warps=WARPS)
        pass_states[(batch, n_blocks)](rates_DN, held, sums, n_chunks, width, **sizes, num_warps=WARPS)
    scan_chunks[grid](*arguments, **sizes, REVERSE=reverse, STARTS=several, WRITES=True, num_warps=WARPS)
    return y_BTD


# torch.compile would have to trace the launch.
@torch.compiler.disable
def masked_convolution(
    x_BTD: Tensor,
    weight_D1K: Tensor,
    bias_D: Tensor,
    mask_BT1: Tensor | None,
    *,
    reverse: bool = False,
    activates: bool = False,
) -> Tensor:
    """Apply a short convolution; padding is zero before and after it.

    Args:
        x_BTD: Shape (batch, positions, channels).
        weight_D1K: Weight of the convolution, shape (channels, 1, taps); the last tap is the position itself.
        bias_D: Shape (channels,).
        mask_BT1: 1 for tokens and 0 for padding, shape (batch, positions, 1); None if nothing is padded.
        reverse: The taps reach to later positions, not to earlier ones.
        activates: Apply SiLU to the result.

    Returns:
        Shape (batch, positions, channels), in the type of x.
    """
    batch, n_positions, width = x_BTD.shape
    x_BTD = _channels_last(x_BTD)
    y_BTD = x_BTD.new_empty((batch, n_positions, width))
    grid = (batch, -(-n_positions // _TILE_POSITIONS), -(-width // _TILE_CHANNELS))
    convolve_tile[grid](
        x_BTD,
        weight_D1K.contiguous(),
        bias_D.contiguous(),
        bias_D if mask_BT1 is None else mask_BT1.contiguous(),
        y_BTD,
        n_positions,
        width,
        *x_BTD.stride()[:2],
        TAPS=weight_D1K.shape[2],
        POSITIONS=_TILE_POSITIONS,
        CHANNELS=_TILE_CHANNELS,
        REVERSE=reverse,
        MASKED=mask_BT1 is not None,
        ACTIVATES=activates,
    )
    return y_BTD


def _channels_last(value_BTX: Tensor) -> Tensor:
    """Return the tensor, copied if its last axis is not the fastest."""
    return value_BTX if value_BTX.stride(-1) == 1 else value_BTX.contiguous()
