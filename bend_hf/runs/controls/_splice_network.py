"""SpliceAI-10k in plain Torch, from the description in its paper, with weights read from Keras files.

Jaganathan et al., Predicting splicing from primary sequence with deep learning, Cell 176, 535 (2019), Figure 1 and Key
Resources: 16 residual units of two convolutions in four groups, and skip connections to the output. An output depends
on 5,000 nucleotides on each side. No code of the published package is used.

>>> sum(unit.reach_bp for unit in UNITS)
5000
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from bend_hf.errors import ControlError
from bend_hf.types import Floats

WIDTH: Final = 32
NEITHER, ACCEPTOR, DONOR = 0, 1, 2  # outputs, in the order of the paper's labels
_LETTERS: Final = np.frombuffer(b"ACGT", np.uint8)
_EPSILON: Final = 1e-3  # of batch normalization: the default of Keras


@dataclass(frozen=True)
class UnitShape:
    """Width and dilation of both convolutions of a residual unit."""

    kernel: int
    dilation: int

    @property
    def reach_bp(self) -> int:
        """Nucleotides on each side that the unit adds to what an output depends on."""
        return (self.kernel - 1) * self.dilation


UNITS: Final = tuple(UnitShape(*shape) for shape in ((11, 1), (11, 4), (21, 10), (41, 25)) for _ in range(4))
_UNITS_PER_SKIP: Final = 4
CONTEXT_BP: Final = sum(unit.reach_bp for unit in UNITS)


class _Unit(nn.Module):
    def __init__(self, shape: UnitShape) -> None:
        super().__init__()
        self.reach_bp = shape.reach_bp
        self.norms = nn.ModuleList(nn.BatchNorm1d(WIDTH, eps=_EPSILON) for _ in range(2))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(WIDTH, WIDTH, shape.kernel, dilation=shape.dilation) for _ in range(2)
        )

    def forward(self, x_BCL: Tensor) -> Tensor:
        """Return the unit's output, ``reach_bp`` shorter on each side."""
        inner = x_BCL
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            inner = convolution(torch.relu(norm(inner)))
        return x_BCL[..., self.reach_bp : x_BCL.shape[2] - self.reach_bp] + inner


class SpliceNetwork(nn.Module):
    """One network.

    Nucleotides beyond the input are N. Far from the input, each layer has the same value everywhere, so layers are
    computed near the input only, and extended by that value where the next one needs it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, WIDTH, 1)
        self.units = nn.ModuleList(map(_Unit, UNITS))
        self.skips = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 1) for _ in range(1 + len(UNITS) // _UNITS_PER_SKIP))
        self.last = nn.Conv1d(WIDTH, 3, 1)

    def forward(self, x_B4L: Tensor, flank_bp: int = 0) -> Tensor:
        """Return probabilities of neither, acceptor and donor.

        Args:
            x_B4L: One-hot nucleotides; zeros for N.
            flank_bp: How many nucleotides on each side get no output.

        Returns:
            Shape (B, 3, L - 2 * flank_bp).
        """
        x, far = self.first(x_B4L), self.first(x_B4L.new_zeros(1, 4, 1))
        output, left = self.skips[0](_with_flank(x, far, flank_bp, 0)), CONTEXT_BP
        for index, (unit, shape) in enumerate(zip(self.units, UNITS, strict=True)):
            reach = shape.reach_bp
            left -= reach
            wanted = min(flank_bp + reach, left)
            x = unit(_with_flank(x, far, flank_bp, wanted + reach))
            far, flank_bp = unit(far.expand(1, WIDTH, 2 * reach + 1)), wanted
            if (index + 1) % _UNITS_PER_SKIP == 0:
                skip = self.skips[(index + 1) // _UNITS_PER_SKIP]
                output = output + skip(_with_flank(x, far, flank_bp, 0))
        return torch.softmax(self.last(output), dim=1)


def _with_flank(x_BCL: Tensor, far: Tensor, flank_bp: int, wanted_bp: int) -> Tensor:
    """Cut the flanks, or extend them by the value that a layer has far from the input."""
    if wanted_bp <= flank_bp:
        cut = flank_bp - wanted_bp
        return x_BCL[..., cut : x_BCL.shape[2] - cut]
    side = far.expand(len(x_BCL), WIDTH, wanted_bp - flank_bp)
    return torch.cat([side, x_BCL, side], dim=2)


def read_network(path: Path) -> SpliceNetwork:
    """Read one network from the HDF5 file in which Keras keeps its layers.

    Layers of a kind are numbered as they were made: the convolution of the input, that of the first skip connection,
    then the convolutions of each group followed by that of its skip connection, and the output.

    Raises:
        ControlError: The file does not hold these layers.
    """
    with h5py.File(path) as file:
        layers = file.get("model_weights", file)
        convolutions = [_arrays(layers[name]) for name in _numbered(layers, "conv1d")]
        norms = [_arrays(layers[name]) for name in _numbered(layers, "batch_normalization")]
    network = SpliceNetwork()
    units = cast(list[_Unit], list(network.units))
    order: list[nn.Module] = [network.first, network.skips[0]]
    for start in range(0, len(UNITS), _UNITS_PER_SKIP):
        order += [one for unit in units[start : start + _UNITS_PER_SKIP] for one in unit.convolutions]
        order.append(network.skips[1 + start // _UNITS_PER_SKIP])
    order.append(network.last)
    all_norms = [norm for unit in units for norm in unit.norms]
    found = (len(convolutions), len(norms))
    if found != (len(order), len(all_norms)):
        raise ControlError(
            f"{path} holds {found[0]} convolutions and {found[1]} normalizations; expected {len(order)} and "
            f"{len(all_norms)}, as in SpliceAI-10k. Install the package spliceai 1.3 again."
        )
    try:
        for layer, arrays in zip(order, convolutions, strict=True):
            kernel = np.ascontiguousarray(arrays["kernel"].transpose(2, 1, 0))
            layer.load_state_dict({"weight": torch.from_numpy(kernel), "bias": torch.from_numpy(arrays["bias"])})
        for norm, arrays in zip(all_norms, norms, strict=True):
            names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
            state = {name: torch.from_numpy(arrays[stored]) for name, stored in names.items()}
            norm.load_state_dict({**state, "num_batches_tracked": torch.tensor(0)})
    except (KeyError, RuntimeError) as error:
        raise ControlError(
            f"{path} holds layers of other shapes ({error}); expected those of SpliceAI-10k. "
            "Install the package spliceai 1.3 again."
        ) from error
    return network.eval()


def _numbered(layers: h5py.Group, kind: str) -> list[str]:
    """Names of the layers of a kind, by their number."""
    numbers = {name: re.fullmatch(rf"{kind}_(\d+)", name) for name in layers}
    return sorted((name for name, found in numbers.items() if found), key=lambda name: int(name.rpartition("_")[2]))


def _arrays(group: h5py.Group) -> dict[str, Floats]:
    """The arrays of a layer by their own name, such as ``kernel``."""
    found: dict[str, Floats] = {}

    def keep(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            found[name.rpartition("/")[2].partition(":")[0]] = np.asarray(item[()], np.float32)

    group.visititems(keep)
    return found


def one_hot(sequences: list[str]) -> Tensor:
    """Return one-hot nucleotides, zeros for N and after the end of a shorter sequence, shape (B, 4, L)."""
    lengths = np.array([len(sequence) for sequence in sequences])
    codes = np.zeros((len(sequences), int(lengths.max(initial=0))), np.uint8)
    codes[np.arange(codes.shape[1]) < lengths[:, None]] = np.frombuffer("".join(sequences).encode("ascii"), np.uint8)
    return torch.from_numpy((codes[:, None] == _LETTERS[:, None]).astype(np.float32))
