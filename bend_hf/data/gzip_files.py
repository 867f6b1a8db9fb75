"""Read files that gzip or bgzip compressed, but no bomb: a small file that inflates without end.

>>> import tempfile; path = Path(tempfile.mkdtemp()) / "a.gz"
>>> _ = path.write_bytes(gzip.compress(b"ACGT"))
>>> with open_gzip(path) as file: file.read()
b'ACGT'
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, Final

from bend_hf.errors import InputError

# Text of BED, VCF and FASTA files is 4 to 30 times its gzip; a chromosome of N alone comes to gzip's 1032 times (zlib
# technical details), but is below the size.
MOST_TIMES: Final = 200
UNCHECKED_BYTES: Final = 1 << 28


class _Bounded(gzip.GzipFile):
    """A compressed file that raises when it inflates to far more than files of its kind do."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self._path, self._most = path, max(UNCHECKED_BYTES, MOST_TIMES * path.stat().st_size)

    def _check(self) -> None:
        if self.tell() > self._most:
            raise InputError(
                f"{self._path} inflates to more than {MOST_TIMES} times its size; expected 4 to 30 times, as for "
                "text. Download it again, or decompress it yourself if its content is right"
            )

    def read(self, size: int | None = -1) -> bytes:
        """Read up to that many bytes; all in pieces that are checked if no size is given."""
        if size is not None and size >= 0:
            piece = super().read(size)
            self._check()
            return piece
        pieces = []
        while piece := self.read(1 << 22):
            pieces.append(piece)
        return b"".join(pieces)

    def read1(self, size: int = -1) -> bytes:
        """Read up to that many bytes with one inflation."""
        piece = super().read1(size)
        self._check()
        return piece

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  # as GzipFile declares it
        """Read into a buffer."""
        n_bytes: int = super().readinto(buffer)
        self._check()
        return n_bytes

    def readline(self, size: int | None = -1) -> bytes:
        """Read one line; a line without an end is refused as a bomb is."""
        line: bytes = super().readline(self._most + 1 if size is None or size < 0 else size)
        self._check()
        return line


def open_gzip(path: Path) -> gzip.GzipFile:
    """Open a compressed file for reading.

    Reading raises ``InputError`` if the file inflates to more than 200 times its size and to more than 268 MB.

    Raises:
        OSError: It cannot be opened.
    """
    return _Bounded(path)
