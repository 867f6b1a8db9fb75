"""How token rows are stored: float16, float32, or bfloat16 as its 16 bits, for which Arrow has no type.

Encoding fills a buffer that is used again: writing into fresh memory is several times slower than the conversion.

>>> stored(np.array([[1.0, -2.5]], np.float32), "bfloat16").tolist()
[[16256, 49184]]
>>> readable(stored(np.array([[1.0, -2.5]], np.float32), "bfloat16"), "bfloat16").tolist()
[[1.0, -2.5]]
"""

from __future__ import annotations

from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from bend_hf.errors import CacheError, did_you_mean
from bend_hf.types import Floats, StoredDtype

STORED_DTYPES: Final[tuple[StoredDtype, ...]] = get_args(StoredDtype)

# The column says what its numbers are: 16 bits that are a bfloat16 must not be taken for integers.
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


def check_dtype(dtype: str) -> None:
    """Raises unless the name is one of ``STORED_DTYPES``.

    Raises:
        CacheError: It is not; the message names the nearest.
    """
    if dtype not in STORED_DTYPES:
        raise CacheError(f"embeddings cannot be stored as {dtype!r}; {did_you_mean(dtype, list(STORED_DTYPES))}")


def itemsize(dtype: StoredDtype) -> int:
    """Bytes of one stored number."""
    return np.dtype(NUMPY_OF[dtype]).itemsize


def store_into(out: NDArray[Any], rows: Floats, dtype: StoredDtype) -> None:
    """Rounds rows to their stored form, to the nearest, ties to even.

    Args:
        out: Where to, of the stored type, shape (R, D).
        rows: Shape (R, D).
        dtype: How they are stored.

    Raises:
        CacheError: A number is not finite, or its magnitude does not fit.
    """
    import torch

    source = torch.from_numpy(rows if rows.flags.writeable else rows.view())
    if dtype == "bfloat16":
        torch.from_numpy(out.view(np.int16)).view(torch.bfloat16).copy_(source)
    else:
        torch.from_numpy(out).copy_(source)
    if out.size and not _all_finite(out, dtype):
        raise CacheError(_unfit(float(rows.min()), float(rows.max()), dtype))


def stored(rows: Floats, dtype: StoredDtype) -> NDArray[Any]:
    """A stored copy of rows."""
    out = np.empty(rows.shape, NUMPY_OF[dtype])
    store_into(out, rows, dtype)
    return out


def readable(rows: NDArray[Any], dtype: StoredDtype) -> NDArray[Any]:
    """Stored rows as numbers that numpy knows: as they are, or bfloat16's bits as float32."""
    if dtype != "bfloat16":
        return rows
    wide = np.empty(rows.shape, np.uint32)
    np.left_shift(rows, np.uint32(16), out=wide, dtype=np.uint32)
    return wide.view(np.float32)


def _all_finite(out: NDArray[Any], dtype: StoredDtype) -> bool:
    """Whether no stored number is infinite or none, by its bits: those that follow the largest finite number's.

    Numbers of one sign stand in the order of their bits, so that two maxima say it; reading what was just written is
    quicker than reading where it came from.
    """
    n_bytes, infinity = itemsize(dtype), _INFINITY_BITS[dtype]
    sign = 1 << (8 * n_bytes - 1)
    negative, positive = out.view(f"u{n_bytes}").max(), out.view(f"i{n_bytes}").max()
    return bool(negative < sign | infinity and positive < infinity)


def _unfit(low: float, high: float, dtype: StoredDtype) -> str:
    if not (np.isfinite(low) and np.isfinite(high)):
        return f"the embedder gave a number that is not finite (least {low}, greatest {high}); such rows are not kept"
    worst = low if -low > high else high
    return (
        f"the embedder gave {worst:g}, which does not fit into {dtype} (below {_TOO_LARGE[dtype]:g}); store float32 "
        "or bfloat16 instead"
    )
