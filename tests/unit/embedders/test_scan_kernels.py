"""The Triton kernels equal the scan and the convolution in PyTorch: in Triton's interpreter, in a process of its own.

The interpreter is chosen when Triton is imported. So each test here runs one check of ``tests.scan_kernels`` as a
program.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bend_hf.embedders.networks import scan_kernels
from bend_hf.embedders.networks.scan_kernels import PROGRAMS, SHORTEST_CHUNK, chunk_positions

TRITON = Path(__file__).resolve().parents[3] / ".triton"  # where `make setup-kernels` installs it
with_triton = pytest.mark.skipif(
    not (scan_kernels.IS_INSTALLED or TRITON.is_dir()), reason="Triton is not installed; make setup-kernels"
)


def checked(*names: str, interpreted: bool = True) -> str:
    """Run checks and return what they print."""
    path = os.pathsep.join([*([str(TRITON)] if TRITON.is_dir() else []), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "tests.scan_kernels", *names],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1" if interpreted else "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@with_triton
def test_kernels_equal_the_scan_in_pytorch() -> None:
    names = ("scans", "half_precision", "extreme_steps", "long_sequences", "convolutions", "networks")
    assert checked(*names).split() == list(names)


@pytest.mark.slow
@with_triton
def test_kernels_compile_for_gpus_without_spilled_registers() -> None:
    if not any(map(shutil.which, ("clang", "gcc"))):
        pytest.skip("no C compiler is installed; apt-get install gcc")
    assert checked("compiles", interpreted=False).split() == ["compiles"]


@pytest.mark.parametrize(("batch", "length"), [(1, 131_072), (2, 6001), (64, 513), (2048, 512), (1, 10)])
def test_chunks_fill_the_device_and_are_not_too_short(batch: int, length: int) -> None:
    n_blocks = 16
    chunk = chunk_positions(batch, length, n_blocks)
    programs = batch * n_blocks * -(-length // chunk)
    assert chunk >= SHORTEST_CHUNK
    assert programs <= max(PROGRAMS, batch * n_blocks)
    assert programs >= PROGRAMS / 2 or chunk == SHORTEST_CHUNK


def test_kernels_can_be_imported_without_triton() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "from bend_hf.embedders.networks import scan_kernels, caduceus\n"
        "print(scan_kernels.IS_INSTALLED, scan_kernels.can_compile())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "False"], done.stderr
