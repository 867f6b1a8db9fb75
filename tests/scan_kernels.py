"""Checks of the Triton kernels, as a program that ``tests/unit/embedders/test_scan_kernels.py`` starts.

TRITON_INTERPRET=1 python -m tests.scan_kernels scans half_precision extreme_steps long_sequences convolutions networks
python -m tests.scan_kernels compiles
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from bend_hf.embedders.networks import _layers, hyenadna, mamba, scan_kernels
from bend_hf.embedders.networks._layers import short_convolution
from bend_hf.embedders.networks.caduceus import CaduceusConfig, CaduceusModel
from bend_hf.embedders.networks.hyenadna import HyenaDNAConfig, HyenaDNAModel
from bend_hf.embedders.networks.mamba import selective_scan
from bend_hf.embedders.networks.scan_kernels import gated_scan, masked_convolution

EXACT = 1e-4  # float32, relative to the largest output
BFLOAT16 = 1e-2  # bfloat16 inputs and output: one rounding to 8 bits at the end


def flipped(value: Tensor, reverse: bool) -> Tensor:
    return value.flip(1) if reverse else value


def drawn(batch: int, length: int, width: int, n_states: int) -> list[Tensor]:
    """Arguments of ``gated_scan``; the input and its gate are views of one tensor, as in a block."""
    torch.manual_seed(length)
    x, gate = torch.randn(batch, length, 2 * width).chunk(2, dim=-1)
    into, out_of = torch.randn(batch, length, 2 * n_states).chunk(2, dim=-1)
    step, bias, past = 3 * torch.randn(batch, length, width) - 3, torch.randn(width), torch.randn(width)
    return [x, step, bias, -torch.exp(torch.randn(width, n_states)), into, out_of, past, gate]


def in_pytorch(arguments: list[Tensor], *, reverse: bool = False) -> Tensor:
    """The same in float64, with the scan that other tests compare with the recurrence."""
    x, step, bias, rates, into, out_of, past, gate = (value.double() for value in arguments)
    y = selective_scan(x, softplus(step + bias), rates, into, out_of, past, reverse=reverse)
    return y * silu(gate)


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    scale = float(theirs.abs().max())
    torch.testing.assert_close(ours.double(), theirs.double(), atol=tolerance * scale, rtol=tolerance)


def scans() -> None:
    """Both directions; one chunk and several, of which the last is not full; widths and states that fill no block."""
    for batch, length, width, n_states in ((2, 17, 40, 16), (1, 5, 3, 4), (1, 9, 300, 3), (1, 1, 2, 1)):
        arguments = drawn(batch, length, width, n_states)
        for reverse in (False, True):
            expected = in_pytorch(arguments, reverse=reverse)
            for chunk in (None, 7):
                assert_near(gated_scan(*arguments, reverse=reverse, chunk=chunk), expected, EXACT)


def half_precision() -> None:
    """Inputs in bfloat16 are scanned in float32 and rounded once; parameters may be float32 or not."""
    x, step, bias, rates, into, out_of, past, gate = drawn(1, 20, 8, 4)
    half = [value.bfloat16() for value in (x, step, into, out_of, gate)]
    arguments = [half[0], half[1], bias.bfloat16(), rates, half[2], half[3], past, half[4]]
    for chunk in (None, 8):
        ours = gated_scan(*arguments, chunk=chunk)
        assert ours.dtype == torch.bfloat16
        assert_near(ours, in_pytorch(arguments), BFLOAT16)


def extreme_steps() -> None:
    """Steps that forget everything, that forget nothing, and that are too small for 1 + exp(step)."""
    for step in (-80.0, -20.0, 15.0, 90.0):
        arguments = drawn(1, 12, 4, 2)
        arguments[1], arguments[2] = torch.full_like(arguments[1], step), torch.zeros(4)
        arguments[6] = torch.zeros(4)  # without the input itself, only the states are seen
        assert_near(gated_scan(*arguments, chunk=5), in_pytorch(arguments), EXACT)


def long_sequences() -> None:
    """As many chunks as 131,072 positions are cut into; what enters in the first one is still there in the last one."""
    n_chunks = -(-131_072 // scan_kernels.chunk_positions(1, 131_072, 16))
    assert n_chunks > 200
    arguments = drawn(1, n_chunks, 2, 2)
    arguments[1] = torch.full_like(arguments[1], -9.0)
    assert_near(gated_scan(*arguments, chunk=1), in_pytorch(arguments), EXACT)


def convolutions() -> None:
    torch.manual_seed(0)
    wide, weight, bias = torch.randn(2, 45, 100), torch.randn(70, 1, 4), torch.randn(70)
    x, mask = wide[..., 20:90], torch.ones(2, 45, 1)
    mask[0, 40:] = mask[1, :3] = 0
    for reverse in (False, True):
        plain = short_convolution(x, weight, bias, reverse=reverse)
        assert_near(masked_convolution(x, weight, bias, None, reverse=reverse), plain, EXACT)
        ours = masked_convolution(x, weight, bias, None, reverse=reverse, activates=True)
        assert_near(ours, silu(plain), EXACT)
        padded = silu(short_convolution(x * mask, weight, bias, reverse=reverse)) * mask
        ours = masked_convolution(x, weight, bias, mask, reverse=reverse, activates=True)
        assert_near(ours, padded, EXACT)
        short = short_convolution(x[:, :2], weight, bias, reverse=reverse)
        assert_near(masked_convolution(x[:, :2], weight, bias, None, reverse=reverse), short, EXACT)


def networks() -> None:
    """A whole Caduceus, with one strand and with two, PlantCAD2's blocks, HyenaDNA: same states, padded or not."""
    kernels_for = _layers.kernels_for
    models: list[Any] = []
    for version, both_strands in ((1, False), (1, True), (2, True)):
        cells = {"d_state": 4, "headdim": 8}
        config = CaduceusConfig(d_model=16, n_layer=1, rcps=both_strands, mamba_version=version, ssm_cfg=cells)
        models.append(CaduceusModel(config))
    models.append(HyenaDNAModel(HyenaDNAConfig(d_model=16, d_inner=32, n_layer=1, max_seq_len=20)))
    for model in models:
        torch.manual_seed(0)
        for map_ in (part for part in model.eval().modules() if isinstance(part, nn.Linear)):
            map_.weight.data = torch.randn_like(map_.weight)  # the blocks then count next to the input embeddings
        ids, mask = torch.randint(7, 11, (2, 13)), torch.ones(2, 13)
        mask[0, 8:] = 0
        for given in (None, mask):
            with torch.inference_mode():
                expected = model(ids, given).last_hidden_state
                for module in (mamba, hyenadna):
                    module.kernels_for = lambda x: scan_kernels
                try:
                    ours = model(ids, given).last_hidden_state
                finally:
                    for module in (mamba, hyenadna):
                        module.kernels_for = kernels_for
            real = torch.ones(2, 13, 1) if given is None else given[..., None]
            assert not torch.equal(ours, expected)  # the kernels round in another order
            assert_near(ours * real, expected * real, EXACT)


def compiles() -> None:
    """Every kernel compiles for an A100 and an H100, and no thread needs more registers than it has."""
    for capability, number in ((80, "*fp32"), (90, "*bf16")):
        moving = {f"{name}_ptr": number for name in ("x", "step", "into", "out_of", "gate", "y", "weight", "mask")}
        states = {"N_STATES": 16, "STATES": 16, "CHANNELS": 32}
        for several in (False, True):
            choice = {"REVERSE": several, "STARTS": several, "WRITES": several}
            _compile(scan_kernels.scan_chunks, moving, {**states, **choice}, capability)
        tile = {"TAPS": 4, "POSITIONS": 32, "CHANNELS": 64, "REVERSE": False, "MASKED": True, "ACTIVATES": True}
        _compile(scan_kernels.convolve_tile, {**moving, "bias_ptr": number}, tile, capability)
        _compile(scan_kernels.pass_states, {}, states, capability)


def _compile(kernel: Any, pointers: dict[str, str], constants: dict[str, Any], capability: int) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    def type_of(name: str) -> str:
        if name in constants:
            return "constexpr"
        return pointers.get(name, "*fp32" if name.endswith("_ptr") else "i32")

    source = ASTSource(fn=kernel, signature={name: type_of(name) for name in kernel.arg_names}, constexprs=constants)
    warps = scan_kernels.WARPS if "STATES" in constants else 4
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
    assert len(made.asm["cubin"]) > 1000
    assert "st.local" not in made.asm["ptx"], kernel
    spilled = _spilled_bytes(made.asm["ptx"])
    assert spilled in (None, 0), (kernel, spilled)


def _spilled_bytes(ptx: str) -> int | None:
    """What ptxas says about registers; None if it is not where Triton had it in 2026."""
    import triton

    ptxas = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    target = re.search(r"\.target (\w+)", ptx)
    if not ptxas.is_file() or target is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        command = [ptxas, "-v", "--gpu-name", target[1], path, "-o", Path(folder) / "kernel.cubin"]
        said = subprocess.run(command, capture_output=True, text=True).stderr
    found = re.findall(r"(\d+) bytes spill", said)
    return sum(map(int, found)) if found else None


if __name__ == "__main__":
    for name in sys.argv[1:]:
        globals()[name]()
        print(name)  # the test reads it
