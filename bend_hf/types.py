"""Axis letters, array aliases and named choices that the whole package uses.

Axis letters: B batch, L nucleotides, T tokens, W label windows, D embedding width, H hidden width, C classes
or labels, V vocabulary. A tensor that crosses a reshape carries them in its name: ``x_BTD``.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Bytes: TypeAlias = NDArray[np.uint8]
Bools: TypeAlias = NDArray[np.bool_]
Ints: TypeAlias = NDArray[np.int64]
Classes: TypeAlias = NDArray[np.int16]
Floats: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = Classes | Floats  # -100 is no class, and nan no value
Strings: TypeAlias = NDArray[np.str_]

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "test")

ProtocolName: TypeAlias = Literal["bend-2024", "bend-hf-1"]
PROTOCOLS: Final[tuple[ProtocolName, ...]] = ("bend-2024", "bend-hf-1")

ValueLoss: TypeAlias = Literal["mse", "poisson"]  # of real-valued labels
OutOfBounds: TypeAlias = Literal["error", "pad", "drop"]  # an interval past its contig's end
RefMismatch: TypeAlias = Literal["error", "drop"]  # a variant whose REF is not the genome's base
ModelDtype: TypeAlias = Literal["float32", "bfloat16", "float16"]  # of weights and arithmetic
DtypeChoice: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]  # auto: by the device of the model
Offload: TypeAlias = Literal["none", "host", "disk"]  # where the blocks of a network stay that the device cannot hold
StoredDtype: TypeAlias = Literal["float16", "float32", "bfloat16"]  # of cached embeddings

IGNORE_LABEL: Final = -100  # torch.nn.CrossEntropyLoss, default of ignore_index
