"""The selective scan equals a step-by-step scan, at any length and in bounded memory."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import softplus

from bend_hf.embedders.networks import _layers, scan_kernels
from bend_hf.embedders.networks import mamba as module
from bend_hf.embedders.networks.mamba import (
    Mamba,
    MambaSizes,
    fused_scan,
    scan_kernels_for,
    scan_with_kernel,
    selective_scan,
)
from tests.watch import Watch


@dataclass(frozen=True, kw_only=True)
class Inputs:
    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor

    @property
    def all(self) -> tuple[Tensor, ...]:
        return self.x, self.dt, self.A, self.B, self.C, self.D


def draw(
    batch: int, length: int, width: int, n_states: int, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Inputs:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    return Inputs(
        x=normal(batch, length, width),
        dt=softplus(3 * normal(batch, length, width) - 3),
        A=-torch.exp(normal(width, n_states)),
        B=normal(batch, length, n_states),
        C=normal(batch, length, n_states),
        D=normal(width),
    )


def step_by_step(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The recurrence as it is written down, in float64."""
    x, dt, A, B, C, D = (value.double() for value in (x, dt, A, B, C, D))
    state = torch.zeros(x.shape[0], x.shape[2], A.shape[1], dtype=torch.float64)
    out = []
    for t in range(x.shape[1]):
        state = torch.exp(dt[:, t, :, None] * A) * state + (dt * x)[:, t, :, None] * B[:, t, None, :]
        out.append((state * C[:, t, None, :]).sum(-1) + D * x[:, t])
    return torch.stack(out, dim=1)


@pytest.mark.parametrize("length", [1, 2, 3, 16, 17, 100, 1000])
@pytest.mark.parametrize("states_at_once", [1, 500, 2**19])
def test_scan_equals_the_recurrence_step_by_step(
    length: int, states_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.SEGMENT_STATES, "cpu", states_at_once)
    inputs = draw(2, length, 5, 3, seed=length)
    torch.testing.assert_close(selective_scan(*inputs.all).double(), step_by_step(*inputs.all), atol=2e-5, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 90), width=st.integers(1, 6), n_states=st.integers(1, 5), seed=st.integers(0, 10**6))
def test_scan_in_float64_is_exact(length: int, width: int, n_states: int, seed: int) -> None:
    inputs = draw(1, length, width, n_states, seed=seed, dtype=torch.float64)
    torch.testing.assert_close(selective_scan(*inputs.all), step_by_step(*inputs.all), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(("step", "rate"), [(1e-6, 1e-3), (50.0, 100.0), (0.0, 1.0), (30.0, 1e-30)])
def test_scan_stays_finite_and_right_at_extreme_decay(step: float, rate: float) -> None:
    inputs = draw(1, 3000, 2, 2)
    extreme = (inputs.x, torch.full_like(inputs.dt, step), torch.full_like(inputs.A, -rate), *inputs.all[3:])
    expected = step_by_step(*extreme)
    scale = float(expected.abs().max())
    torch.testing.assert_close(selective_scan(*extreme).double(), expected, atol=2e-5 * scale, rtol=1e-5)


def test_half_precision_input_is_scanned_in_float32() -> None:
    inputs = draw(1, 500, 4, 4)
    x, dt, A, B, C, D = inputs.all
    half = selective_scan(x.bfloat16(), dt, A, B, C, D)
    exact = step_by_step(x.bfloat16(), dt, A, B, C, D)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), exact, atol=1e-2, rtol=1e-2)  # one rounding to 8 bits, at the end


def test_gradients_equal_those_of_the_recurrence() -> None:
    leaves = [value.requires_grad_() for value in draw(2, 23, 3, 2, dtype=torch.float64).all]
    weight = torch.randn(2, 23, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad((selective_scan(*leaves) * weight).sum(), leaves)
    theirs = torch.autograd.grad((step_by_step(*leaves) * weight).sum(), leaves)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_operations_grow_far_slower_than_positions() -> None:
    inputs = draw(1, 4096, 2, 2)
    with torch.no_grad(), Watch() as watch:
        selective_scan(*inputs.all)
    assert watch.operations < 4096 / 4


def test_memory_beyond_inputs_and_output_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.SEGMENT_STATES, "cpu", 2**14)
    inputs = draw(1, 8192, 4, 16)
    with torch.no_grad(), Watch() as watch:
        selective_scan(*inputs.all)
    assert watch.largest <= max(8192 * 16, 2 * 2**14)  # all states at once would be 8192 * 4 * 16


def kernel_of_mamba_ssm(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The interface that mamba-ssm documents: (batch, channels, positions), B and C (batch, states, positions)."""
    assert u.is_contiguous()
    assert A.dtype == D.dtype == torch.float32
    out = step_by_step(u.mT, delta.mT, A, B.mT, C.mT, D)
    return out.mT.to(u.dtype)


def test_kernel_of_mamba_ssm_is_called_by_its_interface() -> None:
    inputs = draw(2, 30, 4, 3)
    through = scan_with_kernel(kernel_of_mamba_ssm, *inputs.all)
    torch.testing.assert_close(through, selective_scan(*inputs.all), atol=2e-5, rtol=1e-5)


def test_kernel_is_found_where_mamba_ssm_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    interface = types.ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn = kernel_of_mamba_ssm
    for name in ("mamba_ssm", "mamba_ssm.ops"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    fused_scan.cache_clear()
    try:
        assert fused_scan() is kernel_of_mamba_ssm
    finally:
        fused_scan.cache_clear()


def test_compiler_does_not_write_out_the_steps() -> None:
    inputs = draw(1, 200, 4, 2)
    sizes: list[int] = []

    def backend(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Any:
        sizes.append(len(graph.graph.nodes))
        return graph.forward

    def network(*tensors: Tensor) -> Tensor:
        return selective_scan(*tensors) * 2

    torch.testing.assert_close(torch.compile(network, backend=backend)(*inputs.all), network(*inputs.all))
    assert sizes
    assert sum(sizes) < 20


@pytest.mark.parametrize("length", [1, 17, 200])
def test_scan_from_right_to_left_is_that_of_the_flipped_input(length: int) -> None:
    x, dt, A, B, C, D = draw(2, length, 5, 3).all
    expected = step_by_step(x.flip(1), dt.flip(1), A, B.flip(1), C.flip(1), D).flip(1)
    torch.testing.assert_close(selective_scan(x, dt, A, B, C, D, reverse=True).double(), expected, atol=2e-5, rtol=1e-5)


def test_directions_of_a_block_mirror_each_other() -> None:
    torch.manual_seed(0)
    block = Mamba(MambaSizes(width=6, inner=12, n_states=3, dt_rank=2, taps=4)).eval()
    entering, mask = torch.randn(2, 23, 24), torch.ones(2, 23, 1)
    mask[0, 15:] = 0
    with torch.no_grad():
        mirrored = block(entering.flip(1), mask.flip(1)).flip(1)
        torch.testing.assert_close(block(entering, mask, reverse=True), mirrored, atol=1e-6, rtol=1e-5)


def test_kernels_are_for_gpus_without_gradients(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A GPU is only said to be there; what asks it is replaced."""

    class OnGpu:
        is_cuda, dtype, device = True, torch.bfloat16, torch.device("cuda:0")

    monkeypatch.setattr(module, "fused_scan", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(scan_kernels, "can_compile", lambda: True)
    _layers._kernels.cache_clear()
    try:
        with torch.no_grad():
            assert scan_kernels_for(OnGpu()) is scan_kernels  # type: ignore[arg-type]
            assert scan_kernels_for(torch.zeros(1)) is None
            monkeypatch.setattr(module, "fused_scan", lambda: kernel_of_mamba_ssm)
            assert scan_kernels_for(OnGpu()) is None  # type: ignore[arg-type]
            monkeypatch.setattr(module, "fused_scan", lambda: None)
        assert scan_kernels_for(OnGpu()) is None  # type: ignore[arg-type]  # a gradient may be needed
        _layers._kernels.cache_clear()
        monkeypatch.setattr(scan_kernels, "can_compile", lambda: False)
        with torch.no_grad():
            assert all(scan_kernels_for(OnGpu()) is None for _ in range(3))  # type: ignore[arg-type]
        assert [record.getMessage()[:40] for record in caplog.records] == ["selective scans and short convolutions r"]
    finally:
        _layers._kernels.cache_clear()
