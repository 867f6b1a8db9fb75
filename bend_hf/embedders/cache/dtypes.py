"""How embeddings are stored: float16, float32, or bfloat16 as its 16 bits, because Arrow has no bfloat16.

>>> encode(np.array([[1.0, -2.5]], np.float32), "bfloat16").tolist()
[[16256, 49184]]
>>> decode(encode(np.array([[1.0, -2.5]], np.float32), "bfloat16"), "bfloat16").tolist()
[[1.0, -2.5]]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from bend_hf.errors import CacheError, did_you_mean
from bend_hf.types import Floats, StoredDtype

if TYPE_CHECKING:
    import torch

STORED_DTYPES: Final[tuple[StoredDtype, ...]] = get_args(StoredDtype)

# The column name says what its numbers are: 16 bits of a bfloat16 must not be taken for integers.
COLUMN_OF: Final[dict[StoredDtype, str]] = {
    "float16": "token_rows",
    "float32": "token_rows",
    "bfloat16": "token_rows_bfloat16_bits",
}
NUMPY_OF: Final[dict[StoredDtype, type[np.generic]]] = {
    "float16": np.float16,
    "float32": np.float32,
    "bfloat16": np.uint16,
}
_INFINITY_BITS: Final[dict[StoredDtype, int]] = {  # IEEE 754: all ones in the exponent
    "float16": 0x7C00,
    "float32": 0x7F800000,
    "bfloat16": 0x7F80,
}
# The first magnitude that rounds to infinity: IEEE 754, largest value plus half a step; bfloat16 has float32's range.
_TOO_LARGE: Final[dict[StoredDtype, float]] = {
    "float16": 65520.0,
    "float32": float("inf"),
    "bfloat16": 255 * 2.0**120 + 2.0**119,
}


# Smaller magnitudes have fewer digits, down to none: IEEE 754, smallest normal numbers.
_TOO_SMALL: Final[dict[StoredDtype, float]] = {"float16": 2.0**-14, "float32": 2.0**-126, "bfloat16": 2.0**-126}


def check_dtype(dtype: str) -> None:
    """Check that a dtype is one of ``STORED_DTYPES``.

    Raises:
        CacheError: It is not; the message names the nearest one.
    """
    if dtype not in STORED_DTYPES:
        raise CacheError(f"embeddings cannot be stored as {dtype!r}; {did_you_mean(dtype, list(STORED_DTYPES))}")


def itemsize(dtype: StoredDtype) -> int:
    """Return the bytes of one stored number."""
    return np.dtype(NUMPY_OF[dtype]).itemsize


def torch_dtype(dtype: StoredDtype) -> torch.dtype:
    """Return the dtype of PyTorch that stored embeddings are rounded to."""
    import torch

    return {"float16": torch.float16, "float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]


def encode_into(out: NDArray[Any], embeddings: Floats, dtype: StoredDtype) -> None:
    """Round embeddings to their stored form, to nearest, ties to even.

    Args:
        out: Array of the stored type to fill, shape (R, D).
        embeddings: Shape (R, D).
        dtype: How they are stored.

    Raises:
        CacheError: A number is not finite, or too large for ``dtype``.
    """
    import torch

    source = torch.from_numpy(embeddings if embeddings.flags.writeable else embeddings.view())
    if dtype == "bfloat16":
        torch.from_numpy(out.view(np.int16)).view(torch.bfloat16).copy_(source)
    else:
        torch.from_numpy(out).copy_(source)
    if not is_storable(out, dtype):
        raise CacheError(_explain_overflow(float(embeddings.min()), float(embeddings.max()), dtype))


def encode(embeddings: Floats, dtype: StoredDtype) -> NDArray[Any]:
    """Return embeddings in their stored form, see ``encode_into``."""
    out = np.empty(embeddings.shape, NUMPY_OF[dtype])
    encode_into(out, embeddings, dtype)
    return out


def decode(stored: NDArray[Any], dtype: StoredDtype) -> NDArray[Any]:
    """Return stored embeddings as numpy floats: bfloat16 bits become float32, other types stay as they are."""
    if dtype != "bfloat16":
        return stored
    wide = np.empty(stored.shape, np.uint32)
    np.left_shift(stored, np.uint32(16), out=wide, dtype=np.uint32)
    return wide.view(np.float32)


def decode_float32(stored: NDArray[Any], dtype: StoredDtype) -> Floats:
    """Return stored embeddings as float32. PyTorch widens float16 ten times faster than numpy."""
    import torch

    if dtype != "float16":
        return decode(stored, dtype).astype(np.float32, copy=False)
    widened: Floats = torch.from_numpy(stored if stored.flags.writeable else stored.copy()).float().numpy()
    return widened


def is_storable(out: NDArray[Any], dtype: StoredDtype) -> bool:
    """Return whether no stored number is infinite or nan."""
    return largest_bits(out, dtype) < _INFINITY_BITS[dtype]


def is_too_small(out: NDArray[Any], dtype: StoredDtype, rounded_to: StoredDtype) -> bool:
    """Return whether all stored numbers are zero or so small that rounding left them few digits.

    Args:
        out: The numbers in their stored form.
        dtype: How they are stored.
        rounded_to: To which dtype they were rounded before; the same unless they are means.
    """
    smallest = int(np.float32(_TOO_SMALL[rounded_to]).view(np.uint32))
    if dtype == "bfloat16":
        smallest >>= 16
    elif dtype == "float16":
        smallest = int(np.float16(_TOO_SMALL[rounded_to]).view(np.uint16))
    return largest_bits(out, dtype) < smallest


def largest_bits(out: NDArray[Any], dtype: StoredDtype) -> int:
    """Return the bits of the largest magnitude of stored numbers, without the sign; those of nan are the largest.

    Numbers of one sign are ordered like their bits, so two maxima are enough. Reading what was just written is faster
    than reading its source.
    """
    if not out.size:
        return 0
    n_bytes = itemsize(dtype)
    sign = 1 << (8 * n_bytes - 1)
    either, positive = int(out.view(f"u{n_bytes}").max()), int(out.view(f"i{n_bytes}").max())
    return max(either & ~sign if either & sign else 0, positive, 0)


def explain_too_small(largest: float, dtype: StoredDtype) -> str:
    """Say what is wrong with embeddings that a dtype does not hold.

    Args:
        largest: The largest magnitude.
        dtype: To which they were rounded.
    """
    return (
        f"the embedder returned numbers of at most {largest:g}, of which {dtype} keeps few digits or none (below "
        f"{_TOO_SMALL[dtype]:.2g}); store float32 or bfloat16 instead"
    )


def _explain_overflow(low: float, high: float, dtype: StoredDtype) -> str:
    if not (np.isfinite(low) and np.isfinite(high)):
        return f"the embedder returned a number that is not finite (lowest {low}, highest {high}); it cannot be stored"
    worst = low if -low > high else high
    return (
        f"the embedder returned {worst:g}, which is too large for {dtype} (below {_TOO_LARGE[dtype]:g}); store float32 "
        "or bfloat16 instead"
    )
