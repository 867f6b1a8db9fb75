"""The axis letters, the array aliases and the padding label that the whole package speaks in.

Letters: B batch, L nucleotides, T tokens, W label windows, D embedding width, H hidden width, C classes
or labels, V vocabulary. A tensor that crosses a reshape carries them in its name: ``x_BTD``.

>>> IGNORE_LABEL
-100
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
Strings: TypeAlias = NDArray[np.str_]

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "test")

Protocol: TypeAlias = Literal["bend-2024", "bend-hf-1"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("bend-2024", "bend-hf-1")

IGNORE_LABEL: Final = -100  # torch.nn.CrossEntropyLoss, default of ignore_index
