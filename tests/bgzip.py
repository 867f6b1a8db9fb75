"""Writes bgzip files for tests, as the SAM format specification describes them, with small blocks."""

from __future__ import annotations

import struct
import zlib

END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def bgzip(text: bytes, block_bytes: int = 65280) -> bytes:
    """The text as a bgzip file with blocks of that many bytes before compression."""
    pieces = [text[at : at + block_bytes] for at in range(0, len(text), block_bytes)]
    return b"".join(map(_block, pieces)) + END


def _block(text: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    body = deflate.compress(text) + deflate.flush()
    header = struct.pack("<4BI2BH2BHH", 31, 139, 8, 4, 0, 0, 255, 6, 66, 67, 2, len(body) + 25)
    return header + body + struct.pack("<II", zlib.crc32(text), len(text))
