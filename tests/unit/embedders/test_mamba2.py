"""The scan of Mamba-2 equals a step-by-step scan, at any length, in bounded memory, and as fast as that of Mamba."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import softplus

from bend_hf.embedders.networks import mamba2 as module
from bend_hf.embedders.networks.mamba import selective_scan
from bend_hf.embedders.networks.mamba2 import Mamba2, Mamba2Sizes, head_scan
from bend_hf.errors import ModelError
from tests.watch import Watch

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def draw(
    shape: tuple[int, int, int, int], n_states: int, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Inputs:
    batch, length, heads, _ = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*of: int) -> Tensor:
        return torch.randn(*of, generator=generator, dtype=dtype)

    step = softplus(3 * normal(batch, length, heads) - 3)
    rates = -torch.exp(normal(heads))
    return normal(*shape), step, rates, normal(batch, length, n_states), normal(batch, length, n_states), normal(heads)


def step_by_step(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The recurrence as it is written down, in float64."""
    x, dt, A, B, C, D = (value.double() for value in (x, dt, A, B, C, D))
    state = x.new_zeros(*x.shape[:1], *x.shape[2:], B.shape[-1])
    out = []
    for t in range(x.shape[1]):
        decay = torch.exp(dt[:, t] * A)[..., None, None]
        state = decay * state + (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, None, None, :]
        out.append((state * C[:, t, None, None, :]).sum(-1) + D[:, None] * x[:, t])
    return torch.stack(out, dim=1)


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 128, 129, 500])
@pytest.mark.parametrize("numbers_at_once", [1, 2 * 3 * 64 * 64 * 2, 2**19])
def test_scan_equals_the_recurrence_step_by_step(
    length: int, numbers_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.SEGMENT_NUMBERS, "cpu", numbers_at_once)
    inputs = draw((2, length, 3, 4), 5, seed=length)
    torch.testing.assert_close(head_scan(*inputs).double(), step_by_step(*inputs), atol=5e-5, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 150), heads=st.integers(1, 3), n_states=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_scan_in_float64_is_exact(length: int, heads: int, n_states: int, seed: int) -> None:
    inputs = draw((1, length, heads, 2), n_states, seed=seed, dtype=torch.float64)
    torch.testing.assert_close(head_scan(*inputs), step_by_step(*inputs), atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize(("step", "rate"), [(1e-6, 1e-3), (50.0, 100.0), (0.0, 1.0), (30.0, 1e-30), (0.5, 40.0)])
def test_scan_stays_finite_and_right_at_extreme_decay(step: float, rate: float) -> None:
    x, dt, A, *others = draw((1, 1000, 2, 2), 2)
    extreme = (x, torch.full_like(dt, step), torch.full_like(A, -rate), *others)
    expected = step_by_step(*extreme)
    scale = float(expected.abs().max())
    torch.testing.assert_close(head_scan(*extreme).double(), expected, atol=2e-5 * scale, rtol=1e-5)


def test_a_slow_step_after_fast_ones_keeps_its_digits() -> None:
    """Sums of the decay from the start of a chunk reach -60,000; their differences would be wrong by 0.004."""
    x, dt, _, *others = draw((1, 64, 1, 2), 3)
    dt = torch.where(torch.arange(64)[None, :, None] % 4 == 0, 100.0, dt * 1e-3)
    inputs = (x, dt, torch.tensor([-40.0]), *others)
    torch.testing.assert_close(head_scan(*inputs).double(), step_by_step(*inputs), atol=1e-3, rtol=1e-5)


def test_gradients_equal_those_of_the_recurrence() -> None:
    leaves = [value.requires_grad_() for value in draw((2, 70, 2, 3), 2, dtype=torch.float64)]
    weight = torch.randn(2, 70, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad((head_scan(*leaves) * weight).sum(), leaves)
    theirs = torch.autograd.grad((step_by_step(*leaves) * weight).sum(), leaves)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_half_precision_input_is_scanned_in_float32() -> None:
    x, *others = draw((1, 300, 2, 4), 4)
    half = head_scan(x.bfloat16(), *others)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), step_by_step(x.bfloat16(), *others), atol=5e-2, rtol=1e-2)


def test_memory_beyond_inputs_and_output_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.SEGMENT_NUMBERS, "cpu", 2**14)
    inputs = draw((1, 16384, 4, 4), 4)
    with torch.no_grad(), Watch() as watch:
        head_scan(*inputs)
    assert watch.largest <= 16384 * 16  # the output; the matrices of all chunks at once would be 16384 * 4 * 64


def test_operations_grow_far_slower_than_positions() -> None:
    inputs = draw((1, 4096, 4, 4), 4)
    with torch.no_grad(), Watch() as watch:
        head_scan(*inputs)
    assert watch.operations < 4096 / 4


def test_scan_is_at_least_as_fast_as_that_of_mamba() -> None:
    """Both with 512 channels and the states of their published models, 16 and 64; timed in turns, best of three."""
    x, dt, A, B, C, D = draw((1, 1024, 8, 64), 64)
    wide = draw((1, 1024, 512, 1), 16)

    def mamba() -> Tensor:
        return selective_scan(x.flatten(2), wide[1], wide[2][:, None].expand(-1, 16), wide[3], wide[4], wide[5])

    def seconds(scan: Callable[[], Tensor]) -> float:
        start = time.perf_counter()
        scan()
        return time.perf_counter() - start

    with torch.inference_mode():
        rounds = [(seconds(lambda: head_scan(x, dt, A, B, C, D)), seconds(mamba)) for _ in range(3)]
    assert min(one for one, _ in rounds) <= min(other for _, other in rounds)


def test_compiler_does_not_write_out_the_chunks() -> None:
    inputs = draw((1, 200, 2, 2), 2)
    sizes: list[int] = []

    def backend(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Any:
        sizes.append(len(graph.graph.nodes))
        return graph.forward

    def network(*tensors: Tensor) -> Tensor:
        return head_scan(*tensors) * 2

    torch.testing.assert_close(torch.compile(network, backend=backend)(*inputs), network(*inputs))
    assert sizes
    assert sum(sizes) < 20


def test_heads_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ModelError, match="heads of 64 channels do not divide the 80 channels"):
        Mamba2(Mamba2Sizes(width=40, inner=80, n_states=4, head_width=64, taps=4))


def test_many_chunks_are_passed_by_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where a segment has many chunks: the same states, without an operation per chunk."""
    inputs = draw((2, 64 * 40, 3, 4), 5)
    monkeypatch.setitem(module.SEGMENT_NUMBERS, "cpu", 2**26)
    torch.testing.assert_close(head_scan(*inputs).double(), step_by_step(*inputs), atol=5e-4, rtol=1e-5)
    counts = []
    for n_chunks in (20, 40):
        with torch.no_grad(), Watch() as watch:
            head_scan(*draw((2, 64 * n_chunks, 3, 4), 5))
        counts.append(watch.operations)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("length", [1, 70, 700])
def test_scan_from_right_to_left_is_that_of_the_flipped_input(length: int) -> None:
    x, dt, A, B, C, D = draw((2, length, 3, 4), 5)
    expected = step_by_step(x.flip(1), dt.flip(1), A, B.flip(1), C.flip(1), D).flip(1)
    torch.testing.assert_close(head_scan(x, dt, A, B, C, D, reverse=True).double(), expected, atol=2e-4, rtol=1e-5)
