"""Download files from outside the Hub: resumed, checked, and under their name only when complete.

What has arrived is kept in ``<name>.part``, and the next try or the next run resumes from it.

>>> RemoteFile(name="config.json", url="https://example.org/config.json").n_bytes is None
True
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final, TypeAlias

from bend_hf.errors import DownloadError, MissingFileError

logger = logging.getLogger(__name__)

_BLOCK_BYTES: Final = 1 << 20
_TIMEOUT_S: Final = 60.0
_LONGEST_WAIT_S: Final = 300.0
# What a server says when it may do better later: timeout, too early, too many requests, and its own failures.
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file to download.

    Attributes:
        name: File name in the target folder.
        url: Address, http or https.
        n_bytes: Size, if known.
        sha256: Checksum in hexadecimal, if known.

    Raises:
        DownloadError: The address is not http or https.
    """

    name: str
    url: str
    n_bytes: int | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise DownloadError(f"cannot download {self.url!r}; expected an address that begins with https://")


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How often to try, and how long to wait.

    Attributes:
        attempts: Number of tries, 1 or more; a try that brought new bytes does not count.
        first_wait_s: Seconds before the second try, doubled for each later one.
        sleep: Function that waits.
        now: Function that gives the seconds since 1970, to read a date in ``Retry-After``.
    """

    attempts: int = 5
    first_wait_s: float = 1.0
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.time


Progress: TypeAlias = Callable[[int, int | None], None]


class _PassingError(Exception):
    """A failure that another try may not have."""

    def __init__(self, reason: str, *, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def download(file: RemoteFile, folder: Path, *, retry: Retry | None = None, progress: Progress | None = None) -> Path:
    """Download a file unless it exists.

    An existing file is trusted if its size is the declared one; its checksum was checked before it got its name.

    Args:
        file: The file.
        folder: The target folder; created if it is missing.
        retry: How often to try.
        progress: Called with the number of bytes that have arrived, and the total if the server says it.

    Returns:
        The complete and checked file.

    Raises:
        DownloadError: The server does not have the file, keeps failing, or sends another file.
    """
    retry = retry or Retry()
    target = folder / file.name
    if target.is_file() and file.n_bytes in (None, target.stat().st_size):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{file.name}.part"
    failures, most_bytes = 0, _size(part)
    while True:
        try:
            _check(file, part, md5=_fetch(file, part, retry, progress))
            break
        except _PassingError as error:
            advanced = _size(part) > most_bytes
            most_bytes = max(most_bytes, _size(part))
            failures = 1 if advanced else failures + 1
            if failures >= retry.attempts:
                raise DownloadError(
                    f"gave up on {file.url} after {failures} tries without progress: {error}; what has arrived is "
                    f"kept in {part}. Repeat the command to resume"
                ) from error
            doubled = retry.first_wait_s * 2 ** (failures - 1)
            wait_s = min(doubled if error.wait_s is None else error.wait_s, _LONGEST_WAIT_S)
            logger.warning("%s: %s; next try in %.0f s", file.url, error, wait_s)
            retry.sleep(wait_s)
    part.replace(target)
    return target


def _fetch(file: RemoteFile, part: Path, retry: Retry, progress: Progress | None) -> str | None:
    """Download what is missing into the part file; return the md5 of the whole file if the server says it."""
    have = _size(part)
    if file.n_bytes is not None and have == file.n_bytes:
        return None
    if file.n_bytes is not None and have > file.n_bytes:
        part.unlink()
        have = 0
    request = urllib.request.Request(file.url, headers={"Accept-Encoding": "identity"})  # noqa: S310  http(s) only, see RemoteFile
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310  http(s) only, see RemoteFile
            resumed = answer.status == 206
            if resumed and _starts_at(answer.headers.get("Content-Range")) != have:
                part.unlink(missing_ok=True)
                raise _PassingError(f"the server sent another range than from byte {have} on; starting over")
            _copy(answer, part, have=have if resumed else 0, progress=progress)
            return _md5(answer.headers.get_all("x-goog-hash"))
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is missing: the file is complete, or it is another file
            if _total(error.headers.get("Content-Range")) == have:
                return None
            part.unlink()
            raise _PassingError(f"the server has no bytes from {have} on; starting over") from error
        if error.code in _PASSING:
            wait_s = _retry_after_s(error.headers.get("Retry-After"), retry)
            raise _PassingError(f"the server answered {error.code} {error.reason}", wait_s=wait_s) from error
        kind = MissingFileError if error.code in (404, 410) else DownloadError
        raise kind(
            f"the server answered {error.code} {error.reason} for {file.url}; check whether {file.name} has moved, "
            f"or download it by hand into {part.parent}"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _PassingError(f"the connection broke ({type(error).__name__}: {error})") from error


def _copy(answer: http.client.HTTPResponse, part: Path, *, have: int, progress: Progress | None) -> None:
    """Append an answer's body to the part file, or start the file again, and check its length."""
    promised = answer.headers.get("Content-Length")
    total = None if promised is None else have + int(promised)
    copied = 0
    with part.open("ab" if have else "wb") as out:
        while block := answer.read1(_BLOCK_BYTES):
            out.write(block)
            copied += len(block)
            if progress is not None:
                progress(have + copied, total)
    if promised is not None and copied != int(promised):
        raise _PassingError(f"{copied} of {promised} bytes arrived")


def _check(file: RemoteFile, part: Path, *, md5: str | None) -> None:
    """Raise, and remove the part file, if it is not the declared file."""
    size = part.stat().st_size
    if file.n_bytes is not None and size < file.n_bytes:
        raise _PassingError(f"{size} of {file.n_bytes} bytes arrived")
    if file.n_bytes is not None and size > file.n_bytes:
        part.unlink()
        raise DownloadError(
            f"{file.url} gave {size} bytes; expected {file.n_bytes}. The server has another file than declared"
        )
    if md5 is not None:
        with part.open("rb") as data:
            arrived = hashlib.file_digest(data, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if arrived != md5:
            part.unlink()
            raise DownloadError(
                f"{file.url} arrived with md5 {arrived}; the server says {md5}. It was damaged or changed "
                "during the download; try again"
            )
    if file.sha256 is None:
        return
    with part.open("rb") as data:
        found = hashlib.file_digest(data, "sha256").hexdigest()
    if found != file.sha256.lower():
        part.unlink()
        raise DownloadError(
            f"{file.url} has sha256 {found}; expected {file.sha256}. It has changed or was damaged; try "
            "again, and check the declaration if it happens twice"
        )


def _md5(hashes: list[str] | None) -> str | None:
    """Return the md5 in ``crc32c=...,md5=...``, as Google's storage sends it, in hexadecimal."""
    for entry in ",".join(hashes or []).split(","):
        name, _, value = entry.strip().partition("=")
        if name == "md5":
            return base64.b64decode(value).hex()
    return None


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _starts_at(content_range: str | None) -> int | None:
    """Return the first byte of ``bytes 5-9/10``."""
    first = (content_range or "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdigit() else None


def _total(content_range: str | None) -> int | None:
    """Return the total of ``bytes */10``."""
    total = (content_range or "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


def _retry_after_s(value: str | None, retry: Retry) -> float | None:
    """Return the seconds that a server asks to wait, given as a number or a date."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - retry.now())
    except ValueError:
        return None
